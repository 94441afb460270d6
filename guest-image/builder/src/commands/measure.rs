//! `measure`: what a genuine VM reports when it boots an image or an IGVM file.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use guest_image_builder::{
    igvm,
    manifest::Manifest,
    measure::{Choices, ReferenceValues, measure},
};
use guest_image_measurement::{Firmware, SevFeatures, VcpuCounts, VcpuModel, Vmm, igvm::Loader};
use serde::Serialize;

use crate::Outcome;

/// Arguments of `measure`.
#[derive(Args)]
pub(crate) struct MeasureArgs {
    /// Directory of the image, or an IGVM file: that has firmware and processors of its own
    image: PathBuf,
    /// Firmware that starts it, a build for direct boot
    #[arg(long, value_name = "FILE", default_value = super::FIRMWARE)]
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
    /// Who loads an IGVM file: qemu, or file-order for loaders that keep to the definitions
    #[arg(long, value_name = "LOADER", default_value = "qemu")]
    loader: Loader,
    /// Print a message for a reference value provider instead
    #[arg(long)]
    rvps: bool,
}

pub(crate) fn run(arguments: &MeasureArgs) -> anyhow::Result<Outcome> {
    if arguments.image.is_file() {
        let file = super::read(&arguments.image)?;
        let measurement = igvm::measure(&file, arguments.loader)
            .with_context(|| format!("the IGVM file {}", arguments.image.display()))?;
        print(&measurement, &measurement.reference_values, arguments.rvps)?;
        return Ok(Outcome::Done);
    }
    let manifest = Manifest::read(&arguments.image)?;
    if let Some(difference) = super::difference(&manifest, &arguments.image)? {
        return Ok(difference);
    }
    let bytes = super::read_firmware(&arguments.firmware)?;
    let firmware = Firmware::parse(&bytes)
        .with_context(|| format!("the firmware {}", arguments.firmware.display()))?;
    let choices = Choices {
        vcpus: arguments.vcpus.as_slice().to_vec(),
        models: arguments.vcpu_type.clone(),
        features: arguments.sev_features.clone(),
        vmm: Vmm::Qemu,
    };
    let measurements = measure(&manifest, &bytes, &firmware, &choices)?;
    print(
        &measurements,
        &measurements.reference_values,
        arguments.rvps,
    )?;
    Ok(Outcome::Done)
}

fn print(all: &impl Serialize, values: &ReferenceValues, rvps: bool) -> anyhow::Result<()> {
    let text = if rvps {
        serde_json::to_string_pretty(&values.to_rvps_message())?
    } else {
        serde_json::to_string_pretty(all)?
    };
    println!("{text}");
    Ok(())
}
