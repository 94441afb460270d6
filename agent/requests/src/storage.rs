//! Storages: where a container's files come from (Kata agent protocol, section 5).

use agent_documents::parse_json;
use agent_protocol::{id::ContainerId, path::GuestPath, rpc::agent};
use policy_engine::AskedVolume;

use crate::{
    error::{RequestError, Unsupported},
    parse::at_most,
    paths::{SANDBOX_ROOT, SHARED_ROOT, STATE_ROOT},
};

const OPTIONS_MAX: usize = 64;
const IMAGE_BYTES_MAX: usize = 1024;

/// A storage of one container.
#[derive(Debug)]
pub(super) enum Storage {
    /// Its root file system.
    Image(ImagePull),
    /// A volume.
    Volume(VolumeStorage),
}

/// Where a volume comes from.
#[derive(Debug)]
pub enum VolumeStorage {
    /// A file system in memory, shared by mount point.
    Ephemeral(Ephemeral),
    /// A directory, shared by mount point.
    Local(Local),
}

/// A root file system that comes from an image.
#[derive(Debug, PartialEq, Eq)]
pub enum ImagePull {
    /// The pod's pause container, which the guest makes of its own program.
    Pause,
    /// An image to pull.
    Reference(String),
}

/// A file system in memory. Like every volume it lives as long as the pod, whatever the
/// request's `shared` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// Where it is mounted.
    pub mount_point: GuestPath,
    /// How.
    pub options: TmpfsOptions,
}

/// A directory of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Where it is.
    pub path: GuestPath,
    /// Its permissions.
    pub mode: u32,
    /// Its group.
    pub group: Option<u32>,
    /// The most bytes it holds.
    pub size: Option<u64>,
}

/// Options of a file system in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// The most bytes it holds; half of the memory if not given.
    pub size: Option<u64>,
    /// Permissions of its root; those of `/tmp` if not given.
    pub mode: Option<u32>,
    /// Group of its root.
    pub group: Option<u32>,
    /// Whether programs in it may not run.
    pub no_exec: bool,
}

/// The drivers that the guest has.
impl VolumeStorage {
    /// What the policy judges of it.
    pub(super) fn judged(&self) -> AskedVolume<'_> {
        match self {
            Self::Ephemeral(storage) => storage.judged(),
            Self::Local(storage) => AskedVolume {
                path: storage.path.below(SHARED_ROOT).unwrap_or_default(),
                in_memory: false,
                size: storage.size,
                group: storage.group,
            },
        }
    }
}

impl Ephemeral {
    pub(super) fn judged(&self) -> AskedVolume<'_> {
        AskedVolume {
            path: self.mount_point.below(SANDBOX_ROOT).unwrap_or_default(),
            in_memory: true,
            size: self.options.size,
            group: self.options.group,
        }
    }
}

pub(super) enum Driver {
    Image,
    Ephemeral,
    Local,
}

pub(super) fn driver(name: &str) -> Result<Driver, RequestError> {
    match name {
        "image_guest_pull" => Ok(Driver::Image),
        "ephemeral" => Ok(Driver::Ephemeral),
        "local" => Ok(Driver::Local),
        other => Err(Unsupported::StorageDriver(other.chars().take(64).collect()).into()),
    }
}

pub(super) fn parse(
    container: &ContainerId,
    entry: agent::Storage,
) -> Result<Storage, RequestError> {
    Ok(match driver(&entry.driver)? {
        Driver::Image => Storage::Image(image(container, &entry)?),
        Driver::Ephemeral => Storage::Volume(VolumeStorage::Ephemeral(ephemeral(entry)?)),
        Driver::Local => Storage::Volume(VolumeStorage::Local(local(entry)?)),
    })
}

fn image(container: &ContainerId, entry: &agent::Storage) -> Result<ImagePull, RequestError> {
    if entry.mount_point != format!("{STATE_ROOT}/{container}/rootfs") {
        return Err(RequestError::Invalid("mount point of image_guest_pull"));
    }
    at_most("driver options", entry.driver_options.len(), OPTIONS_MAX)?;
    if entry.source == "pause" || is_pause(&entry.driver_options) {
        return Ok(ImagePull::Pause);
    }
    if entry.source.is_empty() {
        return Err(RequestError::Missing("image reference"));
    }
    at_most("image reference", entry.source.len(), IMAGE_BYTES_MAX)?;
    Ok(ImagePull::Reference(entry.source.clone()))
}

/// Whether the annotations that travel with the image say `sandbox`. A host that
/// lies here only gets a container that the guest makes and that waits.
fn is_pause(options: &[String]) -> bool {
    #[derive(serde::Deserialize)]
    struct Volume {
        #[serde(default)]
        metadata: std::collections::HashMap<String, String>,
    }
    const KEYS: [&str; 2] = [
        "io.kubernetes.cri.container-type",
        "io.kubernetes.cri-o.ContainerType",
    ];
    options
        .iter()
        .filter_map(|option| option.strip_prefix("image_guest_pull="))
        .filter_map(|text| parse_json::<Volume>(text.as_bytes()).ok())
        .any(|volume| {
            KEYS.iter().any(|key| {
                volume
                    .metadata
                    .get(*key)
                    .is_some_and(|kind| kind == "sandbox")
            })
        })
}

pub(super) fn ephemeral(entry: agent::Storage) -> Result<Ephemeral, RequestError> {
    if entry.fstype != "tmpfs" {
        return Err(RequestError::Invalid(
            "file system type of ephemeral storage",
        ));
    }
    at_most("mount options", entry.options.len(), OPTIONS_MAX)?;
    let mut options = TmpfsOptions::default();
    for option in &entry.options {
        match option.split_once('=') {
            Some(("size", text)) => options.size = size(text)?,
            Some(("mode", text)) => options.mode = Some(mode(text)?),
            Some(("fsgid" | "gid", text)) => options.group = Some(number("fsgid", text)?),
            None if option == "noexec" => options.no_exec = true,
            None if matches!(option.as_str(), "nosuid" | "nodev" | "rw" | "rprivate") => {}
            _ => return Err(RequestError::Invalid("option of ephemeral storage")),
        }
    }
    options.group = options.group.or(fs_group(&entry));
    Ok(Ephemeral {
        mount_point: below(SANDBOX_ROOT, &entry.mount_point)?,
        options,
    })
}

fn local(entry: agent::Storage) -> Result<Local, RequestError> {
    at_most("mount options", entry.options.len(), OPTIONS_MAX)?;
    let mut local = Local {
        path: below(SHARED_ROOT, &entry.mount_point)?,
        mode: 0o777,
        group: fs_group(&entry),
        size: None,
    };
    for option in &entry.options {
        match option.split_once('=') {
            Some(("mode", text)) => local.mode = mode(text)?,
            Some(("size", text)) => local.size = size(text)?,
            Some(("fsgid", text)) => local.group = Some(number("fsgid", text)?),
            _ => return Err(RequestError::Invalid("option of local storage")),
        }
    }
    Ok(local)
}

fn fs_group(entry: &agent::Storage) -> Option<u32> {
    entry.fs_group.as_ref().map(|group| group.group_id)
}

fn below(root: &'static str, text: &str) -> Result<GuestPath, RequestError> {
    GuestPath::parse_below(root, text).map_err(|source| RequestError::Path {
        field: "mount point",
        source,
    })
}

/// Bytes, or with one of the suffixes of tmpfs; 0 is no limit of its own.
fn size(text: &str) -> Result<Option<u64>, RequestError> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (text.get(..text.len() - 1).unwrap_or_default(), 10),
        Some(b'm' | b'M') => (text.get(..text.len() - 1).unwrap_or_default(), 20),
        Some(b'g' | b'G') => (text.get(..text.len() - 1).unwrap_or_default(), 30),
        _ => (text, 0),
    };
    let value: u64 = number("size", digits)?;
    let bytes = value
        .checked_mul(1 << shift)
        .ok_or(RequestError::Invalid("size"))?;
    Ok((bytes != 0).then_some(bytes))
}

fn mode(text: &str) -> Result<u32, RequestError> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| RequestError::Invalid("mode"))?;
    if mode > 0o7777 {
        return Err(RequestError::Invalid("mode"));
    }
    Ok(mode)
}

fn number<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, RequestError> {
    text.parse().map_err(|_| RequestError::Invalid(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        ContainerId::parse("c1").unwrap()
    }

    fn pull(source: &str, options: &[&str]) -> agent::Storage {
        agent::Storage {
            driver: "image_guest_pull".into(),
            source: source.into(),
            fstype: "overlay".into(),
            mount_point: "/run/kata-containers/c1/rootfs".into(),
            driver_options: options.iter().map(|&option| option.into()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn metadata_and_source_tell_the_pause_container() {
        let sandbox =
            r#"image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}"#;
        let container =
            r#"image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"container"}}"#;
        for (source, options, expected) in [
            ("pause", vec![], ImagePull::Pause),
            ("r.example/pause:3", vec![sandbox], ImagePull::Pause),
            (
                "r.example/a:1",
                vec![container],
                ImagePull::Reference("r.example/a:1".into()),
            ),
            (
                "r.example/a:1",
                vec!["image_guest_pull={"],
                ImagePull::Reference("r.example/a:1".into()),
            ),
        ] {
            assert_eq!(image(&id(), &pull(source, &options)).unwrap(), expected);
        }
    }

    #[test]
    fn an_image_is_mounted_at_its_own_root_only() {
        let elsewhere = agent::Storage {
            mount_point: "/run/kata-containers/c2/rootfs".into(),
            ..pull("r.example/a:1", &[])
        };
        assert!(parse(&id(), elsewhere).is_err());
    }

    #[test]
    fn other_drivers_are_refused_by_name() {
        let entry = agent::Storage {
            driver: "virtio-fs".into(),
            ..Default::default()
        };
        let error = parse(&id(), entry).unwrap_err();
        assert!(error.to_string().contains("virtio-fs"), "{error}");
    }

    #[test]
    fn tmpfs_sizes_have_suffixes() {
        for (text, bytes) in [
            ("0", None),
            ("5", Some(5)),
            ("2k", Some(2048)),
            ("1G", Some(1 << 30)),
        ] {
            assert_eq!(size(text).unwrap(), bytes);
        }
        for text in [
            "",
            "k",
            "-1",
            "99999999999999999999",
            "99999999999999g",
            "50%",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_local_volume_takes_a_size_and_nothing_unknown() {
        let entry = |option: &str| agent::Storage {
            driver: "local".into(),
            mount_point: "/run/kata-containers/shared/containers/s/rootfs/local/v".into(),
            options: vec!["mode=0777".into(), option.into()],
            ..Default::default()
        };
        assert_eq!(local(entry("size=1048576")).unwrap().size, Some(1 << 20));
        assert_eq!(local(entry("fsgid=7")).unwrap().size, None);
        for option in ["size=", "size=-1", "size=1t", "quota=1"] {
            assert!(local(entry(option)).is_err(), "{option}");
        }
    }

    #[test]
    fn an_ephemeral_mount_stays_below_the_sandbox() {
        let entry = |mount_point: &str| agent::Storage {
            driver: "ephemeral".into(),
            fstype: "tmpfs".into(),
            mount_point: mount_point.into(),
            ..Default::default()
        };
        assert!(ephemeral(entry("/run/kata-containers/sandbox/ephemeral/v")).is_ok());
        for mount_point in [
            "/etc",
            "/run/kata-containers/sandbox/../x",
            "/run/kata-containers/sandbox",
        ] {
            assert!(ephemeral(entry(mount_point)).is_err(), "{mount_point}");
        }
    }
}
