//! A container's root file system: the image's layers, read-only and shared,
//! under a directory for what the container changes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    mount::{self, MountError, Upper},
    store::{Layer, Store, StoreError, copy_attributes, stack},
    tar::Time,
    tree::{
        TreeError, TreePath, default_directory, directory_attributes, open_root, remove_directory,
        times, tree_failed,
    },
};

/// Why an image did not become a root file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// The store.
    #[error("cannot make room for the container's changes")]
    Store(#[source] StoreError),
    /// The mount point.
    #[error("cannot make the mount point `{path}`")]
    MountPoint {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The attributes of `/`.
    #[error("cannot set the attributes of the root directory")]
    Root(#[source] TreeError),
    /// The mount.
    #[error("cannot mount the image's layers")]
    Mount(#[source] MountError),
    /// What is left after unmounting.
    #[error("cannot remove the container's changes in `{path}`")]
    Remove {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A mounted root file system. Dropping it unmounts it and removes the
/// container's changes; [`RootFs::unmount`] does so and says how it went.
#[derive(Debug)]
pub struct RootFs {
    path: PathBuf,
    changes: PathBuf,
    mounted: bool,
}

impl RootFs {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it and removes what the container changed.
    ///
    /// # Errors
    /// The mount is gone already, or the changes cannot be removed.
    pub fn unmount(mut self) -> Result<(), AssembleError> {
        self.clear()
    }

    fn clear(&mut self) -> Result<(), AssembleError> {
        if std::mem::take(&mut self.mounted) {
            mount::detach(&self.path).map_err(AssembleError::Mount)?;
        }
        let changes = std::mem::take(&mut self.changes);
        if changes.as_os_str().is_empty() {
            return Ok(());
        }
        remove_directory(&changes).map_err(|source| AssembleError::Remove {
            path: changes,
            source,
        })
    }
}

impl Drop for RootFs {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, path = %self.path.display(), "cannot clear a root file system away");
        }
    }
}

/// Mounts layers, bottom first, on `<bundle>/rootfs`.
pub fn assemble(store: &Store, layers: &[Layer], bundle: &Path) -> Result<RootFs, AssembleError> {
    let changes = store.container().map_err(AssembleError::Store)?;
    // From here on the changes are removed again whatever fails.
    let mut rootfs = RootFs {
        path: bundle.join("rootfs"),
        changes,
        mounted: false,
    };
    let upper = Upper {
        upper: rootfs.changes.join("upper"),
        work: rootfs.changes.join("work"),
    };
    let empty = rootfs.changes.join("empty");
    for path in [&upper.upper, &upper.work, &empty, &rootfs.path] {
        fs::create_dir_all(path).map_err(|source| AssembleError::MountPoint {
            path: path.clone(),
            source,
        })?;
    }
    let stack = stack(layers);
    root_attributes(&stack, &upper.upper).map_err(AssembleError::Root)?;
    let mut lower: Vec<PathBuf> = stack.iter().map(|layer| layer.root.clone()).collect();
    if lower.is_empty() {
        lower.push(empty);
    }
    let mount = mount::overlay(&lower, Some(&upper)).map_err(AssembleError::Mount)?;
    mount::attach(&mount, &rootfs.path).map_err(AssembleError::Mount)?;
    rootfs.mounted = true;
    Ok(rootfs)
}

/// overlayfs shows the uppermost root's attributes; they shall be those that the uppermost layer states.
fn root_attributes(stack: &[&Layer], upper: &Path) -> Result<(), TreeError> {
    let path = TreePath::default();
    let to = open_root(upper).map_err(tree_failed("open", b"upper"))?;
    match stack.iter().find(|layer| layer.root_stated) {
        Some(layer) => {
            let from = open_root(&layer.root).map_err(tree_failed("open", b"layer"))?;
            copy_attributes(&from, &to, &path)
        }
        None => {
            directory_attributes(&to, &default_directory(), b".")?;
            rustix::fs::futimens(&to, &times(Time::default()))
                .map_err(tree_failed("set the times of", b"."))
        }
    }
}
