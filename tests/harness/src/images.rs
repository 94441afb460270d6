//! Test images, made by tools that are not ours: `umoci` and `skopeo`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    node::Node,
    registry::{REGISTRY, Registry},
    run::run_ok,
    tools::system,
};

const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// An image to be: its configuration and the layers that make its root.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// `name:tag` in the registry.
    pub name: &'static str,
    /// Arguments of `umoci config`.
    pub config: &'static [&'static str],
    /// One function per layer; each changes the root that it is given.
    pub layers: &'static [fn(&Path) -> Result<()>],
    /// Arguments of `skopeo copy`.
    pub copy: &'static [&'static str],
}

/// The images every bed has.
#[derive(Debug)]
pub struct TestImages;

impl TestImages {
    /// Sandbox image for handlers that need one.
    pub const PAUSE: Image = Image {
        name: "pause:1",
        config: &[
            "--config.entrypoint=/bin/busybox",
            "--config.entrypoint=sleep",
            "--config.entrypoint=2147483647",
        ],
        layers: &[busybox],
        copy: &[],
    };
    /// Every applet of busybox, two layers.
    pub const BUSYBOX: Image = Image {
        name: "busybox:1",
        config: &["--config.cmd=/bin/sh", "--config.env=PATH=/bin:/usr/bin"],
        layers: &[busybox, second],
        copy: &[],
    };
    /// The same root in Docker's format, with a user by name, a directory and an environment of its own.
    pub const CONFIGURED: Image = Image {
        name: "configured:1",
        config: &[
            "--config.user=tester",
            "--config.workingdir=/home/tester",
            "--config.env=PATH=/bin",
            "--config.env=FROM_IMAGE=yes",
            "--config.entrypoint=/bin/echo",
            "--config.cmd=from-image",
        ],
        layers: &[busybox, second],
        copy: &["--format=v2s2"],
    };
    /// An image whose last layer a test spoils in the registry's storage.
    pub const SPOILED: Image = Image {
        name: "spoiled:1",
        config: &["--config.cmd=/bin/true"],
        layers: &[busybox, unique_to_spoiled],
        copy: &[],
    };

    /// Builds all images and pushes them.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn push(node: &Node, registry: &Registry) -> Result<()> {
        for image in [Self::PAUSE, Self::BUSYBOX, Self::CONFIGURED, Self::SPOILED] {
            image
                .push(node, registry)
                .with_context(|| format!("making image {}", image.name))?;
        }
        Self::spoil(node, registry)
    }

    /// Changes one byte of the last layer of [`TestImages::SPOILED`] at rest.
    fn spoil(node: &Node, registry: &Registry) -> Result<()> {
        let manifest = registry.manifest(node, Self::SPOILED.name)?;
        let layers = manifest["layers"]
            .as_array()
            .context("a manifest has layers")?;
        let digest = layers.last().and_then(|layer| layer["digest"].as_str());
        let path = registry.blob(node, digest.context("a layer has a digest")?);
        let mut bytes = fs::read(&path).context("reading the layer to spoil")?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0xff;
        }
        fs::write(&path, bytes).context("spoiling a layer")
    }
}

impl Image {
    /// The image's reference in the bed.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{REGISTRY}/{}", self.name)
    }

    /// Builds the image and pushes it.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn push(&self, node: &Node, registry: &Registry) -> Result<()> {
        let inside = format!("/run/bed/images/{}", self.name.replace(':', "-"));
        let directory = node.path(&inside);
        fs::create_dir_all(&directory)?;
        self.build(node, &inside)?;
        let source = format!("oci:{inside}/layout:latest");
        registry.push(node, &source, self.name, self.copy)?;
        fs::remove_dir_all(&directory).context("removing the image's build directory")
    }

    /// The tools run inside: only there is `/run/bed` what it seems.
    fn build(&self, node: &Node, directory: &str) -> Result<()> {
        let umoci = |arguments: &[&str]| {
            let mut command = node.command(system("umoci")?);
            command.args(arguments);
            run_ok(command, TOOL_DEADLINE).map(drop)
        };
        let layout = format!("--layout={directory}/layout");
        let image = format!("--image={directory}/layout:latest");
        umoci(&["init", &layout])?;
        umoci(&["new", &image])?;
        for (index, layer) in self.layers.iter().enumerate() {
            let bundle = format!("{directory}/bundle-{index}");
            umoci(&["unpack", &image, &bundle])?;
            layer(&node.path(&bundle).join("rootfs"))?;
            umoci(&["repack", &image, &bundle])?;
        }
        let mut config = vec!["config", &image];
        config.extend(self.config);
        umoci(&config)
    }
}

/// A layer: busybox with a link per applet, the usual directories and a user.
///
/// # Errors
/// When busybox is not installed or the root cannot be written.
pub fn busybox(root: &Path) -> Result<()> {
    for directory in [
        "bin",
        "dev",
        "etc",
        "home/tester",
        "proc",
        "sys",
        "tmp",
        "usr/bin",
        "var",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    let program = root.join("bin/busybox");
    fs::copy(system("busybox")?, &program).context("copying busybox")?;
    let applets = run_ok(
        {
            let mut command = Command::new(&program);
            command.arg("--list");
            command
        },
        TOOL_DEADLINE,
    )?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\ntester:x:1000:1000::/home/tester:/bin/sh\n",
    )?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\ntester:x:1000:\nextra:x:2000:tester\n",
    )?;
    fs::write(root.join("etc/only-in-the-first-layer"), "gone\n")?;
    nix::unistd::chown(
        &root.join("home/tester"),
        Some(1000.into()),
        Some(1000.into()),
    )?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
        .context("opening /tmp of the image")
}

/// A second layer that adds, replaces and removes.
fn second(root: &Path) -> Result<()> {
    fs::write(root.join("etc/from-the-second-layer"), "here\n")?;
    fs::remove_file(root.join("etc/only-in-the-first-layer")).context("removing a file in a layer")
}

fn unique_to_spoiled(root: &Path) -> Result<()> {
    let noise: Vec<u8> = (0..65_536_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(root.join("spoiled"), noise).context("writing the layer to spoil")
}
