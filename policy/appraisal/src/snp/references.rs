//! Reference values: what the owner accepts. Debugging and migration are not among
//! them, no value can allow those.
//!
//! A value that is not given refuses: there is no floor that defaults to zero and
//! no list that is empty and therefore fulfilled.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Product, Tcb,
    fields::FirmwareVersion,
    identities::Identities,
    rules::{Levels, Mitigations, Rule},
};

/// What an owner accepts of a guest and its platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// Floors by product; a product without one is refused.
    #[serde(deserialize_with = "agent_documents::unique")]
    pub products: BTreeMap<Product, ProductFloor>,
    /// Products refused whatever they report. Milan, unless the owner says
    /// otherwise: extraction of keys from that generation has been published.
    #[serde(default = "refused_by_default")]
    pub refused_products: BTreeSet<Product>,
    /// Whether revocation lists are required, and how old they may be.
    pub revocation: Revocation,
    /// Providers whose VLEK is accepted, byte for byte as its extension cspID spells them.
    #[serde(default)]
    pub vlek_providers: BTreeSet<String>,
    /// Whether a report that hides its chip is accepted.
    #[serde(default)]
    pub masked_chip_id: bool,
    /// Rules for the guest policy.
    pub guest_policy: GuestPolicyRules,
    /// Privilege levels the report may be asked for from; 0 unless given.
    #[serde(default)]
    pub vmpl: Levels,
    /// What the guest may be.
    pub identities: Identities,
    /// Rules for the platform.
    #[serde(default)]
    pub platform: PlatformRules,
    /// Mitigation bits that must be set, at launch and now.
    #[serde(default)]
    pub mitigations: Mitigations,
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
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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

/// Rules for the bits of PLATFORM_INFO, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenPlatformRules")]
pub struct PlatformRules {
    /// Simultaneous multithreading is on.
    pub smt: Rule,
    /// Memory encryption of the whole system is on.
    pub tsme: Rule,
    /// Memory has error correction.
    pub ecc: Rule,
    /// RAPL is off.
    pub rapl_disabled: Rule,
    /// Ciphertext is hidden.
    pub ciphertext_hiding: Rule,
    /// Aliases of memory were looked for.
    pub alias_check_complete: Rule,
    /// Devices can be given to guests as trusted ones.
    pub tio: Rule,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPlatformRules {
    smt: Rule,
    /// The earlier way to forbid it.
    smt_disabled: bool,
    tsme: Rule,
    ecc: Rule,
    rapl_disabled: Rule,
    ciphertext_hiding: Rule,
    alias_check_complete: Rule,
    tio: Rule,
}

impl Default for PlatformRules {
    /// Asks for the alias check: without it, the host may have mapped memory twice.
    fn default() -> Self {
        Self {
            smt: Rule::Either,
            tsme: Rule::Either,
            ecc: Rule::Either,
            rapl_disabled: Rule::Either,
            ciphertext_hiding: Rule::Either,
            alias_check_complete: Rule::Required,
            tio: Rule::Either,
        }
    }
}

impl Default for WrittenPlatformRules {
    fn default() -> Self {
        let rules = PlatformRules::default();
        Self {
            smt: rules.smt,
            smt_disabled: false,
            tsme: rules.tsme,
            ecc: rules.ecc,
            rapl_disabled: rules.rapl_disabled,
            ciphertext_hiding: rules.ciphertext_hiding,
            alias_check_complete: rules.alias_check_complete,
            tio: rules.tio,
        }
    }
}

impl TryFrom<WrittenPlatformRules> for PlatformRules {
    type Error = &'static str;

    fn try_from(written: WrittenPlatformRules) -> Result<Self, Self::Error> {
        let smt = match (written.smt_disabled, written.smt) {
            (true, Rule::Required) => return Err("smt is required, and smt_disabled forbids it"),
            (true, _) => Rule::Forbidden,
            (false, rule) => rule,
        };
        Ok(Self {
            smt,
            tsme: written.tsme,
            ecc: written.ecc,
            rapl_disabled: written.rapl_disabled,
            ciphertext_hiding: written.ciphertext_hiding,
            alias_check_complete: written.alias_check_complete,
            tio: written.tio,
        })
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
