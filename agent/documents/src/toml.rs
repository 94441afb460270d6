//! The limit of depth, for TOML.
//!
//! `toml` limits brackets and each dotted key for itself (80), but a document of a few
//! kilobytes with both is thousands of tables deep, and a key of many thousand parts overflows
//! the stack before the limit is looked at. So a document is measured before it is parsed.

use serde::de::{DeserializeOwned, Error};
use toml_parser::{Source, lexer::TokenKind};

use crate::DEPTH_MAX;

/// Parses TOML that is nowhere nested too deep.
///
/// # Errors
/// It is nested too deep, no TOML, or not what is wanted.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, ::toml::de::Error> {
    measure_toml(text)?;
    ::toml::from_str(text)
}

/// Measures TOML for those who parse it in their own way.
///
/// # Errors
/// It is nested too deep.
pub fn measure_toml(text: &str) -> Result<(), ::toml::de::Error> {
    if is_deep(text) {
        let error = format_args!("it is nested more than {DEPTH_MAX} deep");
        return Err(Error::custom(error));
    }
    Ok(())
}

/// Whether TOML is nested too deep; text that is no TOML may be found so as well.
fn is_deep(text: &str) -> bool {
    let mut measure = Measure::default();
    Source::new(text)
        .lex()
        .any(|token| measure.depth_after(token.kind()) > DEPTH_MAX)
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
    fn toml_of_any_length_passes_if_it_is_not_deep() {
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
        let long = format!("x = [{}]", "{a.b = [1.25]}, ".repeat(10_000));
        assert!(toml(long).is_ok());
    }
}
