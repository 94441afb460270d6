//! A number of its own on the node for each task.
//!
//! containerd names a container by its task's number, for example the one whose processes a
//! debug container wants to see (`/proc/NUMBER/ns/pid`), and others look behind it: kubelet reads
//! the counters of a pod's network in `/proc/NUMBER/net/dev`. All processes of a pod are in its
//! VM, so a task is given a thread of the shim that does nothing: no other task has its number
//! while it lives, it lies in the pod's cgroup, and a sandbox's is in the pod's network.

use std::{convert::Infallible, fs::File, io, path::Path, sync::mpsc, thread};

use nix::{
    sched::{CloneFlags, setns},
    unistd::gettid,
};

const STACK_BYTES: usize = 32 << 10;

/// A task's number, for as long as this lives.
#[derive(Debug)]
pub(crate) struct TaskPid {
    number: u32,
    _held: mpsc::SyncSender<Infallible>,
}

impl TaskPid {
    /// Takes a number, in the network namespace at `netns` if there is one.
    ///
    /// # Errors
    ///
    /// When there are no more threads, or the namespace cannot be entered.
    pub(crate) fn take(netns: Option<&Path>) -> io::Result<Self> {
        let netns = netns.map(File::open).transpose()?;
        let (tell, told) = mpsc::channel();
        let (held, released) = mpsc::sync_channel(0);
        let wait = move || {
            let entered = netns.map_or(Ok(()), |netns| setns(netns, CloneFlags::CLONE_NEWNET));
            let number = entered.map(|()| gettid().as_raw());
            if tell.send(number).is_ok() {
                // Ends when the other side is dropped: nothing is ever sent.
                let _ = released.recv();
            }
        };
        let thread = thread::Builder::new().name("task".to_owned());
        thread.stack_size(STACK_BYTES).spawn(wait)?;
        let number = told.recv().map_err(io::Error::other)??;
        Ok(Self {
            number: u32::try_from(number).map_err(io::Error::other)?,
            _held: held,
        })
    }

    /// The number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(number: u32) -> bool {
        Path::new(&format!("/proc/self/task/{number}")).exists()
    }

    #[test]
    fn each_task_has_a_number_of_its_own_while_it_lives() {
        let one = TaskPid::take(None).unwrap();
        let other = TaskPid::take(Some(Path::new("/proc/self/ns/net")));
        // Entering a namespace takes a privilege, also one's own.
        let other = match other {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                TaskPid::take(None).unwrap()
            }
            other => other.unwrap(),
        };
        assert_ne!(one.number(), other.number());
        assert!(is_there(one.number()) && is_there(other.number()));
        let number = one.number();
        drop(one);
        while is_there(number) {
            thread::yield_now();
        }
        assert!(TaskPid::take(Some(Path::new("/nowhere"))).is_err());
    }
}
