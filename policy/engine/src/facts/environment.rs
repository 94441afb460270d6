//! Variables: each that the document names is there and has its value, and there is no other.

use super::Fact;
use crate::{
    denied::{Code, Finding},
    document::{Container, Origin, Variable},
    environment::{PodFacts, by_name, service_links},
    rules::hex,
    workload::sha256,
};

/// Services that every pod of a cluster is told of.
const OF_CLUSTER: &str = "KUBERNETES_";

/// What values are held against.
pub(super) struct Known<'a> {
    pub(super) hostname: &'a str,
    /// What the guest knows of the pod; none where values were judged before.
    pub(super) facts: &'a PodFacts,
    /// The home of the user in the image.
    pub(super) home: Option<&'a str>,
    /// A variable that there may be beside the declared ones: a terminal's `TERM`.
    pub(super) also: Option<(&'static str, &'static str)>,
}

pub(super) fn environment(container: &Container, all: &[String], known: &Known<'_>) -> Fact {
    let by_name = by_name(all);
    if by_name.len() != all.len() {
        return Err(twice(all));
    }
    let links = service_links(&by_name);
    let mut unknown = Finding::of(Code::EnvUnknown);
    let mut wrong = Finding::of(Code::EnvValue);
    for (name, value) in &by_name {
        let at = ["env", name.as_str()];
        match container.env.get(name) {
            Some(variable) if is_value(variable, value, known) => {}
            Some(_) => wrong.add(&at),
            None if links.contains(name) => {
                if container.without_service_links && !name.starts_with(OF_CLUSTER) {
                    unknown.add(&at);
                }
            }
            None => match known.undeclared(name) {
                Some(expected) if expected == value => {}
                Some(_) => wrong.add(&at),
                None => unknown.add(&at),
            },
        }
    }
    let mut missing = Finding::of(Code::EnvMissing);
    for name in container
        .env
        .keys()
        .filter(|name| !by_name.contains_key(*name))
    {
        missing.add(&["env", name]);
    }
    let found = [unknown, wrong, missing];
    match found.into_iter().find(|one| !one.pointers.is_empty()) {
        Some(finding) => Err(finding),
        None => Ok(()),
    }
}

impl Known<'_> {
    /// The value of a variable that no document names.
    fn undeclared(&self, name: &str) -> Option<&str> {
        match name {
            "HOSTNAME" => Some(self.hostname),
            "HOME" => self.home,
            _ => self
                .also
                .filter(|(also, _)| *also == name)
                .map(|(_, value)| value),
        }
    }
}

fn twice(all: &[String]) -> Finding {
    let mut finding = Finding::of(Code::EnvTwice);
    let mut seen = std::collections::BTreeSet::new();
    for entry in all {
        let name = entry.split('=').next().unwrap_or_default();
        if !seen.insert(name) {
            finding.add(&["env", name]);
        }
    }
    finding
}

fn is_value(variable: &Variable, value: &str, known: &Known<'_>) -> bool {
    match variable {
        Variable::Is(expected) => value == expected,
        Variable::From(Origin::Any) => true,
        Variable::From(Origin::Number) => {
            (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit())
        }
        Variable::From(Origin::Digest(expected)) => has_digest(value, expected),
        Variable::From(Origin::Field(field)) => is_field(field, value, known),
    }
}

fn has_digest(value: &str, expected: &str) -> bool {
    let Some((salt, digest)) = expected.split_once(':') else {
        return false;
    };
    let bytes = (0..salt.len()).step_by(2).map(|at| {
        let pair = salt.get(at..at + 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let salted: Option<Vec<u8>> = bytes.collect();
    salted.is_some_and(|mut salted| {
        salted.extend(value.as_bytes());
        hex(&sha256(&salted)) == digest
    })
}

fn is_field(field: &str, value: &str, known: &Known<'_>) -> bool {
    let is_one_of = |field: &str, value: &str| known.facts.values(field).any(|one| one == value);
    let is_address = |value: &str| value.parse::<std::net::IpAddr>().is_ok();
    match field {
        "spec.hostname" => value == known.hostname,
        "status.podIPs" => value.split(',').all(|one| is_one_of("status.podIP", one)),
        // Of the node, which the guest does not know: their form is what can be told.
        "status.hostIP" => is_address(value),
        "status.hostIPs" => value.split(',').all(is_address),
        "spec.nodeName" => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
            (1..=253).contains(&value.len()) && value.bytes().all(plain)
        }
        _ => is_one_of(field, value),
    }
}
