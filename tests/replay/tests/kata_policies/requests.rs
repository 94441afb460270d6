//! What the shim asks for a recorded bundle, as Kata's shim would ask it too.

use std::{fs, path::Path};

use agent_protocol::rpc::agent::{CreateContainerRequest, Storage};
use policy_engine::rego::{Interpreter, Policy};
use shim_oci::{Mount, Role, Spec};

use crate::transformation::{Trim, guest_spec};

pub(crate) const RELEASES: [&str; 2] = ["1.7", "2.1"];
const SHARE: &str = "/run/kata-containers/shared/containers";
const RULES: &str = include_str!("../../../../policy/engine/tests/policies/kata-rules.rego");
const DATA: &str = include_str!("../../../../policy/engine/tests/policies/kata-data.json");

/// The policy of the pod `life`, for the OCI version of a release, with these settings of its
/// `request_defaults` in place of the default.
pub(crate) fn policy_with(release: &str, settings: &[(&str, bool)]) -> Policy {
    let text = policy_text(release, settings);
    Policy::load(&text, Interpreter::load).unwrap()
}

pub(crate) fn policy_text(release: &str, settings: &[(&str, bool)]) -> String {
    let version = spec(release, "main").oci_version;
    let mut data = DATA.replace("OCI_VERSION", &version);
    for (name, value) in settings {
        let from = format!("\"{name}\": {}", !value);
        assert!(data.contains(&from), "{name}");
        data = data.replace(&from, &format!("\"{name}\": {value}"));
    }
    format!("{RULES}\npolicy_data := {data}\n")
}

pub(crate) fn policy(release: &str) -> Policy {
    policy_with(release, &[])
}

fn spec(release: &str, container: &str) -> Spec {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/bundles");
    let path = recordings.join(release).join("life").join(container);
    let text = fs::read_to_string(path.with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn in_guest(mount: &Mount, id: &str) -> Mount {
    let mut mount = mount.clone();
    if mount.destination == "/dev/shm" {
        "/run/kata-containers/sandbox/shm".clone_into(&mut mount.source);
        mount.options = vec!["rbind".to_owned()];
    } else if mount.kind == "bind" {
        let last = mount.destination.rsplit('/').next().unwrap_or_default();
        mount.source = format!("{SHARE}/{id}-0123456789abcdef-{last}");
    }
    mount
}

/// What the shim asks today.
pub(crate) fn from_shim(
    release: &str,
    container: &str,
    drop_seccomp: bool,
) -> CreateContainerRequest {
    let spec = spec(release, container);
    let id = spec.linux.as_ref().unwrap().cgroups_path.clone();
    let id = id.rsplit('/').next().unwrap();
    let role = match container {
        "sandbox" => Role::Sandbox,
        _ => Role::Container,
    };
    let trim = Trim {
        id,
        role,
        bundle: Path::new("/run/containerd/bundle"),
        mounts: spec
            .mounts
            .iter()
            .map(|mount| in_guest(mount, id))
            .collect(),
        drop_seccomp,
        processes_of: None,
    };
    let image = Storage {
        driver: "image_guest_pull".to_owned(),
        driver_options: vec!["image_guest_pull={}".to_owned()],
        source: "registry.example/image".to_owned(),
        fstype: "overlay".to_owned(),
        mount_point: format!("/run/kata-containers/{id}/rootfs"),
        ..Storage::default()
    };
    CreateContainerRequest {
        container_id: id.to_owned(),
        exec_id: id.to_owned(),
        storages: vec![image],
        OCI: Some(guest_spec(&spec, trim)).into(),
        ..CreateContainerRequest::default()
    }
}

/// The same as Kata's rules need it: the sandbox says its network, and nothing brings a filter
/// of system calls.
pub(crate) fn request(release: &str, container: &str) -> CreateContainerRequest {
    let mut request = from_shim(release, container, true);
    if container == "sandbox" {
        let network = "/var/run/netns/cni-cbc3a0cf-b838-5a74-326b-e676bd63ba6f";
        let notes = &mut request.OCI.as_mut().unwrap().Annotations;
        notes.insert("nerdctl/network-namespace".to_owned(), network.to_owned());
    }
    request
}

/// A container with volumes, devices and open variables: `main`, told to be `stored`.
pub(crate) fn stored(release: &str) -> CreateContainerRequest {
    let mut request = request(release, "main");
    let id = request.container_id.clone();
    let block = "/run/kata-containers/sandbox/storage/MDEvMDI=";
    request.storages.push(Storage {
        driver: "blk".to_owned(),
        driver_options: vec![
            "encryption_key=ephemeral".to_owned(),
            "create_filesystem".to_owned(),
        ],
        source: "01/02".to_owned(),
        fstype: "ext4".to_owned(),
        mount_point: block.to_owned(),
        shared: true,
        ..Storage::default()
    });
    request.storages.push(Storage {
        driver: "ephemeral".to_owned(),
        source: "tmpfs".to_owned(),
        fstype: "tmpfs".to_owned(),
        mount_point: "/run/kata-containers/sandbox/ephemeral/memory".to_owned(),
        ..Storage::default()
    });
    request.devices = vec![device("blk", "block", "/dev/block"), vfio("0")];
    let spec = request.OCI.as_mut().unwrap();
    for (destination, source, access) in [
        ("/scratch", block.to_owned(), "rw"),
        (
            "/config",
            format!("{SHARE}/{id}-0123456789abcdef-config"),
            "ro",
        ),
        (
            "/memory",
            "/run/kata-containers/sandbox/ephemeral/memory".to_owned(),
            "rw",
        ),
    ] {
        spec.Mounts.push(agent_protocol::rpc::oci::Mount {
            destination: destination.to_owned(),
            source,
            type_: "bind".to_owned(),
            options: ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
            ..Default::default()
        });
    }
    for (key, value) in [
        ("io.kubernetes.cri.container-name", "stored"),
        ("cdi.k8s.io/vfio0", "nvidia.com/gpu=0"),
    ] {
        spec.Annotations.insert(key.to_owned(), value.to_owned());
    }
    let process = spec.Process.as_mut().unwrap();
    process.Args = ["store", "life", "at any", "$HOME"]
        .map(str::to_owned)
        .to_vec();
    process.Env.push("LITERAL=as it is".to_owned());
    spec.Linux
        .as_mut()
        .unwrap()
        .Devices
        .push(agent_protocol::rpc::oci::LinuxDevice {
            Path: "/dev/block".to_owned(),
            ..Default::default()
        });
    request
}

pub(crate) fn device(kind: &str, id: &str, path: &str) -> agent_protocol::rpc::agent::Device {
    agent_protocol::rpc::agent::Device {
        id: id.to_owned(),
        type_: kind.to_owned(),
        container_path: path.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn vfio(number: &str) -> agent_protocol::rpc::agent::Device {
    let path = format!("/dev/vfio/devices/vfio{number}");
    let mut device = device("vfio-pci-gk", &format!("vfio{number}"), &path);
    device.options = vec!["0000:01:00.0=01/00".to_owned()];
    device
}
