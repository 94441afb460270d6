//! Passes updates of ConfigMaps, Secrets and tokens on to the guest.
//!
//! kubelet writes a new version of a ConfigMap, Secret or token beside the old one and
//! then swings the link `..data` to it. The link is read every ten seconds, which costs
//! less than a watch and misses nothing, since only its present target matters. After a
//! change the whole volume is sent again, links last. Files of the old version stay in
//! the guest, where no link leads to them.

use std::{convert::Infallible, fs, path::PathBuf, time::Duration};

use shim_agent_client::AgentClient;

use crate::{CopyPlan, copy};

const INTERVAL: Duration = Duration::from_secs(10);
const LINK: &str = "..data";
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

/// Whether the volume is one that kubelet updates.
pub fn is_updated(plan: &CopyPlan) -> bool {
    plan.host
        .iter()
        .any(|part| KINDS.iter().any(|kind| part == *kind))
        && version(plan).is_some()
}

fn version(plan: &CopyPlan) -> Option<PathBuf> {
    fs::read_link(plan.host.join(LINK)).ok()
}

/// Sends new versions of these volumes for as long as it is polled.
pub async fn refresh(agent: &AgentClient, plans: &[CopyPlan]) -> Infallible {
    let watched = plans.iter().map(|plan| Watched {
        version: version(plan),
        plan: plan.clone(),
    });
    let mut watched: Vec<Watched> = watched.collect();
    if watched.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        for volume in &mut watched {
            let now = version(&volume.plan);
            if now == volume.version {
                continue;
            }
            match copy(agent, &volume.plan).await {
                Ok(()) => volume.version = now,
                // It may have been in the middle of a change: the next look decides.
                Err(error) => tracing::warn!(
                    volume = %volume.plan.host.display(), %error, "volume not refreshed"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_that_kubelet_updates_are_watched() {
        let folder = tempfile::tempdir().unwrap();
        let plan = |path: PathBuf| CopyPlan {
            host: path,
            guest: "/g".into(),
            destination: "/d".into(),
        };
        let volume = folder.path().join("kubernetes.io~configmap").join("v");
        fs::create_dir_all(volume.join("..1")).unwrap();
        assert!(!is_updated(&plan(volume.clone())));
        std::os::unix::fs::symlink("..1", volume.join(LINK)).unwrap();
        assert!(is_updated(&plan(volume.clone())));
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink("..1", other.join(LINK)).unwrap();
        assert!(!is_updated(&plan(other)));
    }
}
