//! What a container is, in the normal form of `docs/workload-digest.md`: parts of fields.
//!
//! The guest computes it from the finished OCI spec (`agent/workload`); what a document's
//! container must be is computed here ([`Container::expected`](crate::document::Container)),
//! so that the owner knows the digests which the guest will log.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

/// What has a digest of its own, so that a verifier can say which differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Program, arguments, working directory, terminal.
    Process,
    /// The environment.
    Environment,
    /// The root's mode, mounts and volumes.
    Mounts,
    /// Ids, capabilities, filters, limits of the kernel.
    Rights,
    /// The pod's namespaces and their settings.
    Settings,
}

impl Part {
    /// Every part, with its name in the log.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Process, "process"),
        (Self::Environment, "environment"),
        (Self::Mounts, "mounts"),
        (Self::Rights, "rights"),
        (Self::Settings, "settings"),
    ];
}

/// What a container is: for each part its fields, by their path in the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload(BTreeMap<Part, BTreeMap<String, Value>>);

impl Workload {
    /// Adds a field, unless it says what its absence says.
    pub fn put(&mut self, part: Part, field: &str, value: Value) {
        if says_something(&value) {
            let fields = self.0.entry(part).or_default();
            fields.insert(field.to_owned(), value);
        }
    }

    /// A field, if it is there.
    #[must_use]
    pub fn field(&self, part: Part, field: &str) -> Option<&Value> {
        self.0.get(&part)?.get(field)
    }

    /// The SHA-256 digest of a part.
    #[must_use]
    pub fn digest(&self, part: Part) -> [u8; 32] {
        // Maps are sorted by key, and nothing is written that depends on anything else.
        let text = serde_json::to_vec(&self.0.get(&part)).unwrap_or_default();
        sha256(&text)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut found = [0; 32];
    found.copy_from_slice(digest(&SHA256, bytes).as_ref());
    found
}

/// What a field is in the spec does not count, when it says the same absent, off or empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(_) | Value::String(_) => true,
    }
}

/// Every list in it sorted, and each entry once: for what each release of a node's software
/// writes in its own order.
#[must_use]
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Array(values) => {
            let mut values: Vec<_> = values.into_iter().map(sorted).collect();
            values.sort_by_cached_key(Value::to_string);
            values.dedup();
            Value::Array(values)
        }
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (name, sorted(field)))
            .filter(|(_, field)| says_something(field))
            .collect(),
        other => other,
    }
}

/// Sysctls that the guest sets for every pod, because some releases of containerd ask for them
/// and others do not.
pub const SYSCTLS_FOR_ALL: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Whether a sysctl is one that every pod has, however its value is spaced.
#[must_use]
pub fn is_for_all(key: &str, value: &str) -> bool {
    let words: Vec<_> = value.split_whitespace().collect();
    SYSCTLS_FOR_ALL.contains(&(key, &words.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_nothing_is_not_there_and_changes_no_digest() {
        let empty = Workload::default();
        let mut other = Workload::default();
        for nothing in [json!(null), json!(false), json!([]), json!({})] {
            other.put(Part::Rights, "x", nothing);
        }
        assert_eq!(empty.digest(Part::Rights), other.digest(Part::Rights));
        other.put(Part::Rights, "x", json!(0));
        assert_ne!(empty.digest(Part::Rights), other.digest(Part::Rights));
        assert_eq!(other.field(Part::Rights, "x"), Some(&json!(0)));
    }

    #[test]
    fn what_all_pods_get_is_nobodys_setting() {
        for (key, value, expected) in [
            ("net.ipv4.ip_unprivileged_port_start", "0", true),
            ("net.ipv4.ping_group_range", "0\t2147483647", true),
            ("net.ipv4.ip_unprivileged_port_start", "1024", false),
        ] {
            assert_eq!(is_for_all(key, value), expected, "{key} = {value}");
        }
    }
}
