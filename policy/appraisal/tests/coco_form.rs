//! Evidence as Confidential Containers' attesters write it: a report that was decoded, rebuilt to
//! the bytes that were signed.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use policy_appraisal::{Evidence, snp::JsonEvidence};
use serde_json::Value;
use support::vector;

#[test]
fn what_a_guest_decodes_is_rebuilt_to_what_was_signed() {
    let reports = ["snp/genoa-v3.report.bin", "snp/milan-v2-azure.report.bin"];
    for name in reports {
        let report = vector(name);
        let sent = agent_evidence::snp::coco_form(&report, &[]).unwrap();
        let read = JsonEvidence::parse(sent.to_string().as_bytes()).unwrap();
        assert_eq!(read.report.as_bytes()[..], report[..], "{name}");
    }
    assert!(agent_evidence::snp::coco_form(&[0; 3], &[]).is_err());
}

#[test]
fn the_decoded_form_of_coco_is_rebuilt_to_what_was_signed() {
    let text = vector("kbs/snp-evidence-genoa.json");
    let evidence = JsonEvidence::parse(&text).unwrap();
    assert_eq!(
        evidence.report.as_bytes()[..],
        vector("snp/genoa-v3.report.bin")[..]
    );
    let written: Value = serde_json::from_str(&evidence.to_json()).unwrap();
    let original: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        written["attestation_report"],
        original["attestation_report"]
            .as_object()
            .map_or(Value::Null, |o| {
                let mut o = o.clone();
                o.entry("launch_mit_vector").or_insert(Value::Null);
                o.entry("current_mit_vector").or_insert(Value::Null);
                o.into()
            })
    );
    assert_eq!(written["cert_chain"], original["cert_chain"]);
    assert!(matches!(Evidence::parse(&text).unwrap(), Evidence::Snp(_)));
}

#[test]
fn integers_of_the_decoded_form_are_held_at_full_width() {
    let text = String::from_utf8(vector("kbs/snp-evidence-genoa.json")).unwrap();
    for (from, to) in [
        (r#""policy":196608"#, r#""policy":18446744073709748224"#),
        (r#""vmpl":0"#, r#""vmpl":4294967296"#),
        (r#""microcode":25"#, r#""microcode":281"#),
        (r#""plat_info":37"#, r#""plat_info":37.0"#),
        (r#""version":3"#, r#""version":-3"#),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(
            JsonEvidence::parse(text.replacen(from, to, 1).as_bytes()).is_err(),
            "{to}"
        );
    }
}
