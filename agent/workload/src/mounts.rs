//! Mounts: by where they are and what they are, not by the path of their source.

use agent_protocol::path::GuestPath;
use policy_engine::environment::PodFacts;
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

/// Mounts in their one spelling.
#[derive(Debug)]
pub(super) struct Normal {
    /// What the pod's owner decides.
    pub(super) fixed: Vec<One>,
    /// Names of the pod's own that are not in it: `DESTINATION=name`.
    pub(super) chosen: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct One {
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

/// How the one hierarchy was mounted first; some releases of containerd repeat it.
const OF_CGROUPS: [&str; 2] = ["memory_recursiveprot", "nsdelegate"];

/// In the order in which they are made: a later one may lie over an earlier one.
pub(super) fn normal(mounts: Vec<Mount>, volumes: &[GuestPath], facts: &PodFacts) -> Normal {
    let mut chosen = Vec::new();
    let mounts = mounts.into_iter();
    Normal {
        fixed: mounts
            .map(|mount| one(mount, volumes, facts, &mut chosen))
            .collect(),
        chosen,
    }
}

fn one(mount: Mount, volumes: &[GuestPath], facts: &PodFacts, chosen: &mut Vec<String>) -> One {
    let mut named = |name: &str, own_parts: usize| {
        let (name, own) = without_names(name, own_parts, facts);
        chosen.extend(own.iter().map(|own| format!("{}={own}", mount.destination)));
        name
    };
    let what = what(&mount, volumes, &mut named);
    let mut options = mount.options;
    let is_group = matches!(mount.kind.as_str(), "cgroup" | "cgroup2");
    options.retain(|option| {
        let option = option.as_str();
        !(FLOOR.contains(&option) || is_group && OF_CGROUPS.contains(&option))
    });
    // Nothing is mounted below a source in the guest; which of the two is asked for, is for the
    // node's software to say (`recursiveReadOnly: IfPossible`).
    for option in options.iter_mut().filter(|option| *option == "rro") {
        option.remove(0);
    }
    options.sort();
    options.dedup();
    One {
        destination: mount.destination,
        what,
        options,
    }
}

/// The name of a volume, which has so many parts, or of something in it, with the field of the pod
/// in place of a part that Kubernetes made of it (`subPathExpr`), and those parts. No name holds
/// the mark.
fn without_names(name: &str, volume: usize, facts: &PodFacts) -> (String, Vec<String>) {
    let mut own = Vec::new();
    let parts = name.split('/').enumerate();
    let parts = parts.map(|(number, part)| match facts.field(part) {
        Some(field) if number >= volume => {
            own.push(part.to_owned());
            format!("\0{field}")
        }
        _ => part.to_owned(),
    });
    let parts: Vec<String> = parts.collect();
    (parts.join("/"), own)
}

/// A volume by its kind and name, a file system by its type.
fn what(
    mount: &Mount,
    volumes: &[GuestPath],
    mut named: impl FnMut(&str, usize) -> String,
) -> String {
    if mount.kind != "bind" {
        return mount.kind.clone();
    }
    match source(&mount.source, volumes) {
        Source::Volume(name) => format!("volume {}", named(name, 1)),
        Source::SharedMemory => "shared memory of the pod".to_owned(),
        Source::OfPod(name) => format!("volume of the pod {}", named(name, 2)),
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

    fn bind(source: &str, options: &[&str]) -> One {
        let (one, chosen) = bind_in("a-pod", source, options);
        assert!(chosen.is_empty());
        one
    }

    fn bind_in(pod: &str, source: &str, options: &[&str]) -> (One, Vec<String>) {
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
        let mut facts = PodFacts::default();
        facts.add("metadata.name", pod);
        let mut chosen = Vec::new();
        let one = one(mount, &volumes, &facts, &mut chosen);
        (one, chosen)
    }

    #[test]
    fn a_part_that_has_the_name_of_its_pod_is_the_same_for_every_replica() {
        for root in [
            format!("{SHARED_ROOT}/s/rootfs/local/data"),
            format!("{SANDBOX_ROOT}/ephemeral/data"),
        ] {
            let of = |pod: &str| bind_in(pod, &format!("{root}/{pod}/made"), &[]);
            assert_eq!(of("one").0, of("two").0);
            assert_eq!(of("one").1, ["/x=one"]);
            let fixed = bind_in("one", &format!("{root}/other/made"), &[]);
            assert_ne!(of("one").0, fixed.0);
            assert!(fixed.1.is_empty());
        }
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
