//! The secure processor: launches a guest and signs reports about it.
//!
//! Layouts and numbers: *SEV Secure Nested Paging Firmware ABI Specification* (AMD 56860),
//! `SNP_LAUNCH_START`, `SNP_LAUNCH_FINISH` and `ATTESTATION_REPORT`.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use guest_image_measurement::{
    Firmware, KernelHashes, Launch as Measured, SevFeatures, Sha256Digest, Sha384Digest, Vmm,
    id_block::IdAuthentication,
};
use policy_appraisal::snp::{Product, SigningKey, Tcb};
use serde::{Deserialize, Serialize};

use crate::{
    authority::Chip,
    launch::{Launch, SnpObject},
};

/// Length of a report, in bytes.
pub const REPORT_LEN: usize = 1184;

/// `ABI_MAJOR` of the firmware that is played; it refuses guests that want a newer one.
const ABI_MAJOR: u8 = 1;
/// `ABI_MINOR`, which is also the firmware's minor version.
const ABI_MINOR: u8 = 55;
const BUILD: u8 = 40;
/// TSME, ECC, RAPL off, ciphertext hiding, alias check complete; SMT off.
const PLATFORM: u64 = 0b11_1110;
/// All mitigations that a report of version 5 has bits for so far.
const MITIGATIONS: u64 = 0x0F;
/// Always one in a guest policy.
const POLICY_RESERVED_ONE: u64 = 1 << 17;

/// Which processor is played.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its product.
    pub product: Product,
    /// Which key signs.
    pub signing_key: SigningKey,
    /// Version of its reports: 2 to 5.
    pub report_version: u8,
}

/// Why the processor does not launch a guest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RefusedLaunch {
    /// The firmware file cannot be read as firmware.
    #[error("the firmware {0}")]
    Firmware(#[from] guest_image_measurement::FirmwareError),
    /// The firmware cannot start this kernel.
    #[error("the launch has no measurement")]
    Measure(#[from] guest_image_measurement::MeasureError),
    /// `POLICY_FAILURE`.
    #[error("the guest policy {0:#x} is not one that this firmware allows")]
    Policy(u64),
    /// `BAD_MEASUREMENT`.
    #[error("the ID block is for the launch digest {expected}, this launch has {found}")]
    Measurement {
        /// In the block.
        expected: Sha384Digest,
        /// Measured.
        found: Sha384Digest,
    },
    /// `BAD_MEASUREMENT` too, for the policy in the block.
    #[error("the ID block is for another guest policy")]
    BlockPolicy,
    /// `BAD_SIGNATURE`.
    #[error("the ID block is not authentic")]
    Authentication(#[from] guest_image_measurement::id_block::AuthenticationError),
    /// There is no randomness for the report's id.
    #[error("the system gives no randomness")]
    Random,
}

/// A guest that was launched: what its reports say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    measurement: Field<48>,
    host_data: Field<32>,
    policy: u64,
    report_id: Field<32>,
    identity: Option<Identity>,
}

/// From the ID block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    family_id: Field<16>,
    image_id: Field<16>,
    guest_svn: u32,
    id_key: Field<48>,
    author_key: Field<48>,
}

/// Bytes as hexadecimal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Field<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Field<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// The files of a launch, as they are loaded.
#[derive(Debug)]
pub struct Files {
    /// Guest kernel.
    pub kernel: Vec<u8>,
    /// Guest initrd.
    pub initrd: Vec<u8>,
    /// Firmware.
    pub firmware: Vec<u8>,
}

impl Guest {
    /// Measures a launch and decides whether the processor allows it.
    ///
    /// # Errors
    ///
    /// [`RefusedLaunch`] for what the processor's firmware, or QEMU before it, refuses.
    pub fn launch(launch: &Launch, files: &Files) -> Result<Self, RefusedLaunch> {
        let firmware = Firmware::parse(&files.firmware)?;
        let kernel = KernelHashes::new(
            Sha256Digest::of(&files.kernel),
            Some(Sha256Digest::of(&files.initrd)),
            &launch.cmdline,
        );
        let measured = Measured {
            firmware: &firmware,
            kernel: Some(&kernel),
            signature: launch.model.signature(),
            features: SevFeatures::SNP,
            vmm: Vmm::Qemu,
        };
        let digest = measured.digest(launch.vcpus)?;
        judge_policy(launch.snp.policy)?;
        let mut report_id = [0; 32];
        let random = SystemRandom::new().fill(&mut report_id);
        random.map_err(|_| RefusedLaunch::Random)?;
        Ok(Self {
            measurement: Field(*digest.as_bytes()),
            host_data: Field(launch.snp.host_data),
            policy: launch.snp.policy,
            report_id: Field(report_id),
            identity: identity(&launch.snp, digest)?,
        })
    }

    /// The launch digest.
    #[must_use]
    pub fn measurement(&self) -> Sha384Digest {
        Sha384Digest::new(self.measurement.0)
    }
}

fn judge_policy(policy: u64) -> Result<(), RefusedLaunch> {
    let [minor, major, ..] = policy.to_le_bytes();
    let allowed = policy & POLICY_RESERVED_ONE != 0 && (major, minor) <= (ABI_MAJOR, ABI_MINOR);
    allowed.then_some(()).ok_or(RefusedLaunch::Policy(policy))
}

/// `SNP_LAUNCH_FINISH` with an ID block.
fn identity(snp: &SnpObject, digest: Sha384Digest) -> Result<Option<Identity>, RefusedLaunch> {
    let Some((block, authentication)) = &snp.identity else {
        return Ok(None);
    };
    let authentication = IdAuthentication::verify(authentication, block)?;
    let (expected, rest) = block.split_first_chunk::<48>().expect("96 bytes");
    let (family_id, rest) = rest.split_first_chunk::<16>().expect("48 bytes");
    let (image_id, rest) = rest.split_first_chunk::<16>().expect("32 bytes");
    let (_version, rest) = rest.split_first_chunk::<4>().expect("16 bytes");
    let (guest_svn, policy) = rest.split_first_chunk::<4>().expect("12 bytes");
    let expected = Sha384Digest::new(*expected);
    if expected != digest {
        let found = digest;
        return Err(RefusedLaunch::Measurement { expected, found });
    }
    if policy != snp.policy.to_le_bytes() {
        return Err(RefusedLaunch::BlockPolicy);
    }
    Ok(Some(Identity {
        family_id: Field(*family_id),
        image_id: Field(*image_id),
        guest_svn: u32::from_le_bytes(*guest_svn),
        id_key: Field(*authentication.id_key_digest().as_bytes()),
        author_key: Field(*authentication.author_key_digest().as_bytes()),
    }))
}

impl Model {
    /// The TCB of the firmware that is played.
    #[must_use]
    pub fn tcb(self) -> Tcb {
        // Microcode above 127 takes two octets in a certificate.
        match self.product {
            Product::Turin => Tcb {
                fmc: Some(1),
                bootloader: 2,
                tee: 3,
                snp: 4,
                microcode: 0xD9,
            },
            Product::Milan | Product::Genoa => Tcb {
                fmc: None,
                bootloader: 10,
                tee: 1,
                snp: 23,
                microcode: 0xD9,
            },
        }
    }

    /// Family, model and stepping of a processor of the product.
    const fn cpu(self) -> [u8; 3] {
        match self.product {
            Product::Milan => [0x19, 0x01, 0x01],
            Product::Genoa => [0x19, 0x11, 0x01],
            Product::Turin => [0x1A, 0x02, 0x01],
        }
    }

    /// A report about a guest, with the guest's own 64 bytes in it, signed.
    #[must_use]
    pub fn report(self, guest: &Guest, chip: &Chip, report_data: &[u8; 64]) -> [u8; REPORT_LEN] {
        let mut report = [0; REPORT_LEN];
        let tcb = self.tcb().to_bytes();
        let version = [BUILD, ABI_MINOR, ABI_MAJOR];
        put(
            &mut report,
            0x000,
            &u32::from(self.report_version).to_le_bytes(),
        );
        put(&mut report, 0x008, &guest.policy.to_le_bytes());
        put(&mut report, 0x034, &1_u32.to_le_bytes());
        put(&mut report, 0x038, &tcb);
        put(&mut report, 0x040, &PLATFORM.to_le_bytes());
        put(&mut report, 0x048, &self.key_info(guest).to_le_bytes());
        put(&mut report, 0x050, report_data);
        put(&mut report, 0x090, &guest.measurement.0);
        put(&mut report, 0x0C0, &guest.host_data.0);
        if let Some(identity) = &guest.identity {
            put(&mut report, 0x004, &identity.guest_svn.to_le_bytes());
            put(&mut report, 0x010, &identity.family_id.0);
            put(&mut report, 0x020, &identity.image_id.0);
            put(&mut report, 0x0E0, &identity.id_key.0);
            put(&mut report, 0x110, &identity.author_key.0);
        }
        put(&mut report, 0x140, &guest.report_id.0);
        put(&mut report, 0x160, &[0xFF; 32]);
        put(&mut report, 0x180, &tcb);
        if self.report_version >= 3 {
            put(&mut report, 0x188, &self.cpu());
        }
        if self.signing_key == SigningKey::Vcek {
            put(&mut report, 0x1A0, chip.hardware_id(self.product));
        }
        put(&mut report, 0x1E0, &tcb);
        put(&mut report, 0x1E8, &version);
        put(&mut report, 0x1EC, &version);
        put(&mut report, 0x1F0, &tcb);
        if self.report_version >= 5 {
            put(&mut report, 0x1F8, &MITIGATIONS.to_le_bytes());
            put(&mut report, 0x200, &MITIGATIONS.to_le_bytes());
        }
        chip.sign(&mut report);
        report
    }

    fn key_info(self, guest: &Guest) -> u32 {
        let selector = match self.signing_key {
            SigningKey::Vcek => 0,
            SigningKey::Vlek => 1,
        };
        let signed_by_author = guest
            .identity
            .as_ref()
            .is_some_and(|identity| identity.author_key.0 != [0; 48]);
        selector << 2 | u32::from(signed_by_author)
    }
}

fn put(report: &mut [u8; REPORT_LEN], at: usize, bytes: &[u8]) {
    let place = report
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()));
    place
        .expect("fields lie in the report")
        .copy_from_slice(bytes);
}
