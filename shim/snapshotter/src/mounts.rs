//! The mount that stands for a root file system which exists only in a guest.
//!
//! The shim recognises it by one option, `io.katacontainers.volume=` with a
//! `KataVirtualVolume` of type `image_guest_pull`. containerd itself mounts it on
//! the node now and then: to look up a user in `/etc/passwd`, or to copy the
//! contents of image volumes. Other snapshotters for guest pull name a `fuse.` type
//! so that a mount helper can drop the option; this one is a bind mount of an empty,
//! read-only directory, because the kernel ignores the data of a bind mount
//! (mount(2)). So there is no helper to install, and what containerd finds is the
//! truth: the node has no file of the image, only users that make the guest look
//! (`image_users`).

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::wire::Mount;

/// The option by which the shim recognises a virtual volume.
const VOLUME_OPTION: &str = "io.katacontainers.volume=";

/// The image is named by the container's annotations, never by the snapshot: many
/// images can share one chain id.
const UNKNOWN_IMAGE: &str = "dummy-image-reference";

/// `KataVirtualVolume`, the keys that guest pull uses.
#[derive(Serialize)]
struct VirtualVolume {
    volume_type: &'static str,
    source: &'static str,
    fs_type: &'static str,
    options: [&'static str; 0],
    image_pull: ImagePull,
}

/// What the guest is told about the pull beside the image's name: nothing.
#[derive(Serialize)]
struct ImagePull {
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// The mount for a container's root; `empty` is the directory the node shows instead.
pub(crate) fn guest_pull(empty: &Path) -> Mount {
    let volume = VirtualVolume {
        volume_type: "image_guest_pull",
        source: UNKNOWN_IMAGE,
        fs_type: "",
        options: [],
        image_pull: ImagePull {
            metadata: serde_json::Map::new(),
        },
    };
    let json = serde_json::to_vec(&volume).expect("strings always serialize");
    let option = format!("{VOLUME_OPTION}{}", STANDARD.encode(json));
    bind(empty, vec!["rbind".to_owned(), "ro".to_owned(), option])
}

/// The mount for a layer that somebody insists on unpacking, and that is thrown away.
pub(crate) fn scratch(directory: &Path) -> Mount {
    bind(directory, vec!["rbind".to_owned(), "rw".to_owned()])
}

fn bind(source: &Path, options: Vec<String>) -> Mount {
    Mount {
        r#type: "bind".to_owned(),
        source: source.to_string_lossy().into_owned(),
        target: String::new(),
        options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_is_one_option_of_one_bind_mount() {
        let mount = guest_pull(Path::new("/r/empty"));
        assert_eq!(
            (mount.r#type.as_str(), mount.source.as_str()),
            ("bind", "/r/empty")
        );
        assert_eq!(mount.options[..2], ["rbind", "ro"]);
        let encoded = mount.options[2].strip_prefix(VOLUME_OPTION).unwrap();
        let json = STANDARD.decode(encoded).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"volume_type":"image_guest_pull","source":"dummy-image-reference","fs_type":"","options":[],"image_pull":{"metadata":{}}}"#
        );
    }

    #[test]
    fn the_options_fit_the_page_that_mount_passes() {
        let length: usize = guest_pull(Path::new("/r"))
            .options
            .iter()
            .map(|o| o.len() + 1)
            .sum();
        assert!(length < 4096 - 512, "{length}");
    }
}
