//! `measure`: what a genuine VM reports when it boots an image, and why one reports otherwise.

use std::{fs, path::PathBuf, str::FromStr};

use anyhow::{Context, bail};
use clap::Args;
use guest_image_builder::{
    manifest::Manifest,
    measure::{Choices, kernel_hashes, measure},
};
use guest_image_measurement::{
    Firmware, MAX_VCPUS, SevFeatures, Sha384Digest, VcpuCount, VcpuModel, Vmm,
    explain::{Explanation, Suspects, command_lines, explain},
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
    vcpus: VcpuList,
    /// Processor type (repeatable) [default: EPYC-Milan, EPYC-Genoa, EPYC-Turin]
    #[arg(long, value_name = "TYPE")]
    vcpu_type: Vec<VcpuModel>,
    /// SEV features of the host, in hexadecimal (repeatable); 0x21 is with debug swap
    #[arg(long, value_name = "BITS", default_value = "0x1", value_parser = features)]
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

/// Numbers of processors, as given in one argument.
#[derive(Clone)]
struct VcpuList(Vec<VcpuCount>);

impl FromStr for VcpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut counts = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                let count = text.parse().ok().and_then(VcpuCount::new);
                count.ok_or_else(|| format!("{text:?} is not a number from 1 to {MAX_VCPUS}"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part:?} ends before it begins"));
            }
            counts.extend((first.number()..=last.number()).filter_map(VcpuCount::new));
        }
        Ok(Self(counts))
    }
}

fn features(text: &str) -> Result<SevFeatures, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map(SevFeatures::from_raw)
        .map_err(|_| format!("{text:?} is not a hexadecimal number"))
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
    let mut models = arguments.vcpu_type.clone();
    if models.is_empty() {
        models = vec![VcpuModel::Milan, VcpuModel::Genoa, VcpuModel::Turin];
    }
    let choices = Choices {
        vcpus: arguments.vcpus.0.clone(),
        models,
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
    let mut lines = command_lines(&manifest.cmdline);
    lines.extend(arguments.suspect_cmdline.iter().cloned());
    let mut kernels = vec![("without a kernel", None)];
    for line in &lines {
        let hashes = kernel_hashes(manifest, line)?;
        kernels.push((line.as_str(), Some(hashes)));
    }
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
    let Some(max_vcpus) = VcpuCount::new(MAX_SEARCHED) else {
        bail!("no number of vCPUs to search");
    };
    let suspects = Suspects {
        firmware: suspects,
        kernels,
        max_vcpus,
    };
    match explain(wanted, &suspects) {
        Some(found) => {
            println!("{}", sentence(&found, &manifest.cmdline));
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

/// Most processors that the search tries.
const MAX_SEARCHED: u16 = 256;

fn sentence(found: &Explanation<'_>, built: &str) -> String {
    let kernel = match (found.kernel, found.kernel == built) {
        ("without a kernel", _) => "no kernel".to_owned(),
        (_, true) => "the command line of the manifest".to_owned(),
        (line, false) => format!("the command line {line:?} instead of the manifest's"),
    };
    format!(
        "launched by {} with {} of type {}, SEV features {:#x}, firmware {}, {kernel}",
        found.vmm.name(),
        match found.vcpus.number() {
            1 => "1 vCPU".to_owned(),
            number => format!("{number} vCPUs"),
        },
        found.model.name(),
        found.features.raw(),
        found.firmware,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        let read = |text: &str| {
            let list: VcpuList = text.parse().ok()?;
            Some(
                list.0
                    .iter()
                    .map(|count| count.number())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(read("1-3,8"), Some(vec![1, 2, 3, 8]));
        for text in ["", "0", "3-1", "1-", "4097", "a", "1,,2"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
