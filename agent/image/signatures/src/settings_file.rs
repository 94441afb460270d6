//! The few lines of YAML that registry configuration is written in: maps of maps of texts.
//!
//! A whole YAML reader would be the largest parser in the guest, for a file of four
//! lines. This one reads block maps and plain or quoted texts, and refuses all else
//! by line: a configuration that would mean something else to a YAML reader is an
//! error here.

use std::collections::BTreeSet;

/// A text, the path of keys that leads to it, and the line it is on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    pub(super) value: String,
    pub(super) line: usize,
}

/// What cannot be read, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) reason: &'static str,
}

/// Deeper maps than this mean nothing to anybody here.
const DEPTH_MAX: usize = 4;

/// Reads all texts of a file; a key without anything below it is an empty text.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, Unreadable> {
    let mut found: Vec<Entry> = Vec::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut pending: Option<Entry> = None;
    let mut seen = BTreeSet::new();
    for (line, content) in (1..).zip(text.lines()) {
        let refuse = |reason| Unreadable { line, reason };
        let content = content.trim_end();
        let body = content.trim_start_matches(' ');
        if body.is_empty() || body.starts_with('#') || (line == 1 && content == "---") {
            continue;
        }
        let indent = content.len() - body.len();
        let (key, value) = split(body).map_err(refuse)?;
        let is_deeper = open.last().is_some_and(|(above, _)| indent > *above);
        match (pending.take(), is_deeper) {
            (Some(_), true) => {}
            (None, true) => return Err(refuse("it is indented below a text")),
            (entry, false) => found.extend(entry),
        }
        if !is_deeper {
            open.truncate(
                siblings(&open, indent)
                    .ok_or_else(|| refuse("its indentation fits no line above"))?,
            );
        }
        open.push((indent, key));
        if open.len() > DEPTH_MAX {
            return Err(refuse("it is nested too deeply"));
        }
        let path: Vec<String> = open.iter().map(|(_, key)| key.clone()).collect();
        if !seen.insert(path.clone()) {
            return Err(refuse("its key is given twice"));
        }
        match value {
            Some(value) => found.push(Entry { path, value, line }),
            None => {
                pending = Some(Entry {
                    path,
                    value: String::new(),
                    line,
                });
            }
        }
    }
    found.extend(pending);
    Ok(found)
}

/// How many of the open keys a line of this indentation is below.
fn siblings(open: &[(usize, String)], indent: usize) -> Option<usize> {
    if open.is_empty() && indent == 0 {
        return Some(0);
    }
    open.iter().position(|(same, _)| *same == indent)
}

/// `key:` and what follows it on the line.
fn split(body: &str) -> Result<(String, Option<String>), &'static str> {
    let (key, rest) = if body.starts_with(['"', '\'']) {
        quoted(body)?
    } else {
        let end = body
            .find(": ")
            .or_else(|| body.ends_with(':').then(|| body.len() - 1))
            .ok_or("it is not `key: value`")?;
        (
            plain(body.get(..end).unwrap_or(""))?,
            body.get(end..).unwrap_or(""),
        )
    };
    let rest = rest.strip_prefix(':').ok_or("it is not `key: value`")?;
    let value = rest.trim_start();
    if value.is_empty() || value.starts_with('#') {
        return Ok((key, None));
    }
    if !value.starts_with(['"', '\'']) {
        let end = value.find(" #").unwrap_or(value.len());
        return Ok((key, Some(plain(value.get(..end).unwrap_or("").trim_end())?)));
    }
    let (value, rest) = quoted(value)?;
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok((key, Some(value)))
    } else {
        Err("something follows its text")
    }
}

/// A text without quotes, which must not be anything else in YAML.
fn plain(text: &str) -> Result<String, &'static str> {
    let special = text.starts_with([
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@',
        '`',
    ]);
    // A wildcard scope begins with an alias's mark, and so needs quotes in YAML, too.
    if text.is_empty()
        || special
        || text.contains(": ")
        || text.contains(" #")
        || text.contains('\t')
    {
        return Err(
            "it has a form of YAML that is not supported; quote its texts, one `key: value` a line",
        );
    }
    Ok(text.to_owned())
}

/// A quoted text without escapes, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let (quote, rest) = text.split_at_checked(1).ok_or("it is empty")?;
    let (inner, rest) = rest.split_once(quote).ok_or("its quotes are not closed")?;
    if inner.contains('\\') || rest.starts_with(quote) {
        return Err("it has escapes in quotes, which are not supported");
    }
    Ok((inner.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let entries = entries(text).unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.path.join("|"), entry.value))
            .collect()
    }

    #[test]
    fn maps_of_maps_of_texts_are_read() {
        let text = "---\n# all\ndefault-docker:\n  a: file:///x  # there\n\ndocker:\n    r.example:5000/x:\n        a: 'b: c'\n        \"d\": e\n    s.example:\n        a: f\nlast:\n";
        let expected = [
            ("default-docker|a", "file:///x"),
            ("docker|r.example:5000/x|a", "b: c"),
            ("docker|r.example:5000/x|d", "e"),
            ("docker|s.example|a", "f"),
            ("last", ""),
        ]
        .map(|(path, value)| (path.to_owned(), value.to_owned()));
        assert_eq!(read(text), expected);
        assert!(read("").is_empty());
    }

    #[test]
    fn what_yaml_could_read_otherwise_is_refused_by_line() {
        for (line, text) in [
            (1, "- a"),
            (1, "a: {b: c}"),
            (1, "a: [b]"),
            (1, "a: &x b"),
            (1, "a: |"),
            (1, "a: 'b"),
            (1, "a: \"b\\n\""),
            (1, "a: 'b''c'"),
            (1, "a: 'b' c"),
            (1, "a: b: c"),
            (1, "a"),
            (1, "*.x: y"),
            (2, "a: b\n  c: d"),
            (2, "a: b\na: c"),
            (3, "a:\n  b: c\na:\n  d: e"),
            (3, "a:\n    b: c\n  d: e"),
            (2, "a:\n\tb: c"),
            (1, "  a: b"),
            (2, "a: b\n---"),
            (5, "a:\n b:\n  c:\n   d:\n    e: f"),
        ] {
            assert_eq!(
                entries(text).map_err(|refused| refused.line),
                Err(line),
                "{text:?}"
            );
        }
    }
}
