//! The containers of the pod and their processes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use shim_oci::{Resources, Role};
use shim_volumes::{CopyPlan, Place, VolumePlan, is_updated};
use tokio::sync::Notify;

use crate::{image_users::UserWords, process::Process, status::TaskError, task_pid::TaskPid};

/// The most further processes of a container at one time.
const EXECS_MAX: usize = 4096;

/// A container that the guest has made.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// Its part in the pod.
    pub(crate) role: Role,
    /// Its bundle on the host.
    pub(crate) bundle: String,
    /// Its first process.
    pub(crate) init: Arc<Process>,
    /// Its number on the node.
    pub(crate) pid: TaskPid,
    /// The words for its users.
    pub(crate) users: UserWords,
    /// What it may use.
    pub(crate) limits: Mutex<Resources>,
    /// Where its termination message goes.
    pub(crate) termination_log: Option<Place>,
    /// Volumes that kubelet updates while it runs.
    updated: Mutex<Vec<CopyPlan>>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
}

/// What a container is made of, apart from its processes and volumes.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its id.
    pub(crate) id: String,
    /// Its part in the pod.
    pub(crate) role: Role,
    /// Its bundle on the host.
    pub(crate) bundle: String,
    /// Its number on the node.
    pub(crate) pid: TaskPid,
    /// The words for its users.
    pub(crate) users: UserWords,
    /// What it may use.
    pub(crate) limits: Resources,
}

impl Container {
    /// A container with no further processes; of its volumes only the updated ones
    /// are kept.
    pub(crate) fn new(made: Made, init: Arc<Process>, volumes: VolumePlan) -> Self {
        Self {
            id: made.id,
            role: made.role,
            bundle: made.bundle,
            init,
            pid: made.pid,
            users: made.users,
            limits: made.limits.into(),
            termination_log: volumes.termination_log,
            updated: Mutex::new(volumes.copies.into_iter().filter(is_updated).collect()),
            execs: Mutex::default(),
        }
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the volumes that kubelet updates, once. They are held open, and kubelet cannot
    /// unmount them before they are dropped.
    pub(crate) fn take_updated(&self) -> Vec<CopyPlan> {
        std::mem::take(&mut *self.updated.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The process that a request means: an empty id means the first one.
    pub(crate) fn process(&self, exec: &str) -> Result<Arc<Process>, TaskError> {
        if exec.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        self.execs()
            .get(exec)
            .cloned()
            .ok_or_else(|| TaskError::NotFound {
                what: "exec",
                id: exec.to_owned(),
            })
    }

    /// Adds a further process.
    pub(crate) fn add_exec(&self, id: &str, process: Process) -> Result<(), TaskError> {
        let mut execs = self.execs();
        if execs.len() >= EXECS_MAX {
            return Err(TaskError::Failed(format!(
                "container {} has {EXECS_MAX} execs: delete some first",
                self.id
            )));
        }
        if execs.contains_key(id) {
            return Err(TaskError::AlreadyExists {
                what: "exec",
                id: id.to_owned(),
            });
        }
        execs.insert(id.to_owned(), Arc::new(process));
        Ok(())
    }

    /// Forgets a further process.
    pub(crate) fn remove_exec(&self, id: &str) {
        self.execs().remove(id);
    }

    /// All processes, the first one last: its end is the container's.
    pub(crate) fn processes(&self) -> Vec<Arc<Process>> {
        let mut all: Vec<_> = self.execs().values().cloned().collect();
        all.push(Arc::clone(&self.init));
        all
    }
}

/// A creation that is under way, and a way to stop it.
#[derive(Debug, Default)]
pub(crate) struct Creation {
    cancelled: AtomicBool,
    notify: Notify,
}

impl Creation {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    /// Resolves when somebody wants the creation stopped.
    pub(crate) async fn cancelled(&self) {
        let notified = self.notify.notified();
        if !self.cancelled.load(Ordering::SeqCst) {
            notified.await;
        }
    }
}

#[derive(Debug)]
enum Entry {
    Creating(Arc<Creation>),
    Made(Arc<Container>),
}

/// All containers of the pod. The lock is held for look-ups only.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    entries: Mutex<HashMap<String, Entry>>,
    changed: Notify,
}

impl Containers {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves an id for a container that is going to be made.
    pub(crate) fn reserve(&self, id: &str) -> Result<Arc<Creation>, TaskError> {
        let mut entries = self.entries();
        if entries.contains_key(id) {
            return Err(TaskError::AlreadyExists {
                what: "container",
                id: id.to_owned(),
            });
        }
        let creation = Arc::new(Creation::default());
        entries.insert(id.to_owned(), Entry::Creating(Arc::clone(&creation)));
        Ok(creation)
    }

    /// Turns a reservation into a container.
    pub(crate) fn made(&self, container: Container) {
        let id = container.id.clone();
        self.entries().insert(id, Entry::Made(Arc::new(container)));
        self.changed.notify_waiters();
    }

    /// Forgets a container or reservation.
    pub(crate) fn remove(&self, id: &str) {
        self.entries().remove(id);
        self.changed.notify_waiters();
    }

    /// A container that is made.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        match self.entries().get(id) {
            Some(Entry::Made(container)) => Ok(Arc::clone(container)),
            _ => Err(TaskError::NotFound {
                what: "container",
                id: id.to_owned(),
            }),
        }
    }

    /// All containers that are made.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        let entries = self.entries();
        let made = entries.values().filter_map(|entry| match entry {
            Entry::Made(container) => Some(Arc::clone(container)),
            Entry::Creating(_) => None,
        });
        made.collect()
    }

    /// Stops a creation of this id, or every one, and waits until it is undone.
    pub(crate) async fn cancel(&self, id: Option<&str>) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let mut waiting = false;
            for (found, entry) in self.entries().iter() {
                if let Entry::Creating(creation) = entry
                    && id.is_none_or(|id| id == found)
                {
                    creation.cancel();
                    waiting = true;
                }
            }
            if !waiting {
                return;
            }
            changed.await;
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use shim_agent_client::GuestProcess;

    use super::*;
    use crate::stdio::Stdio;

    fn process(exec: &str) -> Process {
        let guest = GuestProcess {
            container: "c1".into(),
            exec: exec.into(),
        };
        let stdio = Stdio {
            stdin: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            terminal: false,
        };
        Process::new(guest, stdio, None)
    }

    fn container() -> Container {
        let init = Arc::new(process(""));
        let made = Made {
            id: "c1".into(),
            role: Role::Container,
            bundle: "/b".into(),
            pid: TaskPid::take(None).unwrap(),
            users: UserWords::default(),
            limits: Resources::default(),
        };
        Container::new(made, init, VolumePlan::default())
    }

    #[test]
    fn an_id_is_taken_once_and_found_when_made() {
        let containers = Containers::default();
        containers.reserve("c1").unwrap();
        assert!(matches!(
            containers.reserve("c1"),
            Err(TaskError::AlreadyExists { .. })
        ));
        assert!(containers.find("c1").is_err());
        containers.made(container());
        assert!(containers.find("c1").is_ok());
        containers.remove("c1");
        assert!(containers.is_empty());
    }

    #[test]
    fn execs_have_ids_of_their_own() {
        let container = container();
        container.add_exec("e1", process("e1")).unwrap();
        assert!(container.add_exec("e1", process("e1")).is_err());
        assert!(container.process("e1").is_ok());
        assert!(container.process("e2").is_err());
        let order: Vec<_> = container
            .processes()
            .iter()
            .map(|process| process.guest.exec.clone())
            .collect();
        assert_eq!(order, ["e1", ""]);
        container.remove_exec("e1");
        assert!(container.process("e1").is_err());
    }

    #[tokio::test]
    async fn cancelling_waits_until_the_creation_is_undone() {
        let containers = Arc::new(Containers::default());
        let creation = containers.reserve("c1").unwrap();
        let maker = {
            let containers = Arc::clone(&containers);
            tokio::spawn(async move {
                creation.cancelled().await;
                containers.remove("c1");
            })
        };
        containers.cancel(Some("c1")).await;
        assert!(containers.is_empty());
        maker.await.unwrap();
    }
}
