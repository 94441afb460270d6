//! `kata-cc policy diff`: what a second policy allows that a first one does not.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use policy_engine::document::{Container, Document, Origin, Pod, PodName, Variable};
use serde_json::Value;

use super::load::{LoadError, document};

/// Exit code where the second allows something more.
const MORE: u8 = 2;

/// Say what the second policy allows that the first does not; exit code 2 if there is anything.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The policy that is known.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// The policy that is new.
    #[arg(value_name = "B")]
    second: PathBuf,
}

/// Prints the differences.
pub(super) fn run(options: &Options) -> Result<u8, LoadError> {
    let (first, second) = (document(&options.first)?, document(&options.second)?);
    let more = more(&first, &second);
    for line in &more {
        println!("{line}");
    }
    Ok(if more.is_empty() { 0 } else { MORE })
}

/// What the second allows that the first does not, one line each.
pub(super) fn more(first: &Document, second: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    for rules in second.rules.difference(&first.rules) {
        lines.push(format!("rules {rules} may judge by it"));
    }
    if second.version < first.version {
        lines.push(format!(
            "an older version: {} after {}",
            second.version, first.version
        ));
    }
    more_of_pod(&first.pod, &second.pod, &mut lines);
    let order = |document: &Document| {
        let names = document
            .containers
            .iter()
            .map(|one| (one.name.clone(), one.stage));
        names.collect::<Vec<_>>()
    };
    let common = |all: &Document, other: &Document| {
        let mut names = order(all);
        names.retain(|(name, _)| other.containers.iter().any(|one| one.name == *name));
        names
    };
    if common(first, second) != common(second, first) {
        lines.push("containers start in another order".to_owned());
    }
    for (kind, first, second) in [
        ("container", &first.containers, &second.containers),
        ("ephemeral container", &first.ephemeral, &second.ephemeral),
    ] {
        for container in second {
            let known = first.iter().find(|one| one.name == container.name);
            let name = format!("{kind} {}", container.name);
            match known {
                None => lines.push(format!("{name}: is new, runs {:?}", container.args)),
                Some(known) => more_of_container(known, container, &name, &mut lines),
            }
        }
        let missing = first
            .iter()
            .filter(|one| !second.iter().any(|two| two.name == one.name));
        for container in missing {
            lines.push(format!("the pod runs without {kind} {}", container.name));
        }
    }
    let (before, after) = (members(&first.grants), members(&second.grants));
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        lines.push(format!("grant {name}"));
    }
    lines
}

/// The members that say something.
fn members(of: &impl serde::Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(members)) => members.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn more_of_pod(first: &Pod, second: &Pod, lines: &mut Vec<String>) {
    match (&first.namespace, &second.namespace) {
        (Some(_), None) => lines.push("any namespace".to_owned()),
        (Some(one), Some(two)) if one != two => lines.push(format!("namespace {two}")),
        _ => {}
    }
    match (&first.name, &second.name) {
        (None, _) => {}
        (Some(_), None) => lines.push("any name of the pod".to_owned()),
        (Some(one), Some(two)) if !covers(one, two) => lines.push(format!("pod {two:?}")),
        _ => {}
    }
    if first.share_processes != second.share_processes {
        let words = if second.share_processes {
            "see"
        } else {
            "do not see"
        };
        lines.push(format!("containers {words} each other's processes"));
    }
    if first.sysctls != second.sysctls {
        lines.push(format!(
            "other settings of the kernel: {:?}",
            second.sysctls
        ));
    }
    for (name, volume) in &second.volumes {
        let known = first.volumes.get(name);
        let fits = known.is_some_and(|known| {
            let smaller = match (known.size, volume.size) {
                (None, _) => true,
                (Some(one), Some(two)) => two <= one,
                (Some(_), None) => false,
            };
            known.memory == volume.memory && smaller
        });
        if !fits {
            lines.push(format!("volume {name}: new, larger, or of another kind"));
        }
    }
}

fn covers(one: &PodName, other: &PodName) -> bool {
    match (one, other) {
        (PodName::StartsWith(base), PodName::Is(name) | PodName::StartsWith(name)) => {
            one == other
                || name
                    .strip_prefix(base.as_str())
                    .is_some_and(|rest| rest.starts_with('-'))
        }
        (PodName::Is(_), _) => one == other,
    }
}

fn more_of_container(first: &Container, second: &Container, name: &str, lines: &mut Vec<String>) {
    let mut say = |line: String| lines.push(format!("{name}: {line}"));
    for command in second.exec.difference(&first.exec) {
        say(format!("the host may run {command:?}"));
    }
    for signal in second.signals.difference(&first.signals) {
        say(format!("the host may send signal {signal}"));
    }
    for (before, after, words) in [
        (first.logs, second.logs, "the host can read its output"),
        (first.stdin, second.stdin, "the host can write to its input"),
        (
            first.termination_message,
            second.termination_message,
            "the host can read its termination message",
        ),
    ] {
        if after && !before {
            say(words.to_owned());
        }
    }
    // Everything else has to be exactly so, and what is otherwise was not allowed.
    let (mut before, mut after) = (members(first), members(second));
    for apart in [
        "exec",
        "signals",
        "logs",
        "stdin",
        "termination_message",
        "env",
        "name",
    ] {
        before.remove(apart);
        after.remove(apart);
    }
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for member in names {
        if before.get(member) != after.get(member) {
            let words = after
                .get(member)
                .map_or("as by default".to_owned(), Value::to_string);
            say(format!("{member}: {words}"));
        }
    }
    for (variable, value) in &second.env {
        if !first
            .env
            .get(variable)
            .is_some_and(|known| covers_value(known, value))
        {
            say(format!("variable {variable} has another value"));
        }
    }
    for variable in first
        .env
        .keys()
        .filter(|name| !second.env.contains_key(*name))
    {
        say(format!("without variable {variable}"));
    }
}

fn covers_value(one: &Variable, other: &Variable) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match (one, other) {
        (Variable::From(Origin::Any), _) => true,
        (Variable::From(Origin::Number), Variable::Is(text)) => is_number(text),
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use policy_engine::document::Stage;

    use super::*;

    fn policy() -> Document {
        let container = Container {
            name: "web".into(),
            image: format!("r/web@sha256:{}", "0".repeat(64)),
            args: vec!["web".into()],
            env: [("A".to_owned(), Variable::Is("1".to_owned()))].into(),
            ..Container::default()
        };
        let first = Container {
            name: "first".into(),
            stage: Stage::Init,
            ..container.clone()
        };
        Document {
            rules: ["a".repeat(64)].into(),
            pod: Pod {
                namespace: Some("n".into()),
                name: Some(PodName::StartsWith("web".into())),
                ..Pod::default()
            },
            containers: vec![first, container],
            ..Document::default()
        }
    }

    #[test]
    fn what_is_the_same_or_less_is_nothing_more() {
        type Change = fn(&mut Document);
        let same: [Change; 4] = [
            |_| (),
            |p| p.version = 2,
            |p| p.pod.name = Some(PodName::Is("web-1".into())),
            |p| p.rules = BTreeSet::new(),
        ];
        for change in same {
            let mut second = policy();
            change(&mut second);
            assert_eq!(more(&policy(), &second), Vec::<String>::new());
        }
        let mut readable = policy();
        readable.containers[1].logs = true;
        assert!(more(&readable, &policy()).is_empty());
    }

    #[test]
    fn each_thing_more_is_told() {
        type Change = fn(&mut Document);
        let cases: [(Change, &str); 14] = [
            (
                |p| p.containers[1].logs = true,
                "container web: the host can read its output",
            ),
            (
                |p| p.containers[1].args.push("x".into()),
                "container web: args",
            ),
            (|p| p.containers[1].image.push('x'), "container web: image"),
            (
                |p| p.containers[1].rights.privileged = true,
                "container web: rights",
            ),
            (|p| p.containers[1].user.uid = 1, "container web: user"),
            (
                |p| p.containers[1].env.clear(),
                "container web: without variable A",
            ),
            (
                |p| {
                    let _ = p.containers[1]
                        .env
                        .insert("B".into(), Variable::From(Origin::Any));
                },
                "container web: variable B",
            ),
            (
                |p| {
                    let _ = p.containers[1].exec.insert(vec!["sh".into()]);
                },
                "container web: the host may run",
            ),
            (|p| p.pod.namespace = None, "any namespace"),
            (|p| p.pod.name = None, "any name"),
            (|p| p.grants.vsock = true, "grant vsock"),
            (
                |p| p.containers.reverse(),
                "containers start in another order",
            ),
            (
                |p| {
                    let _ = p.containers.remove(0);
                },
                "the pod runs without container first",
            ),
            (
                |p| {
                    let _ = p.rules.insert("b".repeat(64));
                },
                "rules bbb",
            ),
        ];
        for (change, words) in cases {
            let mut second = policy();
            change(&mut second);
            let more = more(&policy(), &second);
            assert!(
                more.iter().any(|line| line.starts_with(words)),
                "{words}: {more:?}"
            );
        }
    }
}
