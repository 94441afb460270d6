//! Root file systems that the guest pulls.
//!
//! Either the snapshotter says so, by a mount option that carries a
//! `KataVirtualVolume`, or the configuration does, and then whatever the snapshotter
//! delivered is ignored. A root file system from the host is never used: the guest
//! could not trust it.

use std::collections::BTreeMap;

use agent_protocol::rpc::agent::Storage;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use shim_oci::{Role, Spec, image_name};
use thiserror::Error;

const VOLUME_OPTION: &str = "io.katacontainers.volume=";
const GUEST_PULL: &str = "image_guest_pull";
/// What a snapshotter writes when it was not told the image.
const UNKNOWN_IMAGE: &str = "dummy-image-reference";
/// The most bytes of an encoded volume.
const VOLUME_BYTES_MAX: usize = 1 << 20;

/// Why a container has no root file system.
#[derive(Debug, Error)]
pub enum GuestPullError {
    /// The snapshotter unpacks on the host.
    #[error(
        "the root file system of container {id} was prepared on the host ({kinds}), where the guest cannot use it: set snapshotter = \"kata-cc\" for this runtime in containerd's configuration, or experimental = [\"force_guest_pull\"] in [runtime] of the shim's"
    )]
    HostRootfs {
        /// The container.
        id: String,
        /// Types of the mounts.
        kinds: String,
    },
    /// The mount option does not hold a volume as JSON in base64.
    #[error("the snapshotter's volume for container {id} is malformed: {why}")]
    Malformed {
        /// The container.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// The volume is of a kind that shares the host's data.
    #[error(
        "the snapshotter's volume for container {id} is of type {volume_type}: only image_guest_pull is supported"
    )]
    UnsupportedType {
        /// The container.
        id: String,
        /// The type.
        volume_type: String,
    },
    /// Neither the annotations nor the snapshotter name the image.
    #[error(
        "no image is named for container {id}: neither annotation io.kubernetes.cri.image-name nor the snapshotter's volume says which to pull"
    )]
    NoImage {
        /// The container.
        id: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VirtualVolume {
    volume_type: String,
    source: String,
    image_pull: Option<Metadata>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Metadata {
    metadata: BTreeMap<String, String>,
}

/// Where the agent makes the root file system of a container.
#[must_use]
pub fn guest_rootfs(id: &str) -> String {
    format!("/run/kata-containers/{id}/rootfs")
}

/// One mount of `CreateTaskRequest.rootfs`: its type and options.
pub struct RootfsMount<'a> {
    /// Type, for example `overlay`.
    pub kind: &'a str,
    /// Mount options.
    pub options: &'a [String],
}

/// The storage that makes the guest pull a container's image.
///
/// # Errors
///
/// [`GuestPullError`] says what to configure.
pub fn storage(
    id: &str,
    role: Role,
    spec: &Spec,
    rootfs: &[RootfsMount<'_>],
    force: bool,
) -> Result<Storage, GuestPullError> {
    let volume = match volume_of(id, rootfs)? {
        Some(volume) => volume,
        None if force => VirtualVolume::default(),
        None => {
            let kinds: Vec<&str> = rootfs.iter().map(|mount| mount.kind).collect();
            return Err(GuestPullError::HostRootfs {
                id: id.to_owned(),
                kinds: if kinds.is_empty() {
                    "no mount".to_owned()
                } else {
                    kinds.join(", ")
                },
            });
        }
    };
    let source = match role {
        // The pause program is part of the guest image.
        Role::Sandbox => "pause",
        _ => image_name(spec)
            .or(Some(volume.source.as_str()).filter(|s| !s.is_empty() && *s != UNKNOWN_IMAGE))
            .ok_or_else(|| GuestPullError::NoImage { id: id.to_owned() })?,
    };
    let mut metadata = volume.image_pull.unwrap_or_default();
    let annotations = spec.annotations.iter();
    metadata
        .metadata
        .extend(annotations.map(|(key, value)| (key.clone(), value.clone())));
    let json = serde_json::to_string(&metadata).map_err(|error| GuestPullError::Malformed {
        id: id.to_owned(),
        why: error.to_string(),
    })?;
    Ok(Storage {
        driver: GUEST_PULL.to_owned(),
        driver_options: vec![format!("{GUEST_PULL}={json}")],
        source: source.to_owned(),
        fstype: "overlay".to_owned(),
        mount_point: guest_rootfs(id),
        ..Storage::default()
    })
}

fn volume_of(
    id: &str,
    rootfs: &[RootfsMount<'_>],
) -> Result<Option<VirtualVolume>, GuestPullError> {
    let [mount] = rootfs else {
        return Ok(None);
    };
    let found = mount
        .options
        .iter()
        .find_map(|option| option.strip_prefix(VOLUME_OPTION));
    let Some(encoded) = found else {
        return Ok(None);
    };
    let malformed = |why: String| GuestPullError::Malformed {
        id: id.to_owned(),
        why,
    };
    if encoded.len() > VOLUME_BYTES_MAX {
        return Err(malformed(format!(
            "it is longer than {VOLUME_BYTES_MAX} bytes"
        )));
    }
    let json = STANDARD
        .decode(encoded)
        .map_err(|error| malformed(error.to_string()))?;
    let volume: VirtualVolume = agent_protocol::documents::parse_json(&json)
        .map_err(|error| malformed(error.to_string()))?;
    if volume.volume_type != GUEST_PULL {
        return Err(GuestPullError::UnsupportedType {
            id: id.to_owned(),
            volume_type: volume.volume_type,
        });
    }
    Ok(Some(volume))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: &str = "io.kubernetes.cri.image-name";

    fn option(json: &str) -> Vec<String> {
        vec![
            "lowerdir=/a".to_owned(),
            format!("{VOLUME_OPTION}{}", STANDARD.encode(json)),
        ]
    }

    fn pulled(
        role: Role,
        image: Option<&str>,
        options: &[String],
        force: bool,
    ) -> Result<Storage, GuestPullError> {
        let mut spec = Spec::default();
        if let Some(image) = image {
            spec.annotations.insert(IMAGE.into(), image.into());
        }
        let mount = RootfsMount {
            kind: "overlay",
            options,
        };
        storage("c1", role, &spec, &[mount], force)
    }

    #[test]
    fn the_snapshotters_volume_becomes_a_pull() {
        let options = option(
            r#"{"volume_type":"image_guest_pull","source":"dummy-image-reference",
                "image_pull":{"metadata":{"k":"v"}}}"#,
        );
        let storage = pulled(Role::Container, Some("reg/app:1"), &options, false).unwrap();
        assert_eq!(storage.driver, "image_guest_pull");
        assert_eq!(storage.source, "reg/app:1");
        assert_eq!(storage.fstype, "overlay");
        assert_eq!(storage.mount_point, "/run/kata-containers/c1/rootfs");
        assert!(storage.options.is_empty() && storage.fs_group.is_none());
        let json = storage.driver_options[0]
            .strip_prefix("image_guest_pull=")
            .unwrap();
        let metadata: Metadata = serde_json::from_str(json).unwrap();
        assert_eq!(metadata.metadata["k"], "v");
        assert_eq!(metadata.metadata[IMAGE], "reg/app:1");
    }

    #[test]
    fn the_pause_container_comes_from_the_guest_image() {
        let options = option(r#"{"volume_type":"image_guest_pull","source":"x"}"#);
        let storage = pulled(Role::Sandbox, None, &options, false).unwrap();
        assert_eq!(storage.source, "pause");
        assert_eq!(
            pulled(Role::Sandbox, None, &[], true).unwrap().source,
            "pause"
        );
    }

    #[test]
    fn a_container_without_cri_takes_the_volumes_image() {
        let options = option(r#"{"volume_type":"image_guest_pull","source":"reg/app:2"}"#);
        let storage = pulled(Role::Single, None, &options, false).unwrap();
        assert_eq!(storage.source, "reg/app:2");
        assert!(matches!(
            pulled(Role::Single, None, &[], true),
            Err(GuestPullError::NoImage { .. })
        ));
    }

    #[test]
    fn a_host_rootfs_is_used_never_and_ignored_only_when_told_to() {
        let overlay = ["lowerdir=/a".to_owned()];
        let error = pulled(Role::Container, Some("i"), &overlay, false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("snapshotter") && text.contains("force_guest_pull"),
            "{text}"
        );
        let forced = pulled(Role::Container, Some("i"), &overlay, true).unwrap();
        assert_eq!(forced.source, "i");
        assert!(storage("c1", Role::Container, &Spec::default(), &[], false).is_err());
    }

    #[test]
    fn broken_volumes_are_refused() {
        for json in ["", "[]x", "{\"volume_type\":7}"] {
            assert!(matches!(
                pulled(Role::Container, Some("i"), &option(json), true),
                Err(GuestPullError::Malformed { .. })
            ));
        }
        let raw = option(r#"{"volume_type":"image_raw_block"}"#);
        assert!(matches!(
            pulled(Role::Container, Some("i"), &raw, true),
            Err(GuestPullError::UnsupportedType { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_option_makes_it_panic(text in ".*") {
            let options = [format!("{VOLUME_OPTION}{text}")];
            let _ = pulled(Role::Container, Some("i"), &options, true);
        }
    }
}
