//! UVM endorsements: real ones, and made ones with one fault each.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use agent_evidence::{HostData, LaunchMeasurement, ReportData};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use policy_appraisal::{
    Check, Endorsements, Outcome, Verdict,
    snp::{EndorsedIdentity, Expected, Identities, ReferenceValues, Roots, UnverifiedReport},
    uvm::{DidX509, UnverifiedEndorsement},
};
use support::{
    authority::Signer,
    pinned_time, refusals,
    scene::Scene,
    uvm::{ACI, EndorsementSpec, array, bytes, entry, integer, judge, leaf_extensions, payload},
    vector,
};

const OLD: &str = "azure-aci/body.uvm_reference_info.bin";
const LATER: &str = "azure-aci/context.reference-info-base64";
const BOTH: [Check; 2] = [Check::UvmEndorsement, Check::GuestIdentity];

fn issuer() -> DidX509 {
    ACI.parse().unwrap()
}

fn aci(minimum_svn: u64) -> Identities {
    Identities {
        endorsed: vec![EndorsedIdentity {
            issuer: issuer(),
            feed: "ContainerPlat-AMD-UVM".to_owned(),
            minimum_svn,
        }],
        ..Identities::default()
    }
}

/// Judges the real report of a container group with this endorsement.
fn judge_aci(endorsement: Option<&[u8]>, identities: Identities) -> Verdict {
    let report = vector("azure-aci/snp_report.bin");
    let pem = vector("azure-aci/uvm_host_amd_certificate.pem");
    let mut endorsements = Endorsements::parse(&pem).unwrap();
    if let Some(endorsement) = endorsement {
        endorsements.add_uvm_endorsement(endorsement).unwrap();
    }
    let mut references: ReferenceValues = serde_json::from_value(serde_json::json!({
        "products": {
            "Milan": {"tcb": {"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}, "firmware": "1.49.3"},
        },
        "refused_products": [],
        "revocation": "optional",
        "guest_policy": {"abi_major": 0, "abi_minor": 31, "smt_allowed": true},
        "identities": {},
        "platform": {"alias_check_complete": false},
    }))
    .unwrap();
    references.identities = identities;
    let expected = Expected {
        report_data: ReportData(report[0x50..0x90].try_into().unwrap()),
        host_data: HostData(report[0xC0..0xE0].try_into().unwrap()),
    };
    let report = UnverifiedReport::parse(&report).unwrap();
    match report.authenticate(&endorsements, &Roots::amd(), &references, pinned_time()) {
        Ok(authentic) => authentic.appraise(&references, &expected),
        Err(refused) => refused,
    }
}

fn received(verdict: &Verdict) -> &str {
    let mut findings = verdict.findings().iter();
    let found = findings.find(|finding| finding.check == Check::UvmEndorsement);
    &found.unwrap().received
}

#[test]
fn a_real_endorsement_stands_in_for_the_measurement() {
    let verdict = judge_aci(Some(&vector(OLD)), aci(22));
    assert!(verdict.is_accepted(), "{verdict}");
    assert_eq!(
        received(&verdict),
        format!(
            "ContainerPlat-AMD-UVM by {ACI}, svn 22, measurement 51068107cdc7ee3d89c7821b05bca614\
             7eb77b2005ae759050fc049b65a1b0beabc65a9d857acecf23225f5ec76849f5, signed 2023-02-08T05:42:23Z"
        )
    );
    let as_text = format!("{}\n", STANDARD.encode(vector(OLD)));
    assert!(judge_aci(Some(as_text.as_bytes()), aci(22)).is_accepted());
}

#[test]
fn an_svn_below_the_floor_is_refused() {
    for floor in [23, 100] {
        let verdict = judge_aci(Some(&vector(OLD)), aci(floor));
        assert_eq!(refusals(&verdict), BOTH, "{verdict}");
    }
}

#[test]
fn the_endorsement_of_another_measurement_is_refused() {
    let later = UnverifiedEndorsement::parse(&vector(LATER)).unwrap();
    let later = later.authenticate([&issuer()], pinned_time()).unwrap();
    assert_eq!((later.svn(), later.feed()), (100, "ContainerPlat-AMD-UVM"));
    assert_eq!(later.signed().to_string(), "2023-04-20T23:48:38Z");
    let verdict = judge_aci(Some(&vector(LATER)), aci(22));
    assert_eq!(refusals(&verdict), BOTH, "{verdict}");
}

#[test]
fn without_reference_values_an_endorsement_counts_for_nothing() {
    let verdict = judge_aci(Some(&vector(OLD)), Identities::default());
    assert_eq!(refusals(&verdict), BOTH, "{verdict}");
    assert!(received(&verdict).contains("not accepted"), "{verdict}");
    let verdict = judge_aci(None, Identities::default());
    assert_eq!(refusals(&verdict), [Check::GuestIdentity]);
    assert_eq!(verdict.outcome(Check::UvmEndorsement), None);
}

#[test]
fn an_accepted_endorsement_must_be_given_whatever_else_is_listed() {
    let verdict = judge_aci(None, aci(22));
    assert_eq!(refusals(&verdict), BOTH, "{verdict}");
    let report = vector("azure-aci/snp_report.bin");
    let mut listed = aci(22);
    listed
        .measurements
        .insert(LaunchMeasurement(report[0x90..0xC0].try_into().unwrap()));
    let verdict = judge_aci(None, listed.clone());
    assert_eq!(refusals(&verdict), [Check::UvmEndorsement], "{verdict}");
    assert!(judge_aci(Some(&vector(OLD)), listed).is_accepted());
}

#[test]
fn every_flipped_byte_that_is_signed_is_refused() {
    let real = vector(OLD);
    let place = |wanted: &[u8]| real.windows(wanted.len()).position(|found| found == wanted);
    // Nobody signed the unprotected header; the payload's head of two bytes follows it.
    let unsigned = place(b"timestamp").unwrap() - 2..place(b"{\n  \"x-ms").unwrap() - 2;
    let accepted = |bytes: &[u8]| {
        let endorsement = UnverifiedEndorsement::parse(bytes);
        endorsement.is_ok_and(|each| each.authenticate([&issuer()], pinned_time()).is_ok())
    };
    assert!(accepted(&real));
    let mut changed = real.clone();
    changed[unsigned.start + 1000] ^= 1;
    assert!(accepted(&changed), "the unsigned part is not read");
    for at in (0..real.len()).filter(|at| !unsigned.contains(at)) {
        let mut changed = real.clone();
        changed[at] ^= 1;
        assert!(!accepted(&changed), "byte {at}");
    }
    for length in 0..real.len() {
        assert!(UnverifiedEndorsement::parse(&real[..length]).is_err());
    }
}

type Change = fn(&mut EndorsementSpec);

fn refuse(faults: &[(&str, Change)]) {
    for (words, change) in faults {
        let mut spec = EndorsementSpec::new();
        change(&mut spec);
        let verdict = judge(&spec);
        assert_eq!(refusals(&verdict), BOTH, "{words}\n{verdict}");
        assert!(received(&verdict).contains(words), "{words}\n{verdict}");
    }
}

#[test]
fn each_fault_is_refused_by_name() {
    let verdict = judge(&EndorsementSpec::new());
    assert!(verdict.is_accepted(), "{verdict}");
    refuse(&[
        ("not signed by its leaf", |e| {
            e.tamper = |m| m.payload = payload("8", [0xA1; 48]).into()
        }),
        ("not signed by its leaf", |e| {
            e.tamper = |m| m.signature[100] ^= 1
        }),
        ("not signed by its leaf", |e| {
            e.tamper = |m| m.signature.clear()
        }),
        ("not signed by its leaf", |e| e.signer = Signer::Issuer),
        ("is in the future", |e| {
            e.leaf.validity.1 = "20260601000000Z";
            e.signing_time = 1_748_736_001;
        }),
        ("payload cannot be read", |e| e.payload = "{}".to_owned()),
        ("payload cannot be read", |e| e.payload.push('}')),
        ("payload cannot be read", |e| {
            e.payload = e
                .payload
                .replacen('{', r#"{"x-ms-sevsnpvm-guestsvn": "7","#, 1);
        }),
        ("payload cannot be read", |e| {
            let (open, close) = ("[".repeat(200), "]".repeat(200));
            let deep = format!(r#"{{"unread":{open}{close},"#);
            e.payload = e.payload.replacen('{', &deep, 1);
        }),
        ("not one decimal number", |e| {
            e.payload = payload("07", [0xA1; 48])
        }),
        ("not one decimal number", |e| {
            e.payload = e
                .payload
                .replacen('{', r#"{"x-ms-sevsnpvm-guestsvn-int": 8,"#, 1);
        }),
    ]);
}

#[test]
fn only_the_issuer_s_chain_is_believed() {
    refuse(&[
        ("do not sign each other", |e| e.leaf.signer = Signer::Other),
        ("do not sign each other", |e| {
            e.leaf.issuer = "Root".to_owned()
        }),
        ("do not sign each other", |e| {
            e.issuer.signer = Signer::Other
        }),
        ("do not sign each other", |e| e.issuer.extensions.clear()),
        ("which is not the issuer's", |e| {
            e.did = Some(e.did());
            e.root.serial = 1;
        }),
        ("not accepted", |e| e.root.serial = 1),
        ("not accepted", |e| {
            e.did = Some(e.did().replace("59.1.5", "59.1.1"))
        }),
        ("not accepted", |e| e.did = Some(format!("{} ", e.did()))),
        ("not accepted", |e| e.did = Some(ACI.to_owned())),
        ("extended key usage", |e| {
            e.leaf.extensions = leaf_extensions(0x80, &[1, 2])
        }),
        ("extended key usage", |e| {
            e.leaf.extensions = leaf_extensions(0x80, &[])
        }),
        ("no certificate for signatures", |e| {
            e.leaf.extensions = leaf_extensions(0x20, &[5])
        }),
        ("no certificate for signatures", |e| {
            let authority = e.issuer.extensions[0].clone();
            e.leaf.extensions[2] = authority;
        }),
        ("thumbprint is not", |e| {
            e.header =
                |entries| *entry(entries, &integer(34)) = array(&[&integer(-16), &bytes(&[0; 32])]);
        }),
        ("Leaf is valid from", |e| {
            e.leaf.validity.1 = "20231231235959Z"
        }),
        ("Leaf is valid from", |e| {
            e.leaf.validity.0 = "20240101000001Z"
        }),
        ("Issuer is valid from", |e| {
            e.issuer.validity.1 = "20231231235959Z"
        }),
    ]);
}

#[test]
fn what_an_authentic_endorsement_says_is_compared() {
    let cases: [(&str, Change, bool); 6] = [
        ("svn below", |e| e.payload = payload("6", [0xA1; 48]), false),
        ("svn above", |e| e.payload = payload("8", [0xA1; 48]), true),
        ("another feed", |e| e.feed = "ConfAKS-AMD-UVM-Debug", false),
        (
            "another measurement",
            |e| e.payload = payload("7", [0xA2; 48]),
            false,
        ),
        (
            "svn as a number too, and more",
            |e| {
                let more = r#"{"x-ms-sevsnpvm-guestsvn-int": 7, "other": [],"#;
                e.payload = e.payload.replacen('{', more, 1);
            },
            true,
        ),
        (
            "signed when the leaf began",
            |e| e.leaf.validity.0 = "20240101000000Z",
            true,
        ),
    ];
    for (what, change, accepted) in cases {
        let mut spec = EndorsementSpec::new();
        change(&mut spec);
        let verdict = judge(&spec);
        let wanted: &[Check] = if accepted { &[] } else { &BOTH };
        assert_eq!(refusals(&verdict), wanted, "{what}\n{verdict}");
    }
}

#[test]
fn a_refused_report_leaves_the_endorsement_unjudged() {
    let mut scene = Scene::genoa();
    scene.references.identities.endorsed = vec![EndorsementSpec::new().accepted()];
    scene.tamper = |report| report[0x90] ^= 1;
    let mut endorsements = scene.endorsements();
    let endorsement = EndorsementSpec::new().build();
    endorsements.add_uvm_endorsement(&endorsement).unwrap();
    let verdict = scene.judge_with(&endorsements, &scene.roots());
    assert_eq!(refusals(&verdict), [Check::Signature]);
    assert_eq!(
        verdict.outcome(Check::UvmEndorsement),
        Some(Outcome::NotReached)
    );
}

#[test]
fn any_of_several_accepted_endorsements_will_do() {
    let ours = EndorsementSpec::new();
    let older = EndorsedIdentity {
        minimum_svn: 9,
        ..ours.accepted()
    };
    let mut scene = Scene::genoa();
    scene.references.identities = Identities {
        endorsed: vec![older, aci(1).endorsed.remove(0), ours.accepted()],
        ..Identities::default()
    };
    let mut endorsements = scene.endorsements();
    endorsements.add_uvm_endorsement(&ours.build()).unwrap();
    assert!(
        scene
            .judge_with(&endorsements, &scene.roots())
            .is_accepted()
    );
    scene.references.identities.endorsed.pop();
    let verdict = scene.judge_with(&endorsements, &scene.roots());
    assert_eq!(refusals(&verdict), BOTH);
}

#[test]
fn an_issuer_is_accepted_for_its_own_feed_only() {
    let ours = EndorsementSpec::new();
    let mut others_feed = ours.accepted();
    others_feed.feed = aci(1).endorsed.remove(0).feed;
    let mut another_issuer = aci(1).endorsed.remove(0);
    another_issuer.feed = ours.feed.to_owned();
    let mut scene = Scene::genoa();
    scene.references.identities = Identities {
        endorsed: vec![others_feed, another_issuer],
        ..Identities::default()
    };
    let mut endorsements = scene.endorsements();
    endorsements.add_uvm_endorsement(&ours.build()).unwrap();
    let verdict = scene.judge_with(&endorsements, &scene.roots());
    assert_eq!(refusals(&verdict), BOTH, "{verdict}");
}
