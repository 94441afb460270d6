//! What a user writes, as the API server and its controllers leave it: one pod of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// The keys of a ConfigMap or Secret.
pub(crate) type Keys = BTreeMap<String, Vec<u8>>;

/// Ends the names that the API server makes.
const SUFFIX: &str = "x7k2p";
const TOKENS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The objects of a file, and the first pod that comes of them.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The pod, as a kubelet gets it.
    pub pod: Value,
    pub(crate) config_maps: BTreeMap<String, Keys>,
    /// What of ConfigMaps is in volumes and in no variable.
    pub(crate) binary_data: BTreeMap<String, Keys>,
    pub(crate) secrets: BTreeMap<String, Keys>,
}

impl Objects {
    /// Reads a file, and plays admission for its first pod, which gets this UID.
    ///
    /// # Errors
    /// When it is no YAML or has no pod.
    pub fn read(text: &str, uid: &str) -> Result<Self> {
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let documents: Vec<Value> =
            serde_saphyr::from_multiple_with_options(text, options).context("reading the YAML")?;
        let mut objects = Self::default();
        for document in documents {
            objects.add(document)?;
        }
        let pod = &mut objects.pod;
        if pod.is_null() {
            bail!("the file has no pod");
        }
        pod["metadata"]["uid"] = json!(uid);
        if pod["metadata"]["namespace"].is_null() {
            pod["metadata"]["namespace"] = json!("default");
        }
        add_tokens(&mut pod["spec"]);
        Ok(objects)
    }

    fn add(&mut self, object: Value) -> Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match object["kind"].as_str().unwrap_or_default() {
            "List" => {
                for item in object["items"].as_array().cloned().unwrap_or_default() {
                    self.add(item)?;
                }
            }
            "ConfigMap" => {
                let binary = decoded(&object["binaryData"])?;
                self.binary_data.insert(name.to_owned(), binary);
                let keys = texts(&object["data"]);
                self.config_maps.insert(name.to_owned(), keys);
            }
            "Secret" => {
                let mut keys = texts(&object["stringData"]);
                keys.extend(decoded(&object["data"])?);
                self.secrets.insert(name.to_owned(), keys);
            }
            _ if self.pod.is_null() => self.pod = pod_of(&object),
            _ => {}
        }
        Ok(())
    }
}

fn decoded(members: &Value) -> Result<Keys> {
    let members = texts(members).into_iter();
    members
        .map(|(key, value)| Ok((key, BASE64_STANDARD.decode(value)?)))
        .collect()
}

fn texts(members: &Value) -> Keys {
    let members = members.as_object().into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    members
        .map(|(key, value)| (key.clone(), text(value).into_bytes()))
        .collect()
}

/// The pod that a controller makes of an object.
fn pod_of(object: &Value) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let (template, name) = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => {
            let start = object["metadata"]["generateName"].as_str();
            let made = start.map(|start| format!("{start}{SUFFIX}"));
            (object, made.unwrap_or_else(|| name.to_owned()))
        }
        "Deployment" => (
            &object["spec"]["template"],
            format!("{name}-7d4b9c6f8d-{SUFFIX}"),
        ),
        "StatefulSet" => (&object["spec"]["template"], format!("{name}-0")),
        "CronJob" => (
            &object["spec"]["jobTemplate"]["spec"]["template"],
            format!("{name}-29399285-{SUFFIX}"),
        ),
        "Job" if object["spec"]["completionMode"] == "Indexed" => {
            (&object["spec"]["template"], format!("{name}-0-{SUFFIX}"))
        }
        _ => (&object["spec"]["template"], format!("{name}-{SUFFIX}")),
    };
    let mut pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = json!(name);
    if pod["metadata"]["namespace"].is_null() {
        pod["metadata"]["namespace"] = object["metadata"]["namespace"].clone();
    }
    if object["kind"] == "StatefulSet" {
        pod["spec"]["hostname"] = json!(name);
    }
    if object["spec"]["completionMode"] == "Indexed" {
        index(
            &mut pod,
            object["metadata"]["name"].as_str().unwrap_or_default(),
        );
    }
    pod
}

/// What the controller of jobs adds to the first pod of an indexed one.
fn index(pod: &mut Value, job: &str) {
    const INDEX: &str = "batch.kubernetes.io/job-completion-index";
    pod["metadata"]["annotations"][INDEX] = json!("0");
    pod["spec"]["hostname"] = json!(format!("{job}-0"));
    for container in containers(&mut pod["spec"]) {
        let from = json!({"fieldRef": {"fieldPath": format!("metadata.annotations['{INDEX}']")}});
        let variable = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": from});
        push(&mut container["env"], variable);
    }
}

fn containers(spec: &mut Value) -> Vec<&mut Value> {
    let mut all = Vec::new();
    for (list, values) in spec.as_object_mut().into_iter().flatten() {
        if matches!(list.as_str(), "initContainers" | "containers") {
            all.extend(values.as_array_mut().into_iter().flatten());
        }
    }
    all
}

/// The service account's volume, as admission adds it.
fn add_tokens(spec: &mut Value) {
    let has_it = |container: &&mut Value| {
        let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
        mounts.any(|mount| mount["mountPath"] == TOKENS)
    };
    if spec["automountServiceAccountToken"] == json!(false) {
        return;
    }
    let name = format!("kube-api-access-{SUFFIX}");
    let mut added = false;
    for container in containers(spec) {
        if !has_it(&container) {
            let mount = json!({"name": name, "mountPath": TOKENS, "readOnly": true});
            push(&mut container["volumeMounts"], mount);
            added = true;
        }
    }
    if added {
        push(
            &mut spec["volumes"],
            json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]}}),
        );
    }
}

fn push(list: &mut Value, value: Value) {
    match list.as_array_mut() {
        Some(values) => values.push(value),
        None => *list = json!([value]),
    }
}
