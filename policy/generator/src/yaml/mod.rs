//! YAML as a tree that knows where each part is in its file.
//!
//! The files are the owner's own, but they may come from anywhere (charts, repositories), so
//! reading them is bounded: in bytes, in depth, and in nodes, those of repeated aliases included.
//! What each scalar means is left to the field that it is for ([`read`]): Kubernetes reads YAML 1.1,
//! in which `yes` is a boolean and `0644` octal. Merge keys (`<<`) are merged.
//!
//! Syntax: YAML 1.2, by granit-parser; positions are bytes of the text, so that a file can be
//! changed where it has to be and nowhere else.

mod parse;
pub(crate) mod read;

use std::ops::Range;

pub(crate) use parse::{BYTES_MAX, parse};

/// A part of a YAML document.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its first line, from 1.
    pub(crate) line: usize,
    /// Where it is in the text, in bytes.
    pub(crate) span: Range<usize>,
    /// In braces, brackets or quotes rather than by indentation.
    pub(crate) flow: bool,
    /// It is written elsewhere, and only referred to here (`*name`, `<<`).
    pub(crate) borrowed: bool,
}

/// The three kinds of nodes.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A text, number, boolean or nothing.
    Scalar {
        /// Its value, without quotes.
        text: String,
        /// Without quotes, so that it may be something else than a text.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Names and values, in order.
    Map(Vec<(Key, Node)>),
}

/// The name of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The name.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
    /// The column in which it starts, from 0.
    pub(crate) column: usize,
    /// Where it is in the text, in bytes.
    pub(crate) span: Range<usize>,
}

impl Node {
    /// The value of a name, if this is a map that has it.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|(_, value)| value)
    }

    /// Name and value.
    pub(crate) fn entry(&self, name: &str) -> Option<&(Key, Self)> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(key, _)| key.text == name),
            _ => None,
        }
    }

    /// The node at a path (`a.b[2].c`).
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        steps(path).try_fold(self, |node, (name, index)| {
            let value = node.get(name)?;
            match index {
                Some(index) => value.items().get(index),
                None => Some(value),
            }
        })
    }

    /// The same, to change it.
    pub(crate) fn find_mut(&mut self, path: &str) -> Option<&mut Self> {
        steps(path).try_fold(self, |node, (name, index)| {
            let value = node.get_mut(name)?;
            let Some(index) = index else {
                return Some(value);
            };
            match &mut value.kind {
                Kind::List(items) => items.get_mut(index),
                _ => None,
            }
        })
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        match &mut self.kind {
            Kind::Map(entries) => {
                let mut entries = entries.iter_mut();
                let found = entries.find(|(key, _)| key.text == name);
                found.map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// Makes this say a text at a path of names, whatever was there.
    pub(crate) fn set(&mut self, path: &[&str], text: &str) {
        let Some((name, rest)) = path.split_first() else {
            self.kind = Kind::Scalar {
                text: text.to_owned(),
                plain: false,
            };
            return;
        };
        if !matches!(self.kind, Kind::Map(_)) {
            self.kind = Kind::Map(Vec::new());
        }
        if self.get(name).is_none()
            && let Kind::Map(entries) = &mut self.kind
        {
            entries.push(made(name));
        }
        if let Some(value) = self.get_mut(name) {
            value.set(rest, text);
        }
    }

    /// Its text, if it is a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// Nothing is said: `null`, `~`, or no value at all.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The line of the deepest part of a path (`a.b[2].c`) that is there.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        for (name, index) in steps(path) {
            let Some((key, value)) = node.entry(name) else {
                return line;
            };
            (line, node) = (key.line, value);
            if let Some(item) = index.and_then(|index| value.items().get(index)) {
                (line, node) = (item.line, item);
            }
        }
        line
    }

    /// Whether two documents say the same, wherever and however it is written.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Scalar { text, plain }, Kind::Scalar { text: t, plain: p }) => {
                text == t && plain == p
            }
            (Kind::List(one), Kind::List(two)) => {
                one.len() == two.len() && one.iter().zip(two).all(|(a, b)| a.same(b))
            }
            (Kind::Map(one), Kind::Map(two)) => {
                one.len() == two.len()
                    && one
                        .iter()
                        .all(|(key, value)| other.get(&key.text).is_some_and(|v| value.same(v)))
            }
            _ => false,
        }
    }
}

/// Names, and the place in a list behind some of them.
fn steps(path: &str) -> impl Iterator<Item = (&str, Option<usize>)> {
    let parts = path.split('.').filter(|part| !part.is_empty());
    parts.map(|part| match part.split_once('[') {
        Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
        None => (part, None),
    })
}

/// An entry that says nothing yet.
fn made(name: &str) -> (Key, Node) {
    let key = Key {
        text: name.to_owned(),
        line: 0,
        column: 0,
        span: 0..0,
    };
    let value = Node {
        kind: Kind::Map(Vec::new()),
        line: 0,
        span: 0..0,
        flow: false,
        borrowed: false,
    };
    (key, value)
}
