//! Features of the platform and mitigations, against the owner's reference values.

use policy_appraisal::{
    Check,
    snp::{Mitigations, PlatformRules, Rule},
};
use serde_json::json;

use super::{
    judge,
    support::{refusals, scene::*},
};

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
