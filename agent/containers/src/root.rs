//! Where a container's root file system comes from.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use agent_evidence::{Sha256Digest, log::ImageEntry};
use agent_image::{Image, PullError};
use agent_image_registry::{Reference, ReferenceError};
use agent_image_unpacking::{AssembleError, RootFs};
use agent_measured::{Measured, NoteError};
use agent_requests::ImagePull;
use agent_scratch_disk::Place;
use rustix::mount::{MountFlags, UnmountFlags};
use thiserror::Error;

use crate::{
    full::is_full,
    images::{Images, ImagesError},
};

/// A mounted root file system.
#[derive(Debug)]
pub(super) enum Root {
    /// Of an image.
    Image {
        /// Its mounts.
        mounts: RootFs,
        /// Digest of the image's manifest.
        manifest: String,
    },
    /// Of the pause container: nothing but the agent's own program.
    Pause(PathBuf),
}

/// Why a root file system cannot be made.
#[derive(Debug, Error)]
pub enum RootError {
    /// The host's text is not an image reference.
    #[error("{text:?} is not an image reference")]
    Reference {
        /// The text.
        text: String,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// No image can be had.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// There is no room for it; for another there may be.
    #[error("{place} is full")]
    Full {
        /// Where.
        place: Place,
        /// What found that out.
        #[source]
        source: Box<RootError>,
    },
    /// The image cannot be had.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The image cannot be mounted.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The image cannot be measured.
    #[error("the image cannot be measured")]
    Log(#[from] NoteError),
    /// The pause container's root cannot be made.
    #[error("cannot make the pause container's root file system")]
    Pause(#[source] io::Error),
}

impl Root {
    /// Makes a root file system in `<bundle>/rootfs`; blocks for as long as a pull takes.
    ///
    /// # Errors
    ///
    /// [`RootError`] says at which step it failed.
    pub(super) fn make(
        images: &Images,
        log: &Measured,
        image: &ImagePull,
        bundle: &Path,
    ) -> Result<Self, RootError> {
        match image {
            ImagePull::Pause => pause(bundle).map(Self::Pause).map_err(RootError::Pause),
            ImagePull::Reference(text) => Self::of_image(images, log, text, bundle)
                .map_err(|error| told_if_full(images, error)),
        }
    }

    fn of_image(
        images: &Images,
        log: &Measured,
        text: &str,
        bundle: &Path,
    ) -> Result<Self, RootError> {
        let (reference, image) = images.pull(text)?;
        let entry = entry(&reference, &image);
        log.note_once(identity(&entry), entry)?;
        Ok(Self::Image {
            mounts: images.puller()?.assemble(&image, bundle)?,
            manifest: image.manifest_digest.to_string(),
        })
    }

    /// Digest of the image's manifest; none for the pause container.
    pub(super) fn manifest(&self) -> Option<&str> {
        match self {
            Self::Image { manifest, .. } => Some(manifest),
            Self::Pause(_) => None,
        }
    }

    /// Takes it down.
    ///
    /// # Errors
    ///
    /// When the kernel does not let go of a mount.
    pub(super) fn remove(self) -> io::Result<()> {
        match self {
            Self::Image { mounts, .. } => mounts.unmount().map_err(io::Error::other),
            Self::Pause(program) => Ok(rustix::mount::unmount(program, UnmountFlags::DETACH)?),
        }
    }
}

/// Names the place that is full, its size, and what to do.
fn told_if_full(images: &Images, error: RootError) -> RootError {
    match images.place() {
        Ok(place) if is_full(&error) => RootError::Full {
            place,
            source: Box::new(error),
        },
        _ => error,
    }
}

fn entry(reference: &Reference, image: &Image) -> ImageEntry {
    let lines: String = image.diff_ids.iter().map(|id| format!("{id}\n")).collect();
    ImageEntry {
        reference: reference.to_string(),
        manifest: image.manifest_digest.to_string(),
        config: image.config_digest.to_string(),
        layers: u32::try_from(image.diff_ids.len()).unwrap_or(u32::MAX),
        diff_ids: Sha256Digest::of(&[lines.as_bytes()]),
    }
}

/// What tells an image in the log from others.
fn identity(entry: &ImageEntry) -> Sha256Digest {
    let parts = [&entry.reference, &entry.manifest, &entry.config];
    let parts = parts.map(|part| format!("{part}\n"));
    Sha256Digest::of(&[b"image\n", parts.concat().as_bytes()])
}

/// The agent's program under another name; it is already in memory, so a pod
/// without containers costs nothing more.
fn pause(bundle: &Path) -> io::Result<PathBuf> {
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(&root)?;
    // Its process is nobody.
    std::fs::set_permissions(&root, Permissions::from_mode(0o755))?;
    let program = root.join("pause");
    std::fs::File::create(&program)?;
    rustix::mount::mount_bind(std::fs::read_link("/proc/self/exe")?, &program)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(&program, flags, c"")?;
    Ok(program)
}
