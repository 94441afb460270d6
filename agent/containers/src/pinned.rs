//! The sources of a container's bind mounts, held still.
//!
//! The container library resolves a source again when it mounts it, and until then a
//! workload could put a link in its place, or the host another file. So each source is
//! opened once, cloned as a mount, and put at a numbered place that only the agent can
//! reach; the library gets that place.

use std::{
    fs::{DirBuilder, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use agent_requests::paths::{SANDBOX_ROOT, SHARED_ROOT};
use oci_spec::runtime::{Mount, Spec};
use rustix::{
    fs::{FileType, fstat},
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount},
};

use crate::volumes::Storages;

/// The clones; they go with this value, the container's own mounts of them stay.
#[derive(Debug)]
pub(crate) struct Pinned(Vec<PathBuf>);

/// The source of a mount cannot be had.
#[derive(Debug)]
pub(crate) struct PinError {
    /// Where it was to be mounted.
    pub(crate) destination: PathBuf,
    /// Why it cannot be had.
    pub(crate) source: io::Error,
}

impl Pinned {
    /// Pins the source of every bind mount, each after a look at it, and names the clones in
    /// the spec.
    ///
    /// # Errors
    ///
    /// When a source is not there; nothing is pinned then.
    pub(crate) fn all(
        bundle: &Path,
        spec: &mut Spec,
        storages: &Storages,
        mut look: impl FnMut(&Mount, &OwnedFd) -> io::Result<()>,
    ) -> Result<Self, PinError> {
        let places = bundle.join("sources");
        let mut pinned = Self(Vec::new());
        let mounts = spec.mounts_mut().iter_mut().flatten();
        for (number, mount) in mounts.enumerate() {
            let Some(source) = changeable_source(mount) else {
                continue;
            };
            let place = places.join(number.to_string());
            let result = storages.open(source).and_then(|opened| {
                look(mount, &opened)?;
                clone_to(&opened, &place)
            });
            result.map_err(|source| PinError {
                destination: mount.destination().clone(),
                source,
            })?;
            pinned.0.push(place.clone());
            mount.set_source(Some(place));
        }
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for place in &self.0 {
            // A clone that stays keeps its container's directory, which is told then.
            let _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// The source, if it lies where the host or a workload can change what is there.
fn changeable_source(mount: &Mount) -> Option<&Path> {
    let source = mount.source().as_deref()?;
    let changeable = source.starts_with(SHARED_ROOT) || source.starts_with(SANDBOX_ROOT);
    changeable.then_some(source)
}

fn clone_to(opened: &OwnedFd, place: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    // What is mounted below it is another volume, and not asked for.
    let clone = open_tree(opened, c"", flags)?;
    make_place(opened, place)?;
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&clone, c"", rustix::fs::CWD, place, onto)?)
}

/// A directory for a directory, a file for anything else.
fn make_place(opened: impl AsFd, place: &Path) -> io::Result<()> {
    let private = |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path);
    if FileType::from_raw_mode(fstat(opened)?.st_mode) == FileType::Directory {
        return private(place);
    }
    place.parent().map_or(Ok(()), private)?;
    File::create_new(place).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use agent_protocol::path::GuestPath;
    use agent_requests::{Ephemeral, TmpfsOptions, paths::STATE_ROOT};

    use super::*;
    use crate::private_mounts::with_private_mounts;

    fn spec(sources: &[&str]) -> Spec {
        let mount = |source: &&str| {
            let mut mount = Mount::default();
            mount.set_source(Some(source.into()));
            mount
        };
        let mut spec = Spec::default();
        spec.set_mounts(Some(sources.iter().map(mount).collect()));
        spec
    }

    fn volume(storages: &Storages) -> PathBuf {
        let path = format!("{SANDBOX_ROOT}/ephemeral/v");
        let storage = Ephemeral {
            mount_point: GuestPath::parse(&path).unwrap(),
            options: TmpfsOptions::default(),
        };
        storages.take_ephemeral(storage).unwrap();
        path.into()
    }

    fn unseen(_: &Mount, _: &OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn bundle() -> PathBuf {
        let bundle = Path::new(STATE_ROOT).join("c1");
        fs::create_dir_all(&bundle).unwrap();
        bundle
    }

    #[test]
    fn a_source_that_is_swapped_after_the_request_is_mounted_as_it_was() {
        with_private_mounts(|| {
            let storages = Storages::default();
            let volume = volume(&storages);
            fs::create_dir(volume.join("sub")).unwrap();
            fs::write(volume.join("sub/whose"), "the pod's").unwrap();
            let copied = format!("{SHARED_ROOT}/c1-hosts");
            fs::write(&copied, "first").unwrap();
            let source = format!("{SANDBOX_ROOT}/ephemeral/v/sub");
            let mut spec = spec(&[&source, &copied]);
            let pinned = Pinned::all(&bundle(), &mut spec, &storages, unseen).unwrap();
            fs::rename(volume.join("sub"), volume.join("gone")).unwrap();
            symlink("/etc", volume.join("sub")).unwrap();
            fs::write(format!("{copied}.new"), "second").unwrap();
            fs::rename(format!("{copied}.new"), &copied).unwrap();
            let sources: Vec<_> = spec.mounts().iter().flatten().map(Mount::source).collect();
            let [Some(directory), Some(file)] = sources[..] else {
                panic!("{sources:?}")
            };
            assert_eq!(
                fs::read_to_string(directory.join("whose")).unwrap(),
                "the pod's"
            );
            assert_eq!(fs::read_to_string(file).unwrap(), "first");
            let directory = directory.clone();
            drop(pinned);
            assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
        });
    }

    #[test]
    fn a_source_behind_a_link_is_refused_whoever_made_it() {
        with_private_mounts(|| {
            let storages = Storages::default();
            let volume = volume(&storages);
            symlink("/etc", volume.join("planted")).unwrap();
            symlink("/etc", format!("{SHARED_ROOT}/copied")).unwrap();
            for source in [
                format!("{SANDBOX_ROOT}/ephemeral/v/planted"),
                format!("{SANDBOX_ROOT}/ephemeral/v/planted/ssl"),
                format!("{SHARED_ROOT}/copied"),
                format!("{SHARED_ROOT}/copied/ssl"),
                format!("{SHARED_ROOT}/absent"),
            ] {
                let error = Pinned::all(&bundle(), &mut spec(&[&source]), &storages, unseen);
                assert!(error.is_err(), "{source}");
            }
        });
    }

    #[test]
    fn a_volume_below_a_source_is_not_in_it() {
        with_private_mounts(|| {
            let storages = Storages::default();
            fs::write(volume(&storages).join("secret"), "").unwrap();
            let source = format!("{SANDBOX_ROOT}/ephemeral");
            let mut spec = spec(&[&source]);
            let _pinned = Pinned::all(&bundle(), &mut spec, &storages, unseen).unwrap();
            let mounts = spec.mounts().as_ref().unwrap();
            let clone = mounts[0].source().as_ref().unwrap();
            assert!(clone.join("v").is_dir());
            assert!(!clone.join("v/secret").exists());
        });
    }

    #[test]
    fn what_the_guest_alone_can_change_stays_where_it_is() {
        let own = format!("{STATE_ROOT}/c1/termination-log");
        let mut spec = spec(&[&own, "proc"]);
        let pinned = Pinned::all(
            Path::new("/nowhere"),
            &mut spec,
            &Storages::default(),
            unseen,
        )
        .unwrap();
        assert!(pinned.0.is_empty());
    }
}
