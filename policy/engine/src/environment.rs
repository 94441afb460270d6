//! The environment: sorted, and without the values that Kubernetes makes for each pod.

use std::collections::{BTreeMap, BTreeSet};

/// What Kubernetes calls this pod; chosen by the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Each with the field of the pod that it is, such as `metadata.uid`.
    values: Vec<(&'static str, String)>,
}

impl PodFacts {
    /// Adds a value of a field; an empty one is none.
    pub fn add(&mut self, field: &'static str, value: &str) {
        if !value.is_empty() {
            self.values.push((field, value.to_owned()));
        }
    }

    /// The field of the pod that has this value.
    #[must_use]
    pub fn field(&self, value: &str) -> Option<&'static str> {
        let found = self.values.iter().find(|(_, known)| known == value);
        found.map(|(field, _)| *field)
    }

    /// All values of a field.
    pub fn values<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a str> {
        let of_field = self.values.iter().filter(move |(name, _)| *name == field);
        of_field.map(|(_, value)| value.as_str())
    }
}

/// An environment in its one spelling.
#[derive(Debug, PartialEq, Eq)]
pub struct Normal {
    /// What the pod's owner decides, sorted: `NAME=value`, or `NAME` and where its value is
    /// from.
    pub fixed: Vec<String>,
    /// The values that are not in it: `NAME=value`.
    pub chosen: Vec<String>,
}

/// Brings an environment into its one spelling.
#[must_use]
pub fn normal(environment: Vec<String>, facts: &PodFacts) -> Normal {
    let last = by_name(&environment);
    let links = service_links(&last);
    let (mut fixed, mut chosen) = (Vec::new(), Vec::new());
    for (name, value) in last {
        let source = if name == "HOSTNAME" {
            Some("spec.hostname")
        } else if links.contains(&name) {
            // Which services there are is not the pod's owner's to say.
            chosen.push(format!("{name}={value}"));
            continue;
        } else {
            facts.field(&value)
        };
        match source {
            Some(field) => {
                fixed.push(format!("{name} from {field}"));
                chosen.push(format!("{name}={value}"));
            }
            None => fixed.push(format!("{name}={value}")),
        }
    }
    Normal { fixed, chosen }
}

/// The variables by name; the last of several counts, as for a program that looks it up.
pub(crate) fn by_name(environment: &[String]) -> BTreeMap<String, String> {
    let pairs = environment.iter().map(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    });
    pairs.collect()
}

/// The variables that tell of a service, for each that is told of completely and alike in
/// all of them: what an owner writes by hand is not taken for one.
pub(crate) fn service_links(all: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut links = BTreeSet::new();
    for prefix in all
        .keys()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
    {
        links.extend(family(prefix, all).unwrap_or_default());
    }
    links
}

/// The variables of one service (Kubernetes, `pkg/kubelet/envvars`).
fn family(prefix: &str, all: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let value = |suffix: &str| all.get(&format!("{prefix}_{suffix}"));
    let host = value("SERVICE_HOST")?;
    host.parse::<std::net::IpAddr>().ok()?;
    let first = value("SERVICE_PORT")?;
    first.parse::<u16>().ok()?;
    let address = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    let (protocol, rest) = value("PORT")?.split_once("://")?;
    if !matches!(protocol, "tcp" | "udp" | "sctp") || rest != format!("{address}:{first}") {
        return None;
    }
    let mut names: Vec<String> = ["SERVICE_HOST", "SERVICE_PORT", "PORT"]
        .map(|suffix| format!("{prefix}_{suffix}"))
        .into();
    for (name, value) in all {
        let Some(suffix) = name.strip_prefix(prefix) else {
            continue;
        };
        if suffix.starts_with("_SERVICE_PORT_") && value.parse::<u16>().is_ok() {
            names.push(name.clone());
        }
        let port = suffix.strip_prefix("_PORT_").unwrap_or_default();
        if is_port_variable(port, value, host, &address) {
            names.push(name.clone());
        }
    }
    Some(names)
}

/// `443_TCP`, `443_TCP_PROTO`, `443_TCP_PORT` and `443_TCP_ADDR`, with the value of each.
fn is_port_variable(suffix: &str, value: &str, host: &str, address: &str) -> bool {
    let mut words = suffix.split('_');
    let (Some(port), Some(protocol)) = (words.next(), words.next()) else {
        return false;
    };
    let known = port.parse::<u16>().is_ok() && matches!(protocol, "TCP" | "UDP" | "SCTP");
    let protocol = protocol.to_ascii_lowercase();
    known
        && match (words.next(), words.next()) {
            (None, _) => value == format!("{protocol}://{address}:{port}"),
            (Some("PROTO"), None) => value == protocol,
            (Some("PORT"), None) => value == port,
            (Some("ADDR"), None) => value == host,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> PodFacts {
        let mut facts = PodFacts::default();
        facts.add("metadata.name", "web-1");
        facts.add("metadata.namespace", "");
        facts.add("metadata.uid", "1edd");
        facts.add("status.podIP", "10.88.0.10");
        facts
    }

    fn of(entries: &[&str]) -> Normal {
        let entries = entries.iter().map(|&entry| entry.to_owned());
        normal(entries.collect(), &facts())
    }

    const LINK: [&str; 7] = [
        "WEB_SERVICE_HOST=10.96.0.1",
        "WEB_SERVICE_PORT=443",
        "WEB_SERVICE_PORT_HTTPS=443",
        "WEB_PORT=tcp://10.96.0.1:443",
        "WEB_PORT_443_TCP=tcp://10.96.0.1:443",
        "WEB_PORT_443_TCP_PROTO=tcp",
        "WEB_PORT_443_TCP_ADDR=10.96.0.1",
    ];

    #[test]
    fn what_kubernetes_makes_is_told_by_name_and_listed_beside() {
        let one = of(&[
            "NAME=web-1",
            "IP=10.88.0.10",
            "ID=1edd",
            "HOSTNAME=web-1",
            "A=b",
        ]);
        assert_eq!(
            one.fixed,
            [
                "A=b",
                "HOSTNAME from spec.hostname",
                "ID from metadata.uid",
                "IP from status.podIP",
                "NAME from metadata.name"
            ]
        );
        assert_eq!(one.chosen.len(), 4);
    }

    #[test]
    fn order_and_what_is_overwritten_do_not_count() {
        assert_eq!(of(&["A=1", "B=2"]).fixed, of(&["B=2", "A=0", "A=1"]).fixed);
        assert_ne!(of(&["A=1"]).fixed, of(&["A=2"]).fixed);
    }

    #[test]
    fn service_links_are_in_no_digest_and_listed() {
        let with = of(&[&LINK[..], &["A=1"]].concat());
        assert_eq!(with.fixed, ["A=1"]);
        assert_eq!(with.chosen.len(), LINK.len());
    }

    #[test]
    fn what_only_looks_like_a_service_link_is_the_owners() {
        assert_eq!(of(&["DB_PORT=5432"]).fixed, ["DB_PORT=5432"]);
        for (at, other) in [
            (0, "WEB_SERVICE_HOST=evil.example"),
            (1, "WEB_SERVICE_PORT=444"),
            (3, "WEB_PORT=tcp://10.96.0.2:443"),
        ] {
            let mut entries = LINK;
            entries[at] = other;
            let normal = of(&entries);
            assert_eq!(normal.chosen.len(), 0, "{other}: {normal:?}");
        }
        let mut entries = LINK;
        entries[6] = "WEB_PORT_443_TCP_ADDR=10.96.0.9";
        assert_eq!(of(&entries).fixed, ["WEB_PORT_443_TCP_ADDR=10.96.0.9"]);
    }
}
