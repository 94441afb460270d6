//! What the pod's owner gives to the guest, and how it gets there.
//!
//! Initdata comes in an annotation (or from the node's configuration) and goes to
//! the guest on a read-only disk; a policy alone comes in AKS's annotation and goes
//! by `SetPolicy`. Either is bound to the launch by its digest. The shim only checks
//! that the guest would take it, so that a slip ends in a sentence and not in a guest
//! that refuses everything: the guest trusts none of this and checks all of it again.

use std::{fs::OpenOptions, io, io::Write as _, os::unix::fs::OpenOptionsExt, path::PathBuf};

use agent_protocol::initdata::{
    self, HOST_DATA_BYTES, PolicyError, PolicyText,
    disk::{DiskError, frame},
    packed::{PackedError, from_annotation, unpack},
};
use shim_configuration::Config;
use shim_hypervisor::Disk;
use thiserror::Error;

use crate::record::StateDir;

/// The disk's file, in the sandbox's state directory and removed with it.
const FILE: &str = "initdata.img";
/// Serial number of the disk, for people; the guest looks at the content.
const SERIAL: &str = "initdata";

/// Why the owner's input cannot be delivered.
#[derive(Debug, Error)]
pub(crate) enum DeliveryError {
    /// The pod has both initdata and a policy, and `HOST_DATA` holds one digest.
    #[error(
        "the pod has initdata (annotation {initdata} or initdata in [hypervisor.qemu]) and a policy (annotation {policy}): \
         the launch can bind one of them; put the policy into the initdata as {entry}",
        initdata = initdata::ANNOTATION,
        policy = initdata::POLICY_ANNOTATION,
        entry = initdata::POLICY_ENTRY
    )]
    Both,
    /// The text is not packed initdata.
    #[error(
        "initdata of the pod cannot be used (annotation {})",
        initdata::ANNOTATION
    )]
    Initdata(#[source] PackedError),
    /// The initdata does not fit on the disk.
    #[error("initdata of the pod cannot be put on a disk")]
    Frame(#[source] DiskError),
    /// The text is not a policy.
    #[error(
        "the policy of the pod cannot be used (annotation {})",
        initdata::POLICY_ANNOTATION
    )]
    Policy(#[source] PolicyError),
    /// The disk's file cannot be made.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The owner's input to one pod.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The owner gave nothing.
    Nothing,
    /// Initdata, on a disk.
    Initdata {
        /// Content of the disk.
        disk: Vec<u8>,
        /// Its digest, in the length of `HOST_DATA`.
        host_data: [u8; HOST_DATA_BYTES],
    },
    /// A policy without initdata.
    Policy(PolicyText),
}

impl Delivery {
    /// Reads what the pod's annotations left in the configuration.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`] when the guest would not take it.
    pub(crate) fn of(config: &Config) -> Result<Self, DeliveryError> {
        let packed = config.qemu().initdata.as_str();
        let packed = Some(packed).filter(|packed| !packed.is_empty());
        match (packed, &config.policy) {
            (None, None) => Ok(Self::Nothing),
            (Some(_), Some(_)) => Err(DeliveryError::Both),
            (None, Some(policy)) => PolicyText::from_annotation(policy)
                .map(Self::Policy)
                .map_err(DeliveryError::Policy),
            (Some(packed), None) => {
                let packed = from_annotation(packed).map_err(DeliveryError::Initdata)?;
                let document = unpack(&packed).map_err(DeliveryError::Initdata)?;
                Ok(Self::Initdata {
                    disk: frame(&packed).map_err(DeliveryError::Frame)?,
                    host_data: document.digest().host_data(),
                })
            }
        }
    }

    /// The `HOST_DATA` that binds it to the launch; zeros if the owner gave nothing.
    pub(crate) fn host_data(&self) -> [u8; HOST_DATA_BYTES] {
        match self {
            Self::Nothing => [0; HOST_DATA_BYTES],
            Self::Initdata { host_data, .. } => *host_data,
            Self::Policy(policy) => policy.host_data(),
        }
    }

    /// The policy to send.
    pub(crate) fn policy(&self) -> Option<&PolicyText> {
        match self {
            Self::Policy(policy) => Some(policy),
            Self::Nothing | Self::Initdata { .. } => None,
        }
    }

    /// Writes the disk, if there is to be one. The state directory must be recorded.
    ///
    /// # Errors
    ///
    /// [`DeliveryError::Write`] names the disk's file.
    pub(crate) fn disk(&self, state: &StateDir) -> Result<Option<Disk>, DeliveryError> {
        let Self::Initdata { disk, .. } = self else {
            return Ok(None);
        };
        let path = state.path().join(FILE);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(disk));
        match written {
            Ok(()) => Ok(Some(Disk {
                path,
                read_only: true,
                serial: Some(SERIAL.to_owned()),
            })),
            Err(source) => Err(DeliveryError::Write { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_protocol::initdata::{
        Algorithm,
        disk::unframe,
        packed::{pack, to_annotation},
        write,
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn config(initdata: &str, policy: Option<&str>) -> Config {
        let mut config = Config::default();
        initdata.clone_into(&mut config.qemu_mut().initdata);
        config.policy = policy.map(str::to_owned);
        config
    }

    #[test]
    fn initdata_becomes_a_disk_that_the_launch_binds() {
        let entries = BTreeMap::from([("aa.toml".to_owned(), "a = 1\n".to_owned())]);
        let document = write(Algorithm::Sha512, &entries).unwrap();
        let annotation = to_annotation(&pack(&document).unwrap());
        let delivery = Delivery::of(&config(&annotation, None)).unwrap();
        assert_eq!(delivery.host_data(), document.digest().host_data());
        assert!(delivery.policy().is_none());

        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let disk = delivery.disk(&state).unwrap().unwrap();
        assert!(disk.read_only);
        assert_eq!(disk.serial.as_deref(), Some("initdata"));
        let content = std::fs::read(&disk.path).unwrap();
        assert_eq!(unpack(unframe(&content).unwrap()).unwrap(), document);
        assert!(matches!(
            delivery.disk(&state),
            Err(DeliveryError::Write { .. })
        ));
    }

    #[test]
    fn a_policy_is_sent_and_bound_by_the_digest_of_its_text() {
        let text = "package agent_policy\n";
        let delivery = Delivery::of(&config("", Some(&STANDARD.encode(text)))).unwrap();
        assert_eq!(delivery.policy().unwrap().as_str(), text);
        assert_eq!(
            delivery.host_data(),
            PolicyText::parse(text).unwrap().host_data()
        );
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        assert!(delivery.disk(&state).unwrap().is_none());
    }

    #[test]
    fn nothing_binds_nothing() {
        let delivery = Delivery::of(&config("", None)).unwrap();
        assert_eq!(delivery.host_data(), [0; HOST_DATA_BYTES]);
    }

    #[test]
    fn what_the_guest_would_refuse_is_refused_here_with_a_sentence() {
        let sentence = |config| {
            let error = anyhow::Error::from(Delivery::of(&config).unwrap_err());
            format!("{error:#}")
        };
        let text = sentence(config("x", Some("YWJj")));
        assert!(text.contains("policy.rego"), "{text}");
        let text = sentence(config("*", None));
        assert!(
            text.ends_with("the initdata annotation is not base64"),
            "{text}"
        );
        let text = sentence(config("YWJj", None));
        assert!(text.contains("gzip"), "{text}");
        let text = sentence(config("", Some("YW")));
        assert!(text.contains("base64"), "{text}");
        let text = sentence(config("", Some("")));
        assert!(text.contains("empty"), "{text}");
    }
}
