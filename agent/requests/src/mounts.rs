//! Mounts of a container: what it may see of the guest, which is little.
//!
//! A bind mount's source is a path that the host names. Only what the host itself
//! put there (`CopyFile`) and the pod's own mounts can be bound; the rest of the
//! guest cannot. Other file systems must be ones without content of their own.

use agent_protocol::{path::GuestPath, rpc::oci};
use serde_json::{Value, json};

use crate::{
    error::{RequestError, Unsupported},
    parse::{at_most, no_zero, texts},
    paths::{SANDBOX_ROOT, SHARED_ROOT},
};

const MOUNTS_MAX: usize = 1024;
const OPTIONS_MAX: usize = 64;
/// File systems that show a container only itself, or nothing.
const PSEUDO: [&str; 7] = [
    "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2",
];

pub(super) fn parse(mounts: Vec<oci::Mount>) -> Result<Vec<Value>, RequestError> {
    at_most("mounts", mounts.len(), MOUNTS_MAX)?;
    mounts.into_iter().map(mount).collect()
}

fn mount(mount: oci::Mount) -> Result<Value, RequestError> {
    GuestPath::parse(&mount.destination).map_err(|source| RequestError::Path {
        field: "mount destination",
        source,
    })?;
    texts("mount options", &mount.options, OPTIONS_MAX)?;
    no_zero("mount source", &mount.source)?;
    // The library refuses options of the host's user namespaces anyway; being
    // explicit keeps a later version of it from obeying them.
    if mount.options.iter().any(|option| option.contains("idmap")) {
        return Err(RequestError::Invalid("mount option idmap"));
    }
    let binds = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    let bind = mount.type_ == "bind" || mount.options.iter().any(binds);
    if bind {
        if matches!(mount.destination.as_str(), "/dev" | "/dev/pts") {
            return Err(RequestError::Invalid("mount at /dev"));
        }
        let allowed = GuestPath::parse(&mount.source).is_ok_and(|path| {
            path.below(SHARED_ROOT)
                .or(path.below(SANDBOX_ROOT))
                .is_some()
        });
        if !allowed {
            return Err(Unsupported::MountSource {
                destination: mount.destination,
            }
            .into());
        }
    } else if !PSEUDO.contains(&mount.type_.as_str()) {
        let kind = mount.type_.chars().take(32).collect();
        return Err(Unsupported::MountType {
            destination: mount.destination,
            kind,
        }
        .into());
    }
    let options = without_devices(&mount.destination, mount.options);
    Ok(json!({
        "destination": mount.destination,
        "type": if bind { "bind".to_owned() } else { mount.type_ },
        "source": mount.source,
        "options": options,
    }))
}

/// Device nodes work in a container's own `/dev` and nowhere else.
fn without_devices(destination: &str, mut options: Vec<String>) -> Vec<String> {
    if !matches!(destination, "/dev" | "/dev/pts") {
        options.retain(|option| option != "dev" && option != "nodev");
        options.push("nodev".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, source: &str, options: &[&str]) -> oci::Mount {
        oci::Mount {
            destination: "/x".into(),
            source: source.into(),
            type_: kind.into(),
            options: options.iter().map(|&option| option.into()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn files_of_the_guest_cannot_be_bound() {
        let shared = format!("{SHARED_ROOT}/c1-0123456789abcdef-hosts");
        let shm = format!("{SANDBOX_ROOT}/shm");
        for source in [shared.as_str(), shm.as_str()] {
            assert!(
                mount(entry("bind", source, &["rbind", "ro"])).is_ok(),
                "{source}"
            );
        }
        for source in [
            "/",
            "/etc/passwd",
            "/run/kata-containers/c2/rootfs",
            "/run/kata-containers/shared/containers/../../c2",
            "/run/kata-agent",
            "relative",
            "",
        ] {
            assert!(mount(entry("bind", source, &[])).is_err(), "{source}");
            assert!(
                mount(entry("tmpfs", source, &["bind"])).is_err(),
                "{source} in disguise"
            );
        }
    }

    #[test]
    fn only_file_systems_without_content_are_mounted() {
        for kind in PSEUDO {
            assert!(mount(entry(kind, kind, &["nosuid"])).is_ok(), "{kind}");
        }
        for kind in [
            "ext4", "overlay", "9p", "virtiofs", "devtmpfs", "debugfs", "none", "",
        ] {
            assert!(mount(entry(kind, "/dev/vda", &[])).is_err(), "{kind}");
        }
    }

    #[test]
    fn device_nodes_work_in_the_containers_dev_only() {
        let shared = format!("{SHARED_ROOT}/v");
        for (destination, kind, source, options) in [
            ("/data", "bind", shared.as_str(), vec!["rbind", "dev"]),
            ("/tmp", "tmpfs", "tmpfs", vec![]),
            ("/dev/shm", "tmpfs", "tmpfs", vec!["dev", "nosuid"]),
            ("/dev/x", "tmpfs", "tmpfs", vec![]),
        ] {
            let mut entry = entry(kind, source, &options);
            entry.destination = destination.into();
            let options = mount(entry).unwrap()["options"].to_string();
            assert!(options.contains("\"nodev\""), "{destination}: {options}");
            assert!(!options.contains("\"dev\""), "{destination}: {options}");
        }
        let mut dev = entry("tmpfs", "tmpfs", &["nosuid"]);
        dev.destination = "/dev".into();
        assert_eq!(mount(dev).unwrap()["options"], json!(["nosuid"]));
    }

    #[test]
    fn a_destination_is_absolute_and_plain() {
        for destination in ["", "x", "/", "/a/../b", "/a\0"] {
            let mut bad = entry("proc", "proc", &[]);
            bad.destination = destination.into();
            assert!(mount(bad).is_err(), "{destination:?}");
        }
    }
}
