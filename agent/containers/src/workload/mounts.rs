//! Mounts: by where they are and what they are, not by the path of their source.

use agent_requests::paths::{SANDBOX_ROOT, SHARED_ROOT, STATE_ROOT};
use serde::Serialize;

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
pub(super) fn normal(mounts: Vec<Mount>) -> Vec<Normal> {
    mounts.into_iter().map(one).collect()
}

fn one(mount: Mount) -> Normal {
    let what = what(&mount);
    let mut options = mount.options;
    options.retain(|option| !FLOOR.contains(&option.as_str()));
    options.sort();
    options.dedup();
    Normal {
        destination: mount.destination,
        what,
        options,
    }
}

/// A volume by its kind and name, a file system by its type.
fn what(mount: &Mount) -> String {
    let below = |root: &str| {
        let rest = mount.source.strip_prefix(root)?.strip_prefix('/')?;
        Some(rest.to_owned())
    };
    if mount.kind != "bind" {
        return mount.kind.clone();
    }
    if let Some(rest) = below(SHARED_ROOT) {
        // `<sandbox>/rootfs/local/<volume>`; all else was copied there, under any name.
        let mut words = rest.splitn(4, '/');
        let _sandbox = words.next();
        return match (words.next(), words.next(), words.next()) {
            (Some("rootfs"), Some("local"), Some(volume)) => format!("volume {volume}"),
            _ => "files of the host".to_owned(),
        };
    }
    if let Some(rest) = below(SANDBOX_ROOT) {
        return format!("volume of the pod {rest}");
    }
    if below(STATE_ROOT).is_some() {
        return "termination message".to_owned();
    }
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, options: &[&str]) -> Normal {
        one(Mount {
            destination: "/x".to_owned(),
            kind: "bind".to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        })
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
    }
}
