//! A scene: a report, its endorsements and what the owner expects. Accepted as made;
//! each test changes one thing and names the check that must refuse.

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::{HostData, LaunchMeasurement, ReportData};
use policy_appraisal::{
    Endorsements, Timestamp, Verdict,
    snp::{
        BlockId, Expected, FirmwareVersion, GuestPolicyRules, Identities, KeyDigest, Levels,
        Mitigations, PlatformRules, Product, ProductFloor, ReferenceValues, Revocation, Roots,
        Rule, SignedIdentity, SigningKey, TcbFloor, UnverifiedReport,
    },
};

use super::{
    authority::{self, CertificateSpec, Chip, CrlSpec, LeafSpec},
    pinned_time,
};

pub const PROVIDER: &str = "CN=cc.example.com";
pub const DAY: u32 = 86400;

pub const POLICY: usize = 0x08;
pub const VMPL: usize = 0x30;
pub const CURRENT_TCB: usize = 0x38;
pub const PLATFORM: usize = 0x40;
pub const KEY_INFO: usize = 0x48;
pub const AUTHOR_KEY: usize = 0x110;
pub const REPORTED_TCB: usize = 0x180;
pub const CPU: usize = 0x188;
pub const CHIP_ID: usize = 0x1A0;
pub const COMMITTED_TCB: usize = 0x1E0;
pub const CURRENT_VERSION: usize = 0x1E8;
pub const COMMITTED_VERSION: usize = 0x1EC;
pub const LAUNCH_TCB: usize = 0x1F0;
pub const LAUNCH_MIT: usize = 0x1F8;
pub const CURRENT_MIT: usize = 0x200;

pub struct Scene {
    pub product: Product,
    pub chip: Chip,
    pub report: [u8; 1184],
    pub leaf: LeafSpec,
    pub issuer: CertificateSpec,
    pub crl: Option<CrlSpec>,
    pub references: ReferenceValues,
    pub expected: Expected,
    pub at: Timestamp,
    /// What the host does to the report after it was signed.
    pub tamper: fn(&mut [u8; 1184]),
}

/// ABI 1.31, single socket, XTS, RAPL off, ciphertext hiding, no swapping.
pub const STRICT_POLICY: u64 = 0x03D2_011F;
/// TSME, ECC, RAPL off, ciphertext hiding, alias check.
pub const STRICT_PLATFORM: u64 = 0b11_1110;

impl Scene {
    pub fn new(product: Product, kind: SigningKey) -> Self {
        let chip = Chip::new();
        let tcb = tcb_of(product);
        Self {
            product,
            report: report(product, kind, &chip),
            leaf: authority::leaf(product, kind, &chip, tcb),
            issuer: authority::issuer(product, kind),
            crl: Some(CrlSpec::of(product)),
            references: references(product),
            expected: Expected {
                report_data: ReportData([0xD1; 64]),
                host_data: HostData([0xD2; 32]),
            },
            at: pinned_time(),
            tamper: |_| {},
            chip,
        }
    }

    pub fn genoa() -> Self {
        Self::new(Product::Genoa, SigningKey::Vcek)
    }

    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.report[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub fn roots(&self) -> Roots {
        Roots::parse(&authority::root(self.product).build()).unwrap()
    }

    pub fn endorsements(&self) -> Endorsements {
        let mut endorsements = Endorsements::parse(&self.leaf.build()).unwrap();
        endorsements.add(&self.issuer.build()).unwrap();
        if let Some(crl) = &self.crl {
            endorsements.add_crl(&crl.build()).unwrap();
        }
        endorsements
    }

    pub fn signed(&self) -> [u8; 1184] {
        let mut report = self.report;
        self.chip.sign(&mut report);
        (self.tamper)(&mut report);
        report
    }

    pub fn judge(&self) -> Verdict {
        self.judge_with(&self.endorsements(), &self.roots())
    }

    pub fn judge_with(&self, endorsements: &Endorsements, roots: &Roots) -> Verdict {
        let report = UnverifiedReport::parse(&self.signed()).unwrap();
        match report.authenticate(endorsements, roots, &self.references, self.at) {
            Ok(authentic) => authentic.appraise(&self.references, &self.expected),
            Err(refused) => refused,
        }
    }
}

pub fn tcb_of(product: Product) -> [u8; 8] {
    match product {
        Product::Turin => [1, 2, 3, 4, 0, 0, 0, 0xD9],
        _ => [10, 1, 0, 0, 0, 0, 23, 0xD9],
    }
}

fn report(product: Product, kind: SigningKey, chip: &Chip) -> [u8; 1184] {
    let mut report = [0; 1184];
    let mut put =
        |offset: usize, bytes: &[u8]| report[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x00, &5_u32.to_le_bytes());
    put(0x04, &[0x80]);
    put(POLICY, &STRICT_POLICY.to_le_bytes());
    put(0x10, &[0xF1; 16]);
    put(0x20, &[0xF2; 16]);
    put(0x34, &[1]);
    put(PLATFORM, &STRICT_PLATFORM.to_le_bytes());
    let selector = if kind == SigningKey::Vlek { 1 << 2 } else { 0 };
    put(KEY_INFO, &[selector | 1]);
    put(0x50, &[0xD1; 64]);
    put(0x90, &[0xA1; 48]);
    put(0xC0, &[0xD2; 32]);
    put(0xE0, &[0xA2; 48]);
    put(AUTHOR_KEY, &[0xA3; 48]);
    put(0x140, &[0xA4; 32]);
    put(0x160, &[0xFF; 32]);
    for offset in [CURRENT_TCB, REPORTED_TCB, COMMITTED_TCB, LAUNCH_TCB] {
        put(offset, &tcb_of(product));
    }
    put(
        CPU,
        match product {
            Product::Milan => &[0x19, 0x01, 0x01],
            Product::Genoa => &[0x19, 0xA0, 0x02],
            Product::Turin => &[0x1A, 0x02, 0x01],
        },
    );
    if kind == SigningKey::Vcek {
        put(CHIP_ID, chip.hardware_id(product));
    }
    put(CURRENT_VERSION, &[40, 55, 1]);
    put(COMMITTED_VERSION, &[40, 55, 1]);
    put(LAUNCH_MIT, &[0x0F]);
    put(CURRENT_MIT, &[0x0F]);
    report
}

fn references(product: Product) -> ReferenceValues {
    let turin = product == Product::Turin;
    let [a, b, c, d, _, _, g, microcode] = tcb_of(product);
    let (fmc, bootloader, tee, snp) = if turin {
        (Some(a), b, c, d)
    } else {
        (None, a, b, g)
    };
    let floor = ProductFloor {
        tcb: TcbFloor {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        },
        firmware: FirmwareVersion {
            major: 1,
            minor: 55,
            build: 40,
        },
    };
    ReferenceValues {
        products: BTreeMap::from([(product, floor)]),
        refused_products: BTreeSet::new(),
        revocation: Revocation::Required {
            max_age_seconds: 7 * DAY,
        },
        vlek_providers: BTreeSet::from([PROVIDER.to_owned()]),
        masked_chip_id: false,
        guest_policy: GuestPolicyRules {
            abi_major: 1,
            abi_minor: 31,
            smt_allowed: false,
            cxl_allowed: false,
            single_socket: true,
            aes_256_xts: true,
            rapl_disabled: true,
            ciphertext_hiding: true,
            page_swap_disabled: true,
        },
        vmpl: Levels::default(),
        identities: Identities {
            measurements: BTreeSet::from([LaunchMeasurement([0xA1; 48])]),
            ..Identities::default()
        },
        platform: PlatformRules {
            smt: Rule::Forbidden,
            tsme: Rule::Required,
            ecc: Rule::Required,
            rapl_disabled: Rule::Required,
            ciphertext_hiding: Rule::Required,
            alias_check_complete: Rule::Required,
            tio: Rule::Forbidden,
        },
        mitigations: Mitigations::both(0x0F),
    }
}

/// The identity in the scene's ID block.
pub fn signed_identity() -> SignedIdentity {
    SignedIdentity {
        id_key_digest: KeyDigest([0xA2; 48]),
        author_key_digest: Some(KeyDigest([0xA3; 48])),
        family_id: BlockId([0xF1; 16]),
        image_id: BlockId([0xF2; 16]),
        guest_svn: 0x80,
    }
}
