//! Which registry is really asked: mirrors, other locations, blocked and insecure ones.
//!
//! A subset of `containers-registries.conf(5)`, version 2. Only where an image is
//! fetched changes; its name, and so every policy about it, stays the user's.

use crate::{
    fetch::{Origin, Source},
    reference::Reference,
};

/// How to reach the registries whose names begin with a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// What names must begin with: `host[:port][/path…]`, or `*.domain`.
    pub prefix: String,
    /// What stands in for the prefix, if anything does.
    pub location: Option<String>,
    /// Plain HTTP instead of TLS.
    pub insecure: bool,
    /// Not to be pulled from at all.
    pub blocked: bool,
    /// Asked before the location, in this order.
    pub mirrors: Vec<Mirror>,
}

/// A place that has the same images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    /// What stands in for the prefix.
    pub location: String,
    /// Plain HTTP instead of TLS.
    pub insecure: bool,
}

/// Why an image cannot be asked for anywhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// By configuration.
    #[error("registry `{0}` is blocked by configuration")]
    Blocked(String),
    /// A location that is not `host[:port][/path…]`.
    #[error("the configured location `{0}` is not `host[:port][/path]`")]
    Location(String),
}

/// Docker Hub's name is not its server's.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The places to ask for an image, in order.
pub fn sources(
    registries: &[Registry],
    reference: &Reference,
) -> Result<Vec<Source>, RegistryError> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let longest = registries
        .iter()
        .filter_map(|registry| {
            Some((
                registry,
                rest(&registry.prefix, reference.registry(), &name)?,
            ))
        })
        .max_by_key(|(registry, _)| registry.prefix.len());
    let Some((registry, rest)) = longest else {
        return Ok(vec![source(&name, false)?]);
    };
    if registry.blocked {
        return Err(RegistryError::Blocked(registry.prefix.clone()));
    }
    let mut sources = Vec::new();
    for mirror in &registry.mirrors {
        sources.push(source(
            &format!("{}{rest}", mirror.location),
            mirror.insecure,
        )?);
    }
    let own = match &registry.location {
        Some(location) => format!("{location}{rest}"),
        None => name,
    };
    sources.push(source(&own, registry.insecure)?);
    Ok(sources)
}

/// What follows the prefix in a name that it matches; a match ends where a component ends.
fn rest<'a>(prefix: &str, registry: &str, name: &'a str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let below = host.strip_suffix(domain)?.strip_suffix('.')?;
        return name.get(registry.len()..).filter(|_| !below.is_empty());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn source(name: &str, insecure: bool) -> Result<Source, RegistryError> {
    let refuse = || RegistryError::Location(name.chars().take(200).collect());
    // What a reference may not be, a location may not be either.
    let checked = Reference::parse(name).map_err(|_| refuse())?;
    let registry = if checked.registry() == HUB.0 {
        HUB.1
    } else {
        checked.registry()
    };
    Ok(Source {
        origin: Origin::of_authority(registry, !insecure).ok_or_else(refuse)?,
        repository: checked.repository().to_owned(),
        credentials_name: format!("{}/{}", checked.registry(), checked.repository()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(registries: &[Registry], reference: &str) -> Vec<String> {
        let sources = sources(registries, &Reference::parse(reference).unwrap()).unwrap();
        sources
            .iter()
            .map(|source| format!("{}/{}", source.origin, source.repository))
            .collect()
    }

    fn registry(prefix: &str, location: Option<&str>) -> Registry {
        Registry {
            prefix: prefix.into(),
            location: location.map(str::to_owned),
            ..Registry::default()
        }
    }

    #[test]
    fn without_configuration_the_registry_itself_is_asked_over_tls() {
        assert_eq!(
            asked(&[], "busybox"),
            ["https://registry-1.docker.io/library/busybox"]
        );
        assert_eq!(asked(&[], "r.example:5000/x"), ["https://r.example:5000/x"]);
    }

    #[test]
    fn mirrors_come_first_and_each_may_be_insecure() {
        let mut hub = registry("docker.io", None);
        hub.mirrors.push(Mirror {
            location: "m.example:5000/hub".into(),
            insecure: true,
        });
        assert_eq!(
            asked(&[hub], "busybox"),
            [
                "http://m.example:5000/hub/library/busybox",
                "https://registry-1.docker.io/library/busybox",
            ]
        );
    }

    #[test]
    fn the_longest_prefix_of_whole_components_wins() {
        let registries = [
            registry("r.example", Some("a.example")),
            registry("r.example/team", Some("b.example/t")),
            registry("*.corp.example", Some("c.example")),
        ];
        assert_eq!(
            asked(&registries, "r.example/team/x"),
            ["https://b.example/t/x"]
        );
        assert_eq!(
            asked(&registries, "r.example/teams/x"),
            ["https://a.example/teams/x"]
        );
        assert_eq!(
            asked(&registries, "x.corp.example/y"),
            ["https://c.example/y"]
        );
        assert_eq!(
            asked(&registries, "corp.example/y"),
            ["https://corp.example/y"]
        );
        assert_eq!(
            asked(&registries, "s.example/r.example/x"),
            ["https://s.example/r.example/x"]
        );
    }

    #[test]
    fn blocked_registries_and_broken_locations_are_errors() {
        let reference = Reference::parse("r.example/x").unwrap();
        let blocked = Registry {
            blocked: true,
            ..registry("r.example", None)
        };
        assert!(matches!(
            sources(&[blocked], &reference),
            Err(RegistryError::Blocked(_))
        ));
        let broken = registry("r.example", Some("http://a.example"));
        assert!(matches!(
            sources(&[broken], &reference),
            Err(RegistryError::Location(_))
        ));
    }
}
