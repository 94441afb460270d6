//! Texts of the guest that people read on the node.
//!
//! They go into errors, logs and what Kubernetes shows, so they are short, and hold nothing
//! that a terminal or a log would take for more than text.

use std::fmt;

/// The longest error text, in bytes.
pub const LINE_BYTES_MAX: usize = 2048;
/// The longest termination message, in bytes; Kubernetes shows no more.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// A text of the guest, bounded and without control characters.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestText(String);

impl GuestText {
    /// One line; line breaks become spaces.
    #[must_use]
    pub fn line(raw: &str) -> Self {
        let spaced = raw.chars().map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            other => other,
        });
        Self(kept(spaced, LINE_BYTES_MAX, |_| false))
    }

    /// A person's message, which may have lines and tabs.
    #[must_use]
    pub fn message(raw: &str) -> Self {
        Self(kept(raw.chars(), MESSAGE_BYTES_MAX, |c| {
            matches!(c, '\n' | '\t')
        }))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GuestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GuestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn kept(
    characters: impl Iterator<Item = char>,
    bytes_max: usize,
    is_layout: impl Fn(char) -> bool,
) -> String {
    let mut text = String::new();
    for character in characters {
        if is_hidden(character) && !is_layout(character) {
            continue;
        }
        if text.len() + character.len_utf8() > bytes_max {
            break;
        }
        text.push(character);
    }
    text
}

/// Control characters, and those that change the order or look of others (Unicode 16,
/// section 23.2).
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_neither_breaks_nor_control_characters() {
        for (raw, line) in [
            ("no such image", "no such image"),
            ("a\nb\r\nc\td", "a b  c d"),
            ("\x1b[31mred\x07\0\u{9b}", "[31mred"),
            ("user\u{202e}txt.exe\u{2066}", "usertxt.exe"),
            ("zero\u{200b}width\u{feff}", "zerowidth"),
            ("größer 日本", "größer 日本"),
        ] {
            assert_eq!(GuestText::line(raw).as_str(), line, "{raw:?}");
        }
    }

    #[test]
    fn a_message_keeps_its_lines() {
        let message = GuestText::message("one\n\ttwo\r\x1b]0;title\x07");
        assert_eq!(message.as_str(), "one\n\ttwo]0;title");
    }

    #[test]
    fn texts_end_at_their_bound_between_characters() {
        let long = "é".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(GuestText::line(&long).as_str().len(), LINE_BYTES_MAX);
        let shifted = format!("x{long}");
        let line = GuestText::line(&shifted);
        assert_eq!(line.as_str().len(), LINE_BYTES_MAX - 1);
        let message = GuestText::message(&shifted);
        assert_eq!(message.as_str().len(), MESSAGE_BYTES_MAX - 1);
    }
}
