//! The words of a Rego text, without its strings and comments: enough to know what a text can
//! never do, whatever its expressions mean.
//!
//! Nothing here parses Rego. Each fact is one-sided: it holds for certain when it is told, and
//! a text that is not understood has no facts.

/// A word or a sign outside of strings and comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Letters, digits and `_`, not beginning with a digit.
    Name(&'a str),
    /// The content of a string in quotes, as it is spelt.
    Text(&'a str),
    /// Any other character, or a raw string.
    Other(char),
}

/// A token, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) token: Token<'a>,
    /// From one.
    pub(super) line: usize,
    /// Nothing but spaces stands before it in its line.
    pub(super) first: bool,
    /// How many brackets of any kind are open.
    pub(super) depth: usize,
}

/// The tokens of a text, from the first to the last.
pub(super) struct Words<'a> {
    text: &'a str,
    line: usize,
    first: bool,
    depth: usize,
}

pub(super) fn words(text: &str) -> Words<'_> {
    Words {
        text,
        line: 1,
        first: true,
        depth: 0,
    }
}

impl<'a> Words<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.text.split_at_checked(bytes).unwrap_or((self.text, ""));
        self.text = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.text.find(|c| !wanted(c)).unwrap_or(self.text.len());
        self.take(end)
    }

    /// A string, of which the opening quote is taken; its end is taken too.
    fn string(&mut self) -> &'a str {
        let mut escaped = false;
        let end = self.text.find(|c| {
            let ends = !escaped && c == '"';
            escaped = !escaped && c == '\\';
            ends
        });
        let content = self.take(end.unwrap_or(self.text.len()));
        self.take(1);
        content
    }

    fn raw_string(&mut self) {
        let content = self.take_while(|c| c != '`');
        self.line = self.line.saturating_add(content.matches('\n').count());
        self.take(1);
    }

    fn sign(&mut self, sign: char) {
        self.take(sign.len_utf8());
        match sign {
            '`' => self.raw_string(),
            '(' | '[' | '{' => self.depth = self.depth.saturating_add(1),
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            match self.text.chars().next()? {
                '\n' => {
                    self.take(1);
                    self.line = self.line.saturating_add(1);
                    self.first = true;
                }
                '#' => drop(self.take_while(|c| c != '\n')),
                space if space.is_whitespace() => drop(self.take(space.len_utf8())),
                start => {
                    let (line, first, depth) = (self.line, self.first, self.depth);
                    self.first = false;
                    let token = match start {
                        '"' => {
                            self.take(1);
                            Token::Text(self.string())
                        }
                        _ if is_name(start) => Token::Name(self.take_while(is_name)),
                        sign => {
                            self.sign(sign);
                            Token::Other(sign)
                        }
                    };
                    return Some(Word {
                        token,
                        line,
                        first,
                        depth,
                    });
                }
            }
        }
    }
}

/// Numbers are taken for names: nothing asks for either.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&str> {
        let names = words(text).filter_map(|word| match word.token {
            Token::Name(name) => Some(name),
            _ => None,
        });
        names.collect()
    }

    #[test]
    fn strings_and_comments_hold_no_names() {
        let text = "a := \"b \\\" c\" # d\ne := `f\n\"` g";
        assert_eq!(names(text), ["a", "e", "g"]);
    }

    #[test]
    fn lines_are_counted_through_raw_strings() {
        let text = "a\n`\n\n`\nb";
        assert_eq!(words(text).last().unwrap().line, 5);
    }

    #[test]
    fn depth_counts_open_brackets() {
        let at: Vec<_> = words("a { b [ c ] } d")
            .filter(|word| matches!(word.token, Token::Name(_)))
            .map(|word| word.depth)
            .collect();
        assert_eq!(at, [0, 1, 2, 0]);
    }

    #[test]
    fn what_does_not_end_ends_with_the_text() {
        for text in ["\"", "`", "\"\\", "#", "a\"b", "{{{", "\\", "é\"é"] {
            assert!(words(text).count() < 5, "{text}");
        }
    }
}
