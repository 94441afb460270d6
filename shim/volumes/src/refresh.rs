//! Passes updates of ConfigMaps, Secrets and tokens on to the guest.
//!
//! kubelet writes a new version of a ConfigMap, Secret or token beside the old one and
//! then swings the link `..data` to it. The link is read every ten seconds, which costs
//! less than a watch and misses nothing, since only its present target matters. After a
//! change the new version is sent, then the link to it, then those of keys. The guest points
//! the link at it in one step, and removes what only the version before had. The volume is the
//! one that was opened when its mount was planned, whatever has its name by now.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use shim_agent_client::AgentClient;

use crate::{CopyPlan, copy::copy, walk::LINK};

const INTERVAL: Duration = Duration::from_secs(10);
const KINDS: [&str; 4] = [
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
];

/// A volume and the version that the guest has.
struct Watched {
    plan: CopyPlan,
    version: Option<PathBuf>,
}

impl Watched {
    /// Sends the volume again if it has a new version.
    async fn look(&mut self, agent: &AgentClient) {
        let now = version(&self.plan);
        if now == self.version {
            return;
        }
        match copy(agent, &self.plan).await {
            Ok(()) => self.version = now,
            // It may have been in the middle of a change: the next look decides.
            Err(error) => tracing::warn!(
                volume = %self.plan.place.path().display(), %error, "volume not refreshed"
            ),
        }
    }
}

/// Whether the volume is one that kubelet updates.
pub fn is_updated(plan: &CopyPlan) -> bool {
    let mut parts = plan.place.path().iter();
    parts.any(|part| KINDS.iter().any(|kind| part == *kind)) && version(plan).is_some()
}

fn version(plan: &CopyPlan) -> Option<PathBuf> {
    plan.place.link(LINK)
}

/// Sends new versions of these volumes for as long as it is polled.
pub async fn refresh(agent: &AgentClient, plans: Vec<CopyPlan>) -> Infallible {
    let watched = plans.into_iter().map(|plan| Watched {
        version: version(&plan),
        plan,
    });
    let mut watched: Vec<Watched> = watched.collect();
    if watched.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        for volume in &mut watched {
            volume.look(agent).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tests::{Guest, exchange, plan_of};

    #[test]
    fn only_volumes_that_kubelet_updates_are_watched() {
        let folder = tempfile::tempdir().unwrap();
        let plan = |path: PathBuf| plan_of(&path);
        let root = folder.path().canonicalize().unwrap();
        let volume = root.join("kubernetes.io~configmap").join("v");
        fs::create_dir_all(volume.join("..1")).unwrap();
        assert!(!is_updated(&plan(volume.clone())));
        std::os::unix::fs::symlink("..1", volume.join(LINK)).unwrap();
        assert!(is_updated(&plan(volume.clone())));
        let other = root.join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink("..1", other.join(LINK)).unwrap();
        assert!(!is_updated(&plan(other)));
    }

    #[tokio::test]
    async fn a_refreshed_volume_is_the_one_that_was_planned() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let write = |volume: &str, version: &str| {
            let version = root.join(volume).join(version);
            fs::create_dir_all(&version).unwrap();
            fs::write(version.join("key"), volume).unwrap();
        };
        let point = |volume: &str, version: &str| {
            let new = root.join(volume).join("..new");
            std::os::unix::fs::symlink(version, &new).unwrap();
            fs::rename(new, root.join(volume).join(LINK)).unwrap();
        };
        write("volume", "..1");
        point("volume", "..1");
        write("secret", "..9");
        point("secret", "..9");
        let (guest, agent, _server) = Guest::start().await;
        let plan = plan_of(&root.join("volume"));
        let mut watched = Watched {
            version: version(&plan),
            plan,
        };
        watched.look(&agent).await;
        assert!(guest.take().is_empty());

        // Another volume under this one's name, as a directory or by a link.
        std::os::unix::fs::symlink(root.join("secret"), root.join("link")).unwrap();
        for other in ["secret", "link"] {
            exchange(&root.join("volume"), &root.join(other));
            watched.look(&agent).await;
            assert!(guest.take().is_empty(), "{other}");
            exchange(&root.join("volume"), &root.join(other));
        }
        write("volume", "..2");
        point("volume", "..2");
        exchange(&root.join("volume"), &root.join("link"));
        watched.look(&agent).await;
        let sent = guest.take();
        assert!(sent.iter().any(|text| text == "volume"), "{sent:?}");
        assert!(!sent.iter().any(|text| text == "secret"), "{sent:?}");
    }
}
