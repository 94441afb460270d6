//! What remains of a VM on disk, and its removal after a crash.
//!
//! The record names each process by pid and start time. It is written before anything depends on
//! it and replaced by rename, so it is whole or absent. Children die with the shim anyway; the
//! record is for the case that they did not.

use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{process, user::User, vm::StopError};

/// How long a killed process may take to disappear.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// A record holds a handful of processes; anything larger is not ours.
const MAX_RECORD: u64 = 64 * 1024;

/// The files of a VM below its state directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Where the vhost-user device makes its sockets; it is the device's own.
    pub(crate) fn socket_directory(&self) -> PathBuf {
        self.directory.join("vsock")
    }

    /// Where the hypervisor finds the vhost-user device.
    pub(crate) fn device_socket(&self) -> PathBuf {
        self.socket_directory().join("vhost.sock")
    }

    /// Where we find the guest's vsock ports.
    pub(crate) fn vsock_socket(&self) -> PathBuf {
        self.socket_directory().join("vsock.sock")
    }

    /// Where the worlds of the processes are put together.
    pub(crate) fn world_root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Makes the directory of the sockets and gives it to a user.
    pub(crate) fn make_socket_directory(&self, owner: Option<User>) -> io::Result<()> {
        let path = self.socket_directory();
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let owner = owner.map(User::id);
        std::os::unix::fs::chown(&path, owner, owner)
    }

    pub(crate) fn console_log(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    pub(crate) fn hypervisor_log(&self) -> PathBuf {
        self.directory.join("hypervisor.log")
    }

    pub(crate) fn device_log(&self) -> PathBuf {
        self.directory.join("vsock-device.log")
    }

    fn record(&self) -> PathBuf {
        self.directory.join("vm.json")
    }

    /// Names the processes of the VM on disk.
    pub(crate) fn write_record(&self, pids: &[u32]) -> io::Result<()> {
        let processes = pids
            .iter()
            .map(|pid| {
                Ok(Recorded {
                    pid: *pid,
                    start_time: process::start_time(*pid)?,
                })
            })
            .collect::<io::Result<_>>()?;
        let text = serde_json::to_vec(&Record { processes })?;
        let fresh = self.directory.join("vm.json.new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, self.record())
    }

    /// Removes sockets and record; logs stay for whoever looks for the cause.
    pub(crate) fn remove_sockets(&self) -> Result<(), StopError> {
        // Its owner may have put more into it, and cannot put another in its place.
        for directory in [self.socket_directory(), self.world_root()] {
            removed(&directory, std::fs::remove_dir_all(&directory))?;
        }
        remove(&self.directory.join("vm.json.new"))?;
        remove(&self.record())
    }

    fn remove_logs(&self) -> Result<(), StopError> {
        for log in [self.console_log(), self.hypervisor_log(), self.device_log()] {
            remove(&crate::output::older(&log))?;
            remove(&log)?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    processes: Vec<Recorded>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    pid: u32,
    start_time: u64,
}

/// Removes what a crashed shim left of a VM: kills exactly the recorded processes, then deletes
/// sockets, logs and the record, in this order, so that it can be repeated after a failure.
///
/// A process counts as recorded only if pid and start time agree. A directory without a record,
/// or no directory at all, is fine.
///
/// # Errors
/// When a process survives, or a file cannot be read or removed.
pub fn clean_up(state_dir: &Path) -> Result<(), StopError> {
    let files = Files::new(state_dir);
    for recorded in read(&files.record())? {
        kill_recorded(&recorded)?;
    }
    files.remove_logs()?;
    files.remove_sockets()
}

fn read(path: &Path) -> Result<Vec<Recorded>, StopError> {
    let failed = |source| StopError::Record {
        path: path.to_owned(),
        source,
    };
    match std::fs::metadata(path) {
        Err(error) if absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > MAX_RECORD => {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        Ok(_) => {}
    }
    let text = std::fs::read(path).map_err(failed)?;
    let record: Record =
        agent_documents::parse_json(&text).map_err(|error| failed(error.into()))?;
    Ok(record.processes)
}

fn kill_recorded(recorded: &Recorded) -> Result<(), StopError> {
    let pid = recorded.pid;
    let failed = |source| StopError::Kill { pid, source };
    let pidfd = match process::pidfd_open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // The handle is open: if the start time agrees now, the handle is on the recorded process.
    if process::start_time(pid).ok() != Some(recorded.start_time) {
        return Ok(());
    }
    process::kill(&pidfd).map_err(failed)?;
    tracing::info!(pid, "left-over process killed");
    process::wait_gone(&pidfd, KILL_PATIENCE)
        .map_err(failed)?
        .then_some(())
        .ok_or(StopError::Survived { pid })
}

fn remove(path: &Path) -> Result<(), StopError> {
    removed(path, std::fs::remove_file(path))
}

fn removed(path: &Path, removed: io::Result<()>) -> Result<(), StopError> {
    match removed {
        Err(error) if !absent(&error) => Err(StopError::Remove {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("/bin/sleep").arg("1000").spawn().unwrap()
    }

    #[test]
    fn clean_up_kills_the_recorded_process_and_removes_every_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let mut child = sleeper();
        files.write_record(&[child.id()]).unwrap();
        files.make_socket_directory(None).unwrap();
        for file in [
            files.device_socket(),
            files.vsock_socket(),
            files.console_log(),
        ] {
            std::fs::write(file, "").unwrap();
        }
        clean_up(directory.path()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        clean_up(directory.path()).unwrap();
    }

    #[test]
    fn clean_up_spares_a_process_that_reuses_the_pid() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let mut child = sleeper();
        let start_time = process::start_time(child.id()).unwrap() - 1;
        let record = Record {
            processes: vec![Recorded {
                pid: child.id(),
                start_time,
            }],
        };
        std::fs::write(files.record(), serde_json::to_vec(&record).unwrap()).unwrap();
        clean_up(directory.path()).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn clean_up_of_nothing_is_fine() {
        clean_up(Path::new("/nonexistent/kata-cc")).unwrap();
    }

    #[test]
    fn a_record_that_is_not_ours_is_an_error_and_kills_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let (huge, foreign) = (
            vec![b' '; 70_000],
            b"{\"processes\":[],\"more\":1}".to_vec(),
        );
        for text in [b"{".to_vec(), foreign, huge] {
            std::fs::write(files.record(), text).unwrap();
            assert!(matches!(
                clean_up(directory.path()),
                Err(StopError::Record { .. })
            ));
        }
    }
}
