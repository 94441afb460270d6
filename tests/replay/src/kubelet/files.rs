//! What the files of a volume hold: ConfigMaps, Secrets, tokens and facts about the pod, with the
//! modes that a kubelet gives them.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    environment::{Known, field, list, resource},
    objects::{Keys, Objects},
};

/// Kubernetes' default for files of a volume.
const FILE_MODE: u32 = 0o644;
/// What every namespace has: the certificates of the cluster's API server.
const CLUSTER_ROOTS: (&str, &str) = ("kube-root-ca.crt", "ca.crt");

/// One file of a volume, by its path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) mode: u32,
    /// The user whose it is.
    pub(crate) uid: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The files of a volume, if it is one of files.
///
/// # Errors
/// When it refers to what is not there.
pub(crate) fn files(objects: &Objects, volume: &Value, known: &Known) -> Result<Vec<File>> {
    let source = Source { objects, known };
    for kind in ["configMap", "secret", "downwardAPI"] {
        if volume[kind].is_object() {
            let mode = mode(&volume[kind]["defaultMode"]).unwrap_or(FILE_MODE);
            return source.of(kind, &volume[kind], mode);
        }
    }
    let projected = &volume["projected"];
    let mode = mode(&projected["defaultMode"]).unwrap_or(FILE_MODE);
    let mut all = Vec::new();
    for one in list(&projected["sources"]) {
        for (kind, projection) in one.as_object().into_iter().flatten() {
            all.extend(source.of(kind, projection, mode)?);
        }
    }
    Ok(all)
}

fn mode(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|mode| u32::try_from(mode).ok())
}

/// Where the content of a pod's volumes comes from.
struct Source<'a> {
    objects: &'a Objects,
    known: &'a Known,
}

impl Source<'_> {
    fn of(&self, kind: &str, projection: &Value, mode: u32) -> Result<Vec<File>> {
        match kind {
            "configMap" | "secret" => self.object(kind, projection, mode),
            "downwardAPI" => self.downward(projection, mode),
            "serviceAccountToken" => Ok(vec![self.token(projection)?]),
            other => bail!("a volume of {other} cannot be made"),
        }
    }

    /// A ConfigMap or Secret: all its keys, or those that are chosen.
    fn object(&self, kind: &str, projection: &Value, default: u32) -> Result<Vec<File>> {
        let name = [&projection["name"], &projection["secretName"]];
        let name = name.into_iter().find_map(Value::as_str);
        let Some(keys) = self.keys(kind, name.context("an object has a name")?) else {
            if projection["optional"] == Value::Bool(true) {
                return Ok(Vec::new());
            }
            bail!("there is no {kind} {name:?}");
        };
        let chosen = list(&projection["items"]);
        let mut all: Vec<_> = chosen
            .map(|item| {
                let key = item["key"].as_str().context("an item has a key")?;
                let bytes = keys.get(key).with_context(|| format!("no key {key}"))?;
                let path = item["path"].as_str().context("an item has a path")?;
                let mode = mode(&item["mode"]).unwrap_or(default);
                Ok(file(path, mode, bytes.clone()))
            })
            .collect::<Result<_>>()?;
        if all.is_empty() {
            let every = keys.iter();
            all.extend(every.map(|(key, bytes)| file(key, default, bytes.clone())));
        }
        Ok(all)
    }

    fn keys(&self, kind: &str, name: &str) -> Option<Keys> {
        let (roots, key) = CLUSTER_ROOTS;
        if kind == "configMap" && name == roots {
            let certificate = b"-----BEGIN CERTIFICATE-----\n".to_vec();
            return Some([(key.to_owned(), certificate)].into());
        }
        if kind == "secret" {
            return self.objects.secrets.get(name).cloned();
        }
        let mut keys = self.objects.config_maps.get(name)?.clone();
        keys.extend(
            self.objects
                .binary_data
                .get(name)
                .cloned()
                .unwrap_or_default(),
        );
        Some(keys)
    }

    fn downward(&self, projection: &Value, default: u32) -> Result<Vec<File>> {
        let item = |item: &Value| {
            let path = item["path"].as_str().context("an item has a path")?;
            let text = match item["fieldRef"]["fieldPath"].as_str() {
                Some(path) => field(&self.objects.pod, path, self.known)?,
                None => self.resource(&item["resourceFieldRef"])?,
            };
            let mode = mode(&item["mode"]).unwrap_or(default);
            Ok(file(path, mode, text.into_bytes()))
        };
        list(&projection["items"]).map(item).collect()
    }

    fn resource(&self, reference: &Value) -> Result<String> {
        let mut containers = list(&self.objects.pod["spec"]["containers"]);
        let container = containers.find(|one| one["name"] == reference["containerName"]);
        resource(
            container.context("a container of the pod")?,
            reference,
            self.known,
        )
    }

    /// A token is its reader's alone where all containers run as one user, or one group has
    /// the volumes.
    fn token(&self, projection: &Value) -> Result<File> {
        let path = projection["path"].as_str().context("a token has a path")?;
        let audience = projection["audience"].as_str().unwrap_or("kubernetes");
        let user = self.only_user();
        let grouped = self.objects.pod["spec"]["securityContext"]["fsGroup"].is_u64();
        let mode = match user.is_some() || grouped {
            true => 0o600,
            false => FILE_MODE,
        };
        Ok(File {
            uid: user.unwrap_or(0),
            ..file(path, mode, format!("a token for {audience}").into_bytes())
        })
    }

    /// The number that all containers are told to run as.
    fn only_user(&self) -> Option<u32> {
        let spec = &self.objects.pod["spec"];
        let number = |security: &Value| mode(&security["runAsUser"]);
        let lists = ["initContainers", "containers"];
        let containers = lists.into_iter().flat_map(|name| list(&spec[name]));
        let users = containers.map(|one| {
            number(&one["securityContext"]).or_else(|| number(&spec["securityContext"]))
        });
        let users: Vec<_> = users.collect();
        let first = users.first().copied().flatten()?;
        users.iter().all(|one| *one == Some(first)).then_some(first)
    }
}

fn file(path: &str, mode: u32, bytes: Vec<u8>) -> File {
    File {
        path: path.to_owned(),
        mode,
        uid: 0,
        bytes,
    }
}
