//! What the source of a container's mount is: by what the guest made there, not by how its
//! path is spelt. The host names the paths, and it copies files to paths of its own choice.

use std::path::Path;

use agent_protocol::path::GuestPath;
use agent_requests::paths::{SANDBOX_ROOT, SHARED_ROOT, STATE_ROOT};

/// The pod's memory for sharing, below the sandbox's root.
const SHARED_MEMORY: &str = "shm";

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A volume that the guest made for this container's pod, or something in it, by its name:
    /// empty at first, and only the pod writes there.
    Volume(&'a str),
    /// The pod's memory for sharing.
    SharedMemory,
    /// A file system in memory that all of the pod's containers may have, by its name.
    OfPod(&'a str),
    /// Files that the host put there.
    OfHost,
    /// A file that the guest made for this container.
    OfGuest,
    /// Nothing with content of its own.
    Nothing,
}

/// Tells what a path is, from the volumes that the container has.
#[must_use]
pub fn source<'a>(path: &'a str, volumes: &[GuestPath]) -> Source<'a> {
    let below = |root: &str| path.strip_prefix(root)?.strip_prefix('/');
    if let Some(rest) = below(SHARED_ROOT) {
        let in_volume = |volume: &GuestPath| Path::new(path).starts_with(volume);
        if !volumes.iter().any(in_volume) {
            return Source::OfHost;
        }
        // `<sandbox>/rootfs/local/<volume>`, where the sandbox is another for each pod.
        let name = rest.split_once('/').map_or(rest, |(_, name)| name);
        return Source::Volume(name.strip_prefix("rootfs/local/").unwrap_or(name));
    }
    match below(SANDBOX_ROOT) {
        Some(SHARED_MEMORY) => Source::SharedMemory,
        Some(name) => Source::OfPod(name),
        None if below(STATE_ROOT).is_some() => Source::OfGuest,
        None => Source::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> [GuestPath; 1] {
        let path = format!("{SHARED_ROOT}/s1/rootfs/local/data");
        [GuestPath::parse(&path).unwrap()]
    }

    #[test]
    fn a_volume_is_one_that_the_guest_made_whatever_a_path_looks_like() {
        let path = |rest: &str| format!("{SHARED_ROOT}/s1/rootfs/local/{rest}");
        assert_eq!(source(&path("data"), &volume()), Source::Volume("data"));
        assert_eq!(
            source(&path("data/sub"), &volume()),
            Source::Volume("data/sub")
        );
        // The host copies files wherever it likes below the shared root.
        for other in ["other", "database", "data2/x"] {
            assert_eq!(source(&path(other), &volume()), Source::OfHost, "{other}");
        }
        assert_eq!(source(&path("data"), &[]), Source::OfHost);
    }

    #[test]
    fn the_rest_is_told_by_its_root() {
        let sandbox = |rest: &str| format!("{SANDBOX_ROOT}/{rest}");
        assert_eq!(source(&sandbox("shm"), &[]), Source::SharedMemory);
        assert_eq!(
            source(&sandbox("ephemeral/v"), &[]),
            Source::OfPod("ephemeral/v")
        );
        let own = format!("{STATE_ROOT}/c1/termination-log");
        assert_eq!(source(&own, &[]), Source::OfGuest);
        assert_eq!(source("tmpfs", &[]), Source::Nothing);
    }
}
