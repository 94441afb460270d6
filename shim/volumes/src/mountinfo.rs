//! Where a file of the node lies, whatever path leads to it.
//!
//! The kubelet binds parts of volumes to places of their own, so a path says little. What a
//! file is, is told by the file system that it is on and its path there: the kernel lists
//! both for every mount (`proc_pid_mountinfo(5)`), and says on which mount an open file lies.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use crate::Place;

/// Ends the root of a mount whose directory or file was removed.
const DELETED: &str = "//deleted";

/// A mount of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostMount {
    id: u64,
    device: String,
    /// What of the file system is mounted.
    root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    options: String,
    /// The file system's type.
    pub(crate) kind: String,
    super_options: String,
}

impl HostMount {
    /// Whether nothing can be written there.
    pub(crate) fn is_read_only(&self) -> bool {
        let all = [&self.options, &self.super_options];
        let mut all = all.into_iter().flat_map(|options| options.split(','));
        all.any(|option| option == "ro")
    }

    /// The most bytes of a file system in memory, if it has a limit of its own.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        let mut options = self.super_options.split(',');
        let size = options.find_map(|option| option.strip_prefix("size="))?;
        // The kernel shows it in KiB.
        match size.strip_suffix('k') {
            Some(kib) => kib.parse::<u64>().ok()?.checked_mul(1024),
            None => size.parse().ok(),
        }
    }
}

/// Where something is: a file system, and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    device: String,
    path: PathBuf,
}

impl Spot {
    /// The path from another place to this one, if it is that place or lies in it.
    pub(crate) fn below(&self, other: &Self) -> Option<&Path> {
        if self.device != other.device {
            return None;
        }
        self.path.strip_prefix(&other.path).ok()
    }

    /// The path in the file system.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The mounts that this process sees.
#[derive(Debug)]
pub(crate) struct HostMounts(Vec<HostMount>);

impl HostMounts {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn read() -> io::Result<Self> {
        // Of this thread: its mounts need not be the process's.
        Ok(Self::parse(&fs::read("/proc/thread-self/mountinfo")?))
    }

    /// Lines that are none of a mount are left out.
    fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(line).collect())
    }

    /// Where a place is, and on which mount.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub(crate) fn find(&self, place: &Place) -> io::Result<(Spot, &HostMount)> {
        let id = place.mount_id()?;
        let found = self.0.iter().find(|mount| mount.id == id);
        let found = found.and_then(|mount| Some((spot(mount, place.path())?, mount)));
        found.ok_or_else(|| io::Error::other("no mount of the node holds it"))
    }
}

fn spot(mount: &HostMount, path: &Path) -> Option<Spot> {
    let below = path.strip_prefix(&mount.point).ok()?;
    let plain = |part| matches!(part, Component::Normal(_));
    below.components().all(plain).then(|| Spot {
        device: mount.device.clone(),
        path: mount.root.join(below).components().collect(),
    })
}

fn line(line: &[u8]) -> Option<HostMount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let id = text(next()?)?.parse().ok()?;
    let _parent = next()?;
    let device = text(next()?)?;
    let root = path(next()?);
    let point = path(next()?);
    let options = text(next()?)?;
    while next()? != b"-" {}
    let kind = text(next()?)?;
    let _source = next()?;
    let super_options = text(next()?)?;
    let root = match root.to_str().and_then(|text| text.strip_suffix(DELETED)) {
        Some(removed) => removed.into(),
        None => root,
    };
    Some(HostMount {
        id,
        device,
        root,
        point,
        options,
        kind,
        super_options,
    })
}

fn text(field: &[u8]) -> Option<String> {
    String::from_utf8(field.to_vec()).ok()
}

/// Spaces and the like are written as a backslash and three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() {
            after.get(3..).unwrap_or_default()
        } else {
            after
        };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Mounts;

    /// As a kubelet 1.36 left them.
    const RECORDED: &str = r"
31 1 254:0 /var/lib/kubelet /var/lib/kubelet rw,relatime shared:31 - ext4 /dev/vda rw
60 31 0:47 / /var/lib/kubelet/pods/p/volumes/kubernetes.io~empty-dir/memory rw,relatime shared:47 - tmpfs tmpfs rw,size=262144k,noswap
61 31 254:0 /var/lib/kubelet/pods/p/volumes/kubernetes.io~empty-dir/disk/data /var/lib/kubelet/pods/p/volume-subpaths/disk/main/1 rw,relatime shared:31 - ext4 /dev/vda rw
62 31 254:0 /var/lib/kubelet/pods/p/volumes/kubernetes.io~empty-dir/disk/data/deep/file /var/lib/kubelet/pods/p/volume-subpaths/disk/main/2 rw,relatime shared:31 - ext4 /dev/vda rw
63 31 254:0 /var/lib/kubelet/pods/p/volumes/kubernetes.io~configmap/settings/..2026/file.conf//deleted /var/lib/kubelet/pods/p/volume-subpaths/settings/main/1 rw,relatime shared:31 - ext4 /dev/vda rw
64 1 0:50 /a\040b /mnt/c\134\011d ro,relatime - tmpfs none rw
";

    fn at(id: u64, path: &str) -> Option<Spot> {
        let mounts = HostMounts::parse(RECORDED.as_bytes());
        let mount = mounts.0.into_iter().find(|mount| mount.id == id).unwrap();
        spot(&mount, Path::new(path))
    }

    #[test]
    fn a_part_of_a_volume_lies_in_it_whatever_its_path() {
        let pod = "/var/lib/kubelet/pods/p";
        let disk = at(31, &format!("{pod}/volumes/kubernetes.io~empty-dir/disk")).unwrap();
        for (id, number, expected) in [(61, 1, "data"), (62, 2, "data/deep/file")] {
            let part = at(id, &format!("{pod}/volume-subpaths/disk/main/{number}")).unwrap();
            assert_eq!(part.below(&disk), Some(Path::new(expected)));
            assert_eq!(disk.below(&part), None);
        }
        let memory = at(60, &format!("{pod}/volumes/kubernetes.io~empty-dir/memory")).unwrap();
        assert_eq!(memory.path(), Path::new("/"));
        assert_eq!(disk.below(&memory), None);
        let file = at(63, &format!("{pod}/volume-subpaths/settings/main/1")).unwrap();
        assert!(file.path().ends_with("settings/..2026/file.conf"));
        assert_eq!(at(31, "/etc"), None);
        assert_eq!(at(31, "/var/lib/kubelet/../x"), None);
    }

    #[test]
    fn a_mount_tells_its_size_and_whether_it_is_read_only() {
        let mounts = HostMounts::parse(RECORDED.as_bytes()).0;
        assert_eq!(mounts.len(), 6);
        assert_eq!(mounts[1].size_bytes(), Some(256 << 20));
        assert_eq!(mounts[0].size_bytes(), None);
        let read_only: Vec<_> = mounts.iter().map(HostMount::is_read_only).collect();
        assert_eq!(read_only, [false, false, false, false, false, true]);
        assert_eq!(mounts[5].root, Path::new("/a b"));
        assert_eq!(mounts[5].point, Path::new("/mnt/c\\\td"));
    }

    #[test]
    fn a_place_is_found_on_its_own_mount() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("d")).unwrap();
        let mounts = HostMounts::read().unwrap();
        let spot = |path: &Path| {
            let place = Place::open(path, Mounts::Included).unwrap();
            mounts.find(&place).unwrap().0
        };
        let below = spot(&root.join("d"));
        assert_eq!(below.below(&spot(&root)), Some(Path::new("d")));
        assert_eq!(below.below(&spot(Path::new("/proc"))), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: Vec<u8>) {
            let _ = HostMounts::parse(&text);
        }
    }
}
