//! `measure`: what a genuine VM reports when it boots an image or an IGVM file.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use guest_image_builder::{
    igvm,
    manifest::Manifest,
    measure::{Choices, ReferenceValues, measure},
};
use guest_image_measurement::{Firmware, Vmm, launches::Launches};
use serde::Serialize;

use crate::Outcome;

/// Arguments of `measure`.
#[derive(Args)]
pub(crate) struct MeasureArgs {
    /// Directory of the image, or an IGVM file: that has firmware and processors of its own
    image: PathBuf,
    #[command(flatten)]
    launches: Launches,
    /// Print a message for a reference value provider instead
    #[arg(long)]
    rvps: bool,
}

pub(crate) fn run(arguments: &MeasureArgs) -> anyhow::Result<Outcome> {
    let launches = &arguments.launches;
    if arguments.image.is_file() {
        let file = super::read(&arguments.image)?;
        let measurement = igvm::measure(&file, launches.loader)
            .with_context(|| format!("the IGVM file {}", arguments.image.display()))?;
        print(&measurement, &measurement.reference_values, arguments.rvps)?;
        return Ok(Outcome::Done);
    }
    let manifest = Manifest::read(&arguments.image)?;
    if let Some(difference) = super::difference(&manifest, &arguments.image)? {
        return Ok(difference);
    }
    let bytes = super::read_firmware(&launches.firmware)?;
    let firmware = Firmware::parse(&bytes)
        .with_context(|| format!("the firmware {}", launches.firmware.display()))?;
    let choices = Choices {
        vcpus: launches.vcpus.as_slice().to_vec(),
        models: launches.vcpu_type.clone(),
        features: launches.sev_features.clone(),
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
