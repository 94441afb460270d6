//! What the log says of a pull: when it started, when it ended, how long it took.

use std::time::Instant;

use agent_protocol::id::ContainerId;
use agent_requests::ImagePull;
use tracing::{info, warn};

/// A pull that was logged as started.
pub(crate) struct PullEvents {
    id: ContainerId,
    started: Instant,
}

impl PullEvents {
    /// Logs the start, unless nothing is pulled: the pause container is part of the agent.
    pub(crate) fn start(id: &ContainerId, image: &ImagePull) -> Option<Self> {
        if *image == ImagePull::Pause {
            return None;
        }
        info!(container.id = %id, "image pull started");
        Some(Self {
            id: id.clone(),
            started: Instant::now(),
        })
    }

    /// Logs the end.
    pub(crate) fn end(self, done: bool) {
        let id = self.id;
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if done {
            info!(container.id = %id, elapsed_ms, "image pull done");
        } else {
            warn!(container.id = %id, elapsed_ms, "image pull failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_container_pulls_nothing() {
        let id = ContainerId::parse("c1").unwrap();
        assert!(PullEvents::start(&id, &ImagePull::Pause).is_none());
        let image = ImagePull::Reference("r.example/a:1".to_owned());
        assert!(PullEvents::start(&id, &image).is_some());
    }
}
