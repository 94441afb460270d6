//! Every published digest is reproduced, and a real firmware file is measured.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{env, fs, path::PathBuf};

use guest_image_measurement::{
    Firmware, KernelHashes, Launch, MeasureError, SevFeatures, Sha256Digest, Sha384Digest,
    VcpuCount, VcpuModel, VcpuSignature, Vmm,
    explain::{Suspects, command_lines, explain},
    vmsa_page,
};
use serde_json::Value;

const AMD_SEV: &[u8] = include_bytes!("vectors/ovmf_AmdSev_suffix.bin");
const OVMF_X64: &[u8] = include_bytes!("vectors/ovmf_OvmfX64_suffix.bin");
const VECTORS: &str = include_str!("vectors/launch-digest.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn firmware(vector: &Value) -> Firmware {
    let tail = match vector["firmware"].as_str().unwrap() {
        "ovmf_AmdSev_suffix.bin" => AMD_SEV,
        _ => OVMF_X64,
    };
    match vector["firmware_digest_override"].as_str() {
        Some(digest) => Firmware::parse_tail(tail, digest.parse().unwrap()).unwrap(),
        None => Firmware::parse(tail).unwrap(),
    }
}

/// `null`, `empty file` or `bytes "…"`.
fn content(description: &Value) -> Option<Sha256Digest> {
    let text = description.as_str()?;
    let bytes = text.split('"').nth(1).unwrap_or_default();
    Some(Sha256Digest::of(bytes.as_bytes()))
}

fn number(text: &Value) -> u64 {
    let digits = text.as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn every_vector_is_reproduced() {
    let vectors = vectors();
    let vectors = vectors["vectors"].as_array().unwrap();
    for vector in vectors {
        let firmware = firmware(vector);
        let cmdline = vector["cmdline"].as_str().unwrap_or_default();
        let kernel = content(&vector["kernel"])
            .map(|kernel| KernelHashes::new(kernel, content(&vector["initrd"]), cmdline));
        let model: VcpuModel = vector["vcpu_type"].as_str().unwrap().parse().unwrap();
        let signature = number(&vector["vcpu_signature"]);
        assert_eq!(u64::from(model.signature().raw()), signature);
        let launch = Launch {
            firmware: &firmware,
            kernel: kernel.as_ref(),
            signature: model.signature(),
            features: SevFeatures::from_raw(number(&vector["sev_features"])),
            vmm: match vector["vmm"].as_str().unwrap() {
                "qemu" => Vmm::Qemu,
                _ => Vmm::Ec2,
            },
        };
        let vcpus = vector["vcpus"].as_u64().unwrap();
        let digest = launch
            .digest(VcpuCount::new(vcpus as u16).unwrap())
            .unwrap();
        assert_eq!(
            digest.to_string(),
            vector["expected"].as_str().unwrap(),
            "{vector}"
        );
    }
    assert_eq!(vectors.len(), 18);
}

#[test]
fn processor_pages_are_those_of_the_vectors() {
    let vectors = vectors();
    for (name, expected) in vectors["vmsa_page_sha384"].as_object().unwrap() {
        let parts: Vec<&str> = name.split('/').collect();
        let model = if parts[0] == "Milan" {
            VcpuModel::Milan
        } else {
            VcpuModel::Epyc
        };
        let eip = if parts[1] == "bsp" {
            0xffff_fff0
        } else {
            0x80_b004
        };
        let page = vmsa_page(Vmm::Qemu, eip, model.signature(), SevFeatures::SNP);
        assert_eq!(
            Sha384Digest::of(&page).to_string(),
            expected.as_str().unwrap()
        );
    }
}

#[test]
fn a_kernel_needs_firmware_with_a_place_for_its_hashes() {
    let firmware = Firmware::parse(OVMF_X64).unwrap();
    let kernel = KernelHashes::new(Sha256Digest::of(b"kernel"), None, "quiet");
    let launch = Launch {
        firmware: &firmware,
        kernel: Some(&kernel),
        signature: VcpuSignature::from_raw(0),
        features: SevFeatures::SNP,
        vmm: Vmm::Qemu,
    };
    let refused = launch.digest(VcpuCount::new(1).unwrap());
    assert_eq!(refused, Err(MeasureError::NoHashTable));
}

#[test]
fn a_digest_is_explained_by_what_differs() {
    let firmware = Firmware::parse(AMD_SEV).unwrap();
    let kernel = |cmdline| KernelHashes::new(Sha256Digest::of(b"kernel"), None, cmdline);
    let odd = kernel("quiet debug");
    let launched = Launch {
        firmware: &firmware,
        kernel: Some(&odd),
        signature: VcpuModel::Genoa.signature(),
        features: SevFeatures::SNP_DEBUG_SWAP,
        vmm: Vmm::Qemu,
    };
    let digest = launched.digest(VcpuCount::new(3).unwrap()).unwrap();
    let suspects = Suspects {
        firmware: vec![
            ("without hashes", Firmware::parse(OVMF_X64).unwrap()),
            ("installed", firmware.clone()),
        ],
        kernels: vec![
            ("as built", Some(kernel("quiet"))),
            ("with debug", Some(kernel("quiet debug"))),
        ],
        max_vcpus: VcpuCount::new(8).unwrap(),
    };
    let found = explain(digest, &suspects).unwrap();
    assert_eq!((found.firmware, found.kernel), ("installed", "with debug"));
    assert_eq!((found.model, found.vcpus.number()), (VcpuModel::Genoa, 3));
    assert_eq!(found.features, SevFeatures::SNP_DEBUG_SWAP);
    assert_eq!(explain(Sha384Digest::of(b"other"), &suspects), None);
}

#[test]
fn command_lines_begin_with_the_built_one_and_differ() {
    let mut lines = command_lines("console=ttyS0 quiet panic=1");
    assert_eq!(lines.first().unwrap(), "console=ttyS0 quiet panic=1");
    assert!(lines.contains(&"console=ttyS0 panic=1".to_owned()));
    let count = lines.len();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), count);
}

/// Debian's `ovmf-amdsev` installs the file; `KATA_CC_OVMF` names another.
#[test]
fn a_real_firmware_file_is_measured() {
    let installed = PathBuf::from("/usr/share/ovmf/OVMF.amdsev.fd");
    let path = env::var_os("KATA_CC_OVMF").map_or(installed, PathBuf::from);
    let Ok(image) = fs::read(&path) else {
        eprintln!("skipped: no firmware at {} (KATA_CC_OVMF)", path.display());
        return;
    };
    let firmware = Firmware::parse(&image).unwrap();
    let kernel = KernelHashes::new(Sha256Digest::of(b"kernel"), None, "quiet");
    let launch = Launch {
        firmware: &firmware,
        kernel: Some(&kernel),
        signature: VcpuModel::Milan.signature(),
        features: SevFeatures::SNP,
        vmm: Vmm::Qemu,
    };
    let digests: Vec<_> = launch.digests().unwrap().take(2).collect();
    assert_ne!(digests[0].1, digests[1].1);
    assert!(firmware.hash_table_gpa().is_some());
}
