//! The launch digests that an image may have, as its owner registers them.
//!
//! The digest depends on what the host chooses too: how many virtual processors, of which
//! type, with which SEV features. So there is a list of expected values, and an owner
//! registers those that they allow.

use base64::{Engine, prelude::BASE64_STANDARD};
use guest_image_measurement::{
    Firmware, GuestImage, KernelHashes, Launch, MeasureError, ParseDigestError, SevFeatures,
    Sha256Digest, VcpuCount, VcpuModel, Vmm,
};
use serde::Serialize;

use crate::manifest::{FileDigest, INITRD, KERNEL, Manifest};

/// What the host may choose.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Numbers of virtual processors.
    pub vcpus: Vec<VcpuCount>,
    /// Their types.
    pub models: Vec<VcpuModel>,
    /// SEV features.
    pub features: Vec<SevFeatures>,
    /// Who starts the VM.
    pub vmm: Vmm,
}

/// Every expected value of an image.
#[derive(Debug, Serialize)]
pub struct Measurements {
    /// Version of this structure.
    pub schema: u32,
    /// The firmware.
    pub firmware: FileDigest,
    /// The kernel.
    pub kernel: FileDigest,
    /// The initrd.
    pub initrd: FileDigest,
    /// Whether the kernel keeps code in the host's ACPI tables from the guest's memory.
    pub guard: bool,
    /// The kernel command line.
    pub cmdline: String,
    /// One value per choice of the host.
    pub launch_digests: Vec<LaunchDigest>,
    /// The same values as a verifier takes them.
    pub reference_values: ReferenceValues,
}

/// One expected value.
#[derive(Debug, Serialize)]
pub struct LaunchDigest {
    /// Who starts the VM.
    pub vmm: &'static str,
    /// Processor type.
    pub vcpu_type: &'static str,
    /// Family, model and stepping as CPUID returns them.
    pub vcpu_signature: String,
    /// How many.
    pub vcpus: u16,
    /// SEV features.
    pub sev_features: String,
    /// The value, as a report has it.
    pub launch_digest: String,
}

/// Reference values by the names that verifiers' default policies use.
#[derive(Debug, Serialize)]
pub struct ReferenceValues {
    /// Launch digests in hexadecimal, each once.
    pub snp_launch_measurement: Vec<String>,
}

/// A message that registers reference values with a reference value provider.
#[derive(Debug, Serialize)]
pub struct RvpsMessage {
    version: &'static str,
    r#type: &'static str,
    payload: String,
}

/// Why an image has no measurement.
#[derive(Debug, thiserror::Error)]
pub enum ImageMeasureError {
    /// The manifest has a digest that is not one.
    #[error("the manifest of the guest image has a malformed digest")]
    Digest(#[from] ParseDigestError),
    /// The manifest leaves out a file.
    #[error("the manifest of the guest image does not list {0}")]
    Unlisted(&'static str),
    /// The launch is not possible.
    #[error("the guest image cannot be launched with this firmware")]
    Launch(#[from] MeasureError),
}

/// What of an image is measured.
fn measured(manifest: &Manifest) -> Result<GuestImage, ImageMeasureError> {
    let digest = |name| -> Result<Sha256Digest, ImageMeasureError> {
        Ok(file(manifest, name)?.sha256.parse()?)
    };
    let cmdline = manifest.cmdline.clone();
    Ok(GuestImage::new(digest(KERNEL)?, digest(INITRD)?, cmdline))
}

/// What the firmware checks an image's kernel, initrd and command line against.
///
/// # Errors
///
/// When the manifest does not name them.
pub fn kernel_hashes(manifest: &Manifest) -> Result<KernelHashes, ImageMeasureError> {
    Ok(measured(manifest)?.hashes())
}

fn file<'a>(
    manifest: &'a Manifest,
    name: &'static str,
) -> Result<&'a FileDigest, ImageMeasureError> {
    let file = manifest.files.get(name);
    file.ok_or(ImageMeasureError::Unlisted(name))
}

/// Every expected value of an image with this firmware.
///
/// # Errors
///
/// When the image or the firmware cannot be launched so.
pub fn measure(
    manifest: &Manifest,
    image: &[u8],
    firmware: &Firmware,
    choices: &Choices,
) -> Result<Measurements, ImageMeasureError> {
    let kernel = kernel_hashes(manifest)?;
    let mut launch_digests = Vec::new();
    for model in &choices.models {
        for features in &choices.features {
            let launch = Launch {
                firmware,
                kernel: Some(&kernel),
                signature: model.signature(),
                features: *features,
                vmm: choices.vmm,
            };
            for vcpus in &choices.vcpus {
                launch_digests.push(row(&launch, *model, *vcpus)?);
            }
        }
    }
    let mut values: Vec<String> = launch_digests
        .iter()
        .map(|row| row.launch_digest.clone())
        .collect();
    values.sort();
    values.dedup();
    Ok(Measurements {
        schema: 1,
        firmware: FileDigest::of(image),
        kernel: file(manifest, KERNEL)?.clone(),
        initrd: file(manifest, INITRD)?.clone(),
        guard: manifest.kernel.guard,
        cmdline: manifest.cmdline.clone(),
        launch_digests,
        reference_values: ReferenceValues {
            snp_launch_measurement: values,
        },
    })
}

fn row(
    launch: &Launch<'_>,
    model: VcpuModel,
    vcpus: VcpuCount,
) -> Result<LaunchDigest, ImageMeasureError> {
    Ok(LaunchDigest {
        vmm: launch.vmm.name(),
        vcpu_type: model.name(),
        vcpu_signature: launch.signature.to_string(),
        vcpus: vcpus.number(),
        sev_features: format!("{:#x}", launch.features.raw()),
        launch_digest: launch.digest(vcpus)?.to_string(),
    })
}

impl ReferenceValues {
    /// The one launch digest of a file.
    #[must_use]
    pub fn of(launch_digest: String) -> Self {
        Self {
            snp_launch_measurement: vec![launch_digest],
        }
    }

    /// The message that registers these values.
    #[must_use]
    pub fn to_rvps_message(&self) -> RvpsMessage {
        let payload = serde_json::to_vec(self).expect("reference values are texts");
        RvpsMessage {
            version: "0.1.0",
            r#type: "sample",
            payload: BASE64_STANDARD.encode(payload),
        }
    }
}
