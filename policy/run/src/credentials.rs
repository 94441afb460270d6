//! Registry credentials for the node, from the Secrets that the pod names.
//!
//! The node asks the registry for manifest and configuration only, but a private one
//! answers nothing without credentials. They go to the node in clear, as the kubelet
//! sends them; what the guest pulls with is another matter.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_cri::v1::AuthConfig;
use serde::Deserialize;

use crate::{documents::Documents, environment::ValueError, pod::NameRef};

/// Key of a Secret of type `kubernetes.io/dockerconfigjson`.
const CONFIG_KEY: &str = ".dockerconfigjson";

/// Where images without a registry in their name come from, and its older names.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// Docker's `config.json`, the part with credentials.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// The credentials of a pod.
#[derive(Default)]
pub(crate) struct Credentials(Vec<(String, Entry)>);

impl Credentials {
    /// Reads those that the pod names; one that is not a Docker configuration is an error.
    pub(crate) fn read(names: &[NameRef], documents: &Documents) -> Result<Self, ValueError> {
        let mut all = Vec::new();
        for NameRef { name, .. } in names {
            let (kind, name) = ("Secret", name.clone());
            let Some(keys) = documents.secrets.get(&name) else {
                return Err(ValueError::NoObject { kind, name });
            };
            let key = CONFIG_KEY.to_owned();
            let Some(bytes) = keys.get(CONFIG_KEY) else {
                return Err(ValueError::NoKey { kind, name, key });
            };
            let config: Config = agent_documents::parse_json(bytes)
                .map_err(|_| ValueError::NotDockerConfig { name })?;
            let entries = config.auths.into_iter();
            all.extend(entries.map(|(place, entry)| (normal(&place), entry)));
        }
        Ok(Self(all))
    }

    /// Those for an image: of its registry, or of the longest part of its path.
    pub(crate) fn of(&self, image: &str) -> Option<AuthConfig> {
        let path = full_path(image);
        // A colon after a host begins a port, and so another registry.
        let ends = |place: &str| {
            if place.contains('/') {
                &['/', ':', '@'][..]
            } else {
                &['/']
            }
        };
        let fits = |place: &str| {
            path.strip_prefix(place)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(ends(place)))
        };
        let (_, entry) = self
            .0
            .iter()
            .filter(|(place, _)| fits(place))
            .max_by_key(|(place, _)| place.len())?;
        let decoded = STANDARD.decode(&entry.auth).unwrap_or_default();
        let decoded = String::from_utf8(decoded).unwrap_or_default();
        let (user, password) = decoded.split_once(':').unwrap_or_default();
        let or = |own: &String, other: &str| match own.is_empty() {
            true => other.to_owned(),
            false => own.clone(),
        };
        Some(AuthConfig {
            username: or(&entry.username, user),
            password: or(&entry.password, password),
            identity_token: entry.identitytoken.clone(),
            ..AuthConfig::default()
        })
    }
}

/// A registry as it stands in an image's name: no scheme, no version, no end slash.
fn normal(place: &str) -> String {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest);
    let place = place.trim_end_matches('/');
    let place = ["/v1", "/v2"]
        .iter()
        .find_map(|version| place.strip_suffix(version))
        .unwrap_or(place);
    if DEFAULT_ALIASES.contains(&place) {
        return DEFAULT_REGISTRY.to_owned();
    }
    place.to_owned()
}

/// The image's name with its registry (distribution's rules for short names).
fn full_path(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => image.to_owned(),
        Some(_) => format!("{DEFAULT_REGISTRY}/{image}"),
        None => format!("{DEFAULT_REGISTRY}/library/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Credentials, ValueError> {
        let mut documents = Documents::default();
        let keys = [(CONFIG_KEY.to_owned(), config.as_bytes().to_vec())];
        documents.secrets.insert("s".to_owned(), keys.into());
        let name = NameRef {
            name: "s".to_owned(),
            ..NameRef::default()
        };
        Credentials::read(&[name], &documents)
    }

    #[test]
    fn an_image_gets_those_of_its_registry_or_path() {
        let credentials = read(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"username":"hub","password":"h"},
                "r.example:5000":{"auth":"dXNlcjpwYTpzcw=="},
                "q.example":{"username":"q","password":"q"},
                "r.example:5000/team":{"username":"team","password":"t"}}}"#,
        )
        .unwrap();
        let pair = |image: &str| credentials.of(image).map(|a| (a.username, a.password));
        for (image, expected) in [
            ("busybox:1", Some(("hub", "h"))),
            ("me/app", Some(("hub", "h"))),
            ("r.example:5000/app:1", Some(("user", "pa:ss"))),
            ("r.example:5000/team/app@sha256:0", Some(("team", "t"))),
            ("r.example:5000/teams/app", Some(("user", "pa:ss"))),
            ("r.example:5000/team:1", Some(("team", "t"))),
            ("q.example/app:1", Some(("q", "q"))),
            ("q.example:5000/app", None),
            ("q.example.evil/app", None),
            ("r.example/app", None),
            ("r.example:50001/app", None),
        ] {
            let expected = expected.map(|(u, p)| (u.to_owned(), p.to_owned()));
            assert_eq!(pair(image), expected, "{image}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused_without_its_contents() {
        let Err(error) = read("hunter2") else {
            panic!("read");
        };
        assert_eq!(
            error.to_string(),
            "key .dockerconfigjson of Secret s is not a Docker configuration"
        );
        assert!(read("{}").unwrap().of("busybox").is_none());
    }
}
