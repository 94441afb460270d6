//! The fixed rules: which facts must hold for which request.
//!
//! They are Rego, so that a reader sees in one page what is checked; the facts are found by
//! functions in Rust (`facts/`). A rule that needs no fact, or that no fact makes true, is a
//! constant, and found out once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use regorus::{Engine, Value};

use crate::workload::sha256;

const TEXT: &str = include_str!("rules.rego");
const PACKAGE: &str = "data.rules";
/// Grows when a function finds a fact otherwise than before.
const FUNCTIONS_VERSION: u32 = 1;

/// The digest by which a document names the rules: of their text and the version of the functions.
#[must_use]
pub fn rules_digest() -> [u8; 32] {
    sha256(format!("{TEXT}\nfunctions {FUNCTIONS_VERSION}\n").as_bytes())
}

/// The digest in hexadecimal, as it stands in documents.
#[must_use]
pub fn rules_digest_hex() -> String {
    hex(&rules_digest())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The rules, ready to be asked.
struct Rules {
    engine: Mutex<Engine>,
    /// Which of the rules there are depend on facts; the others are always true.
    depends: BTreeMap<String, bool>,
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| {
        let mut engine = Engine::new();
        // The text is part of the program, and a test evaluates all of it.
        let added = engine.add_policy("rules.rego".to_owned(), TEXT.to_owned());
        let names = added.map(|_| names()).unwrap_or_default();
        let depends = names
            .into_iter()
            .map(|name| (name.to_owned(), !is_true(&mut engine, name, &[])))
            .collect();
        Rules {
            engine: Mutex::new(engine),
            depends,
        }
    })
}

/// The rules that the text has: a name at the beginning of a line.
fn names() -> Vec<&'static str> {
    let names = TEXT
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<_> = names
        .filter(|word| word.starts_with(|first: char| first.is_ascii_uppercase()))
        .collect();
    names.dedup();
    names
}

fn is_true(engine: &mut Engine, rule: &str, facts: &[&str]) -> bool {
    let facts = facts
        .iter()
        .map(|&fact| (Value::from(fact), Value::from(true)));
    engine.set_input(Value::from(facts.collect::<BTreeMap<_, _>>()));
    let found = engine.eval_rule(format!("{PACKAGE}.{rule}"));
    found.is_ok_and(|value| value == Value::from(true))
}

/// The verdict of a rule that depends on no fact; `None` of one that does.
pub(crate) fn constant(rule: &str) -> Option<bool> {
    match rules().depends.get(rule) {
        None => Some(false),
        Some(false) => Some(true),
        Some(true) => None,
    }
}

/// The verdict of a rule, where these facts hold.
pub(crate) fn allows(rule: &str, facts: &[&str]) -> bool {
    let rules = rules();
    if !rules.depends.contains_key(rule) {
        return false;
    }
    // Held for as long as the rule takes; nothing is done meanwhile.
    let mut engine = rules.engine.lock().unwrap_or_else(PoisonError::into_inner);
    is_true(&mut engine, rule, facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fact that a rule may need.
    const FACTS: [&str; 39] = [
        "arguments",
        "capabilities",
        "container_comes_now",
        "container_is_declared",
        "container_is_there",
        "container_waits",
        "copy_target",
        "directory",
        "environment",
        "exec_arguments",
        "exec_environment",
        "exec_privileges",
        "exec_user",
        "files",
        "id_is_new",
        "image",
        "interfaces",
        "kernel_paths",
        "limits",
        "logs",
        "mounts",
        "new_privileges",
        "no_loopback",
        "pod_is_new",
        "pod_names",
        "pod_runs",
        "processes",
        "root",
        "seccomp",
        "settings",
        "shared_memory",
        "signal",
        "statistics",
        "stdin",
        "sysctls",
        "terminal",
        "termination_message",
        "user",
        "volumes",
    ];

    /// The facts that the text needs, by rule.
    fn needed() -> BTreeMap<String, Vec<String>> {
        let mut needed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut rule = String::new();
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            let first = line.split_whitespace().next().unwrap_or_default();
            if first.starts_with(|c: char| c.is_ascii_uppercase()) {
                rule = first.to_owned();
                needed.entry(rule.clone()).or_default();
            }
            for part in line.split("input.").skip(1) {
                let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '_');
                let fact = &part[..end.unwrap_or(part.len())];
                needed.get_mut(&rule).unwrap().push(fact.to_owned());
            }
        }
        needed
    }

    #[test]
    fn each_rule_is_true_with_its_facts_and_false_without_any_one_of_them() {
        for (rule, facts) in needed() {
            let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
            assert!(allows(&rule, &facts), "{rule}");
            assert_eq!(constant(&rule), facts.is_empty().then_some(true), "{rule}");
            for missing in &facts {
                let without: Vec<&str> =
                    facts.iter().copied().filter(|one| one != missing).collect();
                assert!(!allows(&rule, &without), "{rule} without {missing}");
            }
        }
    }

    #[test]
    fn the_facts_are_those_that_the_functions_find() {
        let needed: std::collections::BTreeSet<String> = needed().into_values().flatten().collect();
        let known = FACTS.map(str::to_owned).into();
        assert_eq!(needed, known);
    }

    #[test]
    fn a_request_without_a_rule_is_denied() {
        for rule in ["SetGuestDateTimeRequest", "GetMetricsRequest", "", "x.y"] {
            assert_eq!(constant(rule), Some(false));
            assert!(!allows(rule, &FACTS));
        }
    }
}
