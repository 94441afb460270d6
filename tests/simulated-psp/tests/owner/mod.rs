//! What an owner who knows the simulated processor accepts.

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::LaunchMeasurement;
use policy_appraisal::snp::{
    FirmwareVersion, GuestPolicyRules, Identities, Levels, Mitigations, PlatformRules, Product,
    ProductFloor, ReferenceValues, Revocation, SigningKey, TcbFloor,
};
use tests_simulated_psp::processor::Model;

pub(crate) const HOST_DATA: [u8; 32] = [0x5D; 32];
/// ABI 1.31, SMT allowed.
pub(crate) const POLICY: u64 = 0x0003_011F;
pub(crate) const FIRMWARE: &str = "/usr/share/ovmf/OVMF.amdsev.fd";
const DAY: u32 = 86_400;

/// The reference values.
pub(crate) fn references(product: Product, measurement: LaunchMeasurement) -> ReferenceValues {
    let model = Model {
        product,
        signing_key: SigningKey::Vcek,
        report_version: 5,
    };
    let tcb = model.tcb();
    let floor = ProductFloor {
        tcb: TcbFloor {
            fmc: tcb.fmc,
            bootloader: tcb.bootloader,
            tee: tcb.tee,
            snp: tcb.snp,
            microcode: tcb.microcode,
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
            max_age_seconds: DAY,
        },
        vlek_providers: BTreeSet::from(["CN=cc.example.com".to_owned()]),
        masked_chip_id: false,
        guest_policy: GuestPolicyRules {
            abi_major: 1,
            abi_minor: 31,
            smt_allowed: true,
            cxl_allowed: false,
            single_socket: false,
            aes_256_xts: false,
            rapl_disabled: false,
            ciphertext_hiding: false,
            page_swap_disabled: false,
        },
        vmpl: Levels::default(),
        identities: Identities {
            measurements: BTreeSet::from([measurement]),
            ..Identities::default()
        },
        platform: PlatformRules::default(),
        mitigations: Mitigations::default(),
    }
}
