//! Reads the pod and what it refers to from YAML files.
//!
//! Files are the owner's own; mistakes in them are answered with one sentence that
//! names the file, the line and the field. Documents are told apart by their `kind`
//! before they are read into the type of that kind, from the same text, so that lines
//! are right. Strings that YAML takes for numbers or booleans have to be quoted, and
//! `0644` is octal, as in Kubernetes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};

use crate::pod::{ConfigMap, Map, Pod, Secret};

/// More is no pod, and reading it would only take memory.
const MOST_BYTES: u64 = 16 << 20;

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is larger than {} MiB, which no pod is", MOST_BYTES >> 20)]
    Size { path: PathBuf },
    #[error("{path}:{line}: {message}")]
    Yaml {
        path: PathBuf,
        line: u64,
        message: String,
    },
    #[error(
        "{path}:{line}: kind {kind} cannot be run: only a Pod, with the ConfigMaps and Secrets it uses; take the pod template out of it"
    )]
    Kind {
        path: PathBuf,
        line: u64,
        kind: String,
    },
    #[error("{path}:{line}: {kind} {name} has a value of key {key} that is not base64")]
    Base64 {
        path: PathBuf,
        line: u64,
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("{path}:{line}: a second pod, {second}, beside {first}: run them one by one")]
    SecondPod {
        path: PathBuf,
        line: u64,
        first: String,
        second: String,
    },
    #[error("there is no Pod in {0}")]
    NoPod(PathBuf),
}

/// The keys of a ConfigMap or Secret.
pub(crate) type Keys = BTreeMap<String, Vec<u8>>;

/// Everything that the files hold.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) pod: Pod,
    pub(crate) config_maps: BTreeMap<String, Keys>,
    pub(crate) secrets: BTreeMap<String, Keys>,
}

impl Documents {
    /// Reads the file with the pod, and the others.
    pub(crate) fn read(pod_file: &Path, others: &[PathBuf]) -> Result<Self, DocumentError> {
        let mut documents = Self::default();
        let mut pod = None;
        for path in std::iter::once(pod_file).chain(others.iter().map(PathBuf::as_path)) {
            let text = read_file(path)?;
            for part in split(&text) {
                documents.add(&File { path, ..part }, &mut pod)?;
            }
        }
        documents.pod = pod.ok_or_else(|| DocumentError::NoPod(pod_file.to_owned()))?;
        Ok(documents)
    }

    fn add(&mut self, file: &File<'_>, pod: &mut Option<Pod>) -> Result<(), DocumentError> {
        let head: Option<Head> = file.parse()?;
        let Some(head) = head else {
            return Ok(());
        };
        let name = head.metadata.name.clone();
        match (head.api_version.as_str(), head.kind.as_str()) {
            ("v1", "Pod") => {
                if let Some(first) = pod {
                    return Err(DocumentError::SecondPod {
                        path: file.path.to_owned(),
                        line: file.first_line,
                        first: first.metadata.name.clone(),
                        second: name,
                    });
                }
                *pod = Some(file.parse()?);
            }
            ("v1", "ConfigMap") => {
                let map: ConfigMap = file.parse()?;
                let mut keys = text_keys(map.data);
                keys.extend(file.decode("ConfigMap", &name, map.binary_data)?);
                self.config_maps.insert(name, keys);
            }
            ("v1", "Secret") => {
                let secret: Secret = file.parse()?;
                let mut keys = file.decode("Secret", &name, secret.data)?;
                keys.extend(text_keys(secret.string_data));
                self.secrets.insert(name, keys);
            }
            ("v1", "List") => {
                let list: List = file.parse()?;
                for item in list.items {
                    // JSON is YAML; the line is the list's, the field path tells the rest.
                    let text = item.to_string();
                    let item = File {
                        text: &text,
                        ..*file
                    };
                    self.add(&item, pod)?;
                }
            }
            (_, kind) => {
                return Err(DocumentError::Kind {
                    path: file.path.to_owned(),
                    line: file.first_line,
                    kind: kind.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// What every object begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Default, Deserialize)]
struct HeadMetadata {
    #[serde(default)]
    name: String,
}

/// `List`, as `kubectl get -o yaml` writes several objects.
#[derive(Deserialize)]
struct List {
    items: Vec<serde_json::Value>,
}

/// One document of a file.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    first_line: u64,
}

impl File<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        let options = serde_saphyr::options! {
            legacy_octal_numbers: true,
            no_schema: true,
            with_snippet: false,
        };
        let mut path = String::new();
        serde_saphyr::with_deserializer_from_str_with_options(self.text, options, |yaml| {
            serde_path_to_error::deserialize(yaml).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        })
        .map_err(|error| self.yaml_error(&path, &error))
    }

    fn yaml_error(&self, field: &str, error: &serde_saphyr::Error) -> DocumentError {
        let line = error.location().map_or(1, |l| l.line().max(1));
        let message = match error.without_snippet() {
            serde_saphyr::Error::SerdeUnknownField { field: name, .. } => {
                format!("{field}: there is no field {name} here")
            }
            serde_saphyr::Error::SerdeMissingField { field: name, .. } => {
                format!("field {name} is missing")
            }
            other if field.is_empty() || field == "." => one_line(&other.to_string()),
            other => format!("{field}: {}", one_line(&other.to_string())),
        };
        DocumentError::Yaml {
            path: self.path.to_owned(),
            line: self.first_line + line - 1,
            message,
        }
    }

    fn decode(&self, kind: &'static str, name: &str, data: Map) -> Result<Keys, DocumentError> {
        data.into_iter()
            .map(|(key, value)| {
                // Folded over lines is common, and allowed.
                let compact: String = value.split_whitespace().collect();
                match STANDARD.decode(compact) {
                    Ok(bytes) => Ok((key, bytes)),
                    Err(_) => Err(DocumentError::Base64 {
                        path: self.path.to_owned(),
                        line: self.first_line,
                        kind,
                        name: name.to_owned(),
                        key,
                    }),
                }
            })
            .collect()
    }
}

fn text_keys(data: Map) -> Keys {
    data.into_iter().map(|(k, v)| (k, v.into_bytes())).collect()
}

fn read_file(path: &Path) -> Result<String, DocumentError> {
    let failed = |source| DocumentError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > MOST_BYTES {
        return Err(DocumentError::Size {
            path: path.to_owned(),
        });
    }
    fs::read_to_string(path).map_err(failed)
}

/// Cuts a file at its `---` lines; a block scalar cannot hold one at the margin.
fn split(text: &str) -> Vec<File<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    let mut push = |from: usize, to: usize, first_line: u64| {
        let text = text.get(from..to).unwrap_or_default();
        if text
            .lines()
            .any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'))
        {
            let path = Path::new("");
            parts.push(File {
                path,
                text,
                first_line,
            });
        }
    };
    for (number, line) in (1_u64..).zip(text.split_inclusive('\n')) {
        let end = at + line.len();
        if line.trim_end() == "---" || line.starts_with("--- ") {
            push(start, at, first_line);
            (start, first_line) = if line.trim_end() == "---" {
                (end, number + 1)
            } else {
                (at, number)
            };
        }
        at = end;
    }
    push(start, text.len(), first_line);
    parts
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Documents, String> {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..texts.len())
            .map(|n| directory.path().join(format!("{n}.yaml")))
            .collect();
        for (path, text) in paths.iter().zip(texts) {
            fs::write(path, text).unwrap();
        }
        Documents::read(&paths[0], &paths[1..]).map_err(|error| {
            let prefix = format!("{}/", directory.path().display());
            error.to_string().replace(&prefix, "")
        })
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n    - name: c\n      image: i\n";

    #[test]
    fn a_pod_and_its_objects_come_from_any_of_the_files() {
        let first = format!(
            "# comment\n---\n{POD}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata:\n  text: |\n    --- not a separator\n    a\nbinaryData: {{bytes: AAE=}}\n---\n"
        );
        let second = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: Opaque\ndata: {a: YQ==}\nstringData: {b: b}\n";
        let documents = read(&[&first, second]).unwrap();
        assert_eq!(documents.pod.spec.containers[0].image, "i");
        let map = &documents.config_maps["m"];
        assert_eq!(map["text"], b"--- not a separator\na\n");
        assert_eq!(map["bytes"], [0, 1]);
        assert_eq!(documents.secrets["s"]["a"], b"a");
        assert_eq!(documents.secrets["s"]["b"], b"b");
    }

    #[test]
    fn a_list_is_its_items_and_json_is_yaml() {
        let list = r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"k":"1"}},
            {"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[]}}]}"#;
        let documents = read(&[list]).unwrap();
        assert_eq!(documents.pod.metadata.name, "p");
        assert_eq!(documents.config_maps["m"]["k"], b"1");
    }

    #[test]
    fn octal_modes_and_quantities_are_read_as_in_kubernetes() {
        let pod = format!(
            "{POD}      resources:\n        limits: {{cpu: 1.5, memory: 64Mi}}\n  volumes:\n    - name: v\n      secret: {{secretName: s, defaultMode: 0400}}\n"
        );
        let documents = read(&[&pod]).unwrap();
        let spec = &documents.pod.spec;
        assert_eq!(
            spec.volumes[0].secret.as_ref().unwrap().default_mode,
            Some(0o400)
        );
        assert_eq!(spec.containers[0].resources.limits["cpu"].milli(), 1500);
    }

    #[test]
    fn mistakes_name_file_line_and_field() {
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n";
        let cases = [
            (
                format!("{POD}      imgae: x\n"),
                "0.yaml:9: spec.containers[0].imgae: there is no field imgae here",
            ),
            (
                format!("{POD}      tty: maybe\n"),
                "0.yaml:9: spec.containers[0].tty: ",
            ),
            (
                format!("{POD}      args: [1]\n"),
                "0.yaml:9: spec.containers[0].args[0]: ",
            ),
            (format!("---\n{POD}  hostNetwork: [\n"), "0.yaml:1"),
            (
                format!("{POD}---\n{POD}"),
                "0.yaml:10: a second pod, p, beside p",
            ),
            (
                format!("{POD}---\n{deployment}"),
                "0.yaml:10: kind Deployment cannot be run: only a Pod",
            ),
            (
                format!(
                    "{POD}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{k: '!'}}\n"
                ),
                "0.yaml:10: Secret s has a value of key k that is not base64",
            ),
            (
                "apiVersion: v1\nmetadata: {}\n".to_owned(),
                "0.yaml:2: field kind is missing",
            ),
            ("# nothing\n".to_owned(), "there is no Pod in 0.yaml"),
            ("just text".to_owned(), "0.yaml:1: "),
        ];
        for (text, expected) in cases {
            let error = read(&[&text]).unwrap_err();
            assert!(error.starts_with(expected), "{error} instead of {expected}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Documents::read(Path::new("/none/pod.yaml"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /none/pod.yaml");
    }
}
