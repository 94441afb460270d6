//! What is certain of a policy's text before it is evaluated: which rules have one answer to
//! everything, which parts of a request it can see, and that it is none that the guest refuses.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    input::Fields,
    rules::{IGNORE_FAILURES, RULES},
    scan::{Token, Word, words},
};

/// The most bytes of a text.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// The most lines.
pub const LINES_MAX: usize = 200_000;
/// The most bytes of a line.
pub const COLUMNS_MAX: usize = 65_536;
/// The package whose rules are asked.
pub const PACKAGE: &str = "agent_policy";
/// More fields than any message has.
const FIELDS_MAX: usize = 64;
const FIELD_BYTES_MAX: usize = 64;

/// Functions whose result does not follow from their arguments.
const IMPURE: &[(&str, &str)] = &[
    ("http", "send"),
    ("net", "lookup_ip_addr"),
    ("opa", "runtime"),
    ("rand", "intn"),
    ("time", "now_ns"),
    ("uuid", "rfc4122"),
];

/// Words that a definition does not follow.
const KEYWORDS: &[&str] = &[
    "as", "contains", "else", "every", "if", "import", "in", "not", "package", "some", "with",
];

/// Why a text is no policy. Its owner is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum LoadError {
    /// More than [`TEXT_BYTES_MAX`].
    #[error("the policy has more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`LINES_MAX`].
    #[error("the policy has more than {LINES_MAX} lines")]
    TooManyLines,
    /// A line with more than [`COLUMNS_MAX`].
    #[error("line {0} of the policy has more than {COLUMNS_MAX} bytes")]
    TooWide(usize),
    /// Not [`PACKAGE`].
    #[error("the policy is not of `package {PACKAGE}`")]
    Package,
    /// It would turn denials into warnings.
    #[error(
        "the policy sets {IGNORE_FAILURES}, which allows what it denies; no guest has that switch"
    )]
    IgnoresFailures,
    /// One of the functions that are not there because they are not pure.
    #[error("line {line} of the policy calls {function}, whose answer is not in the request")]
    Impure {
        /// Where.
        line: usize,
        /// Which.
        function: String,
    },
    /// Not Rego. The reason quotes the policy: it is for its owner, and no host gets it.
    #[error("line {line} of the policy, at column {column}, is not Rego that this guest knows")]
    Syntax {
        /// Where; zero if unknown.
        line: usize,
        /// Where in it.
        column: usize,
        /// Why.
        reason: String,
    },
    /// It could not be read within the bounds.
    #[error("the policy cannot be loaded: {0}")]
    Bounds(super::Failure),
}

/// What is certain of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Rules that the text names, with their one answer if they are defined once, as a constant.
    rules: BTreeMap<&'static str, Option<bool>>,
    /// What it can see of a request.
    pub(super) seen: Fields,
}

impl Facts {
    /// What is certain of this text.
    ///
    /// # Errors
    ///
    /// [`LoadError`] for a text that no guest takes.
    pub fn of(text: &str) -> Result<Self, LoadError> {
        sized(text)?;
        packaged(text)?;
        let mut facts = Self {
            rules: BTreeMap::new(),
            seen: Fields::Named(BTreeSet::new()),
        };
        let mut known = true;
        for view in views(text) {
            pure(&view)?;
            facts.note(&view);
            // The only way to put an expression into a string.
            known &= view.token(0) != Some(Token::Other('$'));
        }
        if !known {
            facts.seen = Fields::All;
            facts.rules.values_mut().for_each(|answer| *answer = None);
        }
        Ok(facts)
    }

    /// The one answer of a rule, if it has only one.
    #[must_use]
    pub fn constant(&self, rule: &str) -> Option<bool> {
        self.rules.get(rule).copied().flatten()
    }

    /// Whether there can be such a rule.
    #[must_use]
    pub fn may_define(&self, rule: &str) -> bool {
        self.rules.contains_key(rule)
    }

    /// A rule turned out not to have the answer that it seemed to have.
    pub(super) fn doubt(&mut self, rule: &'static str) {
        self.rules.insert(rule, None);
    }

    pub(super) fn constants(&self) -> Vec<(&'static str, bool)> {
        let rules = self.rules.iter();
        rules
            .filter_map(|(rule, answer)| Some((*rule, (*answer)?)))
            .collect()
    }

    fn note(&mut self, view: &View<'_>) {
        let Some(Token::Name(name)) = view.token(0) else {
            return;
        };
        if name == "input" {
            self.see(view);
        }
        if let Some(rule) = RULES.iter().find(|rule| **rule == name) {
            let answer = view.definition().filter(|_| !self.rules.contains_key(rule));
            self.rules.insert(rule, answer);
        }
    }

    /// A use of `input`: what follows names the field, or all may be seen.
    fn see(&mut self, view: &View<'_>) {
        let field = match (view.token(1), view.token(2), view.token(3)) {
            (Some(Token::Other('.')), Some(Token::Name(field)), _)
            | (Some(Token::Other('[')), Some(Token::Text(field)), Some(Token::Other(']'))) => field,
            _ => "",
        };
        match &mut self.seen {
            Fields::Named(fields) if plain(field) && fields.len() < FIELDS_MAX => {
                fields.insert(field.to_owned());
            }
            seen => *seen = Fields::All,
        }
    }
}

/// A name as the schema's are, and not an escape that means another.
fn plain(field: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !field.is_empty() && field.len() <= FIELD_BYTES_MAX && field.chars().all(plain)
}

fn sized(text: &str) -> Result<(), LoadError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(LoadError::TooLong);
    }
    for (index, line) in text.split('\n').enumerate() {
        if index >= LINES_MAX {
            return Err(LoadError::TooManyLines);
        }
        if line.len() > COLUMNS_MAX {
            return Err(LoadError::TooWide(index.saturating_add(1)));
        }
    }
    Ok(())
}

fn packaged(text: &str) -> Result<(), LoadError> {
    let mut words = words(text);
    let mut token = || words.next().map(|word| word.token);
    let named = token() == Some(Token::Name("package")) && token() == Some(Token::Name(PACKAGE));
    // What follows a package's name in its line is part of it.
    match words.next() {
        Some(next) if !next.first => Err(LoadError::Package),
        _ if named => Ok(()),
        _ => Err(LoadError::Package),
    }
}

fn pure(view: &View<'_>) -> Result<(), LoadError> {
    let (Some(Token::Name(one)), Some(Token::Other('.')), Some(Token::Name(other))) =
        (view.token(0), view.token(1), view.token(2))
    else {
        return Ok(());
    };
    match IMPURE.contains(&(one, other)) {
        true => Err(LoadError::Impure {
            line: view.word(0).map_or(0, |word| word.line),
            function: format!("{one}.{other}"),
        }),
        false => Ok(()),
    }
}

/// A word with those around it.
struct View<'a>([Option<Word<'a>>; View::LEN]);

impl<'a> View<'a> {
    const BEFORE: usize = 3;
    const LEN: usize = Self::BEFORE + 5;

    fn word(&self, offset: isize) -> Option<Word<'a>> {
        let at = Self::BEFORE.checked_add_signed(offset)?;
        self.0.get(at).copied().flatten()
    }

    fn token(&self, offset: isize) -> Option<Token<'a>> {
        self.word(offset).map(|word| word.token)
    }

    /// What the name is defined as, if its line defines it as a constant.
    fn definition(&self) -> Option<bool> {
        let default = isize::from(self.token(-1) == Some(Token::Name("default")));
        let start = self.word(-default)?;
        let follows = match self.token(-1 - default) {
            None | Some(Token::Text(_)) => true,
            // The last part of an import is a name, whatever it is.
            Some(Token::Name(name)) => {
                let part = self.token(-2 - default) == Some(Token::Other('.'));
                part || !KEYWORDS.contains(&name)
            }
            Some(Token::Other(sign)) => matches!(sign, '}' | ']' | ')' | '`'),
        };
        let colon = isize::from(self.token(1) == Some(Token::Other(':')));
        let equals = self.token(1 + colon) == Some(Token::Other('='));
        let answer = match self.token(2 + colon)? {
            Token::Name("true") => true,
            Token::Name("false") => false,
            _ => return None,
        };
        let ends = self.word(3 + colon).is_none_or(|after| {
            let name = matches!(after.token, Token::Name(name) if !KEYWORDS.contains(&name));
            name && after.first && after.depth == 0
        });
        let opens = start.first && start.depth == 0;
        (opens && follows && equals && ends).then_some(answer)
    }
}

/// Each word of a text in its turn.
fn views(text: &str) -> impl Iterator<Item = View<'_>> {
    let mut words = words(text);
    let mut around = [None; View::LEN];
    for place in around.iter_mut().skip(View::BEFORE + 1) {
        *place = words.next();
    }
    std::iter::from_fn(move || {
        around.rotate_left(1);
        if let Some(last) = around.last_mut() {
            *last = words.next();
        }
        let view = View(around);
        view.word(0).map(|_| view)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "SetPolicyRequest";

    /// Of a text in which `A` stands for a rule that is asked.
    fn facts(rules: &str) -> Facts {
        let rules = rules.replace('A', RULE);
        Facts::of(&format!(
            "package agent_policy\n\nimport future.keywords.if\n{rules}"
        ))
        .unwrap()
    }

    #[test]
    fn a_rule_defined_once_as_a_constant_has_one_answer() {
        for (text, answer) in [
            ("default A := true", true),
            ("default A := false", false),
            ("default A = true\ndefault B := false", true),
            ("A := true", true),
            ("A := true\nB { input.x }", true),
            ("B { input.x }\ndefault A := false\n", false),
            ("# A\nb := \"A\"\nA := false", false),
        ] {
            assert_eq!(facts(text).constant(RULE), Some(answer), "{text}");
        }
    }

    #[test]
    fn a_rule_that_may_have_another_answer_has_no_constant() {
        for text in [
            "default A := false\nA { input.x }",
            "default A := false\nA if input.x",
            "A := true { input.x }",
            "A := true\n{ input.x }",
            "A := true if input.x",
            "A := true\nif input.x",
            "A := true else := false",
            "A := true == input.x",
            "A := true; B := false",
            "A := input.x",
            "A { true }",
            "B { A := true\n }",
            "B if\nA := true",
            "B.A := true",
            "B.\nA := true",
            "A[\"b\"] := true",
            "c := $\"{input.x}\"\nA := true",
        ] {
            assert_eq!(facts(text).constant(RULE), None, "{text}");
        }
    }

    #[test]
    fn what_of_a_request_is_seen_is_what_is_named() {
        let named = |names: &[&str]| Fields::Named(names.iter().map(|&n| n.to_owned()).collect());
        for (text, fields) in [
            ("A { true }", named(&[])),
            ("A { input.x }\nB { input.y.z }", named(&["x", "y"])),
            ("A { input[\"x\"] }", named(&["x"])),
            ("A { input }", Fields::All),
            ("A { f(input) }", Fields::All),
            ("A { input[k] }", Fields::All),
            ("A { input[\"\\u0078\"] }", Fields::All),
            ("A { input[\"x\"][\"y\"] }", named(&["x"])),
            ("import input as x", Fields::All),
            ("import input.x as y", named(&["x"])),
            ("A { true with input as {} }", Fields::All),
            ("a := $\"{input.x}\"", Fields::All),
        ] {
            assert_eq!(facts(text).seen, fields, "{text}");
        }
    }

    #[test]
    fn functions_that_are_not_pure_are_refused_with_their_line() {
        for function in ["http.send", "time.now_ns", "rand.intn", "opa.runtime"] {
            let text = format!("package agent_policy\n\nA {{ {function}(\"x\", 1) }}\n");
            assert_eq!(
                Facts::of(&text),
                Err(LoadError::Impure {
                    line: 3,
                    function: function.to_owned()
                })
            );
        }
        assert!(Facts::of("package agent_policy\n\nA { input.time }\n").is_ok());
    }

    #[test]
    fn other_packages_are_refused() {
        for text in [
            "",
            "package",
            "package other\nA := true",
            "package agent_policy.more\nA := true",
            "package agent_policy[\"x\"]\nA := true",
            "A := true",
        ] {
            assert_eq!(Facts::of(text), Err(LoadError::Package), "{text}");
        }
        assert!(Facts::of("# of Kata\n\npackage agent_policy\nA := true").is_ok());
    }

    #[test]
    fn the_limits_are_those_of_the_spec() {
        let head = "package agent_policy\n";
        let wide = |len| format!("{head}#{}", "x".repeat(len));
        assert!(Facts::of(&format!("{}\na := 1", wide(COLUMNS_MAX - 1))).is_ok());
        assert_eq!(Facts::of(&wide(COLUMNS_MAX)), Err(LoadError::TooWide(2)));
        let tall = |lines| format!("{head}a := 1{}", "\n".repeat(lines));
        assert!(Facts::of(&tall(LINES_MAX - 2)).is_ok());
        assert_eq!(
            Facts::of(&tall(LINES_MAX - 1)),
            Err(LoadError::TooManyLines)
        );
        let long = format!("{head}{}", "#\n".repeat(TEXT_BYTES_MAX / 2));
        assert_eq!(Facts::of(&long), Err(LoadError::TooLong));
    }
}
