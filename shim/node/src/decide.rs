//! From facts to a decision: which protection guests can have, and what to do about the rest.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::facts::{Facts, Part};

/// Oldest QEMU for guests without protection: JSON objects.
const QEMU_PLAIN: (u32, u32) = (6, 0);
/// Oldest QEMU with `sev-snp-guest`.
const QEMU_SNP: (u32, u32) = (9, 1);
/// Oldest kernel that runs SEV-SNP guests without patches.
const KERNEL_SNP: (u32, u32) = (6, 11);

/// The protection that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wanted {
    /// What the processor has
    Best,
    /// None: the host can read the guest
    None,
    /// AMD SEV-SNP
    Snp,
}

/// Protections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tee {
    None,
    Snp,
}

/// How much a part matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It is there.
    Good,
    /// Guests start without it, and miss it.
    Worse,
    /// Guests do not start without it.
    Missing,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) found: String,
    /// What to do; empty if nothing.
    pub(crate) advice: &'static str,
}

/// What follows from the facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Decision {
    /// The protection that was judged.
    pub(crate) tee: Tee,
    /// Guests with it can start.
    pub(crate) ready: bool,
    pub(crate) checks: Vec<Finding>,
}

/// Decides; looks at nothing but its arguments.
pub(crate) fn decide(facts: &Facts, wanted: Wanted) -> Decision {
    let tee = match wanted {
        Wanted::Snp => Tee::Snp,
        Wanted::Best if facts.snp_in_processor => Tee::Snp,
        Wanted::Best | Wanted::None => Tee::None,
    };
    let mut findings = Findings(Vec::new());
    findings.note(
        "architecture",
        facts.architecture == "x86_64",
        Outcome::Missing,
        &facts.architecture,
        "only x86_64 is supported",
    );
    match tee {
        Tee::Snp => snp(facts, &mut findings),
        Tee::None => plain(facts, &mut findings),
    }
    findings.part(
        "devices open to QEMU",
        &facts.open_to_qemu,
        Outcome::Missing,
        "chgrp kvm DEVICE && chmod 660 DEVICE, or set rootless = false in [hypervisor.qemu]",
    );
    findings.part(
        "guest image",
        &facts.guest_image,
        Outcome::Missing,
        "build one with kata-cc-image, or name its directory with --guest-image",
    );
    vsock(facts, &mut findings);
    findings.part(
        "vhost-net",
        &facts.vhost_net,
        Outcome::Worse,
        "load the module vhost_net: without it QEMU moves each packet itself",
    );
    if facts.tdx_enabled {
        findings.note(
            "tdx",
            false,
            Outcome::Worse,
            "kvm_intel.tdx is on",
            "this runtime does not start TDX guests yet",
        );
    }
    let Findings(checks) = findings;
    Decision {
        tee,
        ready: checks.iter().all(|check| check.outcome != Outcome::Missing),
        checks,
    }
}

fn plain(facts: &Facts, findings: &mut Findings) {
    findings.part(
        "kvm",
        &facts.kvm,
        Outcome::Worse,
        "without KVM guests are emulated, which is slow: use a node with hardware virtualisation",
    );
    findings.at_least("qemu", &facts.qemu, QEMU_PLAIN, "install QEMU 6.0 or later");
}

fn snp(facts: &Facts, findings: &mut Findings) {
    let yes = |yes| if yes { "yes" } else { "no" };
    findings.note(
        "processor has SEV-SNP",
        facts.snp_in_processor,
        Outcome::Missing,
        yes(facts.snp_in_processor),
        "use a node with EPYC 7003 or later; in a VM its hypervisor must pass it on",
    );
    let kernel = Ok(facts.kernel.clone());
    findings.at_least(
        "kernel",
        &kernel,
        KERNEL_SNP,
        "use Linux 6.11 or later, or a distribution's kernel with SEV-SNP host support",
    );
    findings.note(
        "kvm_amd.sev_snp",
        facts.snp_enabled,
        Outcome::Missing,
        yes(facts.snp_enabled),
        "switch SEV-SNP, SMEE and the RMP table on in the firmware, and load kvm_amd with sev_snp=1",
    );
    findings.part(
        "/dev/sev",
        &facts.sev_device,
        Outcome::Missing,
        "load the module ccp; run this as root",
    );
    findings.part(
        "kvm",
        &facts.kvm,
        Outcome::Missing,
        "SEV-SNP needs KVM: load kvm_amd; run this as root",
    );
    findings.at_least("qemu", &facts.qemu, QEMU_SNP, "install QEMU 9.1 or later");
    findings.part(
        "firmware",
        &facts.firmware,
        Outcome::Missing,
        "install Debian's ovmf-amdsev, or name the file with --firmware",
    );
}

fn vsock(facts: &Facts, findings: &mut Findings) {
    let (kernel, device) = (&facts.vhost_vsock, &facts.vsock_device);
    let advice = "load the module vhost_vsock";
    match (kernel, device) {
        (Ok(_), _) => findings.part("vsock", kernel, Outcome::Missing, advice),
        (Err(_), Ok(_)) => {
            let found = "by vhost-device-vsock: the kernel's is not there";
            findings.note("vsock", false, Outcome::Worse, found, advice);
        }
        (Err(_), Err(_)) => findings.part(
            "vsock",
            kernel,
            Outcome::Missing,
            "load the module vhost_vsock, or install vhost-device-vsock",
        ),
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn note(
        &mut self,
        name: &'static str,
        good: bool,
        otherwise: Outcome,
        found: &str,
        advice: &'static str,
    ) {
        self.0.push(Finding {
            name,
            outcome: if good { Outcome::Good } else { otherwise },
            found: found.to_owned(),
            advice: if good { "" } else { advice },
        });
    }

    fn part(&mut self, name: &'static str, part: &Part, without: Outcome, advice: &'static str) {
        let (Ok(found) | Err(found)) = part;
        self.note(name, part.is_ok(), without, found, advice);
    }

    /// A part whose first number with a point is its version.
    fn at_least(
        &mut self,
        name: &'static str,
        part: &Part,
        oldest: (u32, u32),
        advice: &'static str,
    ) {
        let (Ok(found) | Err(found)) = part;
        let new = part.is_ok() && version(found).is_some_and(|version| version >= oldest);
        self.note(name, new, Outcome::Missing, found, advice);
    }
}

/// The first `major.minor` in a text.
pub(crate) fn version(text: &str) -> Option<(u32, u32)> {
    let mut words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.find_map(|word| {
        let (major, rest) = word.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let outcome = match check.outcome {
                Outcome::Good => "good",
                Outcome::Worse => "worse",
                Outcome::Missing => "MISSING",
            };
            writeln!(f, "{:<22} {outcome:<8} {}", check.name, check.found)?;
            if !check.advice.is_empty() {
                writeln!(f, "{:<31} {}", "", check.advice)?;
            }
        }
        let guests = match self.tee {
            Tee::None => "guests without protection from this host",
            Tee::Snp => "SEV-SNP guests",
        };
        let can = if self.ready { "can" } else { "cannot" };
        writeln!(f, "\n{guests} {can} start here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> Part {
        Ok("there".to_owned())
    }

    fn absent() -> Part {
        Err("not there".to_owned())
    }

    /// A node that has everything.
    fn full() -> Facts {
        Facts {
            architecture: "x86_64".to_owned(),
            kernel: "6.12.95+deb12-cloud-amd64".to_owned(),
            snp_in_processor: true,
            snp_enabled: true,
            tdx_enabled: false,
            sev_device: there(),
            kvm: there(),
            open_to_qemu: there(),
            qemu: Ok("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)".to_owned()),
            firmware: there(),
            guest_image: there(),
            vhost_vsock: there(),
            vsock_device: absent(),
            vhost_net: there(),
        }
    }

    fn not_good(decision: &Decision) -> Vec<(&'static str, Outcome)> {
        let checks = decision.checks.iter();
        checks
            .filter(|check| check.outcome != Outcome::Good)
            .inspect(|check| assert!(!check.advice.is_empty(), "{}", check.name))
            .map(|check| (check.name, check.outcome))
            .collect()
    }

    type Row = (Wanted, fn(&mut Facts), &'static [(&'static str, Outcome)]);

    #[test]
    fn each_missing_part_is_named_and_only_those_that_are_needed_stop_a_guest() {
        use Outcome::{Missing, Worse};
        let rows: [Row; 17] = [
            (Wanted::Snp, |_| {}, &[]),
            (Wanted::None, |_| {}, &[]),
            (
                Wanted::Snp,
                |f| f.architecture = "aarch64".to_owned(),
                &[("architecture", Missing)],
            ),
            (
                Wanted::Snp,
                |f| f.snp_in_processor = false,
                &[("processor has SEV-SNP", Missing)],
            ),
            (
                Wanted::Snp,
                |f| f.snp_enabled = false,
                &[("kvm_amd.sev_snp", Missing)],
            ),
            (
                Wanted::Snp,
                |f| f.kernel = "6.10.9".to_owned(),
                &[("kernel", Missing)],
            ),
            (
                Wanted::Snp,
                |f| f.sev_device = absent(),
                &[("/dev/sev", Missing)],
            ),
            (Wanted::Snp, |f| f.kvm = absent(), &[("kvm", Missing)]),
            (Wanted::None, |f| f.kvm = absent(), &[("kvm", Worse)]),
            (
                Wanted::Snp,
                |f| f.qemu = Ok("QEMU emulator version 9.0.4".to_owned()),
                &[("qemu", Missing)],
            ),
            (
                Wanted::None,
                |f| f.qemu = Ok("QEMU emulator version 5.2.0".to_owned()),
                &[("qemu", Missing)],
            ),
            (
                Wanted::Snp,
                |f| f.firmware = absent(),
                &[("firmware", Missing)],
            ),
            (
                Wanted::None,
                |f| f.open_to_qemu = absent(),
                &[("devices open to QEMU", Missing)],
            ),
            (
                Wanted::None,
                |f| f.guest_image = absent(),
                &[("guest image", Missing)],
            ),
            (
                Wanted::None,
                |f| f.vhost_vsock = absent(),
                &[("vsock", Missing)],
            ),
            (
                Wanted::None,
                |f| (f.vhost_vsock, f.vsock_device) = (absent(), there()),
                &[("vsock", Worse)],
            ),
            (
                Wanted::None,
                |f| (f.vhost_net, f.tdx_enabled) = (absent(), true),
                &[("vhost-net", Worse), ("tdx", Worse)],
            ),
        ];
        for (wanted, change, expected) in rows {
            let mut facts = full();
            change(&mut facts);
            let decision = decide(&facts, wanted);
            assert_eq!(not_good(&decision), expected);
            let stops = expected.iter().any(|(_, outcome)| *outcome == Missing);
            assert_eq!(decision.ready, !stops, "{expected:?}");
        }
    }

    #[test]
    fn the_best_protection_is_the_processors() {
        assert_eq!(decide(&full(), Wanted::Best).tee, Tee::Snp);
        let plain = Facts {
            snp_in_processor: false,
            firmware: absent(),
            ..full()
        };
        let decision = decide(&plain, Wanted::Best);
        assert_eq!((decision.tee, decision.ready), (Tee::None, true));
        let said = decision.to_string();
        assert!(said.ends_with("guests without protection from this host can start here\n"));
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, found) in [
            ("QEMU emulator version 10.0.2 (Debian)", Some((10, 0))),
            ("6.12.95+deb12-cloud-amd64", Some((6, 12))),
            ("6.1", Some((6, 1))),
            ("no number", None),
            ("7", None),
            ("4294967296.1", None),
        ] {
            assert_eq!(version(text), found, "{text}");
        }
    }
}
