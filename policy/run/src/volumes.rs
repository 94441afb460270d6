//! The pod's volumes, laid out on the node as the kubelet lays them out.
//!
//! `<pods>/<uid>/volumes/kubernetes.io~<plug-in>/<volume>`; files of ConfigMaps,
//! Secrets and the downward API lie behind a `..data` link, which is how the runtime
//! tells them from directories of the node and copies them into the VM. All of it
//! lies in a private temporary directory that goes when the pod does. A Secret given
//! in a file passes through the node here: what the node must not see belongs to a
//! key broker.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy_generator::Quantity;

use crate::{
    contents::{Entry, entries},
    documents::Documents,
    environment::{Facts, ValueError},
    pod::{EmptyDir, HostPath, HostPathType, Volume},
};

/// The top of a volume on the node's disk, and of one in its memory, as a kubelet makes them.
const ROOT_ON_DISK: u32 = 0o777;
const ROOT_IN_MEMORY: u32 = 0o1777;
const DIRECTORY_MODE: u32 = 0o755;
/// What `fsGroup` adds to volumes that are read only (Kubernetes' `volume_linux.go`).
const GROUP_FILE: u32 = 0o440;
const GROUP_DIRECTORY: u32 = 0o2550;

/// What keeps a volume from being there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("volume {volume}")]
    Value {
        volume: String,
        #[source]
        source: ValueError,
    },
    #[error("volume {volume} has a file called {path}, which does not stay below it")]
    Path { volume: String, path: String },
    #[error("volume {volume}: {kind} {name} has no key {key}")]
    Key {
        volume: String,
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("volume {volume}: cannot make {path}")]
    Write {
        volume: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("volume {volume}: cannot mount memory at {path}, which takes root")]
    Memory {
        volume: String,
        path: PathBuf,
        #[source]
        source: nix::Error,
    },
    #[error("volume {volume}: {path} on the node is not {wanted}")]
    HostPath {
        volume: String,
        path: String,
        wanted: &'static str,
    },
}

/// The directories below which volumes are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roots<'a> {
    pub(crate) files: &'a Path,
    pub(crate) empty: &'a Path,
}

/// The volumes of one pod; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Volumes {
    paths: BTreeMap<String, Place>,
    mounted: Vec<PathBuf>,
}

/// Where a volume is, and whether containers may write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

impl Volumes {
    /// Makes all volumes of the pod.
    pub(crate) fn make(
        roots: Roots<'_>,
        facts: &Facts<'_>,
        documents: &Documents,
    ) -> Result<Self, VolumeError> {
        let mut volumes = Self {
            paths: BTreeMap::new(),
            mounted: Vec::new(),
        };
        for volume in &facts.pod.spec.volumes {
            let place = volumes.make_one(volume, roots, facts, documents)?;
            volumes.paths.insert(volume.name.clone(), place);
        }
        Ok(volumes)
    }

    /// Where a volume is.
    pub(crate) fn place(&self, name: &str) -> Option<&Place> {
        self.paths.get(name)
    }

    fn make_one(
        &mut self,
        volume: &Volume,
        roots: Roots<'_>,
        facts: &Facts<'_>,
        documents: &Documents,
    ) -> Result<Place, VolumeError> {
        let name = &volume.name;
        let group = facts.pod.spec.security_context.fs_group;
        let place = |root: &Path, plug_in: &str| {
            let volumes = root.join("pods").join(facts.uid).join("volumes");
            volumes.join(format!("kubernetes.io~{plug_in}")).join(name)
        };
        if let Some(host) = &volume.host_path {
            return host_path(name, host);
        }
        if let Some(empty) = &volume.empty_dir {
            let path = place(roots.empty, "empty-dir");
            self.empty_dir(name, &path, empty, group)?;
            return Ok(Place {
                path,
                read_only: false,
            });
        }
        let (plug_in, entries) = entries(volume, facts, documents)?;
        let path = place(roots.files, plug_in);
        let top_mode = match plug_in {
            "configmap" => ROOT_ON_DISK,
            _ => ROOT_IN_MEMORY,
        };
        write_files(&path, top_mode, &entries, group).map_err(|source| VolumeError::Write {
            volume: name.clone(),
            path: path.clone(),
            source,
        })?;
        Ok(Place {
            path,
            read_only: true,
        })
    }

    fn empty_dir(
        &mut self,
        volume: &str,
        path: &Path,
        empty: &EmptyDir,
        group: Option<u32>,
    ) -> Result<(), VolumeError> {
        let failed = |source| VolumeError::Write {
            volume: volume.to_owned(),
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        if empty.medium == "Memory" {
            let size = empty.size_limit.map_or(0, Quantity::units);
            let options = (size > 0).then(|| format!("size={size}"));
            let kind = Some("tmpfs");
            mount(kind, path, kind, MsFlags::empty(), options.as_deref()).map_err(|source| {
                VolumeError::Memory {
                    volume: volume.to_owned(),
                    path: path.to_owned(),
                    source,
                }
            })?;
            self.mounted.push(path.to_owned());
        }
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        give(path, group, mode).map_err(failed)
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
                eprintln!("kata-cc: cannot unmount {}: {error}", path.display());
            }
        }
    }
}

/// Writes the files behind the links that the kubelet's atomic writer leaves.
fn write_files(
    directory: &Path,
    top_mode: u32,
    entries: &[Entry],
    group: Option<u32>,
) -> io::Result<()> {
    let version = version(SystemTime::now());
    let data = directory.join(&version);
    let [of_files, of_directories] = group.map_or([0, 0], |_| [GROUP_FILE, GROUP_DIRECTORY]);
    fs::create_dir_all(&data)?;
    give(directory, group, top_mode | of_directories)?;
    for entry in entries {
        let path = data.join(&entry.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &entry.bytes)?;
        give(&path, group, entry.mode | of_files)?;
        for parent in Path::new(&entry.path).ancestors().skip(1) {
            give(&data.join(parent), group, DIRECTORY_MODE | of_directories)?;
        }
    }
    symlink(&version, directory.join("..data"))?;
    for entry in entries {
        let first = entry.path.split('/').next().unwrap_or_default();
        match symlink(Path::new("..data").join(first), directory.join(first)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}

fn give(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    if group.is_some() {
        chown(path, None, group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The kubelet's name for a set of files: `..2006_01_02_15_04_05.` and a number.
fn version(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let number = since.subsec_nanos();
    format!("..{year:04}_{month:02}_{day:02}_{hour:02}_{minute:02}_{second:02}.{number:09}")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar: years are
/// counted from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn host_path(volume: &str, host: &HostPath) -> Result<Place, VolumeError> {
    let path = PathBuf::from(&host.path);
    let failed = |source| VolumeError::Write {
        volume: volume.to_owned(),
        path: path.clone(),
        source,
    };
    use std::os::unix::fs::FileTypeExt as _;
    let kind = || fs::metadata(&path).map(|m| m.file_type());
    let is = |test: fn(fs::FileType) -> bool| kind().is_ok_and(test);
    let (fits, wanted) = match host.r#type {
        HostPathType::Unchecked => (path.is_absolute(), "an absolute path"),
        HostPathType::DirectoryOrCreate => {
            fs::create_dir_all(&path).map_err(failed)?;
            (true, "a directory")
        }
        HostPathType::FileOrCreate => {
            let mut open = fs::OpenOptions::new();
            open.create(true).append(true).open(&path).map_err(failed)?;
            (true, "a file")
        }
        HostPathType::Directory => (is(|k| k.is_dir()), "a directory"),
        HostPathType::File => (is(|k| k.is_file()), "a file"),
        HostPathType::Socket => (is(|k| k.is_socket()), "a socket"),
        HostPathType::CharDevice => (is(|k| k.is_char_device()), "a character device"),
        HostPathType::BlockDevice => (is(|k| k.is_block_device()), "a block device"),
    };
    if !fits {
        return Err(VolumeError::HostPath {
            volume: volume.to_owned(),
            path: host.path.clone(),
            wanted,
        });
    }
    Ok(Place {
        path,
        read_only: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Pod;

    fn documents() -> Documents {
        let mut documents = Documents::default();
        let keys = [("a.txt", "A"), ("b", "B")].map(|(k, v)| (k.to_owned(), v.into()));
        documents.config_maps.insert("m".to_owned(), keys.into());
        documents.secrets.insert(
            "s".to_owned(),
            [("k".to_owned(), b"secret".to_vec())].into(),
        );
        documents
    }

    fn pod(volumes: &str) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"name":"p","labels":{{"l":"v"}}}},"spec":{{"volumes":[{volumes}]}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn make(directory: &Path, pod: &Pod) -> Result<Volumes, VolumeError> {
        let facts = Facts {
            pod,
            uid: "u",
            node: "n",
            addresses: &[],
        };
        let roots = Roots {
            files: directory,
            empty: directory,
        };
        Volumes::make(roots, &facts, &documents())
    }

    fn error(volume: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let error = make(directory.path(), &pod(volume)).unwrap_err();
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}"));
        format!("{error}{}", cause.unwrap_or_default())
    }

    #[test]
    fn files_lie_behind_links_as_the_kubelet_leaves_them() {
        let directory = tempfile::tempdir().unwrap();
        let pod = pod(r#"{"name":"v","configMap":{"name":"m","defaultMode":256}}"#);
        let volumes = make(directory.path(), &pod).unwrap();
        let place = volumes.place("v").unwrap();
        let expected = directory
            .path()
            .join("pods/u/volumes/kubernetes.io~configmap/v");
        assert_eq!((&place.path, place.read_only), (&expected, true));
        assert_eq!(fs::read(expected.join("a.txt")).unwrap(), b"A");
        assert_eq!(
            fs::read_link(expected.join("b")).unwrap(),
            Path::new("..data/b")
        );
        let top = fs::metadata(&expected).unwrap().permissions().mode();
        assert_eq!(top & 0o7777, 0o777);
        let version = fs::read_link(expected.join("..data")).unwrap();
        assert!(version.to_str().unwrap().starts_with("..20"), "{version:?}");
        let mode = fs::metadata(expected.join("b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o400);
    }

    #[test]
    fn items_choose_names_and_projections_merge() {
        let directory = tempfile::tempdir().unwrap();
        let pod = pod(r#"{"name":"v","projected":{"sources":[
            {"configMap":{"name":"m","items":[{"key":"b","path":"d/e"}]}},
            {"secret":{"name":"s"}},
            {"downwardAPI":{"items":[{"path":"labels","fieldRef":{"fieldPath":"metadata.labels"}}]}}
        ]}}"#);
        let volumes = make(directory.path(), &pod).unwrap();
        let path = &volumes.place("v").unwrap().path;
        for (name, bytes) in [("d/e", "B"), ("k", "secret"), ("labels", "l=\"v\"")] {
            assert_eq!(fs::read_to_string(path.join(name)).unwrap(), bytes);
        }
        assert!(!path.join("a.txt").exists());
    }

    #[test]
    fn an_empty_directory_is_everybodys() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = make(directory.path(), &pod(r#"{"name":"v","emptyDir":{}}"#)).unwrap();
        let place = volumes.place("v").unwrap();
        assert!(!place.read_only);
        let mode = fs::metadata(&place.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        for (volume, expected) in [
            (
                r#"{"name":"v","configMap":{"name":"x"}}"#,
                "volume v: ConfigMap x is not in the files",
            ),
            (
                r#"{"name":"v","secret":{"secretName":"s","items":[{"key":"z","path":"z"}]}}"#,
                "volume v: Secret s has no key z",
            ),
            (
                r#"{"name":"v","configMap":{"name":"m","items":[{"key":"b","path":"../b"}]}}"#,
                "volume v has a file called ../b",
            ),
            (
                r#"{"name":"v","configMap":{"name":"m","items":[{"key":"b","path":"/b"}]}}"#,
                "volume v has a file called /b",
            ),
            (
                r#"{"name":"v","hostPath":{"path":"/nowhere","type":"Directory"}}"#,
                "volume v: /nowhere on the node is not a directory",
            ),
            (
                r#"{"name":"v","hostPath":{"path":"here"}}"#,
                "volume v: here on the node is not an absolute path",
            ),
        ] {
            let error = error(volume);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn optional_objects_may_be_missing() {
        let directory = tempfile::tempdir().unwrap();
        let pod = pod(r#"{"name":"v","secret":{"secretName":"x","optional":true}}"#);
        let volumes = make(directory.path(), &pod).unwrap();
        assert!(volumes.place("v").unwrap().path.join("..data").exists());
    }

    #[test]
    fn versions_are_dates() {
        for (seconds, expected) in [
            (0, "..1970_01_01_00_00_00.000000000"),
            (951_782_400, "..2000_02_29_00_00_00.000000000"),
            (1_798_761_599, "..2026_12_31_23_59_59.000000000"),
        ] {
            let time = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            assert_eq!(version(time), expected);
        }
    }
}
