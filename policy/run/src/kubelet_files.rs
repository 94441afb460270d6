//! Files that the kubelet gives every container besides its volumes: `/etc/hosts`, and one for
//! its last words. A pod's policy expects them, because every kubelet has them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Where a container leaves its last words unless it says otherwise.
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";
/// What begins the file (Kubernetes, `pkg/kubelet/kubelet_pods.go`).
const HOSTS: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
     ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
     fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// The files of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KubeletFiles {
    pub(crate) hosts: PathBuf,
    pub(crate) termination: PathBuf,
}

impl KubeletFiles {
    /// Writes them below `directory`, for a pod of this name and with these addresses.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(crate) fn write(
        directory: &Path,
        container: &str,
        hostname: &str,
        addresses: &[String],
    ) -> io::Result<Self> {
        let of_container = directory.join("containers").join(container);
        fs::create_dir_all(&of_container)?;
        let own = addresses.iter().map(|one| format!("{one}\t{hostname}\n"));
        let hosts = directory.join("etc-hosts");
        fs::write(&hosts, HOSTS.to_owned() + &own.collect::<String>())?;
        let termination = of_container.join("termination-log");
        fs::write(&termination, "")?;
        // Whoever the container runs as writes to it.
        fs::set_permissions(&termination, fs::Permissions::from_mode(0o666))?;
        Ok(Self { hosts, termination })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_own_name_and_anyone_may_write_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let addresses = ["10.0.0.2".to_owned(), "fd00::2".to_owned()];
        let files = KubeletFiles::write(directory.path(), "c", "web", &addresses).unwrap();
        let hosts = fs::read_to_string(&files.hosts).unwrap();
        assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(hosts.ends_with("10.0.0.2\tweb\nfd00::2\tweb\n"), "{hosts}");
        let mode = fs::metadata(&files.termination)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o666);
    }
}
