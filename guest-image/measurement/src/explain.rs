//! Which launch gives a digest that nobody expected.
//!
//! A mismatch says nothing by itself. Most have a plain cause: another number of processors,
//! another processor type, debug swap, a command line with one word more, another firmware.
//! The search tries their combinations; a digest can be recognised, never inverted.

use crate::{
    digest::Sha384Digest,
    firmware::Firmware,
    image::GuestImage,
    kernel_hashes::KernelHashes,
    launch::{Launch, VcpuCount},
    vcpu::VcpuModel,
    vmsa::{SevFeatures, Vmm},
};

/// Most processors that [`explain_image`] tries.
pub const MAX_SEARCHED: u16 = 256;
/// Label of a launch without a kernel.
const NO_KERNEL: &str = "without a kernel";

/// What may have been launched. Labels are the caller's own and come back in the answer.
#[derive(Debug)]
pub struct Suspects<'a> {
    /// Firmware builds.
    pub firmware: Vec<(&'a str, Firmware)>,
    /// Kernels with their initrd and command line; `None` for a launch without a kernel.
    pub kernels: Vec<(&'a str, Option<KernelHashes>)>,
    /// Most processors to try.
    pub max_vcpus: VcpuCount,
}

/// A launch that has the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Label of the firmware.
    pub firmware: &'a str,
    /// Label of the kernel.
    pub kernel: &'a str,
    /// Number of processors.
    pub vcpus: VcpuCount,
    /// Their model.
    pub model: VcpuModel,
    /// SEV features.
    pub features: SevFeatures,
    /// Who started it.
    pub vmm: Vmm,
}

/// Command lines that a guest may have been started with instead of the one it was built
/// with: what hosts add or take away when somebody debugs. The built one comes first.
#[must_use]
pub fn command_lines(built: &str) -> Vec<String> {
    let quiet: Vec<&str> = built.split(' ').filter(|word| *word != "quiet").collect();
    let mut lines = vec![built.to_owned(), quiet.join(" "), String::new()];
    for extra in [
        "",
        "agent.log=debug",
        "agent.debug_console",
        "agent.log=debug agent.debug_console",
        "agent.debug_console agent.log=debug",
        "debug",
        "nokaslr",
        "mitigations=off",
    ] {
        lines.push(format!("{built} {extra}"));
    }
    lines
}

/// Searches what a host may have made of an image, with these and further command lines and
/// these builds of firmware, and says in one sentence what it found.
#[must_use]
pub fn explain_image(
    wanted: Sha384Digest,
    image: &GuestImage,
    firmware: Vec<(&str, Firmware)>,
    more_lines: &[String],
) -> Option<String> {
    let mut lines = command_lines(image.cmdline());
    lines.extend(more_lines.iter().cloned());
    let mut kernels = vec![(NO_KERNEL, None)];
    kernels.extend(
        lines
            .iter()
            .map(|line| (line.as_str(), Some(image.hashes_with(line)))),
    );
    let suspects = Suspects {
        firmware,
        kernels,
        max_vcpus: VcpuCount::new(MAX_SEARCHED)?,
    };
    Some(explain(wanted, &suspects)?.sentence(image.cmdline()))
}

impl Explanation<'_> {
    fn sentence(&self, built: &str) -> String {
        let kernel = match (self.kernel, self.kernel == built) {
            (NO_KERNEL, _) => "no kernel".to_owned(),
            (_, true) => "the command line of the manifest".to_owned(),
            (line, false) => format!("the command line {line:?} instead of the manifest's"),
        };
        format!(
            "launched by {} with {} of type {}, SEV features {:#x}, firmware {}, {kernel}",
            self.vmm.name(),
            match self.vcpus.number() {
                1 => "1 vCPU".to_owned(),
                number => format!("{number} vCPUs"),
            },
            self.model.name(),
            self.features.raw(),
            self.firmware,
        )
    }
}

/// The first launch among the suspects that has this digest.
#[must_use]
pub fn explain<'a>(wanted: Sha384Digest, suspects: &Suspects<'a>) -> Option<Explanation<'a>> {
    for (firmware_label, firmware) in &suspects.firmware {
        for (kernel_label, kernel) in &suspects.kernels {
            for (model, features, vmm) in states() {
                let launch = Launch {
                    firmware,
                    kernel: kernel.as_ref(),
                    signature: model.signature(),
                    features,
                    vmm,
                };
                if let Some(vcpus) = count(wanted, &launch, suspects.max_vcpus) {
                    return Some(Explanation {
                        firmware: firmware_label,
                        kernel: kernel_label,
                        vcpus,
                        model,
                        features,
                        vmm,
                    });
                }
            }
        }
    }
    None
}

/// Every initial state of a processor; EC2's does not depend on the model.
fn states() -> impl Iterator<Item = (VcpuModel, SevFeatures, Vmm)> {
    let features = [SevFeatures::SNP, SevFeatures::SNP_DEBUG_SWAP];
    let qemu = VcpuModel::ALL
        .into_iter()
        .flat_map(move |model| features.map(|features| (model, features, Vmm::Qemu)));
    let ec2 = features.map(|features| (VcpuModel::Milan, features, Vmm::Ec2));
    qemu.chain(ec2)
}

/// A launch that cannot be is no suspect.
fn count(wanted: Sha384Digest, launch: &Launch<'_>, max: VcpuCount) -> Option<VcpuCount> {
    let mut digests = launch
        .digests()
        .ok()?
        .take_while(|(count, _)| *count <= max);
    digests
        .find(|(_, digest)| *digest == wanted)
        .map(|(count, _)| count)
}
