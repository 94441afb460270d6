//! Where a kubelet has the volumes of a pod.

use serde_json::Value;

use super::environment::list;

/// A volume that a container mounts.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// On the node.
    pub(crate) path: String,
    /// For every container.
    pub(crate) read_only: bool,
}

/// The directory of a pod.
pub(crate) fn directory(pod: &Value) -> String {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    format!("/var/lib/kubelet/pods/{uid}")
}

/// The volume of a mount.
pub(crate) fn volume_of(pod: &Value, mount: &Value) -> Place {
    let mut volumes = list(&pod["spec"]["volumes"]);
    let volume = volumes.find(|one| one["name"] == mount["name"]);
    place(pod, volume.unwrap_or(&Value::Null))
}

/// Where a volume is.
pub(crate) fn place(pod: &Value, volume: &Value) -> Place {
    let name = volume["name"].as_str().unwrap_or_default().to_owned();
    if let Some(path) = volume["hostPath"]["path"].as_str() {
        let path = path.to_owned();
        return Place {
            name,
            path,
            read_only: false,
        };
    }
    let plug_in = plug_in(volume);
    let path = format!("{}/volumes/kubernetes.io~{plug_in}/{name}", directory(pod));
    Place {
        name,
        path,
        read_only: plug_in != "empty-dir",
    }
}

/// The kind of a volume, as a kubelet names its directory.
pub(crate) fn plug_in(volume: &Value) -> &'static str {
    let kinds = [
        ("configMap", "configmap"),
        ("secret", "secret"),
        ("downwardAPI", "downward-api"),
        ("projected", "projected"),
    ];
    let kind = kinds.into_iter().find(|(kind, _)| volume[kind].is_object());
    kind.map_or("empty-dir", |(_, plug_in)| plug_in)
}
