//! A guest image with the one process that asks for reports.

use std::{
    fs,
    num::NonZeroU32,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use guest_image_measurement::{
    Firmware, KernelHashes, Launch, SevFeatures, Sha256Digest, VcpuCount, VcpuModel, Vmm,
};
use shim_hypervisor::{Accelerator, Confidential, SevSnp, VmConfig, Vsock};

use crate::owner::{FIRMWARE, HOST_DATA, POLICY};

pub(crate) struct Bed {
    image: PathBuf,
    cmdline: String,
    device: Option<PathBuf>,
    authority: PathBuf,
    state: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn open() -> Option<Self> {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kata-cc");
        let prefix = std::env::var_os("KATA_CC_PREFIX").unwrap_or(built.into());
        let device = Path::new(&prefix).join("bin/vhost-device-vsock");
        let device = device.exists().then_some(device);
        let missing = [
            (Path::new(FIRMWARE).exists(), FIRMWARE),
            (builder().exists(), "kata-cc-image"),
            (
                device.is_some() || Path::new("/dev/vhost-vsock").exists(),
                "vhost-device-vsock",
            ),
        ];
        if let Some((_, name)) = missing.iter().find(|(there, _)| !there) {
            eprintln!("skipped: no {name}; run hack/build");
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let image = IMAGE.clone();
        let manifest = fs::read(image.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        Some(Self {
            cmdline: manifest["cmdline"].as_str().unwrap().to_owned(),
            image,
            device,
            authority: Path::new(env!("CARGO_TARGET_TMPDIR")).join("authority"),
            state,
        })
    }

    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn roots(&self) -> PathBuf {
        self.authority.join("roots.pem")
    }

    /// The digest that an owner computes without running anything.
    pub(crate) fn launch_digest(&self, vcpus: u16) -> [u8; 48] {
        let digest = |name: &str| Sha256Digest::of(&fs::read(self.image.join(name)).unwrap());
        let kernel =
            KernelHashes::new(digest("vmlinuz"), Some(digest("initrd.img")), &self.cmdline);
        let launch = Launch {
            firmware: &Firmware::parse(&fs::read(FIRMWARE).unwrap()).unwrap(),
            kernel: Some(&kernel),
            signature: VcpuModel::Epyc.signature(),
            features: SevFeatures::SNP,
            vmm: Vmm::Qemu,
        };
        let digest = launch.digest(VcpuCount::new(vcpus).unwrap()).unwrap();
        *digest.as_bytes()
    }

    /// A VM whose hypervisor is a script that runs the processor with these options.
    pub(crate) fn config(&self, words: &str, vcpus: u32) -> VmConfig {
        let script = self.state.path().join("qemu");
        let text = format!(
            "#!/bin/sh\nexec {} qemu --authority {} {words} -- \"$@\"\n",
            env!("CARGO_BIN_EXE_simulated-psp"),
            self.authority.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        VmConfig {
            path: script,
            vcpus: NonZeroU32::new(vcpus).unwrap(),
            kernel: self.image.join("vmlinuz"),
            initrd: self.image.join("initrd.img"),
            cmdline: self.cmdline.clone(),
            firmware: Some(FIRMWARE.into()),
            vsock: Vsock::Auto {
                device: self.device.clone(),
            },
            accelerator: Accelerator::Auto,
            confidential: Confidential::Simulated(SevSnp {
                host_data: HOST_DATA,
                policy: POLICY,
                identity: None,
            }),
            ..VmConfig::new("test", self.state.path().to_owned())
        }
    }
}

/// One image for every test of this program.
static IMAGE: LazyLock<PathBuf> = LazyLock::new(|| build_image(&builder()));

fn builder() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_simulated-psp")).with_file_name("kata-cc-image")
}

/// The program has a feature that the release's programs must not be built with; selected
/// with the workspace, its dependencies are those that are there already.
fn build_image(builder: &Path) -> PathBuf {
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    let build = ["build", "--quiet", "--locked", "--release"];
    let what = [
        "--workspace",
        "--features=agent/simulated-tee,tests-simulated-psp/guest",
        "--bin=simulated-psp-guest",
    ];
    let mut cargo = Command::new(env!("CARGO"));
    run(cargo
        .args(build)
        .args(what)
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    let guest = builder.with_file_name("simulated-psp-guest");
    let mut image = Command::new(builder);
    image.args(["build", "--compression", "none", "--agent"]);
    run(image.arg(guest).arg("--output").arg(&into));
    into.join("default")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
