//! What a report says, against the owner's reference values.

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::KeyDigest;
use policy_appraisal::{
    Check,
    snp::{Identities, Product, ReferenceValues, SigningKey},
};

use super::{
    judge,
    support::{refusals, scene::*},
};
#[test]
fn no_tcb_is_below_the_floor() {
    judge(&[
        (
            "launched on an older one",
            |s| s.put(LAUNCH_TCB, &[9]),
            &[Check::TcbFloor],
        ),
        (
            "running on an older one",
            |s| s.put(CURRENT_TCB, &[9]),
            &[Check::TcbFloor, Check::TcbOrder],
        ),
        (
            "committed to an older one",
            |s| s.put(COMMITTED_TCB, &[9]),
            &[Check::TcbFloor, Check::TcbOrder],
        ),
        ("running on a newer one", |s| s.put(CURRENT_TCB, &[11]), &[]),
        (
            "committed to a newer one than is running",
            |s| s.put(COMMITTED_TCB + 7, &[0xDA]),
            &[Check::TcbOrder],
        ),
        (
            "all below",
            |s| {
                s.references
                    .products
                    .get_mut(&Product::Genoa)
                    .unwrap()
                    .tcb
                    .microcode = 0xDA
            },
            &[Check::TcbFloor],
        ),
        (
            "floor of another layout",
            |s| {
                s.references
                    .products
                    .get_mut(&Product::Genoa)
                    .unwrap()
                    .tcb
                    .fmc = Some(0)
            },
            &[Check::TcbFloor],
        ),
        (
            "no floor for the product",
            |s| s.references.products = BTreeMap::new(),
            &[Check::TcbFloor, Check::FirmwareFloor],
        ),
    ]);
    let mut turin = Scene::new(Product::Turin, SigningKey::Vcek);
    turin
        .references
        .products
        .get_mut(&Product::Turin)
        .unwrap()
        .tcb
        .fmc = None;
    assert_eq!(refusals(&turin.judge()), [Check::TcbFloor]);
}

#[test]
fn firmware_is_not_below_the_floor() {
    judge(&[
        (
            "older build running",
            |s| s.put(CURRENT_VERSION, &[39]),
            &[Check::FirmwareFloor],
        ),
        (
            "older minor committed",
            |s| s.put(COMMITTED_VERSION, &[255, 54, 1]),
            &[Check::FirmwareFloor],
        ),
        (
            "newer minor, lower build",
            |s| {
                s.put(CURRENT_VERSION, &[0, 56, 1]);
                s.put(COMMITTED_VERSION, &[0, 56, 1]);
            },
            &[],
        ),
    ]);
}

#[test]
fn debug_and_migration_are_refused_whatever_the_owner_says() {
    judge(&[
        (
            "debug",
            |s| s.put(POLICY, &(STRICT_POLICY | 1 << 19).to_le_bytes()),
            &[Check::Debug],
        ),
        (
            "migration",
            |s| s.put(POLICY, &(STRICT_POLICY | 1 << 18).to_le_bytes()),
            &[Check::Migration],
        ),
        (
            "migration agent",
            |s| s.put(0x160, &[0]),
            &[Check::Migration],
        ),
    ]);
}

#[test]
fn each_bit_of_the_guest_policy_counts() {
    for bit in 0..64 {
        let mut scene = Scene::genoa();
        scene.put(POLICY, &(STRICT_POLICY ^ 1_u64 << bit).to_le_bytes());
        let wanted: &[Check] = match bit {
            // A policy may ask for a newer ABI than the owner does.
            5..=7 => &[],
            18 => &[Check::Migration],
            19 => &[Check::Debug],
            _ => &[Check::GuestPolicy],
        };
        assert_eq!(refusals(&scene.judge()), wanted, "bit {bit}");
    }
    judge(&[(
        "what the owner allows",
        |s| {
            s.put(POLICY, &0x0023_011F_u64.to_le_bytes());
            let rules = &mut s.references.guest_policy;
            (rules.smt_allowed, rules.cxl_allowed) = (true, true);
            (rules.single_socket, rules.aes_256_xts, rules.rapl_disabled) = (false, false, false);
            (rules.ciphertext_hiding, rules.page_swap_disabled) = (false, false);
        },
        &[],
    )]);
}

#[test]
fn privilege_level_is_the_expected_one() {
    judge(&[
        ("1", |s| s.put(VMPL, &[1]), &[Check::Vmpl]),
        (
            "asked for by the host",
            |s| s.put(VMPL, &[0xFF; 4]),
            &[Check::Vmpl],
        ),
        (
            "2, as expected",
            |s| {
                s.put(VMPL, &[2]);
                s.references.vmpl = 2;
            },
            &[],
        ),
    ]);
}

#[test]
fn identity_is_a_reference_value() {
    judge(&[
        (
            "another measurement",
            |s| s.put(0x90, &[0]),
            &[Check::GuestIdentity],
        ),
        (
            "no reference value",
            |s| s.references.identities = Identities::default(),
            &[Check::GuestIdentity],
        ),
        ("signed", only_signed, &[]),
        (
            "signed, newer",
            |s| {
                only_signed(s);
                s.put(0x04, &[0x81]);
            },
            &[],
        ),
        (
            "signed, older",
            |s| {
                only_signed(s);
                s.put(0x04, &[0x7F]);
            },
            &[Check::GuestIdentity],
        ),
        (
            "signed by nobody, as the reference value absurdly says",
            |s| {
                only_signed(s);
                s.references.identities.signed[0].id_key_digest = KeyDigest::ZERO;
                s.put(0xE0, &[0; 48]);
            },
            &[Check::GuestIdentity],
        ),
    ]);
}

pub(super) fn only_signed(scene: &mut Scene) {
    scene.references.identities = Identities {
        measurements: BTreeSet::new(),
        signed: vec![signed_identity()],
        endorsed: Vec::new(),
    };
}

#[test]
fn author_key_is_there_if_key_info_says_so() {
    judge(&[
        (
            "digest without flag",
            |s| s.put(KEY_INFO, &[0]),
            &[Check::AuthorKey],
        ),
        (
            "flag without digest",
            |s| s.put(AUTHOR_KEY, &[0; 48]),
            &[Check::AuthorKey],
        ),
        (
            "neither",
            |s| {
                s.put(KEY_INFO, &[0]);
                s.put(AUTHOR_KEY, &[0; 48]);
            },
            &[],
        ),
    ]);
}

#[test]
fn each_feature_of_the_platform_counts() {
    for bit in 0..6 {
        let mut scene = Scene::genoa();
        scene.put(PLATFORM, &(STRICT_PLATFORM ^ 1 << bit).to_le_bytes());
        assert_eq!(refusals(&scene.judge()), [Check::Platform], "bit {bit}");
    }
    judge(&[(
        "nothing asked for",
        |s| {
            s.put(PLATFORM, &[1]);
            s.references.platform =
                serde_json::from_str(r#"{"alias_check_complete": false}"#).unwrap();
        },
        &[],
    )]);
}

#[test]
fn mitigations_hold_at_launch_and_now() {
    judge(&[
        (
            "not at launch",
            |s| s.put(LAUNCH_MIT, &[0x07]),
            &[Check::Mitigations],
        ),
        (
            "not now",
            |s| s.put(CURRENT_MIT, &[0x0E]),
            &[Check::Mitigations],
        ),
        ("more than asked", |s| s.put(CURRENT_MIT, &[0x1F]), &[]),
        (
            "in a report without the field",
            |s| {
                s.put(0, &[3]);
                s.put(LAUNCH_MIT, &[0]);
                s.put(CURRENT_MIT, &[0]);
            },
            &[Check::Mitigations],
        ),
    ]);
}

#[test]
fn reference_values_are_complete_or_none() {
    let complete = serde_json::to_value(Scene::genoa().references).unwrap();
    let parse = |value: serde_json::Value| serde_json::from_value::<ReferenceValues>(value);
    assert_eq!(parse(complete.clone()).unwrap(), Scene::genoa().references);
    for missing in ["products", "revocation", "guest_policy", "identities"] {
        let mut values = complete.clone();
        values.as_object_mut().unwrap().remove(missing);
        assert!(parse(values).is_err(), "{missing}");
    }
    for (at, key) in [
        ("/products/Genoa", "firmware"),
        ("/products/Genoa/tcb", "snp"),
    ] {
        let mut values = complete.clone();
        values
            .pointer_mut(at)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(key);
        assert!(parse(values).is_err(), "{at} {key}");
    }
    for (at, unknown) in [
        ("", "debug"),
        ("/guest_policy", "debug_allowed"),
        ("/products", "Venice"),
    ] {
        let mut values = complete.clone();
        let place = values.pointer_mut(at).unwrap().as_object_mut().unwrap();
        place.insert(unknown.to_owned(), true.into());
        assert!(parse(values).is_err(), "{at} {unknown}");
    }
}

/// No feature is on unless asked for, so a release has no evidence that proves nothing.
#[test]
fn no_feature_is_on_by_default() {
    for manifest in [
        include_str!("../../Cargo.toml"),
        include_str!("../../../../agent/evidence/Cargo.toml"),
    ] {
        assert!(!manifest.contains("default ="));
    }
}
