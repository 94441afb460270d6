//! What a report says, against the owner's reference values.

use std::collections::{BTreeMap, BTreeSet};

use policy_appraisal::{
    Check,
    azure::PcrReferences,
    snp::{
        CombinedIdentity, Identities, KeyDigest, Levels, Mitigations, PlatformRules, Product,
        ReferenceValues, Rule, SigningKey,
    },
};
use serde_json::{Value, json};

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
        ..Identities::default()
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
    for bit in [0, 1, 2, 3, 4, 5, 7] {
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

/// Each rule for each bit, set and not; the other bits may be either.
#[test]
fn each_bit_of_the_platform_is_required_forbidden_or_either() {
    for (bit, key) in [
        (0, "smt"),
        (1, "tsme"),
        (2, "ecc"),
        (3, "rapl_disabled"),
        (4, "ciphertext_hiding"),
        (5, "alias_check_complete"),
        (7, "tio"),
    ] {
        for (rule, set, unset) in [
            (json!("required"), true, false),
            (json!("forbidden"), false, true),
            (json!("either"), true, true),
            (json!(true), true, false),
            (json!(false), true, true),
        ] {
            let mut rules = json!({"alias_check_complete": "either"});
            rules[key] = rule.clone();
            let mut scene = Scene::genoa();
            scene.references.platform = serde_json::from_value(rules).unwrap();
            for (others, is_set, accepted) in [
                (0_u64, true, set),
                (0, false, unset),
                (0xFF, true, set),
                (0xFF, false, unset),
            ] {
                let bits = others & !(1 << bit) | u64::from(is_set) << bit;
                scene.put(PLATFORM, &bits.to_le_bytes());
                let wanted: &[Check] = if accepted { &[] } else { &[Check::Platform] };
                assert_eq!(refusals(&scene.judge()), wanted, "{key} {rule} {bits:#x}");
            }
        }
    }
}

#[test]
fn rules_of_the_platform_are_words_that_do_not_contradict_each_other() {
    let parse = |text: &str| serde_json::from_str::<PlatformRules>(text);
    let default = parse("{}").unwrap();
    assert_eq!(default, PlatformRules::default());
    assert_eq!(default.alias_check_complete, Rule::Required);
    let earlier = parse(r#"{"smt_disabled": true}"#).unwrap();
    assert_eq!(earlier.smt, Rule::Forbidden);
    let earlier = parse(r#"{"smt_disabled": false, "smt": "required"}"#).unwrap();
    assert_eq!(earlier.smt, Rule::Required);
    for wrong in [
        r#"{"smt_disabled": true, "smt": "required"}"#,
        r#"{"smt": "Required"}"#,
        r#"{"smt": "on"}"#,
        r#"{"smt": 1}"#,
        r#"{"smt": null}"#,
        r#"{"smt": "either", "smt": "forbidden"}"#,
        r#"{"snp": "required"}"#,
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
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
fn mitigations_of_the_launch_and_of_now_are_asked_for_apart() {
    judge(&[
        (
            "each its own",
            |s| {
                s.put(LAUNCH_MIT, &[0x01]);
                s.put(CURRENT_MIT, &[0x02]);
                s.references.mitigations =
                    serde_json::from_str(r#"{"launch": 1, "current": 2}"#).unwrap();
            },
            &[],
        ),
        (
            "exchanged",
            |s| {
                s.put(LAUNCH_MIT, &[0x02]);
                s.put(CURRENT_MIT, &[0x01]);
                s.references.mitigations =
                    serde_json::from_str(r#"{"launch": 1, "current": 2}"#).unwrap();
            },
            &[Check::Mitigations],
        ),
        (
            "one mask for both, not at launch",
            |s| {
                s.put(LAUNCH_MIT, &[0x01]);
                s.references.mitigations = serde_json::from_str("3").unwrap();
            },
            &[Check::Mitigations],
        ),
        (
            "the highest bit, now",
            |s| {
                s.put(CURRENT_MIT + 7, &[0x80]);
                s.references.mitigations =
                    serde_json::from_str(r#"{"launch": 0, "current": 9223372036854775808}"#)
                        .unwrap();
            },
            &[],
        ),
        (
            "the highest bit, at launch",
            |s| {
                s.put(CURRENT_MIT + 7, &[0x80]);
                s.references.mitigations =
                    serde_json::from_str(r#"{"launch": 9223372036854775808, "current": 0}"#)
                        .unwrap();
            },
            &[Check::Mitigations],
        ),
    ]);
    for wrong in [
        "-1",
        "1.0",
        r#""0x0f""#,
        "[1, 2]",
        r#"{"launch": 1}"#,
        r#"{"current": 1}"#,
        r#"{"launch": 1, "current": 1, "now": 1}"#,
        r#"{"launch": 1, "launch": 0, "current": 1}"#,
        r#"{"launch": 18446744073709551616, "current": 1}"#,
    ] {
        assert!(
            serde_json::from_str::<Mitigations>(wrong).is_err(),
            "{wrong}"
        );
    }
}

/// Everything that a combined identity names is asked for together.
#[test]
fn combined_identities_ask_for_everything_that_they_name() {
    let all = json!({
        "measurement": "a1".repeat(48),
        "id_key_digest": "a2".repeat(48),
        "author_key_digest": "a3".repeat(48),
        "family_id": "f1".repeat(16),
        "image_id": "f2".repeat(16),
        "guest_svn": 0x80,
    });
    let only = |names: &[&str]| {
        let mut entry = all.clone();
        let members = entry.as_object_mut().unwrap();
        members.retain(|name, _| names.contains(&name.as_str()));
        entry
    };
    let judged = |entry: &Value, change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::genoa();
        scene.references.identities = serde_json::from_value(json!({"combined": [entry]})).unwrap();
        change(&mut scene);
        refusals(&scene.judge())
    };
    let both = ["measurement", "id_key_digest"];
    for accepted in [
        &both[..],
        &both[..1],
        &both[1..],
        &["measurement", "guest_svn"],
        &["id_key_digest", "guest_svn"],
        &[
            "measurement",
            "id_key_digest",
            "author_key_digest",
            "family_id",
            "image_id",
            "guest_svn",
        ],
    ] {
        assert_eq!(judged(&only(accepted), &|_| {}), [], "{accepted:?}");
        assert_eq!(
            judged(&only(accepted), &|s| s.put(0x04, &[0x81])),
            [],
            "{accepted:?}, newer"
        );
        for (named, offset) in [
            ("measurement", 0x90),
            ("id_key_digest", 0xE0),
            ("author_key_digest", AUTHOR_KEY),
            ("family_id", 0x10),
            ("image_id", 0x20),
            ("guest_svn", 0x04),
        ] {
            let refused = judged(&only(accepted), &|s| s.put(offset, &[0x7F]));
            let wanted: &[Check] = match accepted.contains(&named) {
                true => &[Check::GuestIdentity],
                false => &[],
            };
            assert_eq!(refused, wanted, "{accepted:?}, another {named}");
        }
    }
    let mut nobody = only(&both);
    nobody["id_key_digest"] = "00".repeat(48).into();
    let unsigned = judged(&nobody, &|s| s.put(0xE0, &[0; 48]));
    assert_eq!(unsigned, [Check::GuestIdentity], "signed by nobody");
    for wrong in [
        json!({}),
        only(&["guest_svn"]),
        only(&["author_key_digest", "family_id", "image_id"]),
        json!({"measurement": "a1".repeat(48), "svn": 1}),
        json!({"measurement": "a1".repeat(47)}),
    ] {
        assert!(
            serde_json::from_value::<CombinedIdentity>(wrong.clone()).is_err(),
            "{wrong}"
        );
    }
}

/// The owner copies the provider from the certificate; no other spelling is the same.
#[test]
fn providers_are_spelt_as_their_certificate_spells_them() {
    for (spelt, wanted) in [
        (PROVIDER, &[][..]),
        ("cc.example.com", &[Check::SigningKey]),
        ("cn=cc.example.com", &[Check::SigningKey]),
        ("CN=CC.example.com", &[Check::SigningKey]),
        ("CN=cc.example.com ", &[Check::SigningKey]),
        ("CN=cc.example.co", &[Check::SigningKey]),
        ("CN=cc.example.com,O=Example", &[Check::SigningKey]),
        ("", &[Check::SigningKey]),
    ] {
        let mut scene = Scene::new(Product::Genoa, SigningKey::Vlek);
        scene.references.vlek_providers = BTreeSet::from([spelt.to_owned()]);
        let verdict = scene.judge();
        assert_eq!(refusals(&verdict), wanted, "{spelt}\n{verdict}");
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
