//! The fields of a report, by AMD 56860, `ATTESTATION_REPORT`. All integers are little-endian.

use std::{cmp::Ordering, fmt, str::FromStr};

use agent_evidence::{
    HostData, LaunchMeasurement, ReportData,
    bytes::{Reader, Truncated, all_zero},
    snp::REPORT_LEN,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    ids::{BlockId, ChipId, KeyDigest, ReportId},
    layout::SIGNED_LEN,
};

const _: () = {
    let head = 4 + 4 + 8 + 16 + 16 + 4 + 4 + 8 + 8 + 4 + 4;
    assert!(head == 0x50);
    let digests = head + 64 + 48 + 32 + 48 + 48 + 32 + 32;
    assert!(digests == 0x180);
    let chip = digests + 8 + 3 + 21;
    assert!(chip == 0x1A0);
    let firmware = chip + 64 + 8 + 4 + 4 + 8;
    assert!(firmware == 0x1F8);
    assert!(firmware + 8 + 8 + 152 == SIGNED_LEN);
};

/// Version of the secure processor's firmware; ordered by major, minor, build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FirmwareVersion {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// The policy that the guest was launched under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

/// What the platform says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformInfo(pub u64);

/// Everything a report says, read but not necessarily true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) version: u32,
    pub(crate) guest_svn: u32,
    pub(crate) policy: GuestPolicy,
    pub(crate) family_id: BlockId,
    pub(crate) image_id: BlockId,
    pub(crate) vmpl: u32,
    pub(crate) signature_algorithm: u32,
    pub(crate) current_tcb: [u8; 8],
    pub(crate) platform: PlatformInfo,
    pub(crate) key_info: u32,
    pub(crate) report_data: ReportData,
    pub(crate) measurement: LaunchMeasurement,
    pub(crate) host_data: HostData,
    pub(crate) id_key_digest: KeyDigest,
    pub(crate) author_key_digest: KeyDigest,
    pub(crate) report_id: ReportId,
    pub(crate) report_id_ma: ReportId,
    pub(crate) reported_tcb: [u8; 8],
    /// Family, model, stepping.
    pub(crate) cpu: (u8, u8, u8),
    pub(crate) chip_id: ChipId,
    pub(crate) committed_tcb: [u8; 8],
    pub(crate) current: FirmwareVersion,
    pub(crate) committed: FirmwareVersion,
    pub(crate) launch_tcb: [u8; 8],
    pub(crate) launch_mit_vector: u64,
    pub(crate) current_mit_vector: u64,
    /// Whether bytes that are reserved in every version are zero.
    pub(crate) reserved_is_zero: bool,
}

impl Fields {
    pub(crate) fn read(report: &[u8; REPORT_LEN]) -> Self {
        Self::try_read(report).expect("a report's length is that of its layout")
    }

    fn try_read(report: &[u8; REPORT_LEN]) -> Result<Self, Truncated> {
        let mut r = Reader::new(report);
        let mut reserved_is_zero = true;
        let mut reserved = |bytes: &[u8]| reserved_is_zero &= all_zero(bytes);
        let fields = Self {
            version: r.u32_le()?,
            guest_svn: r.u32_le()?,
            policy: GuestPolicy(u64_le(&mut r)?),
            family_id: BlockId(r.array()?),
            image_id: BlockId(r.array()?),
            vmpl: r.u32_le()?,
            signature_algorithm: r.u32_le()?,
            current_tcb: r.array()?,
            platform: PlatformInfo(u64_le(&mut r)?),
            key_info: r.u32_le()?,
            report_data: {
                reserved(r.take(4)?);
                ReportData(r.array()?)
            },
            measurement: LaunchMeasurement(r.array()?),
            host_data: HostData(r.array()?),
            id_key_digest: KeyDigest(r.array()?),
            author_key_digest: KeyDigest(r.array()?),
            report_id: ReportId(r.array()?),
            report_id_ma: ReportId(r.array()?),
            reported_tcb: r.array()?,
            cpu: (r.u8()?, r.u8()?, r.u8()?),
            chip_id: {
                reserved(r.take(21)?);
                ChipId(r.array()?)
            },
            committed_tcb: r.array()?,
            current: FirmwareVersion::read(&mut r)?,
            committed: {
                reserved(r.take(1)?);
                FirmwareVersion::read(&mut r)?
            },
            launch_tcb: {
                reserved(r.take(1)?);
                r.array()?
            },
            launch_mit_vector: u64_le(&mut r)?,
            current_mit_vector: {
                let vector = u64_le(&mut r)?;
                reserved(r.take(152)?);
                vector
            },
            reserved_is_zero: true,
        };
        Ok(Self {
            reserved_is_zero,
            ..fields
        })
    }

    /// Selector of the key that signed: bits 4:2.
    pub(crate) const fn signing_key_selector(&self) -> u32 {
        self.key_info >> 2 & 7
    }

    pub(crate) const fn has_author_key(&self) -> bool {
        self.key_info & 1 != 0
    }

    pub(crate) const fn chip_key_is_masked(&self) -> bool {
        self.key_info & 2 != 0
    }

    pub(crate) const fn key_info_is_known(&self) -> bool {
        self.key_info >> 5 == 0
    }
}

fn u64_le(r: &mut Reader<'_>) -> Result<u64, Truncated> {
    r.array().map(u64::from_le_bytes)
}

impl FirmwareVersion {
    /// Stored as build, minor, major.
    fn read(r: &mut Reader<'_>) -> Result<Self, Truncated> {
        let [build, minor, major] = r.array()?;
        Ok(Self {
            major,
            minor,
            build,
        })
    }
}

impl GuestPolicy {
    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// Lowest ABI minor version that the firmware must have.
    pub fn abi_minor(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// ABI major version that the firmware must have.
    pub fn abi_major(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// Simultaneous multithreading may be on.
    pub const fn smt_allowed(self) -> bool {
        self.bit(16)
    }

    /// A bit that is always one.
    pub const fn reserved_one(self) -> bool {
        self.bit(17)
    }

    /// A migration agent may be associated.
    pub const fn migration_allowed(self) -> bool {
        self.bit(18)
    }

    /// The host may read and write the guest's memory.
    pub const fn debug_allowed(self) -> bool {
        self.bit(19)
    }

    /// The guest may run on one socket only.
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }

    /// Devices and memory behind CXL may be used.
    pub const fn cxl_allowed(self) -> bool {
        self.bit(21)
    }

    /// Memory must be encrypted with AES-256-XTS.
    pub const fn aes_256_xts(self) -> bool {
        self.bit(22)
    }

    /// Running average power limit must be off.
    pub const fn rapl_disabled(self) -> bool {
        self.bit(23)
    }

    /// Ciphertext hiding must be on.
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(24)
    }

    /// Guest pages may not be swapped.
    pub const fn page_swap_disabled(self) -> bool {
        self.bit(25)
    }

    /// No bit is set whose meaning we do not know.
    pub const fn is_known(self) -> bool {
        self.0 >> 26 == 0
    }
}

impl PlatformInfo {
    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// Simultaneous multithreading is on.
    pub const fn smt(self) -> bool {
        self.bit(0)
    }

    /// Transparent memory encryption of the whole system is on.
    pub const fn tsme(self) -> bool {
        self.bit(1)
    }

    /// Memory has error correction.
    pub const fn ecc(self) -> bool {
        self.bit(2)
    }

    /// Running average power limit is off.
    pub const fn rapl_disabled(self) -> bool {
        self.bit(3)
    }

    /// Ciphertext of guests is hidden from the host.
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(4)
    }

    /// No two addresses name the same memory; checked since the last boot.
    pub const fn alias_check_complete(self) -> bool {
        self.bit(5)
    }

    /// Devices can be given to guests as trusted ones (SEV-TIO).
    pub const fn tio(self) -> bool {
        self.bit(7)
    }
}

impl fmt::Display for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl PartialOrd for FirmwareVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FirmwareVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |version: &Self| (version.major, version.minor, version.build);
        key(self).cmp(&key(other))
    }
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// Text is not `major.minor.build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a firmware version is written major.minor.build, each up to 255")]
pub struct FirmwareVersionError;

impl FromStr for FirmwareVersion {
    type Err = FirmwareVersionError;

    fn from_str(text: &str) -> Result<Self, FirmwareVersionError> {
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(build)), None) => Ok(Self {
                major,
                minor,
                build,
            }),
            _ => Err(FirmwareVersionError),
        }
    }
}

impl Serialize for FirmwareVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FirmwareVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}
