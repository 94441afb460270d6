//! Recorded bundles, brought into the guest natively: through the shim's own transformation and
//! the guest's own parser.
//!
//! The transformation is private to a program, so its source is compiled in here. Only what a
//! mount's source becomes is spelt anew, because deciding that takes a node's disk.

#[path = "../../../../shim/src/spec.rs"]
mod transformation;

use std::{fs, path::Path};

use agent_protocol::{
    path::GuestPath,
    rpc::agent::{CreateContainerRequest, Storage},
};
use serde_json::Value;
use shim_oci::{Mount, Role, Spec};
use tests_replay::PODS;
use transformation::{Trim, guest_spec};

/// Where the host's files are.
pub const SHARE: &str = "/run/kata-containers/shared/containers";
const SANDBOX: &str = "/run/kata-containers/sandbox";

/// The text of a recorded bundle, if that release could run the pod.
pub fn bundle(release: &str, pod: &str, container: &str) -> Option<String> {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/bundles");
    fs::read_to_string(recordings.join(release).join(pod).join(container)).ok()
}

/// Each container of each pod.
pub fn containers() -> Vec<(&'static str, String)> {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/bundles/2.1");
    let mut all = Vec::new();
    for pod in PODS {
        for entry in fs::read_dir(recordings.join(pod)).into_iter().flatten() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name != "sandbox.json" {
                all.push((pod, name));
            }
        }
    }
    all
}

/// What a mount's source is in the guest, and the volume that it is, if it is one.
fn in_guest(mount: &Mount, container: &str, sandbox: &str) -> (String, Option<String>) {
    if mount.kind != "bind" {
        return (mount.source.clone(), None);
    }
    if mount.source.ends_with(&format!("{sandbox}/shm")) {
        return (format!("{SANDBOX}/shm"), None);
    }
    if let Some((_, name)) = mount.source.split_once("/kubernetes.io~empty-dir/") {
        let volume = format!("{SHARE}/{sandbox}/rootfs/local/{name}");
        return (volume.clone(), Some(volume));
    }
    let last = mount.destination.rsplit('/').next().unwrap_or_default();
    let copy = format!("{SHARE}/{container}-0123456789abcdef-{last}");
    (copy, None)
}

/// The request that the shim makes of a bundle, and the volumes that it makes the guest make.
pub fn request(text: &str) -> (CreateContainerRequest, Vec<GuestPath>) {
    let json: Value = serde_json::from_str(text).unwrap();
    let spec: Spec = serde_json::from_str(text).unwrap();
    let annotation = |name: &str| spec.annotation(&format!("io.kubernetes.cri.{name}"));
    let sandbox = annotation("sandbox-id").unwrap().to_owned();
    let group = json["linux"]["cgroupsPath"].as_str().unwrap();
    let id = group.rsplit('/').next().unwrap();
    let (mut mounts, mut volumes) = (spec.mounts.clone(), Vec::new());
    for mount in &mut mounts {
        let (source, volume) = in_guest(mount, id, &sandbox);
        mount.source = source;
        volumes.extend(volume.and_then(|volume| GuestPath::parse(&volume).ok()));
    }
    let trim = Trim {
        id,
        role: Role::Container,
        bundle: Path::new("/bundle"),
        mounts,
        drop_seccomp: false,
        processes_of: None,
    };
    let image = Storage {
        driver: "image_guest_pull".to_owned(),
        driver_options: vec!["image_guest_pull={}".to_owned()],
        source: annotation("image-name").unwrap().to_owned(),
        fstype: "overlay".to_owned(),
        mount_point: format!("/run/kata-containers/{id}/rootfs"),
        ..Storage::default()
    };
    let request = CreateContainerRequest {
        container_id: id.to_owned(),
        exec_id: id.to_owned(),
        storages: vec![image],
        OCI: Some(guest_spec(&spec, trim)).into(),
        sandbox_pidns: spec.namespace("pid").is_some_and(|path| !path.is_empty()),
        ..CreateContainerRequest::default()
    };
    (request, volumes)
}
