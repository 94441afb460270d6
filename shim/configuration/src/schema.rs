//! Checks a configuration file against the table of [keys](crate::keys).
//!
//! Checking works on the parsed text with positions, so each complaint names a
//! line. What passes is known to fit the types in [`crate::config`].

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::keys::{Fixed, KEYS, Value};

/// A complaint about one place of a file.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// Where, in bytes.
    pub(crate) span: Range<usize>,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

/// Checks a parsed file against the table.
pub(crate) fn check(root: &DeTable<'_>) -> Result<(), Complaint> {
    check_table("", root)
}

fn check_table(path: &str, table: &DeTable<'_>) -> Result<(), Complaint> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let complain = |message| Complaint {
            span: key.span(),
            message,
        };
        let child = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        let holds_tables = KEYS.iter().any(|(table, ..)| {
            *table == child
                || table
                    .strip_prefix(&child)
                    .is_some_and(|rest| rest.starts_with('.'))
        });
        match value.get_ref() {
            DeValue::Table(inner) if holds_tables => check_table(&child, inner)?,
            _ if holds_tables => return Err(complain(format!("{name} must be a table"))),
            _ => {
                let known = KEYS
                    .iter()
                    .find(|(table, key, _)| *table == path && *key == name);
                let Some((.., expected)) = known else {
                    return Err(complain(unknown(path, name)));
                };
                expected
                    .check(value)
                    .map_err(|wanted| complain(format!("{name} {wanted}")))?;
            }
        }
    }
    Ok(())
}

fn unknown(path: &str, name: &str) -> String {
    if path.is_empty() {
        return format!(
            "unknown table or key {name:?}: expected [hypervisor.qemu], [agent.kata] or [runtime]"
        );
    }
    match KEYS.iter().find(|(_, key, _)| *key == name) {
        Some((table, ..)) => format!("unknown key {name:?} in [{path}]: it belongs into [{table}]"),
        None => format!("unknown key {name:?} in [{path}]: remove it or correct its name"),
    }
}

impl Value {
    /// Whether the value fits; if not, the rest of a sentence that starts with the key.
    fn check(self, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let value = value.get_ref();
        let (fits, wanted) = match self {
            Self::Path => (
                value.as_str().is_some_and(|text| text.starts_with('/')),
                "must be an absolute path".to_owned(),
            ),
            Self::PathOrNone => (
                value
                    .as_str()
                    .is_some_and(|text| text.is_empty() || text.starts_with('/')),
                "must be an absolute path, or empty".to_owned(),
            ),
            Self::Text => (value.as_str().is_some(), "must be a string".to_owned()),
            Self::OneOf(choices) => (
                value.as_str().is_some_and(|text| choices.contains(&text)),
                format!("must be one of {choices:?}"),
            ),
            Self::Bool => (
                value.as_bool().is_some(),
                "must be true or false".to_owned(),
            ),
            Self::Count => (
                count(value).is_some(),
                format!("must be a whole number from 0 to {}", u32::MAX),
            ),
            Self::Number => (
                number(value).is_some_and(f64::is_finite),
                "must be a number".to_owned(),
            ),
            Self::Texts(choices) => (
                texts(value, choices),
                if choices.is_empty() {
                    "must be a list of strings".to_owned()
                } else {
                    format!("must be a list of {choices:?}")
                },
            ),
            Self::Only(fixed, why) => (fixed.is(value), format!("must be {fixed}: {why}")),
        };
        if fits { Ok(()) } else { Err(wanted) }
    }
}

fn count(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match (value.as_float(), value.as_integer()) {
        (Some(float), _) => float.as_str().parse().ok(),
        (None, Some(integer)) => integer.as_str().parse().ok(),
        (None, None) => None,
    }
}

fn texts(value: &DeValue<'_>, choices: &[&str]) -> bool {
    value.as_array().is_some_and(|items| {
        items.iter().all(|item| {
            let text = item.get_ref().as_str();
            text.is_some_and(|text| choices.is_empty() || choices.contains(&text))
        })
    })
}

impl Fixed {
    fn is(self, value: &DeValue<'_>) -> bool {
        match self {
            Self::Bool(only) => value.as_bool() == Some(only),
            Self::Zero => count(value) == Some(0),
            Self::Text(only) => value.as_str() == Some(only),
            Self::NoTexts => value.as_array().is_some_and(|items| items.is_empty()),
        }
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(only) => write!(f, "{only}"),
            Self::Zero => f.write_str("0"),
            Self::Text(only) => write!(f, "{only:?}"),
            Self::NoTexts => f.write_str("[]"),
        }
    }
}
