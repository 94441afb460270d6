//! Writing a document, for the owner.
//!
//! Texts are written as they are between `'''` where TOML allows it, so that the
//! document can be read by people; otherwise as one line with escapes. What was
//! written is read back and compared before anybody binds a launch to it.

use std::{collections::BTreeMap, fmt::Write as _};

use thiserror::Error;

use super::{
    Initdata,
    document::{Algorithm, DocumentError, VERSION},
};

/// Why no document can be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The document would break a rule.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The document reads back as something else; a bug.
    #[error("the written initdata does not read back as what was given")]
    Different,
}

/// Writes a document of these texts by name.
///
/// # Errors
///
/// [`WriteError`] names the rule that the document would break.
pub fn write(
    algorithm: Algorithm,
    entries: &BTreeMap<String, String>,
) -> Result<Initdata, WriteError> {
    let mut text = format!(
        "version = \"{VERSION}\"\nalgorithm = \"{}\"\n\n[data]\n",
        algorithm.name()
    );
    for (name, value) in entries {
        super::document::check_name(name)?;
        text.push_str(&format!("\"{name}\" = "));
        put(&mut text, value);
        text.push('\n');
    }
    let document = Initdata::parse(text.as_bytes())?;
    if document.entries() == entries {
        Ok(document)
    } else {
        Err(WriteError::Different)
    }
}

fn put(text: &mut String, value: &str) {
    // A carriage return would be read back as a line feed, and quotes at the end
    // would join the closing ones.
    let plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    if value.chars().all(plain) && !value.contains("'''") && !value.ends_with('\'') {
        text.push_str("'''\n");
        text.push_str(value);
        text.push_str("'''");
        return;
    }
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\U{:08x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_stay_readable() {
        let entries = BTreeMap::from([("aa.toml".to_owned(), "a = 1\n".to_owned())]);
        let document = write(Algorithm::Sha256, &entries).unwrap();
        assert_eq!(
            document.text(),
            "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"aa.toml\" = '''\na = 1\n'''\n"
        );
    }

    #[test]
    fn names_that_would_break_out_are_refused() {
        let entries = BTreeMap::from([("a\" = 1\n\"b".to_owned(), String::new())]);
        assert!(matches!(
            write(Algorithm::Sha256, &entries),
            Err(WriteError::Document(DocumentError::Name(_)))
        ));
    }

    proptest! {
        #[test]
        fn any_text_survives(
            entries in prop::collection::btree_map("[a-z][a-z._-]{0,8}", "(?s).{0,40}", 0..4),
        ) {
            let document = write(Algorithm::Sha512, &entries).unwrap();
            prop_assert_eq!(document.entries(), &entries);
        }

        #[test]
        fn quotes_and_control_characters_survive(value in "['\"\\\\\r\n\t\0\u{7f}\u{85}a]{0,12}") {
            let entries = BTreeMap::from([("a".to_owned(), value)]);
            let document = write(Algorithm::Sha384, &entries).unwrap();
            prop_assert_eq!(document.entries(), &entries);
        }
    }
}
