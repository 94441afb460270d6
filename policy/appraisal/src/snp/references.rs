//! Reference values: what the owner accepts. Debugging and migration are not among
//! them, no value can allow those.
//!
//! A value that is not given refuses: there is no floor that defaults to zero and
//! no list that is empty and therefore fulfilled.

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::{BlockId, KeyDigest, LaunchMeasurement};
use serde::{Deserialize, Serialize};

use super::{Product, Tcb, fields::FirmwareVersion};
use crate::uvm::DidX509;

/// What an owner accepts of a guest and its platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// Floors by product; a product without one is refused.
    pub products: BTreeMap<Product, ProductFloor>,
    /// Products refused whatever they report. Milan, unless the owner says
    /// otherwise: extraction of keys from that generation has been published.
    #[serde(default = "refused_by_default")]
    pub refused_products: BTreeSet<Product>,
    /// Whether revocation lists are required, and how old they may be.
    pub revocation: Revocation,
    /// Providers whose VLEK is accepted, as their certificate names them.
    #[serde(default)]
    pub vlek_providers: BTreeSet<String>,
    /// Whether a report that hides its chip is accepted.
    #[serde(default)]
    pub masked_chip_id: bool,
    /// Rules for the guest policy.
    pub guest_policy: GuestPolicyRules,
    /// Privilege level the report must be asked for from.
    #[serde(default)]
    pub vmpl: u32,
    /// What the guest may be.
    pub identities: Identities,
    /// Rules for the platform.
    #[serde(default)]
    pub platform: PlatformRules,
    /// Mitigation bits that must be set, at launch and now.
    #[serde(default)]
    pub mitigations: u64,
}

/// The oldest acceptable state of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductFloor {
    /// For the reported, committed, launch and current TCB.
    pub tcb: TcbFloor,
    /// For the committed and the current firmware.
    pub firmware: FirmwareVersion,
}

/// The lowest acceptable version of each TCB component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFloor {
    /// Boot component; must be given from Turin on, and not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// Secure processor's operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

/// What is asked of revocation lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// A list signed by the root and issued at most this long ago must be there.
    Required {
        /// Age limit, in seconds.
        max_age_seconds: u32,
    },
    /// Lists are judged if they are there, and may be absent.
    Optional,
}

/// Rules for the guest policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestPolicyRules {
    /// ABI major version, exactly.
    pub abi_major: u8,
    /// ABI minor version, at least.
    pub abi_minor: u8,
    /// Whether the policy may allow simultaneous multithreading.
    pub smt_allowed: bool,
    /// Whether the policy may allow CXL.
    #[serde(default)]
    pub cxl_allowed: bool,
    /// Whether the policy must ask for a single socket.
    #[serde(default)]
    pub single_socket: bool,
    /// Whether the policy must ask for AES-256-XTS.
    #[serde(default)]
    pub aes_256_xts: bool,
    /// Whether the policy must ask for RAPL to be off.
    #[serde(default)]
    pub rapl_disabled: bool,
    /// Whether the policy must ask for ciphertext hiding.
    #[serde(default)]
    pub ciphertext_hiding: bool,
    /// Whether the policy must forbid page swapping.
    #[serde(default)]
    pub page_swap_disabled: bool,
}

/// What a guest may be: one of the measurements, signed by a trusted key, or endorsed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// Launch measurements.
    #[serde(default)]
    pub measurements: BTreeSet<LaunchMeasurement>,
    /// Guests accepted for their ID block.
    #[serde(default)]
    pub signed: Vec<SignedIdentity>,
    /// Guests accepted for the UVM endorsement of their measurement. With any here an
    /// endorsement must be given and hold, whatever else is listed.
    #[serde(default)]
    pub endorsed: Vec<EndorsedIdentity>,
}

/// A guest accepted because a trusted key signed its ID block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedIdentity {
    /// Digest of the ID key.
    pub id_key_digest: KeyDigest,
    /// Digest of the author key, where one must have signed the ID key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_key_digest: Option<KeyDigest>,
    /// Family id in the ID block.
    pub family_id: BlockId,
    /// Image id in the ID block.
    pub image_id: BlockId,
    /// Lowest guest security version.
    pub guest_svn: u32,
}

/// A guest accepted because its maker endorsed its launch measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsedIdentity {
    /// Who must have signed; names the root to trust.
    pub issuer: DidX509,
    /// The product line that the measurement must be of, exactly.
    pub feed: String,
    /// Lowest security version. Old endorsements stay valid, so only this retires them.
    pub minimum_svn: u64,
}

/// Rules for the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformRules {
    /// Aliases of memory must have been looked for.
    pub alias_check_complete: bool,
    /// Memory must have error correction.
    pub ecc: bool,
    /// Simultaneous multithreading must be off.
    pub smt_disabled: bool,
    /// Memory encryption of the whole system must be on.
    pub tsme: bool,
    /// RAPL must be off.
    pub rapl_disabled: bool,
    /// Ciphertext must be hidden.
    pub ciphertext_hiding: bool,
}

impl Default for PlatformRules {
    /// Asks for the alias check: without it, the host may have mapped memory twice.
    fn default() -> Self {
        Self {
            alias_check_complete: true,
            ecc: false,
            smt_disabled: false,
            tsme: false,
            rapl_disabled: false,
            ciphertext_hiding: false,
        }
    }
}

impl From<TcbFloor> for Tcb {
    fn from(floor: TcbFloor) -> Self {
        Self {
            fmc: floor.fmc,
            bootloader: floor.bootloader,
            tee: floor.tee,
            snp: floor.snp,
            microcode: floor.microcode,
        }
    }
}

fn refused_by_default() -> BTreeSet<Product> {
    BTreeSet::from([Product::Milan])
}
