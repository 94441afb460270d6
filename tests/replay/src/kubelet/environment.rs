//! The environment that a kubelet gives a container, beside what its image says.

use anyhow::{Context, Result, bail};
use policy_generator::{Quantity, expand};
use serde_json::Value;

use super::objects::{Keys, Objects};

/// What a kubelet knows of a pod when it asks for a container.
#[derive(Debug, Clone)]
pub struct Known {
    /// The name of its node.
    pub node: String,
    /// The node's address.
    pub host_address: String,
    /// The pod's address.
    pub address: String,
    /// The node's memory, in bytes.
    pub memory: u64,
    /// Whether there is a service beside Kubernetes' own in the pod's namespace.
    pub has_service: bool,
}

/// The variables of the service that every pod is told of.
const KUBERNETES: [(&str, &str); 8] = [
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
    ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
    ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
    ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
    ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
    ("KUBERNETES_PORT_443_TCP_PORT", "443"),
    ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
];
/// Those of another one, for pods that have service links.
const WEB: [(&str, &str); 7] = [
    ("WEB_FRONT_SERVICE_HOST", "10.96.7.7"),
    ("WEB_FRONT_SERVICE_PORT", "80"),
    ("WEB_FRONT_PORT", "tcp://10.96.7.7:80"),
    ("WEB_FRONT_PORT_80_TCP", "tcp://10.96.7.7:80"),
    ("WEB_FRONT_PORT_80_TCP_PROTO", "tcp"),
    ("WEB_FRONT_PORT_80_TCP_PORT", "80"),
    ("WEB_FRONT_PORT_80_TCP_ADDR", "10.96.7.7"),
];

/// The variables, in the order in which they are set.
pub(crate) fn environment(
    objects: &Objects,
    container: &Value,
    known: &Known,
) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    for source in list(&container["envFrom"]) {
        for (key, bytes) in keys_of(objects, source)? {
            let prefix = source["prefix"].as_str().unwrap_or_default();
            set(&mut all, format!("{prefix}{key}"), text(bytes)?);
        }
    }
    let links = objects.pod["spec"]["enableServiceLinks"] != Value::Bool(false);
    let others = (links && known.has_service).then_some(WEB);
    let services: Vec<_> = KUBERNETES
        .into_iter()
        .chain(others.into_iter().flatten())
        .collect();
    for variable in list(&container["env"]) {
        let name = variable["name"].as_str().unwrap_or_default();
        let value = match variable["valueFrom"].is_object() {
            true => match value_from(objects, container, &variable["valueFrom"], known)? {
                Some(value) => value,
                None => continue,
            },
            false => {
                let literal = variable["value"].as_str().unwrap_or_default();
                expand(literal, |name| {
                    let service = services.iter().find(|(key, _)| *key == name);
                    value_of(&all, name).or_else(|| service.map(|(_, value)| (*value).to_owned()))
                })
            }
        };
        set(&mut all, name.to_owned(), value);
    }
    for (name, value) in services {
        if value_of(&all, name).is_none() {
            all.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(all)
}

/// Replaces `$(NAME)` in the words of a command.
pub(crate) fn words(words: &Value, environment: &[(String, String)]) -> Vec<String> {
    let words = list(words).filter_map(Value::as_str);
    words
        .map(|word| expand(word, |name| value_of(environment, name)))
        .collect()
}

fn value_of(environment: &[(String, String)], name: &str) -> Option<String> {
    let found = environment.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone())
}

fn set(all: &mut Vec<(String, String)>, name: String, value: String) {
    match all.iter_mut().find(|(key, _)| *key == name) {
        Some((_, old)) => *old = value,
        None => all.push((name, value)),
    }
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).context("a variable is text")
}

fn keys_of<'a>(objects: &'a Objects, source: &Value) -> Result<&'a Keys> {
    let (all, reference) = match source["configMapRef"].is_object() {
        true => (&objects.config_maps, &source["configMapRef"]),
        false => (&objects.secrets, &source["secretRef"]),
    };
    let name = reference["name"].as_str().unwrap_or_default();
    static NONE: Keys = Keys::new();
    match all.get(name) {
        Some(keys) => Ok(keys),
        None if reference["optional"] == Value::Bool(true) => Ok(&NONE),
        None => bail!("there is no {name}"),
    }
}

fn value_from(
    objects: &Objects,
    container: &Value,
    source: &Value,
    known: &Known,
) -> Result<Option<String>> {
    for (kind, all) in [
        ("configMapKeyRef", &objects.config_maps),
        ("secretKeyRef", &objects.secrets),
    ] {
        let reference = &source[kind];
        if reference.is_object() {
            let (name, key) = (reference["name"].as_str(), reference["key"].as_str());
            let keys = all.get(name.unwrap_or_default());
            return match keys.and_then(|keys| keys.get(key.unwrap_or_default())) {
                Some(bytes) => text(bytes).map(Some),
                None if reference["optional"] == Value::Bool(true) => Ok(None),
                None => bail!("there is no {name:?} {key:?}"),
            };
        }
    }
    match source["fieldRef"]["fieldPath"].as_str() {
        Some(path) => field(&objects.pod, path, known).map(Some),
        None => resource(container, &source["resourceFieldRef"], known).map(Some),
    }
}

/// What a field of a pod is, as a variable or a file says it.
pub(crate) fn field(pod: &Value, path: &str, known: &Known) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(match path {
        "metadata.name" => text(&pod["metadata"]["name"]),
        "metadata.namespace" => text(&pod["metadata"]["namespace"]),
        "metadata.uid" => text(&pod["metadata"]["uid"]),
        "metadata.labels" => lines(&pod["metadata"]["labels"]),
        "metadata.annotations" => lines(&pod["metadata"]["annotations"]),
        "spec.nodeName" => known.node.clone(),
        "spec.serviceAccountName" => match pod["spec"]["serviceAccountName"].as_str() {
            Some(name) => name.to_owned(),
            None => "default".to_owned(),
        },
        "status.hostIP" | "status.hostIPs" => known.host_address.clone(),
        "status.podIP" | "status.podIPs" => known.address.clone(),
        path => {
            let (map, key) = path.split_once("['").context("a field that is known")?;
            let pointer = format!("/{}", map.replace('.', "/"));
            let map = pod.pointer(&pointer).unwrap_or(&Value::Null);
            text(&map[key.trim_end_matches("']")])
        }
    })
}

fn lines(members: &Value) -> String {
    let members = members.as_object().into_iter().flatten();
    let lines = members.map(|(key, value)| format!("{key}={value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What has no limit has the node's.
pub(crate) fn resource(container: &Value, reference: &Value, known: &Known) -> Result<String> {
    let name = reference["resource"].as_str().context("a resource")?;
    let (list, resource) = name.split_once('.').context("a resource of a list")?;
    let amount = container["resources"][list][resource].clone();
    let amount = match (&amount, resource) {
        (Value::String(amount), _) => amount.clone(),
        (Value::Number(amount), _) => amount.to_string(),
        (_, "cpu") => "2".to_owned(),
        (_, "memory") => known.memory.to_string(),
        _ => "0".to_owned(),
    };
    let divisor = reference["divisor"].as_str().unwrap_or("1");
    let parse = |text: &str| Quantity::parse(text).context("a quantity");
    Ok(parse(&amount)?.divided_by(parse(divisor)?).to_string())
}
