//! A container's environment, and `$(NAME)` in its command line.
//!
//! As the kubelet does it: `envFrom` first, then `env` in order, each value expanded
//! with the names known by then; a name that is not known stays as it is written.

use std::collections::BTreeMap;

use k8s_cri::v1::KeyValue;
use policy_generator::{Quantity, expand};

use crate::{
    documents::{Documents, Keys},
    pod::{Container, EnvFrom, EnvSource, KeyRef, Pod, ResourceRef},
};

/// A value that cannot be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ValueError {
    #[error("{kind} {name} is not in the files: give the file that has it with -f")]
    NoObject { kind: &'static str, name: String },
    #[error("{kind} {name} has no key {key}")]
    NoKey {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("key {key} of {kind} {name} is not text")]
    NotText {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("key .dockerconfigjson of Secret {name} is not a Docker configuration")]
    NotDockerConfig { name: String },
    #[error("field {0} of a pod cannot be referred to")]
    Field(String),
    #[error("resource {resource} of container {container} is not set in the pod")]
    Resource { container: String, resource: String },
    #[error("variable {0} has no source that is known here")]
    NoSource(String),
}

/// What the pod's fields say once it runs.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) addresses: &'a [String],
}

impl Facts<'_> {
    /// The value of `fieldRef`; lists of labels and annotations as in a volume.
    pub(crate) fn field(&self, path: &str) -> Result<String, ValueError> {
        let metadata = &self.pod.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        Ok(match path {
            "metadata.name" => metadata.name.clone(),
            "metadata.namespace" => namespace.to_owned(),
            "metadata.uid" => self.uid.to_owned(),
            "metadata.labels" => lines(&metadata.labels),
            "metadata.annotations" => lines(&metadata.annotations),
            "spec.nodeName" => self.node.to_owned(),
            "spec.serviceAccountName" => "default".to_owned(),
            "status.podIP" => self.addresses.first().cloned().unwrap_or_default(),
            "status.podIPs" => self.addresses.join(","),
            _ => {
                let entry = subscript(path, "metadata.labels")
                    .map(|key| metadata.labels.get(key))
                    .or_else(|| {
                        subscript(path, "metadata.annotations")
                            .map(|key| metadata.annotations.get(key))
                    })
                    .ok_or_else(|| ValueError::Field(path.to_owned()))?;
                entry.cloned().unwrap_or_default()
            }
        })
    }

    /// The value of `resourceFieldRef`, in units of its divisor.
    pub(crate) fn resource(
        &self,
        reference: &ResourceRef,
        own: Option<&Container>,
    ) -> Result<String, ValueError> {
        let name = reference.container_name.as_deref();
        let spec = &self.pod.spec;
        let named = |name| {
            spec.containers
                .iter()
                .find(|c| Some(c.name.as_str()) == name)
        };
        let container = if name.is_some() { named(name) } else { own };
        let found = container.and_then(|c| {
            let (list, resource) = reference.resource.split_once('.')?;
            match list {
                "limits" => c.resources.limits.get(resource),
                "requests" => c.resources.requests.get(resource),
                _ => None,
            }
        });
        let amount = found.ok_or_else(|| ValueError::Resource {
            container: container.map_or_else(|| name.unwrap_or("?").to_owned(), |c| c.name.clone()),
            resource: reference.resource.clone(),
        })?;
        let divisor = reference.divisor.unwrap_or(Quantity::ONE);
        Ok(amount.divided_by(divisor).to_string())
    }
}

/// The environment that a container's process gets, beside what its image says.
pub(crate) fn environment(
    container: &Container,
    facts: &Facts<'_>,
    documents: &Documents,
) -> Result<Vec<KeyValue>, ValueError> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |name: String, value: String, known: &mut BTreeMap<String, String>| {
        if known.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for source in &container.env_from {
        for (name, value) in all_of(source, documents)? {
            set(name, value, &mut known);
        }
    }
    for variable in &container.env {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, |name| known.get(name).cloned())),
            (None, Some(source)) => from(source, &variable.name, container, facts, documents)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            set(variable.name.clone(), value, &mut known);
        }
    }
    let pair = |key: String| {
        let value = known.get(&key).cloned().unwrap_or_default();
        KeyValue { key, value }
    };
    Ok(order.into_iter().map(pair).collect())
}

/// Replaces `$(NAME)` in the words of a command line.
pub(crate) fn expand_all(words: &[String], environment: &[KeyValue]) -> Vec<String> {
    // The last of several counts.
    let known = |name: &str| {
        let found = environment.iter().rfind(|variable| variable.key == name);
        found.map(|variable| variable.value.clone())
    };
    words.iter().map(|word| expand(word, known)).collect()
}

fn from(
    source: &EnvSource,
    variable: &str,
    container: &Container,
    facts: &Facts<'_>,
    documents: &Documents,
) -> Result<Option<String>, ValueError> {
    if let Some(reference) = &source.config_map_key_ref {
        return key("ConfigMap", &documents.config_maps, reference);
    }
    if let Some(reference) = &source.secret_key_ref {
        return key("Secret", &documents.secrets, reference);
    }
    if let Some(reference) = &source.field_ref {
        return facts.field(&reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return facts.resource(reference, Some(container)).map(Some);
    }
    Err(ValueError::NoSource(variable.to_owned()))
}

fn key(
    kind: &'static str,
    objects: &BTreeMap<String, Keys>,
    reference: &KeyRef,
) -> Result<Option<String>, ValueError> {
    let KeyRef {
        key,
        name,
        optional,
        ..
    } = reference;
    let (name, key) = (name.clone(), key.clone());
    let Some(keys) = objects.get(&name) else {
        let missing = ValueError::NoObject { kind, name };
        return if *optional { Ok(None) } else { Err(missing) };
    };
    match keys.get(&key) {
        Some(bytes) => text(bytes, kind, &name, &key).map(Some),
        None if *optional => Ok(None),
        None => Err(ValueError::NoKey { kind, name, key }),
    }
}

fn all_of(source: &EnvFrom, documents: &Documents) -> Result<Vec<(String, String)>, ValueError> {
    let mut found = Vec::new();
    for (kind, objects, reference) in [
        ("ConfigMap", &documents.config_maps, &source.config_map_ref),
        ("Secret", &documents.secrets, &source.secret_ref),
    ] {
        let Some(reference) = reference else {
            continue;
        };
        let name = &reference.name;
        match objects.get(name) {
            Some(keys) => {
                for (key, bytes) in keys {
                    let value = text(bytes, kind, name, key)?;
                    found.push((format!("{}{key}", source.prefix), value));
                }
            }
            None if reference.optional => {}
            None => {
                let name = name.clone();
                return Err(ValueError::NoObject { kind, name });
            }
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], kind: &'static str, name: &str, key: &str) -> Result<String, ValueError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ValueError::NotText {
        kind,
        name: name.to_owned(),
        key: key.to_owned(),
    })
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

fn lines(entries: &BTreeMap<String, String>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{EnvVar, FieldRef, NameRef};

    fn facts<'a>(pod: &'a Pod, addresses: &'a [String]) -> Facts<'a> {
        Facts {
            pod,
            uid: "u-1",
            node: "n",
            addresses,
        }
    }

    fn documents() -> Documents {
        let mut documents = Documents::default();
        let map = [("A", "1"), ("B", "2")].map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()));
        documents.config_maps.insert("m".to_owned(), map.into());
        let secret = [
            ("bin".to_owned(), vec![0xff]),
            ("pw".to_owned(), b"x".to_vec()),
        ];
        documents.secrets.insert("s".to_owned(), secret.into());
        documents
    }

    fn value(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..EnvVar::default()
        }
    }

    fn sourced(name: &str, source: EnvSource) -> EnvVar {
        EnvVar {
            name: name.to_owned(),
            value_from: Some(source),
            ..EnvVar::default()
        }
    }

    fn secret(name: &str, key: &str, optional: bool) -> EnvSource {
        EnvSource {
            secret_key_ref: Some(KeyRef {
                name: name.to_owned(),
                key: key.to_owned(),
                optional,
            }),
            ..EnvSource::default()
        }
    }

    fn field(path: &str) -> EnvSource {
        EnvSource {
            field_ref: Some(FieldRef {
                field_path: path.to_owned(),
                ..FieldRef::default()
            }),
            ..EnvSource::default()
        }
    }

    fn resolve(container: &Container) -> Result<Vec<(String, String)>, ValueError> {
        let mut pod = Pod::default();
        pod.metadata.name = "p".to_owned();
        pod.metadata.labels = [("l".to_owned(), "v".to_owned())].into();
        let addresses = ["10.0.0.2".to_owned()];
        let found = environment(container, &facts(&pod, &addresses), &documents())?;
        Ok(found.into_iter().map(|v| (v.key, v.value)).collect())
    }

    #[test]
    fn references_expand_as_kubernetes_says() {
        let of = |value: &str| KeyValue {
            key: "A".to_owned(),
            value: value.to_owned(),
        };
        let words = ["x$(A)y", "$(NONE)", "$$(A)"].map(str::to_owned);
        assert_eq!(
            expand_all(&words, &[of("0"), of("1")]),
            ["x1y", "$(NONE)", "$(A)"]
        );
    }

    #[test]
    fn variables_come_in_order_and_the_last_wins() {
        let container = Container {
            env_from: vec![EnvFrom {
                config_map_ref: Some(NameRef {
                    name: "m".to_owned(),
                    optional: false,
                }),
                prefix: "P_".to_owned(),
                ..EnvFrom::default()
            }],
            env: vec![
                value("P_A", "mine"),
                value("X", "$(P_A) $(P_B) $(LATER)"),
                value("LATER", "y"),
                sourced("PW", secret("s", "pw", false)),
                sourced("ABSENT", secret("s", "none", true)),
                sourced("NAME", field("metadata.name")),
                sourced("LABEL", field("metadata.labels['l']")),
                sourced("IP", field("status.podIP")),
            ],
            ..Container::default()
        };
        let expected = [
            ("P_A", "mine"),
            ("P_B", "2"),
            ("X", "mine 2 $(LATER)"),
            ("LATER", "y"),
            ("PW", "x"),
            ("NAME", "p"),
            ("LABEL", "v"),
            ("IP", "10.0.0.2"),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(resolve(&container).unwrap(), expected);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (source, expected) in [
            (
                secret("none", "k", false),
                "Secret none is not in the files",
            ),
            (secret("s", "none", false), "Secret s has no key none"),
            (secret("s", "bin", false), "key bin of Secret s is not text"),
            (field("status.phase"), "field status.phase of a pod cannot"),
            (EnvSource::default(), "variable V has no source"),
        ] {
            let container = Container {
                env: vec![sourced("V", source)],
                ..Container::default()
            };
            let error = resolve(&container).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn resources_are_counted_in_their_divisor() {
        let mut pod = Pod::default();
        pod.spec.containers = vec![Container {
            name: "c".to_owned(),
            ..Container::default()
        }];
        let limits = &mut pod.spec.containers[0].resources.limits;
        for (name, amount) in [("cpu", "1500m"), ("memory", "64Mi")] {
            limits.insert(name.to_owned(), Quantity::parse(amount).unwrap());
        }
        for (resource, divisor, expected) in [
            ("limits.cpu", None, Some("2")),
            ("limits.cpu", Some("1m"), Some("1500")),
            ("limits.memory", Some("1Mi"), Some("64")),
            ("requests.cpu", None, None),
        ] {
            let reference = ResourceRef {
                container_name: Some("c".to_owned()),
                resource: resource.to_owned(),
                divisor: divisor.and_then(Quantity::parse),
            };
            let found = facts(&pod, &[]).resource(&reference, None).ok();
            assert_eq!(found.as_deref(), expected, "{resource}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_without_a_dollar_stays(text in "[^$]*") {
            proptest::prop_assert_eq!(expand(&text, |_| None), text);
        }
    }
}
