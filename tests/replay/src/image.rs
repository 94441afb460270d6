//! Images that play the recorded ones: busybox of Debian, with the probe in it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use tests_harness::{Bed, Image, REGISTRY, built, busybox};

/// Where the probe lies in both images.
pub(crate) const PROBE: &str = "/replay-probe";

/// The names in the recordings.
pub(crate) const RECORDED: [&str; 2] = [
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
    "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
];

const IMAGES: [Image; 2] = [
    Image {
        name: "recorded-busybox:1.37.0-1",
        config: &[
            "--config.cmd=sh",
            "--config.env=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ],
        layers: &[busybox, as_recorded],
        copy: &[],
    },
    Image {
        name: "recorded-agnhost:2.63.0",
        config: &[
            "--config.entrypoint=/agnhost",
            "--config.cmd=pause",
            "--config.env=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ],
        layers: &[busybox, as_recorded, agnhost],
        copy: &[],
    },
];

/// The bed's name of each image in [`RECORDED`].
pub(crate) fn names() -> [String; 2] {
    IMAGES.map(|image| format!("{REGISTRY}/{}", image.name))
}

/// Makes both images and pushes them to the bed's registry.
pub(crate) fn push(bed: &Bed) -> Result<()> {
    for image in IMAGES {
        let pushed = image.push(bed.node(), bed.registry());
        pushed.with_context(|| format!("making image {}", image.name))?;
    }
    Ok(())
}

/// Users as in the recorded image, and the probe.
fn as_recorded(root: &Path) -> Result<()> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    fs::write(root.join("etc/passwd"), passwd)?;
    fs::write(root.join("etc/group"), "root:x:0:\nnobody:x:65534:\n")?;
    copy(root, PROBE)
}

fn agnhost(root: &Path) -> Result<()> {
    copy(root, "/agnhost")
}

fn copy(root: &Path, to: &str) -> Result<()> {
    let path = root.join(to.trim_start_matches('/'));
    fs::copy(built("replay-probe")?, &path).context("copying the probe")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("opening the probe")
}
