//! `measure`: what a genuine VM reports when it boots an image.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Args;
use guest_image_builder::{
    manifest::Manifest,
    measure::{Choices, measure},
};
use guest_image_measurement::{Firmware, SevFeatures, VcpuCounts, VcpuModel, Vmm};

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
    #[arg(long)]
    rvps: bool,
}

pub(crate) fn run(arguments: &MeasureArgs) -> anyhow::Result<Outcome> {
    let manifest = Manifest::read(&arguments.image)?;
    if let Some(difference) = super::difference(&manifest, &arguments.image)? {
        return Ok(difference);
    }
    let bytes = fs::read(&arguments.firmware).with_context(|| {
        format!(
            "cannot read the firmware {} (Debian's package is ovmf-amdsev)",
            arguments.firmware.display()
        )
    })?;
    let firmware = Firmware::parse(&bytes)
        .with_context(|| format!("the firmware {}", arguments.firmware.display()))?;
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
