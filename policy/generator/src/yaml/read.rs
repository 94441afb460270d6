//! Trees → types, with all problems at once.
//!
//! Every type lists its fields ([`fields!`](crate::yaml::read::fields)); a name that is not listed
//! is a problem with its line and its path, and so is a value of the wrong kind. Reading goes on
//! after a problem, so that a person sees all of them.

use std::collections::BTreeMap;

use super::{Kind, Node};

/// Something that is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The line of the field.
    pub(crate) line: usize,
    /// Its path from the top of its document.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) message: String,
    /// Nobody knows this field; with `--lenient` that is only told.
    pub(crate) unknown: bool,
}

/// Where a reader is, and what it has found.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    path: Vec<String>,
    /// What is wrong, in the order of the document.
    pub(crate) wrong: Vec<Wrong>,
}

impl Reader {
    /// A reader that begins at a path.
    pub(crate) fn at(path: &str) -> Self {
        let parts = path.split('.').filter(|part| !part.is_empty());
        Self {
            path: parts.map(str::to_owned).collect(),
            wrong: Vec::new(),
        }
    }

    fn place(&self) -> String {
        let mut place = String::new();
        for part in &self.path {
            if !place.is_empty() && !part.starts_with('[') {
                place.push('.');
            }
            place.push_str(part);
        }
        place
    }

    /// Notes a problem of the present field.
    pub(crate) fn complain(&mut self, node: &Node, message: impl Into<String>) {
        self.note(node.line, message.into(), false);
    }

    fn note(&mut self, line: usize, message: String, unknown: bool) {
        let path = self.place();
        self.wrong.push(Wrong {
            line,
            path,
            message,
            unknown,
        });
    }

    fn inside<T>(&mut self, part: String, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(part);
        let value = read(self);
        self.path.pop();
        value
    }

    /// The names and values of a map; a problem if it is none.
    pub(crate) fn map<'a>(&mut self, node: &'a Node) -> Vec<(&'a str, &'a Node)> {
        match &node.kind {
            Kind::Map(entries) => entries.iter().map(|(k, v)| (k.text.as_str(), v)).collect(),
            _ if node.is_null() => Vec::new(),
            _ => {
                self.complain(node, "must have fields of its own");
                Vec::new()
            }
        }
    }

    /// Reads the value of a field.
    pub(crate) fn field<T: FromYaml>(&mut self, name: &str, node: &Node) -> T {
        self.inside(name.to_owned(), |reader| reader.value(node))
    }

    /// Reads a value; nothing said is the default.
    pub(crate) fn value<T: FromYaml>(&mut self, node: &Node) -> T {
        if node.is_null() {
            return T::default();
        }
        T::read(node, self)
    }

    /// Notes a field that nobody knows.
    pub(crate) fn unknown(&mut self, name: &str, known: &[&str], node: &Node) {
        let like = known.iter().find(|known| near(known, name));
        let hint = like.map_or_else(String::new, |like| format!("; did you mean {like}?"));
        let message = format!("there is no field {name} here{hint}");
        self.inside(name.to_owned(), |reader| {
            reader.note(node.line, message, true)
        });
    }
}

/// The same but for case, or for one letter that is missing, added, swapped or another.
fn near(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let (a, b) = (one.as_bytes(), other.as_bytes());
    let front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let back = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let longest = a.len().max(b.len());
    a.len().abs_diff(b.len()) <= 1 && front + back + 2 >= longest
}

/// What can be read from a node.
pub(crate) trait FromYaml: Default {
    /// Reads it, noting what is wrong; what cannot be read is the default.
    fn read(node: &Node, reader: &mut Reader) -> Self;
}

/// How YAML 1.1, which Kubernetes reads, takes a text without quotes.
fn other_type(text: &str) -> Option<&'static str> {
    let boolean = ["true", "false", "yes", "no", "on", "off"];
    if boolean.iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return Some("a boolean");
    }
    let is_number = integer(text).is_some()
        || text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
            && text.bytes().any(|b| b.is_ascii_digit())
            && text.parse::<f64>().is_ok();
    is_number.then_some("a number")
}

/// A whole number as YAML 1.1 has it: `0644` is octal.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i64::from_str_radix(octal, 8)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(&digits, 8)
    } else {
        digits.parse()
    };
    let magnitude = magnitude.ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

impl FromYaml for String {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        match &node.kind {
            Kind::Scalar { text, plain } => {
                if let Some(kind) = other_type(text).filter(|_| *plain) {
                    let message =
                        format!("{text} is {kind} and has to be a text: put it in quotes");
                    reader.complain(node, message);
                }
                text.clone()
            }
            _ => {
                reader.complain(node, "must be a text");
                Self::new()
            }
        }
    }
}

impl FromYaml for bool {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        let text = node.text().unwrap_or_default();
        let is_plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
        match text.to_lowercase().as_str() {
            "true" | "yes" | "on" if is_plain => true,
            "false" | "no" | "off" if is_plain => false,
            _ => {
                reader.complain(node, "must be true or false");
                false
            }
        }
    }
}

impl FromYaml for i64 {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        let is_plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
        let number = node.text().filter(|_| is_plain).and_then(integer);
        number.unwrap_or_else(|| {
            reader.complain(node, "must be a whole number");
            0
        })
    }
}

impl FromYaml for u32 {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        let wide = reader.value::<i64>(node);
        Self::try_from(wide).unwrap_or_else(|_| {
            reader.complain(node, "must be a whole number from 0 to 4294967295");
            0
        })
    }
}

impl<T: FromYaml> FromYaml for Option<T> {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        Some(T::read(node, reader))
    }
}

impl<T: FromYaml> FromYaml for Vec<T> {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        let Kind::List(items) = &node.kind else {
            reader.complain(node, "must be a list");
            return Self::new();
        };
        let items = items.iter().enumerate();
        items
            .map(|(number, item)| reader.inside(format!("[{number}]"), |r| r.value(item)))
            .collect()
    }
}

impl<T: FromYaml> FromYaml for BTreeMap<String, T> {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        let entries = reader.map(node).into_iter();
        entries
            .map(|(name, value)| (name.to_owned(), reader.field(name, value)))
            .collect()
    }
}

/// Declares a type by its fields, those with a meaning here and those that are only known.
macro_rules! fields {
    (
        $(#[$meta:meta])*
        $name:ident {
            $( $(#[doc = $doc:literal])* $yaml:literal => $field:ident : $kind:ty, )*
        }
        known [ $( $known:literal ),* $(,)? ]
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])* pub(crate) $field: $kind, )*
        }

        impl $crate::yaml::read::FromYaml for $name {
            fn read(
                node: &$crate::yaml::Node,
                reader: &mut $crate::yaml::read::Reader,
            ) -> Self {
                #[allow(unused_mut, reason = "a type may have no field with a meaning")]
                let mut this = Self::default();
                for (name, value) in reader.map(node) {
                    match name {
                        $( $yaml => this.$field = reader.field(name, value), )*
                        $( $known => {} )*
                        _ => {
                            let known = [$( $yaml, )* $( $known, )*];
                            reader.unknown(name, &known, value);
                        }
                    }
                }
                this
            }
        }
    };
}

/// Declares a type of which YAML says one of several words.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) enum $name { $( $(#[$variant_meta])* $variant, )* }

        impl $crate::yaml::read::FromYaml for $name {
            fn read(
                node: &$crate::yaml::Node,
                reader: &mut $crate::yaml::read::Reader,
            ) -> Self {
                match node.text() {
                    $( Some($word) => Self::$variant, )*
                    _ => {
                        let words: &[&str] = &[$( $word ),*];
                        let words: Vec<_> =
                            words.iter().filter(|word| !word.is_empty()).copied().collect();
                        reader.complain(node, format!("must be one of {}", words.join(", ")));
                        Self::default()
                    }
                }
            }
        }
    };
}

pub(crate) use fields;
pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    fields! {
        /// For the tests.
        Sample {
            "aName" => name: String,
            "count" => count: Option<u32>,
            "flags" => flags: Vec<bool>,
            "map" => map: BTreeMap<String, String>,
        }
        known ["other"]
    }

    fn read(text: &str) -> (Sample, Vec<String>) {
        let node = parse(text).unwrap().remove(0);
        let mut reader = Reader::default();
        let sample = reader.value(&node);
        let wrong = reader.wrong.iter();
        let wrong = wrong.map(|w| format!("{}: {}: {}", w.line, w.path, w.message));
        (sample, wrong.collect())
    }

    #[test]
    fn fields_are_read_as_kubernetes_reads_them() {
        let (sample, wrong) =
            read("aName: '1'\ncount: 0644\nflags: [yes, off]\nmap: {a: b c}\nother: [x]\n");
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!((sample.name.as_str(), sample.count), ("1", Some(0o644)));
        assert_eq!(sample.flags, [true, false]);
        assert_eq!(sample.map["a"], "b c");
        assert_eq!(read("count: null\naName: ~\n").0.count, None);
    }

    #[test]
    fn all_problems_come_at_once_with_line_and_path() {
        let (_, wrong) = read("aname: x\ncount: -1\nflags: [maybe, 1]\nmap: {a: 1}\naName: no\n");
        let expected = [
            "1: aname: there is no field aname here; did you mean aName?",
            "2: count: must be a whole number from 0 to 4294967295",
            "3: flags[0]: must be true or false",
            "3: flags[1]: must be true or false",
            "4: map.a: 1 is a number and has to be a text: put it in quotes",
            "5: aName: no is a boolean and has to be a text: put it in quotes",
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn a_wrong_kind_is_told_and_not_followed() {
        for (text, message) in [
            ("aName: [x]", "1: aName: must be a text"),
            ("flags: x", "1: flags: must be a list"),
            ("map: x", "1: map: must have fields of its own"),
            ("count: '1'", "1: count: must be a whole number"),
        ] {
            assert_eq!(read(text).1, [message]);
        }
    }

    #[test]
    fn spelling_is_near_in_one_letter() {
        for (one, other, is_near) in [
            ("image", "imgae", true),
            ("volumeMounts", "volumeMount", true),
            ("env", "envFrom", false),
            ("image", "name", false),
            ("tty", "TTY", true),
        ] {
            assert_eq!(near(one, other), is_near, "{one} {other}");
        }
    }
}
