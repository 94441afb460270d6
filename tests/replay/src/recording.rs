//! The calls of a kubelet about one pod, as recorded.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::listing::Listing;

/// The pods that were recorded, and what each is for.
pub const PODS: [&str; 17] = [
    "configuration",
    "emptydirs",
    "ends",
    "host-namespaces",
    "host-paths",
    "image-volume",
    "life",
    "namespaces",
    "plain",
    "pod-resources",
    "ports",
    "privileged",
    "resources",
    "restarts",
    "stdin",
    "user-only",
    "users",
];

/// Pods that were not recorded like this: another pod's name, and mounts that it has not, so that
/// what else the pod shows is seen where these are refused.
pub const VARIANTS: [(&str, &str, &[&str]); 1] = [(
    "host-paths-only-files",
    "host-paths",
    &["/device", "/socket"],
)];

/// One call, or one change of the pod's volumes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    #[serde(default, rename = "at")]
    _at: String,
    pub(crate) method: String,
    pub(crate) request: Value,
    #[serde(default)]
    pub(crate) response: Value,
    /// What containerd with runc said instead of an answer; the end of the container says so too.
    #[serde(default, rename = "error")]
    _error: Option<String>,
    /// The container's name, where the request has only an id.
    #[serde(default, rename = "container")]
    _container: String,
    #[serde(default)]
    pub(crate) host_paths: Vec<HostPath>,
}

/// What a mount's source was when the container was created.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostPath {
    pub(crate) path: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    #[serde(default, rename = "mount_point")]
    _mount_point: String,
    #[serde(default)]
    pub(crate) mount_root: String,
    #[serde(default)]
    pub(crate) fs_type: String,
    #[serde(default, rename = "options")]
    _options: String,
    #[serde(default, rename = "super_options")]
    _super_options: String,
}

impl HostPath {
    /// A file that every user may write to, on the kubelet's disk.
    pub(crate) fn open_file(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            kind: "file".to_owned(),
            mode: "0666".to_owned(),
            ..Self::default()
        }
    }

    /// A part of a volume, which is at `root` on the node.
    pub(crate) fn part(path: &str, root: &str) -> Self {
        Self {
            path: path.to_owned(),
            mount_root: root.to_owned(),
            ..Self::default()
        }
    }
}

/// A pod's recording, with some of its words replaced.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) calls: Vec<Call>,
    /// The pod's directory when it ran.
    pub(crate) volumes: Listing,
    words: Vec<(String, String)>,
}

impl Recording {
    /// Reads the recording of `pod`; each first of `words` becomes its second, wherever it is.
    ///
    /// # Errors
    /// When a file is missing or is not as described in `recordings/README.md`.
    pub(crate) fn open(pod: &str, words: &[(&str, &str)]) -> Result<Self> {
        let variant = VARIANTS.iter().find(|(name, ..)| *name == pod);
        let (pod, without) =
            variant.map_or((pod, [].as_slice()), |(_, pod, without)| (*pod, *without));
        let uid = recorded_uid(pod)?;
        let words: Vec<_> = words
            .iter()
            .map(|(from, to)| {
                let from = if *from == UID { uid.as_str() } else { *from };
                (from.to_owned(), (*to).to_owned())
            })
            .collect();
        let text = replaced(&read(&format!("calls/{pod}.jsonl"))?, &words);
        let calls = text.lines().map(|line| {
            serde_json::from_str(line).with_context(|| format!("a call about {pod}: {line:.80}"))
        });
        let mut recording = Self {
            calls: calls.collect::<Result<_>>()?,
            volumes: Listing::default(),
            words,
        };
        recording.volumes = recording.listing(pod)?;
        for call in &mut recording.calls {
            let mounts = call.request.pointer_mut("/config/mounts");
            if let Some(mounts) = mounts.and_then(Value::as_array_mut) {
                let point = |mount: &Value| mount["container_path"].as_str().map(str::to_owned);
                mounts.retain(|one| {
                    point(one).is_none_or(|point| !without.contains(&point.as_str()))
                });
            }
        }
        Ok(recording)
    }

    /// Another listing of the pod's directory.
    pub(crate) fn listing(&self, name: &str) -> Result<Listing> {
        let text = replaced(&read(&format!("volumes/{name}.txt"))?, &self.words);
        Listing::parse(&text).with_context(|| format!("volumes/{name}.txt"))
    }

    /// The pod as the kubelet describes it.
    pub(crate) fn sandbox_config(&self) -> Result<&Value> {
        let run = self
            .calls
            .iter()
            .find(|call| call.method == "RunPodSandbox");
        Ok(&run.context("a pod has a sandbox")?.request["config"])
    }

    /// The ids of the containers that the kubelet stopped; the others ended by themselves.
    pub(crate) fn stopped(&self) -> BTreeSet<String> {
        let stops = self
            .calls
            .iter()
            .filter(|call| call.method == "StopContainer");
        stops
            .filter_map(|call| call.request["container_id"].as_str())
            .map(str::to_owned)
            .collect()
    }
}

/// Stands for the pod's UID in the words to replace.
pub(crate) const UID: &str = "the pod's UID";

/// The UID that the pod had when it was recorded.
fn recorded_uid(pod: &str) -> Result<String> {
    let text = read(&format!("calls/{pod}.jsonl"))?;
    let first: Value = serde_json::from_str(text.lines().next().context("a recording has calls")?)?;
    let uid = first["request"]["config"]["metadata"]["uid"].as_str();
    let uid = uid.context("a recording begins with RunPodSandbox")?;
    ensure!(uid.len() == 36, "{uid} is no UID");
    Ok(uid.to_owned())
}

/// The text of a file of the recordings.
pub(crate) fn read(name: &str) -> Result<String> {
    let path = directory().join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Where the recordings are.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings")
}

fn replaced(text: &str, words: &[(String, String)]) -> String {
    words
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn every_recorded_request_is_understood_in_full() {
        for pod in PODS {
            let recording = Recording::open(pod, &[]).unwrap();
            for call in &recording.calls {
                if call.method != "Changed" {
                    wire::request(&call.method, &call.request).unwrap();
                }
            }
            assert_eq!(recording.calls[0].method, "RunPodSandbox");
        }
    }

    #[test]
    fn a_pod_gets_another_uid_wherever_it_is_named() {
        let other = "00000000-0000-0000-0000-000000000001";
        let recording = Recording::open("emptydirs", &[(UID, other)]).unwrap();
        let uid = recorded_uid("emptydirs").unwrap();
        assert!(
            !format!("{recording:?}")
                .replace(&format!("(\"{uid}\""), "")
                .contains(&uid)
        );
    }

    #[test]
    fn a_container_that_nobody_stops_ends_by_itself() {
        let recording = Recording::open("emptydirs", &[]).unwrap();
        let created = recording
            .calls
            .iter()
            .filter(|call| call.method == "CreateContainer");
        let ids = created.map(|call| call.response["container_id"].as_str().unwrap());
        let stopped = recording.stopped();
        let ends: Vec<_> = ids.map(|id| !stopped.contains(id)).collect();
        assert_eq!(ends, [true, false, false]);
    }
}
