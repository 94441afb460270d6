//! The policy document: what the owner of a pod allows, as small data.
//!
//! It is JSON without spaces and with sorted members, and what a plain pod does not say is not
//! in it: a member that is absent has its default. The rules that judge by it are compiled into
//! the guest; the document names the ones it was written for by their digest. A reader finds what
//! each member means in `docs/policy.md`.

use std::collections::{BTreeMap, BTreeSet};

use agent_documents::parse_json;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest document; it travels in an annotation of a pod.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
const CONTAINERS_MAX: usize = 256;

/// What the owner of a pod allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The owner's count of releases of this policy, shown in the evidence.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: u64,
    /// SHA-256 digests, in hexadecimal, of the rules that may judge by it.
    pub rules: BTreeSet<String>,
    /// The pod's settings.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: Pod,
    /// Its containers, in the order in which they start.
    pub containers: Vec<Container>,
    /// Containers that may be added while it runs (`kubectl debug`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub ephemeral: Vec<Container>,
    /// What the guest refuses unless it is allowed by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub grants: GrantList,
}

/// Settings of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// `metadata.namespace`; any if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace: Option<String>,
    /// `metadata.name`, or what its controller makes of one; any if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<PodName>,
    /// Its containers see each other's processes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub share_processes: bool,
    /// `securityContext.sysctls`, beyond those that the guest sets for every pod.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// Its volumes that the guest makes, by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volumes: BTreeMap<String, Volume>,
}

/// What a pod may be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodName {
    /// This.
    Is(String),
    /// The name of what made it, a hyphen, and more of letters, digits and hyphens.
    StartsWith(String),
}

/// A volume that the guest makes: empty at first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// In memory, not on the scratch disk.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: bool,
    /// The most bytes it holds, if the pod says so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub size: Option<u64>,
}

/// When a container runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// After all init containers.
    #[default]
    App,
    /// Before those that follow it, which wait for its end.
    Init,
    /// Beside those that follow it (an init container that restarts always).
    Sidecar,
}

/// A container that the owner allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// When it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stage: Stage,
    /// `REGISTRY/REPOSITORY@sha256:DIGEST`; the digest is of the manifest for the guest's
    /// platform.
    pub image: String,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Where it starts; `/` if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cwd: Option<String>,
    /// It has a terminal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub terminal: bool,
    /// Its variables, by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: BTreeMap<String, Variable>,
    /// No variables of services (`enableServiceLinks: false`). Otherwise they may be there:
    /// their form and that they agree is checked, not which services.
    #[serde(default, skip_serializing_if = "is_default")]
    pub without_service_links: bool,
    /// Who runs it; root if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: User,
    /// Its rights.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rights: Rights,
    /// Nothing of its image's files can be changed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only_root: bool,
    /// What is mounted beyond what every container has, in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// What may be run in it beside its first process: probes, hooks, `kubectl exec`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exec: BTreeSet<Vec<String>>,
    /// Signals that the host may send, by number, beside 0, SIGTERM and SIGKILL.
    #[serde(default, skip_serializing_if = "is_default")]
    pub signals: BTreeSet<u8>,
    /// The host may write to its standard input.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: bool,
    /// The host may read what it writes to standard output and error.
    #[serde(default, skip_serializing_if = "is_default")]
    pub logs: bool,
    /// Where it leaves its termination message; `/dev/termination-log` if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub termination_path: Option<String>,
    /// The container whose processes it sees (`kubectl debug --target`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// The host may read its termination message.
    #[serde(default, skip_serializing_if = "is_default")]
    pub termination_message: bool,
}

/// What a variable's value may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "VariableForm", into = "VariableForm")]
pub enum Variable {
    /// This.
    Is(String),
    /// Something that is not known before the pod runs.
    From(Origin),
}

/// As it is written: a text, or `{"from": …}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum VariableForm {
    Is(String),
    From(FromForm),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromForm {
    from: Origin,
}

impl From<VariableForm> for Variable {
    fn from(form: VariableForm) -> Self {
        match form {
            VariableForm::Is(value) => Self::Is(value),
            VariableForm::From(FromForm { from }) => Self::From(from),
        }
    }
}

impl From<Variable> for VariableForm {
    fn from(variable: Variable) -> Self {
        match variable {
            Variable::Is(value) => Self::Is(value),
            Variable::From(from) => Self::From(FromForm { from }),
        }
    }
}

/// Where a value comes from that is not known before the pod runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A field of the pod (`metadata.name`, `status.podIP`, …), held against what the guest
    /// knows of it.
    Field(String),
    /// A secret of the cluster: any value.
    Any,
    /// A value with this digest: `SALT:DIGEST`, both hexadecimal, the digest being SHA-256 of
    /// salt and value.
    Digest(String),
    /// Decimal digits (`resourceFieldRef`, `JOB_COMPLETION_INDEX`).
    Number,
}

/// Who runs a process, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Its number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uid: u32,
    /// Its group.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gid: u32,
    /// Further groups that the pod names (`supplementalGroups`, `fsGroup`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub groups: BTreeSet<u32>,
    /// No groups that the image's `/etc/group` gives the user
    /// (`supplementalGroupsPolicy: Strict`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict: bool,
}

/// Rights of a container's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// `securityContext.privileged`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Capabilities, with `CAP_`; those that containerd gives every container if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub capabilities: Option<BTreeSet<String>>,
    /// `allowPrivilegeEscalation: false`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// Its filter of system calls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seccomp: Seccomp,
    /// `procMount: Unmasked`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unmasked: bool,
}

/// A filter of system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// None but the guest's own.
    #[default]
    Unconfined,
    /// The guest's default profile, in place of the one of the node.
    RuntimeDefault,
    /// The one with this digest, in the normal form of `docs/workload-digest.md`.
    Digest(String),
}

/// A mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where.
    pub at: String,
    /// A volume that the guest makes: its name, or `NAME/PART`, in which a part of the pod's own
    /// is spelt `$(metadata.name)`. Files of the host if absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volume: Option<String>,
    /// What the host's files are, by their digest as `docs/workload-digest.md` tells it; any if
    /// absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Option<String>,
    /// Nothing can be written to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// `mountPropagation`, as an option of the mount: `rslave` or `rshared`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: Option<String>,
    /// A `VOLUME` of the image, which the node makes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub of_image: bool,
}

/// What the guest refuses unless it is allowed by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantList {
    /// Files of the host may cover paths at which an image has content.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_files_cover: bool,
    /// Files of the host may be replaced once they are there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_files_change: bool,
    /// Containers may ask for evidence.
    #[serde(default, skip_serializing_if = "is_default")]
    pub evidence: bool,
    /// Containers may open sockets of `AF_VSOCK`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub vsock: bool,
    /// Containers may be asked for their use of resources (`kubectl top`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub statistics: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a text is no policy document. The owner is at fault.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Longer than [`DOCUMENT_BYTES_MAX`].
    #[error("the policy document has more than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// Not of the form.
    #[error("the policy document is not of the form that is known: {0}")]
    Form(#[from] serde_json::Error),
    /// More containers than a pod can have.
    #[error("the policy document has more than {CONTAINERS_MAX} containers")]
    Containers,
    /// A member that no pod has so.
    #[error("the policy document's {0} is not of the form that is known")]
    Member(String),
    /// Two containers with one name.
    #[error("the policy document has two containers with the name {0:?}")]
    SameName(String),
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] says what it has that a document has not.
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLong);
        }
        let document: Self = parse_json(text)?;
        let mut names = BTreeSet::new();
        for container in document.containers.iter().chain(&document.ephemeral) {
            if !names.insert(&container.name) {
                return Err(DocumentError::SameName(container.name.clone()));
            }
        }
        if names.len() > CONTAINERS_MAX {
            return Err(DocumentError::Containers);
        }
        let all = document.containers.iter().chain(&document.ephemeral);
        match all.filter_map(|one| unclear(&document.pod, one)).next() {
            Some(member) => Err(DocumentError::Member(member)),
            None => Ok(document),
        }
    }

    /// The one text of this document: sorted, without spaces, without what is absent anyway.
    #[must_use]
    pub fn text(&self) -> String {
        // Members are sorted by going through a value, whose objects are sorted.
        let value = serde_json::to_value(self).unwrap_or_default();
        value.to_string()
    }
}

/// Fields of a pod that a variable's value can be held against.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.hostname",
    "spec.nodeName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A member of a container that nothing can be held against.
fn unclear(pod: &Pod, container: &Container) -> Option<String> {
    let at = |member: &str| Some(format!("{member} of container {:?}", container.name));
    let pinned = container.image.rsplit_once("@sha256:");
    if pinned.is_none_or(|(name, digest)| name.is_empty() || !is_digest(digest)) {
        return at("image");
    }
    if container.args.is_empty() {
        return at("args");
    }
    for (name, variable) in &container.env {
        let clear = match variable {
            Variable::From(Origin::Field(field)) => FIELDS.contains(&field.as_str()),
            Variable::From(Origin::Digest(salted)) => {
                let parts = salted.split_once(':');
                parts.is_some_and(|(salt, digest)| is_hex(salt) && is_digest(digest))
            }
            Variable::From(Origin::Any | Origin::Number) | Variable::Is(_) => true,
        };
        if !clear || name.contains('=') {
            return at("env");
        }
    }
    let made = |mount: &Mount| {
        let name = mount.volume.as_deref().and_then(|of| of.split('/').next());
        name.is_none_or(|name| pod.volumes.contains_key(name))
    };
    if !container.mounts.iter().all(made) {
        return at("mounts");
    }
    None
}

fn is_hex(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len().is_multiple_of(2) && text.bytes().all(digit)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document {
            rules: ["ab".repeat(32)].into(),
            containers: vec![Container {
                name: "web".into(),
                image: format!("r.example/web@sha256:{}", "cd".repeat(32)),
                args: vec!["/bin/web".into()],
                env: [
                    ("A".to_owned(), Variable::Is("b".to_owned())),
                    (
                        "IP".to_owned(),
                        Variable::From(Origin::Field("status.podIP".to_owned())),
                    ),
                    ("S".to_owned(), Variable::From(Origin::Any)),
                ]
                .into(),
                ..Container::default()
            }],
            ..Document::default()
        }
    }

    #[test]
    fn what_is_written_is_read_and_written_the_same() {
        let text = document().text();
        let read = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(read, document());
        assert_eq!(read.text(), text);
        assert!(!text.contains("null"), "{text}");
    }

    #[test]
    fn members_that_nobody_knows_are_refused_wherever_they_are() {
        let text = document().text();
        for (place, with) in [
            ("{\"containers\"", "{\"x\":1,\"containers\""),
            ("{\"args\"", "{\"x\":1,\"args\""),
            ("\"from\"", "\"form\""),
        ] {
            let bad = text.replacen(place, with, 1);
            if bad != text {
                assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
            }
        }
        assert!(Document::parse(b"").is_err());
    }

    #[test]
    fn two_containers_have_two_names() {
        let mut twice = document();
        twice.ephemeral = twice.containers.clone();
        assert!(matches!(
            Document::parse(twice.text().as_bytes()),
            Err(DocumentError::SameName(_))
        ));
    }
}
