//! The limits of TOML: how deep it is, and of how many tokens.
//!
//! `toml` limits brackets and each dotted key for itself (80), but a document of a few
//! kilobytes with both is thousands of tables deep, and a key of many thousand parts overflows
//! the stack before the limit is looked at. And each short token may become a table of several
//! hundred bytes: 4 MiB of `a.b.c=1` took 1.5 GiB. So a document is measured before it is parsed.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use toml_parser::{Source, lexer::TokenKind};

use crate::DEPTH_MAX;

/// Most tokens of a document: keys, values, dots, brackets, commas, spaces, comments, lines.
///
/// Ten times those of the longest that nodes have (containerd's own with every default). The
/// worst of so many take 24 MiB when parsed.
pub const TOML_TOKENS_MAX: usize = 1 << 16;

/// What a TOML document has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMuch {
    /// Tables and lists inside each other, more than [`DEPTH_MAX`].
    Depth,
    /// Tokens, more than [`TOML_TOKENS_MAX`].
    Tokens,
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => write!(f, "it is nested more than {DEPTH_MAX} deep"),
            Self::Tokens => write!(
                f,
                "it has more than {TOML_TOKENS_MAX} keys, values and signs"
            ),
        }
    }
}

impl std::error::Error for TooMuch {}

impl From<TooMuch> for ::toml::de::Error {
    fn from(what: TooMuch) -> Self {
        Self::custom(what)
    }
}

/// Parses TOML that is nowhere nested too deep, and not of too many tokens.
///
/// # Errors
/// It has too much, is no TOML, or not what is wanted.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, ::toml::de::Error> {
    measure_toml(text)?;
    ::toml::from_str(text)
}

/// Measures TOML for those who parse it in their own way; text that is no TOML may be found to
/// have too much as well.
///
/// # Errors
/// It has too much.
pub fn measure_toml(text: &str) -> Result<(), TooMuch> {
    let mut measure = Measure::default();
    for (number, token) in Source::new(text).lex().enumerate() {
        if measure.depth_after(token.kind()) > DEPTH_MAX {
            return Err(TooMuch::Depth);
        }
        if number >= TOML_TOKENS_MAX {
            return Err(TooMuch::Tokens);
        }
    }
    Ok(())
}

/// How deep a TOML document is at one of its tokens.
#[derive(Default)]
struct Measure {
    /// Of the table that the last header opened.
    header: usize,
    /// Of each bracket that is open, with the key that it is the value of.
    open: Vec<usize>,
    /// Their sum.
    depth: usize,
    /// Parts of the key that the next bracket is the value of.
    key: usize,
    /// Dots since the last key, comma, bracket or line.
    dots: usize,
    /// Something stood on this line before.
    in_line: bool,
    /// This line is a header.
    in_header: bool,
}

impl Measure {
    fn depth_after(&mut self, token: TokenKind) -> usize {
        let outside = self.open.is_empty();
        match token {
            TokenKind::Whitespace | TokenKind::Comment => {}
            TokenKind::Newline => {
                if self.in_header {
                    self.header = self.dots + 1;
                }
                (self.key, self.dots) = (0, 0);
                (self.in_line, self.in_header) = (false, false);
            }
            TokenKind::Dot => self.dots += 1,
            TokenKind::Equals => (self.key, self.dots) = (self.dots + 1, 0),
            TokenKind::Comma => (self.key, self.dots) = (0, 0),
            TokenKind::LeftSquareBracket if self.in_header || outside && !self.in_line => {
                (self.in_line, self.in_header, self.header) = (true, true, 0);
            }
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                self.open.push(self.key + 1);
                self.depth += self.key + 1;
                (self.key, self.dots) = (0, 0);
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket if !self.in_header => {
                self.depth -= self.open.pop().unwrap_or_default();
                (self.key, self.dots) = (0, 0);
            }
            _ => self.in_line = true,
        }
        self.header + self.depth + self.key + self.dots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_named<E: ToString>(error: &E) -> bool {
        error.to_string().contains("nested more than 128 deep")
    }

    /// On a stack as small as any thread's here.
    fn toml(text: String) -> Result<(), ::toml::de::Error> {
        let parse = move || parse_toml::<::toml::Table>(&text).map(drop);
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        thread.spawn(parse).unwrap().join().unwrap()
    }

    #[test]
    fn toml_is_refused_beyond_the_depth_by_keys_brackets_or_headers_and_all_together() {
        let key = |parts: usize| vec!["a"; parts].join(".");
        let tables = |count: usize, parts: usize| {
            let open = format!("{} = {{ ", key(parts)).repeat(count);
            format!("{open}x = 1{}", " }".repeat(count))
        };
        for text in [
            format!("{} = 1", key(200_000)),
            format!("[{}]", key(200_000)),
            format!("[[{}]]\nx = 1", key(200_000)),
            format!("x = {}{}", "[".repeat(200_000), "]".repeat(200_000)),
            tables(200_000, 1),
            tables(70, 70),
            format!("[{}]\n{}", key(70), tables(3, 20)),
            format!("x = [\n  1.5, # [\n{}", tables(3, 60)),
        ] {
            let error = toml(text).unwrap_err();
            assert!(is_named(&error), "{error}");
        }
    }

    #[test]
    fn long_toml_passes_if_it_is_not_deep() {
        let text = [
            "a.b = 'x.x.x.[[{' # [[[[",
            "c = [1.5, [2.5], {d.e = 3.5, f = \"\\\"[\"}]",
            "m = '''\n[[[\n'''",
            "[x.y]",
            "z = {}",
            "[[t]]",
            "u = \"https://a.b.c.d\"",
        ];
        assert!(toml(text.join("\n")).is_ok());
        let headers: Vec<_> = (0..1000)
            .map(|n| format!("[t.n{n}]\nv.w = [[{n}.0]]"))
            .collect();
        assert!(toml(headers.join("\n")).is_ok());
        let long = format!("x = [{}]", "{a.b = [1.25]}, ".repeat(1000));
        assert!(toml(long).is_ok());
    }

    #[test]
    fn toml_of_too_many_tokens_is_refused_whatever_they_are() {
        for part in ["\n", " \n", "#\n", "[],", "1,", "a.b=1\n", "[a.b]\n", "{},"] {
            let text = part.repeat(TOML_TOKENS_MAX);
            assert_eq!(measure_toml(&text), Err(TooMuch::Tokens), "{part:?}");
        }
        let exactly = "\n".repeat(TOML_TOKENS_MAX);
        let tokens = Source::new(&exactly).lex().count();
        assert_eq!(measure_toml(&exactly).is_ok(), tokens <= TOML_TOKENS_MAX);
        let text = format!("x = '{}'", "[a.b],".repeat(TOML_TOKENS_MAX));
        assert!(toml(text).is_ok());
    }
}
