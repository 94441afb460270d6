//! The end of a container: its processes, its mounts, its files.

use std::{io, path::Path, sync::Arc, time::Duration};

use agent_image_unpacking::remove_directory;
use agent_protocol::id::ContainerId;
use agent_requests::{DestroySandbox, RemoveContainer, paths};
use policy_engine::Permit;
use thiserror::Error;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::{
    cgroup::Cgroup,
    copies,
    parts::Parts,
    table::{Container, Containers, LookupError, lock},
};

/// How long killed processes may take to be gone. The kernel needs milliseconds;
/// more means that one hangs in a system call.
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// Why a container cannot be removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its processes do not end.
    #[error("processes of container {0} do not end although they were killed")]
    Stuck(ContainerId),
}

impl Containers {
    /// Ends a container and gives back all it took.
    ///
    /// # Errors
    ///
    /// When it is not there, or when its processes do not end; it stays then.
    pub async fn remove(&self, permit: Permit<RemoveContainer>) -> Result<(), RemoveError> {
        let (request, claim) = permit.into_parts();
        let wait = request
            .timeout
            .map_or(END_TIME_MAX, |timeout| timeout.min(END_TIME_MAX));
        self.end(&request.container, wait).await?;
        let _ = claim.commit();
        Ok(())
    }

    /// Ends all containers, in the reverse order of their start.
    pub async fn remove_all(&self, _: &Permit<DestroySandbox>) {
        for id in self.youngest_first() {
            if let Err(error) = self.end(&id, END_TIME_MAX).await {
                warn!(container.id = %id, %error, "container not removed");
            }
        }
    }

    async fn end(&self, id: &ContainerId, wait: Duration) -> Result<(), RemoveError> {
        let container = self.take(id)?;
        let deadline = Instant::now() + wait;
        let stuck = |_| RemoveError::Stuck(id.clone());
        let killed = container.cgroup.kill();
        let ended = timeout_at(deadline, container.init.exit.wait()).await;
        let gone = match ended {
            Ok(_) => container.cgroup.remove(deadline).await.map_err(stuck),
            Err(_) => Err(RemoveError::Stuck(id.clone())),
        };
        if let Err(error) = gone {
            warn!(container.id = %id, killed = killed.is_ok(), "container does not end");
            lock(&self.table).insert(id.clone(), Some(container));
            return Err(error);
        }
        let parts = std::mem::take(&mut *lock(&container.parts));
        self.discard(id, parts).await;
        lock(&self.table).remove(id);
        info!(container.id = %id, "container removed");
        Ok(())
    }

    /// Takes a container out of sight; its id stays reserved.
    fn take(&self, id: &ContainerId) -> Result<Arc<Container>, LookupError> {
        let mut table = lock(&self.table);
        let container = table.get_mut(id).and_then(Option::take);
        container.ok_or_else(|| LookupError::Container(id.clone()))
    }

    /// Gives back what a container took; tries everything, whatever fails.
    pub(super) async fn discard(&self, id: &ContainerId, parts: Parts) {
        let deadline = Instant::now() + END_TIME_MAX;
        if let Err(error) = Cgroup::of(id).remove(deadline).await {
            warn!(container.id = %id, %error, "cgroup not removed");
        }
        let (id, gone) = (id.clone(), id.clone());
        let work = spawn_blocking(move || {
            let failed = |what: &'static str, result: io::Result<()>| {
                if let Err(error) = result {
                    warn!(container.id = %id, what, %error, "part of container not removed");
                }
            };
            if let Some(root) = parts.root {
                failed("root file system", root.remove());
            }
            failed(
                "runtime state",
                remove_directory(&Path::new(paths::RUNTIME_ROOT).join(&id)),
            );
            failed("bundle", remove_directory(&paths::bundle(&id)));
            failed(
                "copied files",
                copies::remove(Path::new(paths::SHARED_ROOT), &id),
            );
        });
        let _ = work.await;
        self.host_files.forget(&gone);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::mount::{MountFlags, mount};

    use super::*;
    use crate::private_mounts::with_private_mounts;

    #[test]
    fn removal_stops_at_what_is_mounted() {
        with_private_mounts(|| {
            let inside = Path::new(paths::STATE_ROOT).join("inside");
            let place = inside.join("mounted");
            fs::create_dir_all(&place).unwrap();
            mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None).unwrap();
            fs::write(place.join("kept"), "x").unwrap();
            assert!(remove_directory(&inside).is_err());
            assert!(place.join("kept").exists());
        });
    }
}
