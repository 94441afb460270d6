//! A secure processor that is played, for pods of a bed that are to prove something.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{authority::Authority, bed::Bed, guest, run::run_ok, tools::built};

/// The build that measures kernel, initrd and command line.
const FIRMWARE: &str = "/usr/share/ovmf/OVMF.amdsev.fd";
const DIRECTORY: &str = "/run/bed/simulated-psp";
const WRAPPER: &str = "/run/bed/simulated-psp/qemu";
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// What a bed needs for pods with `tee = "simulated"`.
#[derive(Debug)]
pub struct SimulatedTee {
    image: PathBuf,
}

impl SimulatedTee {
    /// Builds the guest that may ask the played processor, and puts the processor into the bed.
    ///
    /// # Errors
    /// When something cannot be built or written.
    pub fn install(bed: &Bed) -> Result<Self> {
        let agent = agent()?;
        let image = guest::trusting(&Authority::open()?, &agent)?;
        let tee = Self { image };
        tee.wrap(bed, "")?;
        Ok(tee)
    }

    /// Writes the program that the shim runs as QEMU; `script` sees the arguments first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn wrap(&self, bed: &Bed, script: &str) -> Result<()> {
        let program = built("simulated-psp")?;
        let text = format!(
            "#!/bin/bash\n{script}\nexec {} qemu --authority {DIRECTORY}/authority -- \"$@\"\n",
            program.display()
        );
        bed.node().write(WRAPPER, text)?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bed.node().path(WRAPPER), executable)
            .context("making the wrapper executable")
    }

    /// A drop-in for the shim's configuration.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!(
            "[hypervisor.qemu]\ntee = \"simulated\"\npath = \"{WRAPPER}\"\nfirmware = \"{FIRMWARE}\"\n\
             guest_image = \"{}\"\n",
            self.image.display()
        )
    }

    /// Makes the processor's roots before a pod is started; answers where they are, in the bed.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make_roots(&self, bed: &Bed) -> Result<PathBuf> {
        let mut command = bed.command(built("simulated-psp")?);
        command.args([
            "authority",
            "--authority",
            &format!("{DIRECTORY}/authority"),
        ]);
        run_ok(command, BUILD_DEADLINE)?;
        Ok(PathBuf::from(format!("{DIRECTORY}/authority/roots.pem")))
    }

    /// Where the processor's roots are, in PEM, once a pod was started.
    #[must_use]
    pub fn roots(&self, bed: &Bed) -> PathBuf {
        bed.node().path(DIRECTORY).join("authority/roots.pem")
    }

    /// The guest image that is launched.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }
}

/// Built apart: beside the release's agent the feature would reach that one, too. Selected
/// with the workspace, so that its dependencies are those that are there already.
fn agent() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--locked", "--release"])
        .arg("--workspace")
        .arg("--features=agent/simulated-tee,tests-simulated-psp/guest")
        .arg("--bin=kata-agent-simulated")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    run_ok(cargo, BUILD_DEADLINE).context("building the agent with a simulated TEE")?;
    built("kata-agent-simulated")
}

/// Whether the firmware is installed; without it nothing can be measured.
#[must_use]
pub fn firmware_is_installed() -> bool {
    Path::new(FIRMWARE).exists()
}
