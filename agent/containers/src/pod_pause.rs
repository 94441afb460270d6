//! The one pause container of the pod, and the process namespace that it keeps.
//!
//! The namespace is held by a descriptor: the number of a process that has ended may be
//! another's by the time it is looked up.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use thiserror::Error;

use crate::table::{Container, lock};

/// Why a container is not, or cannot join, the pod's pause container.
#[derive(Debug, Error)]
pub enum PauseError {
    /// There is one already, or there was.
    #[error("the pod has its pause container already")]
    Second,
    /// A container shares the pod's processes before there are any.
    #[error("the pod's processes cannot be shared: it has no pause container yet")]
    None,
    /// The container whose processes are to be seen has ended.
    #[error("the processes of a container that has ended cannot be shared")]
    Ended,
    /// Its process namespace cannot be held.
    #[error("cannot hold the pod's process namespace")]
    Namespace(#[source] io::Error),
}

/// The pod's pause container.
#[derive(Debug, Default)]
pub(crate) struct PodPause {
    made: Mutex<bool>,
    processes: OnceLock<File>,
}

/// The right to make the pause container; given back unless it is made.
#[derive(Debug)]
pub(crate) struct PauseReservation<'a>(&'a PodPause);

impl PodPause {
    /// Reserves the pod's one pause container.
    pub(crate) fn reserve(&self) -> Result<PauseReservation<'_>, PauseError> {
        let mut made = lock(&self.made);
        if std::mem::replace(&mut *made, true) {
            return Err(PauseError::Second);
        }
        Ok(PauseReservation(self))
    }

    /// The process namespace that a container joins; none if it is to have its own.
    pub(crate) fn processes_for(&self, shared: bool) -> Result<Option<PathBuf>, PauseError> {
        if !shared {
            return Ok(None);
        }
        let namespace = self.processes.get().ok_or(PauseError::None)?;
        Ok(Some(path_of(namespace)))
    }
}

/// Where other processes of the agent find a namespace that this one holds.
pub(crate) fn path_of(namespace: &File) -> PathBuf {
    let (agent, number) = (std::process::id(), namespace.as_raw_fd());
    format!("/proc/{agent}/fd/{number}").into()
}

/// Of the process with this number; 0 is the agent.
fn namespace_of(pid: i32) -> Result<File, PauseError> {
    let process = match pid {
        0 => "self".to_owned(),
        pid => pid.to_string(),
    };
    File::open(format!("/proc/{process}/ns/pid")).map_err(PauseError::Namespace)
}

impl Container {
    /// The namespace of its processes.
    ///
    /// # Errors
    ///
    /// [`PauseError`] when its first process has ended: then there is none.
    pub(crate) fn processes(&self) -> Result<File, PauseError> {
        let opened = namespace_of(self.init.pid);
        // Asked after it was opened, so the number was not another process's yet.
        if self.init.exit.status().is_some() {
            return Err(PauseError::Ended);
        }
        let namespace = opened?;
        let number = |file: &File| file.metadata().map(|metadata| metadata.ino());
        let agents = namespace_of(0)?;
        let is_agents = number(&namespace).and_then(|one| Ok(one == number(&agents)?));
        // The agent's own is nobody's to share, whatever happened.
        match is_agents.map_err(PauseError::Namespace)? {
            false => Ok(namespace),
            true => Err(PauseError::Ended),
        }
    }
}

impl PauseReservation<'_> {
    /// The pause container was made, and this is its process: its namespace is the pod's.
    pub(crate) fn holds(self, pid: i32) -> Result<(), PauseError> {
        let _ = self.0.processes.set(namespace_of(pid)?);
        Ok(())
    }
}

impl Drop for PauseReservation<'_> {
    fn drop(&mut self) {
        *lock(&self.0.made) = self.0.processes.get().is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_pause_container_and_one_that_failed_does_not_count() {
        let pause = PodPause::default();
        drop(pause.reserve().unwrap());
        let reservation = pause.reserve().unwrap();
        assert!(matches!(pause.reserve(), Err(PauseError::Second)));
        let pid = i32::try_from(std::process::id()).unwrap();
        reservation.holds(pid).unwrap();
        assert!(matches!(pause.reserve(), Err(PauseError::Second)));
    }

    #[test]
    fn processes_are_shared_by_descriptor_once_there_are_any() {
        let pause = PodPause::default();
        assert_eq!(pause.processes_for(false).unwrap(), None);
        assert!(matches!(pause.processes_for(true), Err(PauseError::None)));
        let pid = i32::try_from(std::process::id()).unwrap();
        pause.reserve().unwrap().holds(pid).unwrap();
        let path = pause.processes_for(true).unwrap().unwrap();
        let held = std::fs::read_link(path).unwrap();
        assert_eq!(held, std::fs::read_link("/proc/self/ns/pid").unwrap());
    }
}
