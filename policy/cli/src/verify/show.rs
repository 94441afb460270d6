//! A verdict as text and as JSON.
//!
//! Evidence comes from strangers: whatever is printed of it is escaped, so that it can neither
//! move the cursor nor look like a line of ours.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::judge::Judged;

#[derive(Serialize)]
struct ShownEvent<'a> {
    domain: &'a str,
    operation: &'a str,
    content: &'a str,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict.to_string();
        let (checks, _) = verdict.rsplit_once('\n').unwrap_or_default();
        for line in checks.lines() {
            writeln!(f, "{}", escaped(line))?;
        }
        if !self.events.is_empty() {
            writeln!(f, "\nwhat the guest logged:")?;
        }
        for event in &self.events {
            let (operation, content) = (escaped(event.operation()), escaped(event.content()));
            writeln!(f, "  {operation:<10} {content}")?;
        }
        let word = if self.is_accepted() {
            "accepted"
        } else {
            "refused"
        };
        writeln!(f, "\n{word}")
    }
}

impl Serialize for Judged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let events: Vec<ShownEvent<'_>> = self
            .events
            .iter()
            .map(|event| ShownEvent {
                domain: event.domain(),
                operation: event.operation(),
                content: event.content(),
            })
            .collect();
        let mut judged = serializer.serialize_struct("Judged", 3)?;
        judged.serialize_field("accepted", &self.is_accepted())?;
        judged.serialize_field("checks", self.verdict.findings())?;
        judged.serialize_field("log", &events)?;
        judged.end()
    }
}

/// Text with everything but printable ASCII and the signs of our own messages escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' | '≤' => shown.push(character),
            _ => shown.extend(character.escape_unicode()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_stranger_moves_the_cursor_or_turns_the_text_around() {
        assert_eq!(
            escaped("a b\u{1b}[2J\u{202e}ü"),
            "a b\\u{1b}[2J\\u{202e}\\u{fc}"
        );
    }
}
