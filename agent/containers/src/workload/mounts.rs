//! Mounts: by where they are and what they are, not by the path of their source.

use agent_protocol::path::GuestPath;
use serde::Serialize;

use crate::source::{Source, source};

/// As in the OCI runtime specification.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mount {
    destination: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Normal {
    destination: String,
    what: String,
    options: Vec<String>,
}

/// Options that say what the guest does anyway, or what there is no other way to do.
const FLOOR: [&str; 8] = [
    "bind",
    "nodev",
    "private",
    "rbind",
    "relatime",
    "rprivate",
    "rw",
    "strictatime",
];

/// In the order in which they are made: a later one may lie over an earlier one.
pub(super) fn normal(mounts: Vec<Mount>, volumes: &[GuestPath]) -> Vec<Normal> {
    let mounts = mounts.into_iter();
    mounts.map(|mount| one(mount, volumes)).collect()
}

fn one(mount: Mount, volumes: &[GuestPath]) -> Normal {
    let what = what(&mount, volumes);
    let mut options = mount.options;
    options.retain(|option| !FLOOR.contains(&option.as_str()));
    // Nothing is mounted below a source in the guest; which of the two is asked for, is for the
    // node's software to say (`recursiveReadOnly: IfPossible`).
    for option in options.iter_mut().filter(|option| *option == "rro") {
        option.remove(0);
    }
    options.sort();
    options.dedup();
    Normal {
        destination: mount.destination,
        what,
        options,
    }
}

/// A volume by its kind and name, a file system by its type.
fn what(mount: &Mount, volumes: &[GuestPath]) -> String {
    if mount.kind != "bind" {
        return mount.kind.clone();
    }
    match source(&mount.source, volumes) {
        Source::Volume(name) => format!("volume {name}"),
        Source::SharedMemory => "shared memory of the pod".to_owned(),
        Source::OfPod(name) => format!("volume of the pod {name}"),
        // Under whatever name the host copied them.
        Source::OfHost => "files of the host".to_owned(),
        Source::OfGuest => "termination message".to_owned(),
        Source::Nothing => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use agent_requests::paths::{SANDBOX_ROOT, SHARED_ROOT};

    use super::*;

    fn bind(source: &str, options: &[&str]) -> Normal {
        let volumes = ["s", "one", "two"].map(|sandbox| {
            let path = format!("{SHARED_ROOT}/{sandbox}/rootfs/local/data");
            GuestPath::parse(&path).unwrap()
        });
        let mount = Mount {
            destination: "/x".to_owned(),
            kind: "bind".to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        one(mount, &volumes)
    }

    #[test]
    fn the_same_volume_of_two_pods_is_the_same() {
        let of = |sandbox: &str| bind(&format!("{SHARED_ROOT}/{sandbox}/rootfs/local/data"), &[]);
        assert_eq!(of("one"), of("two"));
        let file = |name: &str| bind(&format!("{SHARED_ROOT}/{name}"), &[]);
        assert_eq!(file("c1-ab-hosts"), file("c2-cd-hosts"));
    }

    #[test]
    fn another_volume_kind_or_mode_is_another() {
        let data = format!("{SHARED_ROOT}/s/rootfs/local/data");
        let others = [
            bind(&format!("{SHARED_ROOT}/s/rootfs/local/other"), &[]),
            bind(&format!("{SHARED_ROOT}/s-data"), &[]),
            bind(&format!("{SANDBOX_ROOT}/ephemeral/data"), &[]),
            bind(&data, &["ro"]),
            bind(&data, &["noexec"]),
        ];
        for other in others {
            assert_ne!(bind(&data, &["rbind", "rw"]), other);
        }
    }

    #[test]
    fn what_spells_the_floor_does_not_count() {
        let data = format!("{SHARED_ROOT}/s/rootfs/local/data");
        assert_eq!(
            bind(&data, &["rbind", "rprivate", "rw", "nodev"]),
            bind(&data, &[])
        );
        // As one release of containerd asks, and another.
        assert_eq!(bind(&data, &["rro"]), bind(&data, &["ro"]));
        assert_ne!(bind(&data, &["rro"]), bind(&data, &["rw"]));
    }
}
