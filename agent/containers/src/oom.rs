//! Processes killed for lack of memory: watched in the kernel's counters, told to
//! whoever asks next.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use agent_protocol::id::ContainerId;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{io::unix::AsyncFd, sync::Notify};

use crate::{cgroup::Cgroup, reaper::Exit, watched::watch};

/// Containers that ran out of memory and of which nobody was told yet.
#[derive(Debug, Default)]
pub struct OomEvents {
    // One entry a container at most, so it is as bounded as the containers are.
    queue: Mutex<VecDeque<ContainerId>>,
    notify: Notify,
}

impl OomEvents {
    fn push(&self, container: &ContainerId) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.contains(container) {
            queue.push_back(container.clone());
        }
        drop(queue);
        self.notify.notify_one();
    }

    /// Waits for the next container.
    pub async fn next(&self) -> ContainerId {
        loop {
            let notified = self.notify.notified();
            let first = self
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            if let Some(container) = first {
                return container;
            }
            notified.await;
        }
    }

    /// Watches a container until its first process has ended.
    ///
    /// # Errors
    ///
    /// When the kernel does not let its counters be watched.
    pub async fn watch(
        &self,
        container: &ContainerId,
        cgroup: &Cgroup,
        exit: &Exit,
    ) -> io::Result<()> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&inotify, cgroup.file("memory.events"), WatchFlags::MODIFY)?;
        let inotify = watch(inotify)?;
        let mut seen = 0;
        loop {
            let ended = tokio::select! {
                changed = changed(&inotify) => { changed?; false }
                _ = exit.wait() => true,
            };
            let kills = kills(&cgroup.read("memory.events").unwrap_or_default());
            if kills > seen {
                seen = kills;
                self.push(container);
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// Waits for a change and forgets what it was.
async fn changed(inotify: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = inotify.readable().await?;
        let mut space = [MaybeUninit::<u8>::uninit(); 512];
        let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut space).map(|_| ())?));
        if let Ok(result) = read {
            return result;
        }
    }
}

fn kills(events: &str) -> u64 {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_and_groups_are_not() {
        assert_eq!(kills("oom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(kills(""), 0);
    }

    #[tokio::test]
    async fn a_container_is_told_once() {
        let events = OomEvents::default();
        let id = ContainerId::parse("c1").unwrap();
        events.push(&id);
        events.push(&id);
        assert_eq!(events.next().await, id);
        assert!(events.queue.lock().unwrap().is_empty());
    }
}
