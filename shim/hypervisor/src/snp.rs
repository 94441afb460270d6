//! SEV-SNP: what the node must have, and what QEMU is told.
//!
//! The launch is the owner's side of a contract: firmware, kernel, initrd and command line are
//! measured (the hashes of the last three are always handed to the firmware, there is no switch
//! for it), and `HOST_DATA`, guest policy and ID block reach the report unchanged. Nothing here
//! is trusted by the guest; a wrong value shows in the report and is refused by the owner.
//!
//! QEMU before 9.1 cannot do it. No released QEMU hands a certificate table to the guest, so
//! there is no option for one: certificates travel with the evidence.
//!
//! Specifications: AMD APM volume 3, CPUID function 8000_001Fh; SEV-SNP Firmware ABI (56860),
//! SNP_LAUNCH_START, SNP_LAUNCH_FINISH.

use std::{fs::OpenOptions, io};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;

use crate::{
    config::{Accelerator, Confidential, SevSnp, VmConfig},
    probe::Chosen,
    vm::StartError,
};

/// The CPU model of the published reference measurements; the owner's must agree.
pub(crate) const DEFAULT_CPU: &str = "EPYC-v4";
/// Name of the object that the machine refers to.
pub(crate) const OBJECT: &str = "snp";

/// What the processor says about memory encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Number of the address bit that marks a page as encrypted.
    cbitpos: u32,
    /// Physical address bits that the guest loses.
    reduced_phys_bits: u32,
}

impl Host {
    /// Reads EAX and EBX of CPUID function `8000_001F`; `None` without SEV-SNP.
    pub(crate) fn parse(eax: u32, ebx: u32) -> Option<Self> {
        let snp = eax & (1 << 4) != 0;
        snp.then_some(Self {
            cbitpos: ebx & 0x3f,
            reduced_phys_bits: (ebx >> 6) & 0x3f,
        })
    }
}

/// The object that makes the guest confidential, in QEMU's JSON form.
#[derive(Debug)]
pub(crate) struct Object(serde_json::Value);

impl Object {
    pub(crate) fn json(&self) -> &serde_json::Value {
        &self.0
    }

    pub(crate) fn new(snp: &SevSnp, host: Host) -> Self {
        Self(object(snp, host))
    }
}

/// Checks that this node can launch the guest as confidential as it is asked to be.
pub(crate) fn prepare(config: &VmConfig, on: Chosen) -> Result<Option<Object>, StartError> {
    match &config.confidential {
        Confidential::None => Ok(None),
        Confidential::SevSnp(snp) => Ok(Some(Object::new(snp, probe(config, on)?))),
        Confidential::Simulated(snp) => {
            require_firmware(config)?;
            tracing::warn!("the secure processor is simulated: the guest is not protected");
            Ok(Some(Object::new(snp, SIMULATED)))
        }
    }
}

/// What a processor with SEV-SNP says; only the hypervisor's own parser sees it.
const SIMULATED: Host = Host {
    cbitpos: 51,
    reduced_phys_bits: 1,
};

fn refused<T>(reason: &str) -> Result<T, StartError> {
    Err(StartError::SevSnp {
        reason: reason.to_owned(),
    })
}

fn require_firmware(config: &VmConfig) -> Result<(), StartError> {
    match config.firmware {
        Some(_) => Ok(()),
        None => refused("no firmware is configured, and the built-in one cannot be measured"),
    }
}

fn probe(config: &VmConfig, accelerator: Chosen) -> Result<Host, StartError> {
    require_firmware(config)?;
    if accelerator != Chosen::Kvm {
        let why = if config.accelerator == Accelerator::Tcg {
            "is not"
        } else {
            "cannot be"
        };
        return refused(&format!("it needs KVM, which {why} used"));
    }
    let Some(host) = processor() else {
        return refused("the processor does not have it");
    };
    if !is_enabled() {
        return refused("the kernel has it off: kvm_amd.sev_snp is not Y");
    }
    match device() {
        Ok(()) => Ok(host),
        Err(error) => refused(&format!("/dev/sev cannot be opened ({error})")),
    }
}

/// Whether the processor has SEV-SNP, whatever the firmware made of it.
pub fn is_in_processor() -> bool {
    processor().is_some()
}

/// Whether the kernel lets guests use it.
pub fn is_enabled() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/kvm_amd/parameters/sev_snp");
    enabled.is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

/// Opens the way to the secure processor.
///
/// # Errors
///
/// What the system says.
pub fn device() -> io::Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/sev");
    opened.map(drop)
}

#[cfg(target_arch = "x86_64")]
fn processor() -> Option<Host> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax < 0x8000_001f {
        return None;
    }
    let answer = __cpuid(0x8000_001f);
    Host::parse(answer.eax, answer.ebx)
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Option<Host> {
    None
}

fn object(snp: &SevSnp, host: Host) -> serde_json::Value {
    let mut object = json!({
        "qom-type": "sev-snp-guest",
        "id": OBJECT,
        "cbitpos": host.cbitpos,
        "reduced-phys-bits": host.reduced_phys_bits,
        "policy": snp.policy,
        "kernel-hashes": true,
        "host-data": BASE64.encode(snp.host_data),
    });
    if let (Some(identity), Some(fields)) = (&snp.identity, object.as_object_mut()) {
        fields.insert("id-block".to_owned(), BASE64.encode(identity.block).into());
        let authentication = BASE64.encode(identity.authentication.as_slice());
        fields.insert("id-auth".to_owned(), authentication.into());
        fields.insert("author-key-enabled".to_owned(), identity.author_key.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::Identity;

    const HOST: Host = Host {
        cbitpos: 51,
        reduced_phys_bits: 1,
    };
    const QEMU: &str = "/usr/bin/qemu-system-x86_64";

    fn full() -> SevSnp {
        let authentication = Box::new([0x5a; 4096]);
        let identity = Identity {
            block: [0xa5; 96],
            authentication,
            author_key: true,
        };
        SevSnp {
            host_data: [7; 32],
            policy: 0x30000,
            identity: Some(identity),
        }
    }

    #[test]
    fn the_processor_tells_the_c_bit() {
        // EPYC 7763: SME, SEV, page flush, SEV-ES, SEV-SNP, VMPL; C-bit 51, 5 bits lost.
        assert_eq!(
            Host::parse(0x0101_fd3f, 0x0000_4173),
            Some(Host {
                cbitpos: 51,
                reduced_phys_bits: 5
            })
        );
        assert_eq!(Host::parse(0x0000_000f, 0x0000_4173), None);
    }

    #[test]
    fn the_object_carries_every_field_and_always_the_hashes() {
        let plain = object(
            &SevSnp {
                identity: None,
                ..full()
            },
            HOST,
        );
        assert_eq!(
            plain.to_string(),
            r#"{"cbitpos":51,"host-data":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","id":"snp","kernel-hashes":true,"policy":196608,"qom-type":"sev-snp-guest","reduced-phys-bits":1}"#
        );
        let signed = object(&full(), HOST);
        assert_eq!(signed["id-block"].as_str().map(str::len), Some(128));
        assert_eq!(signed["id-auth"].as_str().map(str::len), Some(5464));
        assert_eq!(signed["author-key-enabled"], true);
        assert_eq!(signed["kernel-hashes"], true);
    }

    /// Without the hardware QEMU gets as far as asking for it, which is after the parser.
    fn answer(object: &serde_json::Value) -> Option<String> {
        let object = object.to_string();
        let line = [
            "-nodefaults",
            "-nographic",
            "-S",
            "-accel",
            "tcg",
            "-object",
            &object,
        ];
        let machine = format!("q35,confidential-guest-support={OBJECT}");
        match Command::new(QEMU)
            .args(line)
            .args(["-machine", &machine])
            .output()
        {
            Ok(output) => Some(String::from_utf8(output.stderr).unwrap()),
            Err(error) => {
                eprintln!("skipped: cannot run {QEMU}: {error}");
                None
            }
        }
    }

    #[test]
    fn qemu_parses_the_object_and_refuses_a_broken_one() {
        let Some(text) = answer(&object(&full(), HOST)) else {
            return;
        };
        assert!(text.contains("sev-snp-guest: KVM required"), "{text}");
        for (field, value, complaint) in [
            ("host-data", json!("AAAA"), "not equal to 32"),
            ("id-block", json!("AAAA"), "not equal to 96"),
            ("id-auth", json!("AAAA".repeat(1366)), "4096"),
            ("policy", json!("x"), "uint64"),
            ("certificates", json!("x"), "unexpected"),
        ] {
            let mut broken = object(&full(), HOST);
            broken[field] = value;
            let text = answer(&broken).unwrap();
            assert!(text.contains(complaint), "{field}: {text}");
        }
    }

    #[test]
    fn a_simulated_processor_needs_firmware_to_measure_and_nothing_of_the_node() {
        let config = |firmware: Option<&str>| VmConfig {
            firmware: firmware.map(Into::into),
            confidential: Confidential::Simulated(full()),
            ..VmConfig::new("id", "/nonexistent".into())
        };
        let object = prepare(&config(Some("/fw")), Chosen::Tcg).unwrap().unwrap();
        assert_eq!(object.json()["kernel-hashes"], true);
        let refused = prepare(&config(None), Chosen::Tcg).unwrap_err();
        assert!(refused.to_string().contains("no firmware is configured"));
    }

    #[test]
    fn a_node_that_cannot_is_refused_by_reason() {
        let config = |firmware: Option<&str>, accelerator| VmConfig {
            firmware: firmware.map(Into::into),
            accelerator,
            confidential: Confidential::SevSnp(full()),
            ..VmConfig::new("id", "/nonexistent".into())
        };
        for (config, reason) in [
            (config(None, Accelerator::Auto), "no firmware is configured"),
            (
                config(Some("/fw"), Accelerator::Tcg),
                "KVM, which is not used",
            ),
            (
                config(Some("/fw"), Accelerator::Auto),
                "KVM, which cannot be used",
            ),
        ] {
            let refused = prepare(&config, Chosen::Tcg).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
