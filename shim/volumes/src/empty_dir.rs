//! An `emptyDir`: the guest makes one of its own, as the kubelet made the node's.
//!
//! The directory of the node says what the pod's author asked for: its permissions and group,
//! and, if it is in memory, its size. The `sizeLimit` of one on disk stays with the kubelet, so
//! a pod that wants it kept says it again in an annotation, where its policy can see it too.

use std::{io, os::unix::fs::MetadataExt};

use agent_protocol::rpc::agent::Storage;

use crate::{VolumeOwner, kubelet::NodeVolume, plan::SHARE};

const GUEST_EPHEMERAL: &str = "/run/kata-containers/sandbox/ephemeral";
const IN_MEMORY: &str = "tmpfs";
const HUGE_PAGES: &str = "hugetlbfs";
const SET_GROUP: u32 = 0o2000;
/// Permissions of a file system in memory, for which none need be said.
const MEMORY_MODE: u32 = 0o1777;

/// What of the node's directory the guest's own gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    mode: u32,
    /// Whose group everything in it gets, if it is a certain one's.
    group: Option<u32>,
    size_bytes: Option<u64>,
}

/// The storage that makes the guest's; `None` if the guest has none of that kind.
pub(crate) fn storage(owner: VolumeOwner<'_>, volume: &NodeVolume) -> io::Result<Option<Storage>> {
    let metadata = volume.place.metadata()?;
    let mode = metadata.mode() & 0o7777;
    let mut wanted = Wanted {
        mode: mode & !SET_GROUP,
        group: (metadata.gid() != 0 || mode & SET_GROUP != 0).then_some(metadata.gid()),
        size_bytes: owner.limits.get(&volume.name).copied(),
    };
    // What the whole node's disk is made of does not matter, only a mount of the volume's own.
    let own = volume.mount.point == volume.place.path();
    if !own || volume.mount.kind != IN_MEMORY {
        let unknown = own && volume.mount.kind == HUGE_PAGES;
        return Ok((!unknown).then(|| on_disk(owner, &volume.name, wanted)));
    }
    let sizes = [wanted.size_bytes, volume.mount.size_bytes()];
    wanted.size_bytes = sizes.into_iter().flatten().min();
    Ok(Some(in_memory(&volume.name, wanted)))
}

fn in_memory(name: &str, wanted: Wanted) -> Storage {
    let mode = (wanted.mode != MEMORY_MODE).then_some(wanted.mode);
    Storage {
        driver: "ephemeral".to_owned(),
        source: IN_MEMORY.to_owned(),
        fstype: IN_MEMORY.to_owned(),
        options: options(mode, wanted),
        mount_point: format!("{GUEST_EPHEMERAL}/{name}"),
        ..Storage::default()
    }
}

fn on_disk(owner: VolumeOwner<'_>, name: &str, wanted: Wanted) -> Storage {
    Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: options(Some(wanted.mode), wanted),
        mount_point: format!("{SHARE}/{}/rootfs/local/{name}", owner.sandbox),
        ..Storage::default()
    }
}

fn options(mode: Option<u32>, wanted: Wanted) -> Vec<String> {
    let mode = mode.map(|mode| format!("mode={mode:04o}"));
    let group = wanted.group.map(|group| format!("fsgid={group}"));
    let size = wanted.size_bytes.map(|bytes| format!("size={bytes}"));
    mode.into_iter().chain(group).chain(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubelet_made_is_what_the_guest_is_asked_for() {
        let plain = Wanted {
            mode: 0o1777,
            group: None,
            size_bytes: Some(256 << 20),
        };
        let storage = in_memory("memory", plain);
        assert_eq!(storage.options, ["size=268435456"]);
        assert_eq!(storage.mount_point, format!("{GUEST_EPHEMERAL}/memory"));
        let grouped = Wanted {
            mode: 0o770,
            group: Some(2000),
            size_bytes: None,
        };
        let storage = in_memory("memory", grouped);
        assert_eq!(storage.options, ["mode=0770", "fsgid=2000"]);
    }
}
