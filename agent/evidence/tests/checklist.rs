//! Every check has one scene that it accepts and one that only it refuses.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::{
    Check, Endorsements, KeyDigest, Outcome,
    snp::{Identities, Product, ReferenceValues, Revocation, Roots, SigningKey},
};
use support::{
    authority::{self, CrlSpec, Signer},
    refusals,
    scene::*,
};

/// A change to a scene, and the checks that must refuse it; none for acceptance.
type Case = (&'static str, fn(&mut Scene), &'static [Check]);

fn judge(cases: &[Case]) {
    for (what, change, wanted) in cases {
        let mut scene = Scene::genoa();
        change(&mut scene);
        let verdict = scene.judge();
        assert_eq!(refusals(&verdict), *wanted, "{what}:\n{verdict}");
        assert_eq!(
            verdict.is_accepted(),
            wanted.is_empty(),
            "{what}:\n{verdict}"
        );
    }
}

#[test]
fn every_product_and_key_kind_is_accepted() {
    for product in Product::ALL {
        for kind in [SigningKey::Vcek, SigningKey::Vlek] {
            let verdict = Scene::new(product, kind).judge();
            assert!(verdict.is_accepted(), "{product} {kind}\n{verdict}");
        }
    }
}

#[test]
fn chain_ends_at_a_pinned_root() {
    judge(&[
        (
            "leaf by a key nobody trusts",
            |s| s.leaf.certificate.signer = Signer::Other,
            &[Check::Chain],
        ),
        (
            "intermediate by a key nobody trusts",
            |s| s.issuer.signer = Signer::Other,
            &[Check::Chain],
        ),
        (
            "leaf by the root itself",
            |s| s.leaf.certificate.signer = Signer::Root,
            &[Check::Chain],
        ),
        (
            "intermediate that is no authority",
            |s| s.issuer.extensions.clear(),
            &[Check::Chain],
        ),
        (
            "intermediate named for another kind",
            |s| s.issuer.subject = "SEV-VLEK-Genoa".into(),
            &[Check::Chain],
        ),
        (
            "leaf and intermediate named for another product",
            |s| {
                s.issuer.subject = "SEV-Turin".into();
                s.leaf.certificate.issuer = "SEV-Turin".into();
            },
            &[Check::Chain],
        ),
        (
            "root missing for the product",
            |s| s.product = Product::Turin,
            &[Check::Chain],
        ),
    ]);
}

#[test]
fn an_empty_set_of_roots_accepts_nothing() {
    let scene = Scene::genoa();
    let verdict = scene.judge_with(&scene.endorsements(), &Roots::default());
    assert_eq!(refusals(&verdict), [Check::Chain]);
    assert_eq!(verdict.outcome(Check::Debug), Some(Outcome::NotReached));
}

#[test]
fn amd_roots_do_not_accept_a_test_chip() {
    let scene = Scene::genoa();
    let mut carried = scene.endorsements();
    carried
        .add(&authority::root(Product::Genoa).build())
        .unwrap();
    assert_eq!(
        refusals(&scene.judge_with(&carried, &Roots::amd())),
        [Check::Chain]
    );
}

#[test]
fn no_certificate_is_refused_by_name() {
    let scene = Scene::genoa();
    let verdict = scene.judge_with(&Endorsements::default(), &scene.roots());
    assert_eq!(refusals(&verdict), [Check::Certificate]);
}

#[test]
fn every_certificate_of_the_chain_must_be_valid() {
    judge(&[
        (
            "last second",
            |s| s.at = "2031-01-01T00:00:00Z".parse().unwrap(),
            &[Check::Revocation],
        ),
        (
            "leaf expired",
            |s| s.leaf.certificate.validity.1 = "20250531235959Z",
            &[Check::Validity],
        ),
        (
            "leaf not yet valid",
            |s| s.leaf.certificate.validity.0 = "20250601000001Z",
            &[Check::Validity],
        ),
        (
            "leaf valid from now",
            |s| s.leaf.certificate.validity.0 = "20250601000000Z",
            &[],
        ),
        (
            "intermediate expired",
            |s| s.issuer.validity.1 = "20250531235959Z",
            &[Check::Validity],
        ),
    ]);
}

#[test]
fn revocation_needs_a_fresh_list_of_the_root() {
    judge(&[
        ("no list", |s| s.crl = None, &[Check::Revocation]),
        (
            "no list, none required",
            |s| {
                s.crl = None;
                s.references.revocation = Revocation::Optional;
            },
            &[],
        ),
        (
            "older than the limit",
            |s| s.crl.as_mut().unwrap().updates.0 = "20250524235959Z",
            &[Check::Revocation],
        ),
        (
            "as old as the limit",
            |s| s.crl.as_mut().unwrap().updates.0 = "20250525000000Z",
            &[],
        ),
        (
            "from the future",
            |s| s.crl.as_mut().unwrap().updates.0 = "20250601000001Z",
            &[Check::Revocation],
        ),
        (
            "superseded",
            |s| s.crl.as_mut().unwrap().updates.1 = "20250531235959Z",
            &[Check::Revocation],
        ),
        (
            "by another key",
            |s| s.crl.as_mut().unwrap().signer = Signer::Other,
            &[Check::Revocation],
        ),
        (
            "of another root",
            |s| s.crl.as_mut().unwrap().issuer = "ARK-Milan".into(),
            &[Check::Revocation],
        ),
        (
            "naming the intermediate",
            |s| s.crl.as_mut().unwrap().revoked = vec![7, 0x22],
            &[Check::Revocation],
        ),
        (
            "naming the intermediate, none required",
            |s| {
                s.crl.as_mut().unwrap().revoked = vec![0x22];
                s.references.revocation = Revocation::Optional;
            },
            &[Check::Revocation],
        ),
        (
            "naming a leaf's serial number, which is not the root's to name",
            |s| s.crl.as_mut().unwrap().revoked = vec![0],
            &[],
        ),
    ]);
}

#[test]
fn an_older_list_that_names_the_issuer_still_counts() {
    let mut scene = Scene::genoa();
    let mut endorsements = scene.endorsements();
    scene.crl = Some(CrlSpec {
        updates: ("20250101000000Z", "20260101000000Z"),
        revoked: vec![0x22],
        ..CrlSpec::of(Product::Genoa)
    });
    endorsements
        .add_crl(&scene.crl.as_ref().unwrap().build())
        .unwrap();
    assert_eq!(
        refusals(&scene.judge_with(&endorsements, &scene.roots())),
        [Check::Revocation]
    );
}

#[test]
fn signature_is_of_the_certified_key_at_full_width() {
    judge(&[
        (
            "R beyond 384 bits",
            |s| s.tamper = |report| report[0x2A0 + 48] = 1,
            &[Check::Signature],
        ),
        (
            "S beyond 384 bits",
            |s| s.tamper = |report| report[0x2E8 + 71] = 1,
            &[Check::Signature],
        ),
        (
            "R zero",
            |s| s.tamper = |report| report[0x2A0..0x2E8].fill(0),
            &[Check::Signature],
        ),
        (
            "S the order",
            |s| s.tamper = |report| report[0x2E8..0x2E8 + 48].fill(0xFF),
            &[Check::Signature],
        ),
        (
            "another chip's",
            |s| s.chip = authority::Chip::new(),
            &[Check::Signature],
        ),
        ("high S", |s| s.tamper = negate_s, &[]),
    ]);
}

/// S and its negative are both signatures; AMD emits either.
fn negate_s(report: &mut [u8; 1184]) {
    const ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let mut order = [0_u8; 48];
    for (place, byte) in order.iter_mut().rev().enumerate() {
        *byte = u8::from_str_radix(&ORDER[2 * place..2 * place + 2], 16).unwrap();
    }
    let mut borrow = 0;
    for (place, digit) in order.iter().enumerate() {
        let difference = i16::from(*digit) - i16::from(report[0x2E8 + place]) - borrow;
        borrow = i16::from(difference < 0);
        report[0x2E8 + place] = difference.rem_euclid(256) as u8;
    }
}

#[test]
fn format_is_a_known_one() {
    judge(&[
        (
            "version 4",
            |s| {
                s.put(0, &[4]);
                s.put(LAUNCH_MIT, &[0]);
                s.put(CURRENT_MIT, &[0]);
                s.references.mitigations = 0;
            },
            &[],
        ),
        ("version 1", |s| s.put(0, &[1]), &[Check::Format]),
        ("version 6", |s| s.put(0, &[6]), &[Check::Format]),
        (
            "version in the upper half",
            |s| s.put(2, &[1]),
            &[Check::Format],
        ),
        ("algorithm 2", |s| s.put(0x34, &[2]), &[Check::Format]),
        (
            "tail after the signature",
            |s| s.tamper = |report| report[1183] = 1,
            &[Check::Format],
        ),
        (
            "mitigations before version 5",
            |s| s.put(0, &[3]),
            &[Check::Format],
        ),
        (
            "key info with unknown bits",
            |s| s.put(KEY_INFO + 3, &[1]),
            &[Check::Format],
        ),
    ]);
}

#[test]
fn a_report_without_cpu_takes_its_product_from_the_certificate() {
    let before_3: fn(&mut Scene) = |s| {
        s.put(0, &[2]);
        s.put(CPU, &[0; 3]);
        s.put(LAUNCH_MIT, &[0]);
        s.put(CURRENT_MIT, &[0]);
        s.references.mitigations = 0;
    };
    judge(&[("version 2", before_3, &[])]);
    let mut scene = Scene::genoa();
    before_3(&mut scene);
    scene.put(CPU, &[0x19]);
    assert_eq!(refusals(&scene.judge()), [Check::Format]);
}

#[test]
fn signing_key_agrees_with_certificate_and_issuer() {
    judge(&[
        (
            "selector of a VLEK",
            |s| s.put(KEY_INFO, &[1 << 2 | 1]),
            &[Check::SigningKey],
        ),
        (
            "selector of none",
            |s| s.put(KEY_INFO, &[7 << 2 | 1]),
            &[Check::SigningKey],
        ),
        (
            "selector reserved",
            |s| s.put(KEY_INFO, &[2 << 2 | 1]),
            &[Check::SigningKey],
        ),
        (
            "chip key masked",
            |s| s.put(KEY_INFO, &[2 | 1]),
            &[Check::SigningKey],
        ),
        (
            "named VLEK, with a VCEK's extensions",
            |s| s.leaf.certificate.subject = "SEV-VLEK".into(),
            &[Check::Certificate],
        ),
        (
            "named as nothing known",
            |s| s.leaf.certificate.subject = "SEV-OTHER".into(),
            &[Check::Certificate],
        ),
    ]);
    let mut vlek = Scene::new(Product::Genoa, SigningKey::Vlek);
    vlek.put(KEY_INFO, &[1]);
    assert_eq!(refusals(&vlek.judge()), [Check::SigningKey]);
    vlek.put(KEY_INFO, &[1 << 2 | 2 | 1]);
    assert!(
        vlek.judge().is_accepted(),
        "a masked chip key does not sign, a VLEK does"
    );
    vlek.references.vlek_providers = BTreeSet::new();
    assert_eq!(refusals(&vlek.judge()), [Check::SigningKey]);
}

#[test]
fn product_agrees_with_the_cpu() {
    judge(&[
        ("Siena", |s| s.put(CPU, &[0x19, 0xA0]), &[]),
        ("Genoa", |s| s.put(CPU, &[0x19, 0x11]), &[]),
        ("Milan", |s| s.put(CPU, &[0x19, 0x01]), &[Check::Product]),
        ("Turin", |s| s.put(CPU, &[0x1A, 0x02]), &[Check::Product]),
        ("unknown", |s| s.put(CPU, &[0x1A, 0x50]), &[Check::Product]),
        (
            "none in version 5",
            |s| s.put(CPU, &[0, 0, 0]),
            &[Check::Product],
        ),
    ]);
}

#[test]
fn milan_is_refused_unless_the_owner_lifts_it() {
    let mut scene = Scene::new(Product::Milan, SigningKey::Vcek);
    let json = serde_json::to_value(&scene.references).unwrap();
    let mut without = json.as_object().unwrap().clone();
    without.remove("refused_products");
    scene.references = serde_json::from_value(without.into()).unwrap();
    assert_eq!(refusals(&scene.judge()), [Check::RefusedProduct]);
    scene.references.refused_products = BTreeSet::new();
    assert!(scene.judge().is_accepted());
    judge(&[(
        "extended to Genoa",
        |s| s.references.refused_products = BTreeSet::from([Product::Genoa]),
        &[Check::RefusedProduct],
    )]);
}

#[test]
fn chip_is_the_certified_one() {
    judge(&[
        ("another", |s| s.put(CHIP_ID + 63, &[0]), &[Check::ChipId]),
        ("masked", |s| s.put(CHIP_ID, &[0; 64]), &[Check::ChipId]),
        (
            "masked, which the owner allows",
            |s| {
                s.put(CHIP_ID, &[0; 64]);
                s.references.masked_chip_id = true;
            },
            &[],
        ),
        (
            "another, though masked ones are allowed",
            |s| {
                s.put(CHIP_ID, &[1]);
                s.references.masked_chip_id = true;
            },
            &[Check::ChipId],
        ),
    ]);
    let mut turin = Scene::new(Product::Turin, SigningKey::Vcek);
    turin.put(CHIP_ID + 8, &[1]);
    assert_eq!(refusals(&turin.judge()), [Check::ChipId]);
}

#[test]
fn each_tcb_component_is_the_certified_one() {
    for product in Product::ALL {
        for (place, component) in tcb_of(product).into_iter().enumerate() {
            let mut scene = Scene::new(product, SigningKey::Vcek);
            for offset in [REPORTED_TCB, COMMITTED_TCB, CURRENT_TCB, LAUNCH_TCB] {
                scene.put(offset + place, &[component + 1]);
            }
            let reserved = component == 0;
            let wanted = if reserved {
                Check::Format
            } else {
                Check::TcbBinding
            };
            assert_eq!(refusals(&scene.judge()), [wanted], "{product} byte {place}");
        }
    }
}

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

fn only_signed(scene: &mut Scene) {
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
    let manifest = include_str!("../Cargo.toml");
    assert!(!manifest.contains("default ="));
}

/// Fields that are compared whole: each byte, changed and signed again, refuses.
#[test]
fn every_byte_of_every_field_is_refused_by_its_check() {
    let fields: &[(usize, usize, &[Check])] = &[
        (0x30, 4, &[Check::Vmpl]),
        (0x4C, 4, &[Check::Format]),
        (0x50, 64, &[Check::ReportData]),
        (0xC0, 32, &[Check::HostData]),
        (0x160, 32, &[Check::Migration]),
        (0x18B, 21, &[Check::Format]),
        (0x1A0, 64, &[Check::ChipId]),
        (0x1EB, 1, &[Check::Format]),
        (0x1EF, 1, &[Check::Format]),
        (0x208, 152, &[Check::Format]),
        (0x90, 48, &[Check::GuestIdentity]),
        (0x330, 368, &[Check::Format]),
    ];
    judge_bytes(&Scene::genoa(), fields);
    let mut signed = Scene::genoa();
    only_signed(&mut signed);
    let identity: &[(usize, usize, &[Check])] = &[
        (0x10, 16, &[Check::GuestIdentity]),
        (0x20, 16, &[Check::GuestIdentity]),
        (0xE0, 48, &[Check::GuestIdentity]),
        (0x110, 48, &[Check::GuestIdentity]),
    ];
    judge_bytes(&signed, identity);
}

fn judge_bytes(scene: &Scene, fields: &[(usize, usize, &[Check])]) {
    let (endorsements, roots) = (scene.endorsements(), scene.roots());
    for (offset, size, wanted) in fields {
        for place in *offset..offset + size {
            let mut report = scene.report;
            report[place] ^= 0x55;
            scene.chip.sign(&mut report);
            let report = agent_evidence::snp::UnverifiedReport::parse(&report).unwrap();
            let verdict =
                match report.authenticate(&endorsements, &roots, &scene.references, scene.at) {
                    Ok(authentic) => authentic.appraise(&scene.references, &scene.expected),
                    Err(refused) => refused,
                };
            assert_eq!(refusals(&verdict), *wanted, "offset {place:#x}\n{verdict}");
        }
    }
}

/// The host can change a report, but not sign it.
#[test]
fn every_flipped_byte_is_refused_by_the_signature() {
    let scene = Scene::genoa();
    let (endorsements, roots) = (scene.endorsements(), scene.roots());
    let signed = scene.signed();
    for place in 0..0x330 {
        let mut report = signed;
        report[place] ^= 0x01;
        let report = agent_evidence::snp::UnverifiedReport::parse(&report).unwrap();
        let refused = report
            .authenticate(&endorsements, &roots, &scene.references, scene.at)
            .unwrap_err();
        assert_eq!(refusals(&refused), [Check::Signature], "offset {place:#x}");
    }
}
