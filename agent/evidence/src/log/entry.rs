//! What the guest writes into its log, as types: one line of JSON each.
//!
//! A verifier reads from them what was booted, given and run. They hold digests,
//! references and ids, and the values that the node chose, never arguments, what the
//! owner put into the environment, or content. Unknown fields are errors on reading: a
//! later guest may mean something by them.
//!
//! What is in the log already is counted, and told again at powers of two: a pod with a
//! probe lives for years.
//!
//! | operation | entry | precedes |
//! |---|---|---|
//! | `boot` | [`BootEntry`] | everything else |
//! | `initdata` | [`InitdataEntry`] | the use of initdata |
//! | `policy` | [`PolicyEntry`] | the first request that it judges |
//! | `image` | [`ImageEntry`] | the mount of a pulled image |
//! | `container` | [`ContainerEntry`] | the container's first process |
//! | `exec` | [`ExecEntry`] | a further process |
//! | `files` | [`FilesEntry`] | the container that sees them |
//! | `change` | [`ChangeEntry`] | the change, or the next evidence |
//! | `denial` | [`DenialEntry`] | the answer to a refused request |

use serde::{Deserialize, Serialize};

use super::event::{DOMAIN, Event, EventError, Operation};
use crate::field::Sha256Digest;

macro_rules! entries {
    ($($variant:ident($type:ident)),+ $(,)?) => {
        /// One entry of the guest's own.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each type says what it is")]
        pub enum Entry { $($variant($type)),+ }

        $(impl From<$type> for Entry {
            fn from(entry: $type) -> Self {
                Self::$variant(entry)
            }
        })+

        impl Entry {
            /// What it describes.
            pub fn operation(&self) -> Operation {
                match self {
                    $(Self::$variant(_) => Operation::$variant),+
                }
            }

            /// Its line in the log.
            ///
            /// # Errors
            ///
            /// [`EventError`] if it is too long for one.
            pub fn event(&self) -> Result<Event, EventError> {
                let (operation, content) = match self {
                    $(Self::$variant(entry) => (Operation::$variant, serde_json::to_string(entry))),+
                };
                let content = content.expect("texts, digests and numbers are json");
                Event::of(operation, &content)
            }

            /// Reads a line of the log; `None` if it is no entry of the guest's own.
            ///
            /// # Errors
            ///
            /// When the line says that it is one and is not.
            pub fn of(event: &Event) -> Option<Result<Self, serde_json::Error>> {
                if event.domain() != DOMAIN {
                    return None;
                }
                $(if event.operation() == Operation::$variant.name() {
                    return Some(agent_documents::parse_json(event.content().as_bytes()).map(Self::$variant));
                })+
                None
            }
        }
    };
}

entries! {
    Boot(BootEntry),
    Initdata(InitdataEntry),
    Policy(PolicyEntry),
    Image(ImageEntry),
    Container(ContainerEntry),
    Exec(ExecEntry),
    Files(FilesEntry),
    Change(ChangeEntry),
    Denial(DenialEntry),
}

/// The guest that booted. The launch measurement says more; this names it for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootEntry {
    /// Version of the agent.
    pub agent: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Of the kernel command line, without the line feed.
    pub cmdline: Sha256Digest,
    /// The TEE that answers, by its name in the KBS protocol; none without one.
    pub tee: Option<String>,
}

/// Initdata that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitdataEntry {
    /// By which algorithm.
    pub algorithm: String,
    /// Digest of the document in hexadecimal, uncut.
    pub digest: String,
    /// Whether the hardware's report binds it.
    pub bound: bool,
}

/// Where a policy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicySource {
    /// An entry of initdata.
    Initdata,
    /// `SetPolicy`.
    Request,
}

/// A policy that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// Where it came from.
    pub source: PolicySource,
    /// Of its text.
    pub digest: Sha256Digest,
    /// Whether the hardware's report binds it.
    pub bound: bool,
    /// The owner's count of releases of it, if it is a policy document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// An image that was pulled and verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// As it was asked for.
    pub reference: String,
    /// Digest of the manifest, as in a registry: `sha256:…`.
    pub manifest: String,
    /// Digest of the configuration.
    pub config: String,
    /// How many layers it has.
    pub layers: u32,
    /// SHA-256 of the digests of the unpacked layers, bottom first, a line each.
    pub diff_ids: Sha256Digest,
}

/// A container that was made. Equal ones have equal digests (`docs/workload-digest.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerEntry {
    /// Its id, chosen by the host and new for each one.
    pub container: String,
    /// Digest of its image's manifest; none for the pause container, whose only file
    /// is the agent.
    pub image: Option<String>,
    /// What differs from one that the owner knows can be seen by part.
    pub digests: ContainerDigests,
    /// What the guest let pass and would not have to: `host content covers /etc/x`.
    pub marks: Vec<String>,
    /// Values that the node chose and that are in no digest: `NAME=value`.
    pub chosen: Vec<String>,
    /// How many equal ones were made so far.
    pub count: u64,
}

/// What a container is, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerDigests {
    /// Program, arguments, working directory, terminal.
    pub process: Sha256Digest,
    /// The environment.
    pub environment: Sha256Digest,
    /// The root's mode, mounts and volumes.
    pub mounts: Sha256Digest,
    /// Ids, capabilities, filters, limits of the kernel.
    pub rights: Sha256Digest,
    /// The pod's namespaces and their settings.
    pub settings: Sha256Digest,
}

/// A further process in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecEntry {
    /// The container, the first of its equals in which it ran.
    pub container: String,
    /// What it is, by part.
    pub digests: ExecDigests,
    /// How often it was started so far, in all of them.
    pub count: u64,
}

/// What a further process is, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecDigests {
    /// Program, arguments, working directory, terminal.
    pub process: Sha256Digest,
    /// The environment.
    pub environment: Sha256Digest,
    /// Ids, capabilities, filters, limits of the kernel.
    pub rights: Sha256Digest,
}

/// Files that the host put into the guest, as a container sees them when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesEntry {
    /// Where the container has them.
    pub at: String,
    /// Of names, permissions and contents (`docs/workload-digest.md`).
    pub digest: Sha256Digest,
    /// How often these were given to a container there so far.
    pub count: u64,
}

/// What the host changed beneath running containers. Evidence always tells the last change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeEntry {
    /// What: `network`, or `files at /etc/app`.
    pub what: String,
    /// Of the digest before this change and of the change.
    pub digest: Sha256Digest,
    /// How many changes there were so far.
    pub count: u64,
}

/// Requests that were refused. A host may ask without end, so the first is logged,
/// the second, the fourth and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenialEntry {
    /// The rule that did not allow it.
    pub rule: String,
    /// What was wrong, as `docs/denials.md` calls it, if a policy document said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How often it has refused so far.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_that_reads_back() {
        let entries: [Entry; 5] = [
            FilesEntry {
                at: "/etc/app".to_owned(),
                digest: Sha256Digest([6; 32]),
                count: 1,
            }
            .into(),
            ChangeEntry {
                what: "network".to_owned(),
                digest: Sha256Digest([7; 32]),
                count: 3,
            }
            .into(),
            ContainerEntry {
                container: "c1".to_owned(),
                image: None,
                digests: ContainerDigests {
                    process: Sha256Digest([1; 32]),
                    environment: Sha256Digest([2; 32]),
                    mounts: Sha256Digest([3; 32]),
                    rights: Sha256Digest([4; 32]),
                    settings: Sha256Digest([5; 32]),
                },
                marks: vec!["host content covers /etc/x".to_owned()],
                chosen: vec!["HOSTNAME=web-1".to_owned()],
                count: 2,
            }
            .into(),
            PolicyEntry {
                source: PolicySource::Request,
                digest: Sha256Digest([3; 32]),
                bound: true,
                version: Some(3),
            }
            .into(),
            DenialEntry {
                rule: "ExecProcessRequest".to_owned(),
                code: Some("EXEC_NOT_DECLARED".to_owned()),
                count: 4,
            }
            .into(),
        ];
        for entry in entries {
            let event = entry.event().unwrap();
            assert_eq!(event.domain(), DOMAIN);
            assert_eq!(Entry::of(&event).unwrap().unwrap(), entry);
        }
    }

    #[test]
    fn other_lines_are_no_entries_and_malformed_ones_errors() {
        let foreign = Event::parse("example.com", "container", "{}").unwrap();
        assert!(Entry::of(&foreign).is_none());
        let later = Event::parse(DOMAIN, "snapshot", "{}").unwrap();
        assert!(Entry::of(&later).is_none());
        for content in ["", "{}", r#"{"rule":"X","count":1,"more":2}"#] {
            let malformed = Event::of(Operation::Denial, content).unwrap();
            assert!(Entry::of(&malformed).unwrap().is_err(), "{content}");
        }
    }
}
