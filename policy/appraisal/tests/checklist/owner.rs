//! What a report says, against the owner's reference values.

use std::collections::BTreeMap;

use policy_appraisal::{
    Check,
    azure::PcrReferences,
    snp::{Levels, Product, ReferenceValues, SigningKey},
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
                s.references.vmpl = Levels::only(2);
            },
            &[],
        ),
        (
            "2, one of those expected",
            |s| {
                s.put(VMPL, &[2]);
                s.references.vmpl = serde_json::from_str("[0, 2]").unwrap();
            },
            &[],
        ),
        (
            "1, none of those expected",
            |s| {
                s.put(VMPL, &[1]);
                s.references.vmpl = serde_json::from_str("[0, 2]").unwrap();
            },
            &[Check::Vmpl],
        ),
        (
            "0, of none expected",
            |s| s.references.vmpl = serde_json::from_str("[]").unwrap(),
            &[Check::Vmpl],
        ),
    ]);
    for wrong in ["-1", "4294967296", "[4294967296]", "\"0\"", "[[0]]", "null"] {
        assert!(serde_json::from_str::<Levels>(wrong).is_err(), "{wrong}");
    }
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

/// Of two values for one key the last would win silently.
#[test]
fn no_key_of_a_map_is_given_twice() {
    let (floor, digest) = (
        r#"{"tcb": {"bootloader": 1, "tee": 1, "snp": 1, "microcode": 1}, "firmware": "1.55.40"}"#,
        "11".repeat(32),
    );
    let references = |products: &str| {
        let text = format!(
            r#"{{"products": {{{products}}}, "revocation": "optional", "identities": {{}},
                "guest_policy": {{"abi_major": 1, "abi_minor": 31, "smt_allowed": false}}}}"#
        );
        serde_json::from_str::<ReferenceValues>(&text)
    };
    assert!(references(&format!(r#""Genoa": {floor}, "Turin": {floor}"#)).is_ok());
    let error = references(&format!(r#""Genoa": {floor}, "Genoa": {floor}"#)).unwrap_err();
    assert!(
        error.to_string().contains("`Genoa` is given twice"),
        "{error}"
    );

    let pcrs = |text: &str| serde_json::from_str::<PcrReferences>(text);
    assert!(pcrs(&format!(r#"{{"4": ["{digest}"], "5": ["{digest}"]}}"#)).is_ok());
    for wrong in [
        format!(r#"{{"4": ["{digest}"], "4": []}}"#),
        format!(r#"{{"4": ["{digest}"], "04": []}}"#),
        format!(r#"{{"256": ["{digest}"]}}"#),
    ] {
        assert!(pcrs(&wrong).is_err(), "{wrong}");
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
