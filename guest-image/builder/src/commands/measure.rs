//! `measure`: what a genuine VM reports when it boots an image, and why one reports otherwise.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Args;
use guest_image_builder::{
    manifest::Manifest,
    measure::{Choices, measure, measured},
};
use guest_image_measurement::{
    Firmware, SevFeatures, Sha384Digest, VcpuCounts, VcpuModel, Vmm,
    explain::{MAX_SEARCHED, explain_image},
};

use crate::Outcome;

/// Arguments of `measure`.
#[derive(Args)]
pub(crate) struct MeasureArgs {
    /// Directory of the image
    image: PathBuf,
    /// Firmware that starts it, a build for direct boot
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/share/ovmf/OVMF.amdsev.fd"
    )]
    firmware: PathBuf,
    /// Numbers of virtual processors, such as 1-4,8
    #[arg(long, value_name = "LIST", default_value = "1-8")]
    vcpus: VcpuCounts,
    /// Processor type (repeatable); the default is what the shim launches
    #[arg(long, value_name = "TYPE", default_value = "EPYC-v4")]
    vcpu_type: Vec<VcpuModel>,
    /// SEV features of the host, in hexadecimal (repeatable); 0x21 is with debug swap
    #[arg(long, value_name = "BITS", default_value = "0x1")]
    sev_features: Vec<SevFeatures>,
    /// Print a message for a reference value provider instead
    #[arg(long, conflicts_with = "explain")]
    rvps: bool,
    /// Say which launch gives this digest instead
    #[arg(long, value_name = "DIGEST")]
    explain: Option<Sha384Digest>,
    /// Further firmware that may have been launched (repeatable)
    #[arg(long, value_name = "FILE", requires = "explain")]
    suspect_firmware: Vec<PathBuf>,
    /// Further command line that may have been launched (repeatable)
    #[arg(long, value_name = "TEXT", requires = "explain")]
    suspect_cmdline: Vec<String>,
}

pub(crate) fn run(arguments: &MeasureArgs) -> anyhow::Result<Outcome> {
    let manifest = Manifest::read(&arguments.image)?;
    if let Some(difference) = super::difference(&manifest, &arguments.image)? {
        return Ok(difference);
    }
    let (bytes, firmware) = read_firmware(&arguments.firmware)?;
    if let Some(wanted) = arguments.explain {
        return explained(arguments, &manifest, firmware, wanted);
    }
    let choices = Choices {
        vcpus: arguments.vcpus.as_slice().to_vec(),
        models: arguments.vcpu_type.clone(),
        features: arguments.sev_features.clone(),
        vmm: Vmm::Qemu,
    };
    let measurements = measure(&manifest, &bytes, &firmware, &choices)?;
    let text = if arguments.rvps {
        let message = measurements.reference_values.to_rvps_message();
        serde_json::to_string_pretty(&message)?
    } else {
        serde_json::to_string_pretty(&measurements)?
    };
    println!("{text}");
    Ok(Outcome::Done)
}

fn read_firmware(path: &PathBuf) -> anyhow::Result<(Vec<u8>, Firmware)> {
    let bytes = fs::read(path).with_context(|| {
        format!(
            "cannot read the firmware {} (Debian's package is ovmf-amdsev)",
            path.display()
        )
    })?;
    let firmware =
        Firmware::parse(&bytes).with_context(|| format!("the firmware {}", path.display()))?;
    Ok((bytes, firmware))
}

fn explained(
    arguments: &MeasureArgs,
    manifest: &Manifest,
    firmware: Firmware,
    wanted: Sha384Digest,
) -> anyhow::Result<Outcome> {
    let given = arguments.firmware.display().to_string();
    let others: Vec<(String, Firmware)> = arguments
        .suspect_firmware
        .iter()
        .map(|path| Ok((path.display().to_string(), read_firmware(path)?.1)))
        .collect::<anyhow::Result<_>>()?;
    let mut suspects = vec![(given.as_str(), firmware)];
    suspects.extend(
        others
            .iter()
            .map(|(label, other)| (label.as_str(), other.clone())),
    );
    let image = measured(manifest)?;
    match explain_image(wanted, &image, suspects, &arguments.suspect_cmdline) {
        Some(found) => {
            println!("{found}");
            Ok(Outcome::Done)
        }
        None => {
            eprintln!(
                "kata-cc-image: no launch of {} with up to {MAX_SEARCHED} vCPUs, the known processor types and command lines, and this firmware has the digest {wanted}",
                arguments.image.display()
            );
            Ok(Outcome::Different)
        }
    }
}
