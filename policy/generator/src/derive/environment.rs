//! The variables of a container: those of its image, then `envFrom`, then `env`, as a kubelet
//! makes them; the last of a name counts.

use std::collections::BTreeMap;

use policy_engine::document::{Origin, Variable};

use super::{Derivation, Secrets};
use crate::{
    expansion::{Piece, pieces},
    images::Image,
    objects::Kind,
    pod::{Container, EnvFrom, EnvSource, EnvVar, KeyRef, NameRef, ResourceRef},
    quantity::Quantity,
    sha256::sha256,
};

/// What containerd sets where an image does not (`oci.WithDefaultPathEnv`).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Fields of a pod that are known only when it runs.
const FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Labels and annotations that Kubernetes adds.
const ADDED: [&str; 8] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "job-name",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];
const SALT_BYTES: usize = 16;

/// A variable's value as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// This; perhaps with something of a Secret in it.
    Known { text: String, secret: bool },
    /// Something that is not known before the pod runs.
    Later(Origin),
}

/// The variables that the pod gives a container, by name.
pub(super) type Environment = BTreeMap<String, Value>;

/// Why a text with references has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotKnown(pub(super) String);

/// Replaces references by values; those to nothing stay.
pub(super) fn expanded(text: &str, known: &Environment) -> Result<Value, NotKnown> {
    let pieces = pieces(text);
    if let [Piece::Reference(name)] = pieces.as_slice()
        && let Some(value) = known.get(*name)
    {
        return Ok(value.clone());
    }
    let (mut whole, mut tainted) = (String::new(), false);
    for piece in pieces {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::Reference(name) => match known.get(name) {
                Some(Value::Known { text, secret }) => {
                    whole.push_str(text);
                    tainted |= secret;
                }
                Some(Value::Later(_)) => return Err(NotKnown(name.to_owned())),
                None if is_service_link(name) => return Err(NotKnown(name.to_owned())),
                None => whole.push_str(&format!("$({name})")),
            },
        }
    }
    Ok(Value::Known {
        text: whole,
        secret: tainted,
    })
}

/// Kubernetes expands the variables of services too, and they are not known here.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT_")
}

impl Derivation<'_> {
    /// What the pod says, without the image's own variables.
    pub(super) fn environment(
        &mut self,
        at: &str,
        container: &Container,
        _image: &Image,
    ) -> Environment {
        let mut known = Environment::new();
        for (number, source) in container.env_from.iter().enumerate() {
            self.all_of(&format!("{at}.envFrom[{number}]"), source, &mut known);
        }
        for (number, variable) in container.env.iter().enumerate() {
            let at = format!("{at}.env[{number}]");
            if let Some(value) = self.value(&at, variable, container, &known) {
                known.insert(variable.name.clone(), value);
            }
        }
        if self.workload.indexed {
            let number = Value::Later(Origin::Number);
            known.insert("JOB_COMPLETION_INDEX".to_owned(), number);
        }
        known
    }

    fn value(
        &mut self,
        at: &str,
        variable: &EnvVar,
        container: &Container,
        known: &Environment,
    ) -> Option<Value> {
        if variable.name.is_empty() || variable.name.contains('=') {
            self.error(&format!("{at}.name"), "is no name of a variable");
            return None;
        }
        if let Some(source) = &variable.value_from {
            return self.from(&format!("{at}.valueFrom"), source, container);
        }
        let text = variable.value.as_deref().unwrap_or_default();
        match expanded(text, known) {
            Ok(value) => Some(value),
            Err(NotKnown(name)) => {
                let message = format!(
                    "refers to $({name}), which is not known before the pod runs, with more text \
                     around it: a policy cannot hold that; put the text together in the \
                     container"
                );
                self.error(&format!("{at}.value"), message);
                None
            }
        }
    }

    fn from(&mut self, at: &str, source: &EnvSource, container: &Container) -> Option<Value> {
        if let Some(reference) = &source.config_map_key_ref {
            return self.key(&format!("{at}.configMapKeyRef"), Kind::ConfigMap, reference);
        }
        if let Some(reference) = &source.secret_key_ref {
            return self.key(&format!("{at}.secretKeyRef"), Kind::Secret, reference);
        }
        if let Some(reference) = &source.field_ref {
            return self.pod_field(&format!("{at}.fieldRef.fieldPath"), &reference.field_path);
        }
        if let Some(reference) = &source.resource_field_ref {
            return Some(self.resource(reference, container));
        }
        let message = match source.file_key_ref.0 {
            true => "a value from a file of a volume cannot be in a policy yet",
            false => "names no source that is known",
        };
        self.error(at, message);
        None
    }

    /// A field of the pod.
    pub(super) fn pod_field(&mut self, at: &str, path: &str) -> Option<Value> {
        if FIELDS.contains(&path) {
            return Some(Value::Later(Origin::Field(path.to_owned())));
        }
        let metadata = &self.workload.template.metadata;
        let known = |text: &str| Value::Known {
            text: text.to_owned(),
            secret: false,
        };
        if path == "spec.serviceAccountName" {
            let name = self.workload.template.spec.service_account_name.as_str();
            return Some(known(if name.is_empty() { "default" } else { name }));
        }
        for (list, entries) in [
            ("metadata.labels", &metadata.labels),
            ("metadata.annotations", &metadata.annotations),
        ] {
            let Some(key) = subscript(path, list) else {
                continue;
            };
            if ADDED.contains(&key) {
                self.warn(
                    at,
                    format!("{key} is Kubernetes' own: any value is allowed"),
                );
                return Some(Value::Later(Origin::Any));
            }
            return Some(known(entries.get(key).map_or("", String::as_str)));
        }
        self.error(at, format!("{path} is no field that a variable can have"));
        None
    }

    fn resource(&self, reference: &ResourceRef, own: &Container) -> Value {
        let spec = &self.workload.template.spec;
        let named = reference.container_name.as_deref();
        let mut all = spec.containers.iter().chain(&spec.init_containers);
        let container = match named {
            Some(name) => all.find(|one| one.name == name),
            None => Some(own),
        };
        let amount = container.and_then(|container| {
            let (list, resource) = reference.resource.split_once('.')?;
            let limit = container.resources.limits.get(resource);
            match list {
                "limits" => limit,
                // A request that is not said is the limit.
                "requests" => container.resources.requests.get(resource).or(limit),
                _ => None,
            }
        });
        match amount {
            // Without a limit it is what the node has.
            None => Value::Later(Origin::Number),
            Some(amount) => {
                let divisor = reference.divisor.unwrap_or(Quantity::ONE);
                let text = amount.divided_by(divisor).to_string();
                let secret = false;
                Value::Known { text, secret }
            }
        }
    }

    fn key(&mut self, at: &str, kind: Kind, reference: &KeyRef) -> Option<Value> {
        let KeyRef {
            key,
            name,
            optional,
        } = reference;
        let inputs = self.inputs;
        let Some(keys) = inputs.objects.find(kind, self.namespace(), name) else {
            return self.absent(at, kind, (name, *optional));
        };
        match keys.values.get(key) {
            Some(bytes) => self.text(at, kind, (name, key), bytes),
            None if *optional => None,
            None => {
                self.error(at, format!("{} {name} has no key {key}", kind.name()));
                None
            }
        }
    }

    fn absent(&mut self, at: &str, kind: Kind, (name, optional): (&str, bool)) -> Option<Value> {
        let object = format!("{} {name}", kind.name());
        if kind == Kind::Secret && self.choices.secrets == Secrets::Open {
            return Some(Value::Later(Origin::Any));
        }
        if optional {
            let message = format!("{object} is not in the files, so the variable must be absent");
            self.warn(at, message);
            return None;
        }
        let open = match kind {
            Kind::Secret => ", or leave values of Secrets open with --secrets open",
            Kind::ConfigMap => "",
        };
        let message = format!(
            "{object} is not in the files: give the one that has it with --config-file{open}"
        );
        self.error(at, message);
        None
    }

    fn text(
        &mut self,
        at: &str,
        kind: Kind,
        (name, key): (&str, &str),
        bytes: &[u8],
    ) -> Option<Value> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Some(Value::Known {
                text: text.to_owned(),
                secret: kind == Kind::Secret,
            });
        }
        let message = format!("key {key} of {} {name} is not text", kind.name());
        self.error(at, message);
        None
    }

    fn all_of(&mut self, at: &str, source: &EnvFrom, known: &mut Environment) {
        let inputs = self.inputs;
        for (kind, field, reference) in [
            (Kind::ConfigMap, "configMapRef", &source.config_map_ref),
            (Kind::Secret, "secretRef", &source.secret_ref),
        ] {
            let Some(NameRef { name, optional }) = reference else {
                continue;
            };
            let at = format!("{at}.{field}");
            let Some(keys) = inputs.objects.find(kind, self.namespace(), name) else {
                let is_open = self.absent(&at, kind, (name, *optional)).is_some();
                if is_open {
                    let message = format!(
                        "the names of the variables of Secret {name} have to be known: give the \
                         file that has it with --config-file"
                    );
                    self.error(&at, message);
                }
                continue;
            };
            for (key, bytes) in &keys.values {
                if let Some(value) = self.text(&at, kind, (name, key), bytes) {
                    known.insert(format!("{}{key}", source.prefix), value);
                }
            }
        }
    }

    /// The document's variables: the image's, then the pod's.
    pub(super) fn variables(
        &self,
        container: &Container,
        environment: Environment,
        image: &Image,
    ) -> BTreeMap<String, Variable> {
        let mut all = BTreeMap::from([("PATH".to_owned(), Variable::Is(PATH.to_owned()))]);
        for entry in &image.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            all.insert(name.to_owned(), Variable::Is(value.to_owned()));
        }
        if container.tty {
            all.insert("TERM".to_owned(), Variable::Is("xterm".to_owned()));
        }
        for (name, value) in environment {
            let variable = self.variable(&container.name, &name, value);
            all.insert(name, variable);
        }
        all
    }

    fn variable(&self, container: &str, name: &str, value: Value) -> Variable {
        match value {
            Value::Later(origin) => Variable::From(origin),
            Value::Known {
                text,
                secret: false,
            } => Variable::Is(text),
            Value::Known { text, .. } => Variable::From(match self.choices.secrets {
                Secrets::Open => Origin::Any,
                Secrets::Digest => Origin::Digest(self.salted(container, name, &text)),
            }),
        }
    }

    /// `SALT:DIGEST`. The salt is made of where the value is, so that the same files give the same
    /// policy, and equal values in two places do not look equal.
    fn salted(&self, container: &str, variable: &str, value: &str) -> String {
        let namespace = self.namespace().unwrap_or_default();
        let place = [
            "kata-cc salt",
            &self.choices.salt,
            namespace,
            &self.workload.name,
            container,
            variable,
        ];
        let salt = sha256(&[place.join("\0").as_bytes()]);
        let salt = salt.get(..SALT_BYTES).unwrap_or_default();
        let digest = sha256(&[salt, value.as_bytes()]);
        format!("{}:{}", hex::encode(salt), hex::encode(digest))
    }
}

fn subscript<'a>(path: &'a str, list: &str) -> Option<&'a str> {
    path.strip_prefix(list)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_together_only_from_what_is_known() {
        let known = |text: &str, secret| Value::Known {
            text: text.to_owned(),
            secret,
        };
        let environment: Environment = [
            ("A".to_owned(), known("1", false)),
            ("PW".to_owned(), known("x", true)),
            (
                "IP".to_owned(),
                Value::Later(Origin::Field("status.podIP".to_owned())),
            ),
        ]
        .into();
        for (text, expected) in [
            ("a$(A)", Ok(known("a1", false))),
            ("$(A)$(PW)", Ok(known("1x", true))),
            ("$(NONE) $$(A)", Ok(known("$(NONE) $(A)", false))),
            ("$(IP)", Ok(environment["IP"].clone())),
            ("$(IP):80", Err(NotKnown("IP".to_owned()))),
            (
                "$(DB_SERVICE_HOST)",
                Err(NotKnown("DB_SERVICE_HOST".to_owned())),
            ),
        ] {
            assert_eq!(expanded(text, &environment), expected, "{text}");
        }
    }
}
