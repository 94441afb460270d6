//! A container's termination message: a file that the guest makes, mounted where the
//! container expects it. Nothing else of a container is handed to the host by this way.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use agent_protocol::path::GuestPath;
use oci_spec::runtime::Spec;

/// Most bytes of a message that leave the guest (Kubernetes' limit).
const BYTES_MAX: u64 = 4096;
/// Whoever runs in the container may write, as with the kubelet's own file.
const MODE: u32 = 0o666;

/// Makes the file, if the container has a mount where its message is to be, and mounts it
/// there in place of what the host put there.
///
/// # Errors
///
/// When the file cannot be made.
pub(crate) fn make(
    bundle: &Path,
    spec: &mut Spec,
    path: &GuestPath,
) -> io::Result<Option<PathBuf>> {
    let mounts = spec.mounts_mut().as_mut();
    let mount = mounts
        .into_iter()
        .flatten()
        .rev()
        .find(|mount| mount.destination() == AsRef::<Path>::as_ref(path));
    let Some(mount) = mount else {
        return Ok(None);
    };
    let file = bundle.join("termination-log");
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&file)?
        .set_permissions(Permissions::from_mode(MODE))?;
    mount.set_typ(Some("bind".to_owned()));
    mount.set_source(Some(file.clone()));
    let options = ["bind", "rprivate", "rw", "nosuid", "nodev", "noexec"];
    mount.set_options(Some(options.map(str::to_owned).into()));
    Ok(Some(file))
}

/// The end of the message, as the kubelet reads it.
///
/// # Errors
///
/// When the file cannot be read.
pub(crate) fn read(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::MountBuilder;

    use super::*;

    fn spec(source: &str) -> Spec {
        let mount = MountBuilder::default()
            .destination("/dev/termination-log")
            .typ("bind")
            .source(source)
            .build()
            .unwrap();
        let mut spec = Spec::default();
        spec.set_mounts(Some(vec![mount]));
        spec
    }

    #[test]
    fn the_file_is_the_guests_own_whatever_the_host_named() {
        let bundle = tempfile::tempdir().unwrap();
        let mut spec = spec("/run/kata-containers/shared/containers/c1-secret");
        let path = GuestPath::parse("/dev/termination-log").unwrap();
        let file = make(bundle.path(), &mut spec, &path).unwrap().unwrap();
        assert!(file.starts_with(bundle.path()));
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!(mounts[0].source().as_deref(), Some(file.as_path()));
    }

    #[test]
    fn a_path_that_nothing_is_mounted_at_gives_nothing_away() {
        let bundle = tempfile::tempdir().unwrap();
        let path = GuestPath::parse("/etc/shadow").unwrap();
        assert_eq!(make(bundle.path(), &mut spec("/x"), &path).unwrap(), None);
    }

    #[test]
    fn the_end_of_a_long_message_is_told() {
        let bundle = tempfile::tempdir().unwrap();
        let file = bundle.path().join("message");
        fs::write(&file, format!("head{}end", "x".repeat(5000))).unwrap();
        let text = read(&file).unwrap();
        assert_eq!(text.len(), 4096);
        assert!(text.ends_with("end") && !text.starts_with("head"), "{text}");
    }
}
