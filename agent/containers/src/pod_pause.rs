//! The one pause container of the pod, and the process namespace that it keeps.
//!
//! The namespace is held by a descriptor: the number of a process that has ended may be
//! another's by the time it is looked up.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use thiserror::Error;

use crate::table::lock;

/// Why a container is not, or cannot join, the pod's pause container.
#[derive(Debug, Error)]
pub enum PauseError {
    /// There is one already, or there was.
    #[error("the pod has its pause container already")]
    Second,
    /// A container shares the pod's processes before there are any.
    #[error("the pod's processes cannot be shared: it has no pause container yet")]
    None,
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
        // The container library opens it in a process of its own.
        let (agent, number) = (std::process::id(), namespace.as_raw_fd());
        Ok(Some(format!("/proc/{agent}/fd/{number}").into()))
    }
}

impl PauseReservation<'_> {
    /// The pause container was made, and this is its process: its namespace is the pod's.
    pub(crate) fn holds(self, pid: i32) -> Result<(), PauseError> {
        let namespace = File::open(format!("/proc/{pid}/ns/pid")).map_err(PauseError::Namespace)?;
        let _ = self.0.processes.set(namespace);
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
