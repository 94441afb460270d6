//! What a report says of itself and of the chip that signed it.

use std::collections::BTreeSet;

use policy_appraisal::{
    Check,
    snp::{Mitigations, Product, SigningKey},
};

use super::{
    judge,
    support::{
        authority::{self},
        refusals,
        scene::*,
    },
};
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
                s.references.mitigations = Mitigations::default();
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
        s.references.mitigations = Mitigations::default();
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
