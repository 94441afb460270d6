//! Evidence of VMs with a paravisor: real, and made link by link.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::{
    HostData, LaunchMeasurement, Sha256Digest,
    azure::{Attest, HclError, HclReport, Quote},
};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use policy_appraisal::{
    Check, Endorsements, Evidence, Outcome, Verdict,
    azure::{AzureEvidence, AzureExpected, PcrReferences, UserData},
    snp::{Product, ReferenceValues, Revocation, Roots},
};
use serde_json::Value;
use support::{hcl::hcl_blob, pinned_time, refusals, scene::Scene, vector};

fn references(measurement: &str) -> ReferenceValues {
    let measurement: LaunchMeasurement = measurement.parse().unwrap();
    serde_json::from_value(serde_json::json!({
        "products": {
            "Milan": {"tcb": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}, "firmware": "1.52.4"},
            "Genoa": {"tcb": {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}, "firmware": "1.55.40"},
        },
        "refused_products": [],
        "revocation": "optional",
        "guest_policy": {"abi_major": 0, "abi_minor": 31, "smt_allowed": true},
        "identities": {"measurements": [measurement]},
        "platform": {"alias_check_complete": false},
    }))
    .unwrap()
}

fn expected_measurement(name: &str) -> String {
    let claims: Value =
        serde_json::from_slice(&vector("generated/expected-report-claims.json")).unwrap();
    claims[name]["measurement"].as_str().unwrap().to_owned()
}

fn judge(evidence: &AzureEvidence, name: &str, nonce: &[u8]) -> Verdict {
    let accepted = BTreeSet::from([evidence.quote.pcrs[4]]);
    let expected = AzureExpected {
        nonce,
        initdata: None,
        pcrs: &PcrReferences(BTreeMap::from([(4, accepted)])),
    };
    let references = references(&expected_measurement(name));
    evidence.appraise(&Roots::amd(), &references, &expected, pinned_time())
}

#[test]
fn every_version_of_real_evidence_is_accepted() {
    let report_data = user_data("azure-vtpm/evidence-v2.json");
    for (name, nonce) in [
        ("azure-vtpm/evidence-v0.json", b"challenge".to_vec()),
        ("azure-vtpm/evidence-v1.json", b"challenge".to_vec()),
        ("azure-vtpm/evidence-v2.json", report_data),
    ] {
        let text = vector(name);
        let Evidence::Azure(evidence) = Evidence::parse(&text).unwrap() else {
            panic!("{name} is of another form")
        };
        let verdict = judge(&evidence, name, &nonce);
        assert!(verdict.is_accepted(), "{name}\n{verdict}");
        let verdict = judge(&evidence, name, b"another");
        let refused = [Check::QuoteNonce, Check::UserData];
        let refused = &refused[..1 + usize::from(evidence.user_data == UserData::Required)];
        assert_eq!(refusals(&verdict), refused, "{name}\n{verdict}");
    }
}

/// The 48 bytes that version 2 binds twice.
fn user_data(name: &str) -> Vec<u8> {
    let evidence = AzureEvidence::parse(&vector(name)).unwrap();
    let nonce = Attest::parse(&evidence.quote.message).unwrap().nonce;
    assert_eq!(nonce.len(), 48);
    assert!(hex::encode(&nonce).starts_with("982f5c6e"));
    nonce
}

#[test]
fn extended_initdata_is_refused_where_none_is_expected() {
    let name = "azure-vtpm/evidence-genoa.json";
    let evidence = AzureEvidence::parse(&vector(name)).unwrap();
    let nonce = Attest::parse(&evidence.quote.message).unwrap().nonce;
    let verdict = judge(&evidence, name, &nonce);
    assert_eq!(refusals(&verdict), [Check::Initdata], "{verdict}");
}

fn quote_of(json: &[u8]) -> Quote {
    let json: Value = serde_json::from_slice(json).unwrap();
    let bytes = |name: &str| hex::decode(json[name].as_str().unwrap()).unwrap();
    let pcrs: Vec<Sha256Digest> = serde_json::from_value(json["pcrs"].clone()).unwrap();
    Quote {
        signature: bytes("signature"),
        message: bytes("message"),
        pcrs: pcrs.try_into().unwrap(),
    }
}

fn older_evidence() -> AzureEvidence {
    AzureEvidence {
        user_data: UserData::NotAsked,
        hcl: HclReport::parse(&vector("azure-vtpm/hcl-report.bin")).unwrap(),
        quote: quote_of(&vector("azure-vtpm/tpm-quote-v1.json")),
        endorsements: Endorsements::parse(&vector("azure-vtpm/vcek.pem")).unwrap(),
        log: None,
    }
}

#[test]
fn quotes_of_other_keys_are_refused() {
    let name = "azure-vtpm/hcl-report.bin";
    let mut evidence = older_evidence();
    let verdict = judge(&evidence, name, b"challenge");
    assert!(verdict.is_accepted(), "{verdict}");
    evidence.quote.message = vector("azure-vtpm/tpm-quote.msg");
    evidence.quote.signature = vector("azure-vtpm/tpm-quote.sig");
    assert_eq!(
        refusals(&judge(&evidence, name, b"challenge")),
        [Check::QuoteSignature]
    );
    let quote = vector("azure-vtpm/crate-quote.bin");
    evidence.quote.signature = quote[8..264].to_vec();
    evidence.quote.message = quote[272..394].to_vec();
    Attest::parse(&evidence.quote.message).unwrap();
    assert_eq!(
        refusals(&judge(&evidence, name, b"challenge")),
        [Check::QuoteSignature]
    );
}

#[test]
fn certificates_of_another_chip_at_the_same_tcb_are_refused() {
    let evidence = AzureEvidence {
        hcl: HclReport::parse(&vector("azure-vtpm/crate-hcl-report-snp.bin")).unwrap(),
        endorsements: Endorsements::parse(&vector("azure-vtpm/crate-certs.pem")).unwrap(),
        ..older_evidence()
    };
    let verdict = judge(
        &evidence,
        "azure-vtpm/crate-hcl-report-snp.bin",
        b"challenge",
    );
    assert_eq!(refusals(&verdict), [Check::Signature]);
}

#[test]
fn a_tdx_report_is_refused_by_name() {
    let error = HclReport::parse(&vector("azure-vtpm/crate-hcl-report-tdx.bin")).unwrap_err();
    assert_eq!(error, HclError::ReportType(4));
}

#[test]
fn a_quote_of_some_pcrs_is_refused() {
    let error = Attest::parse(&vector("azure-vtpm/tpm-quote.msg")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the quote does not select exactly all pcrs of the sha-256 bank"
    );
}

#[test]
fn blobs_and_quotes_that_are_cut_off_or_changed_never_panic() {
    let blob = vector("azure-vtpm/hcl-report.bin");
    for length in (0..0x4D4).chain([1235, 1236, 2000, 2345]) {
        assert!(HclReport::parse(&blob[..length]).is_err(), "{length}");
    }
    let message = older_evidence().quote.message;
    for length in 0..message.len() {
        assert!(Attest::parse(&message[..length]).is_err(), "{length}");
    }
    let mut longer = message;
    longer.push(0);
    assert!(Attest::parse(&longer).is_err());
}

#[test]
fn lengths_of_the_blob_must_agree() {
    let blob = vector("azure-vtpm/hcl-report.bin");
    for (offset, value) in [
        (8, 0x92B_u32),
        (0x4C0, 0x46B),
        (0x4D0, 0x455),
        (0x4D0, u32::MAX),
        (0x4D0, 0),
        (0x4CC, 2),
        (0x4C8, 1),
        (4, 3),
        (0, 0),
    ] {
        let mut changed = blob.clone();
        changed[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        assert!(
            HclReport::parse(&changed).is_err(),
            "{offset:#x} {value:#x}"
        );
    }
    for (offset, value, message) in [
        (
            8,
            0x92B_u32,
            "the hcl report says that its whole has 2347 bytes, and it has ",
        ),
        (
            0x4C0,
            0x46B,
            "the hcl report says that its request data has 1131 bytes, and it has ",
        ),
    ] {
        let mut changed = blob.clone();
        let right = u32::from_le_bytes(changed[offset..offset + 4].try_into().unwrap());
        changed[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        let error = HclReport::parse(&changed).unwrap_err();
        assert_eq!(error.to_string(), format!("{message}{right}"));
    }
    let mut trailing = blob;
    *trailing.last_mut().unwrap() = 1;
    assert_eq!(HclReport::parse(&trailing).unwrap_err(), HclError::Trailing);
}

/// A paravisor's VM made by the tests.
struct Paravisor {
    scene: Scene,
    keys: String,
    asked: UserData,
    /// The member as it is written, with its comma.
    user_data: String,
    nonce: &'static [u8],
    pcrs: [Sha256Digest; 24],
    /// What the host does to the runtime data after the report was made.
    tamper: fn(&mut String),
}

impl Paravisor {
    fn new() -> Self {
        let mut scene = Scene::genoa();
        scene.put(0xC0, &[0; 32]);
        let mut pcrs = [Sha256Digest::ZERO; 24];
        pcrs[4] = Sha256Digest([4; 32]);
        pcrs[8] = Sha256Digest::of(&[&[0; 32], &[8; 32]]);
        Self {
            scene,
            keys: jwk("HCLAkPub"),
            asked: UserData::NotAsked,
            user_data: String::new(),
            nonce: b"nonce",
            pcrs,
            tamper: |_| {},
        }
    }

    fn judge(&mut self, quoted: &[Sha256Digest; 24]) -> Verdict {
        let mut data = format!(
            r#"{{"keys":[{}],"vm-configuration":{{}}{}}}"#,
            self.keys, self.user_data
        );
        let Sha256Digest(digest) = Sha256Digest::of(&[data.as_bytes()]);
        self.scene.put(0x50, &[digest, [0; 32]].concat());
        let report = self.scene.signed();
        (self.tamper)(&mut data);
        let evidence = AzureEvidence {
            user_data: self.asked,
            hcl: HclReport::parse(&hcl_blob(&report, data.as_bytes())).unwrap(),
            quote: quote(self.nonce, quoted, self.pcrs),
            endorsements: self.scene.endorsements(),
            log: None,
        };
        let expected = AzureExpected {
            nonce: b"nonce",
            initdata: Some(Sha256Digest([8; 32])),
            pcrs: &PcrReferences(BTreeMap::from([(
                4,
                BTreeSet::from([Sha256Digest([4; 32])]),
            )])),
        };
        evidence.appraise(
            &self.scene.roots(),
            &self.scene.references,
            &expected,
            self.scene.at,
        )
    }

    fn refusals(&mut self) -> Vec<Check> {
        let quoted = self.pcrs;
        refusals(&self.judge(&quoted))
    }
}

fn tpm() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(include_bytes!("keys/other.pk8")).unwrap()
}

fn jwk(kid: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    // RSAPublicKey in DER: the modulus of 4096 bits, then 65537.
    let key = tpm();
    let der = key.public_key().as_ref();
    let (n, e) = (
        URL_SAFE_NO_PAD.encode(&der[9..521]),
        URL_SAFE_NO_PAD.encode(&der[523..]),
    );
    format!(r#"{{"kid":"{kid}","key_ops":["encrypt"],"kty":"RSA","e":"{e}","n":"{n}"}}"#)
}

fn quote(nonce: &[u8], quoted: &[Sha256Digest; 24], pcrs: [Sha256Digest; 24]) -> Quote {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let values: Vec<&[u8]> = quoted.iter().map(|pcr| &pcr.0[..]).collect();
    let message = [
        b"\xFFTCG\x80\x18".to_vec(),
        sized(&[0; 34]),
        sized(nonce),
        vec![0; 25],
        vec![0, 0, 0, 1, 0, 0x0B, 3, 0xFF, 0xFF, 0xFF],
        sized(&Sha256Digest::of(&values).0),
    ]
    .concat();
    let mut signature = vec![0; 512];
    tpm()
        .sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            &message,
            &mut signature,
        )
        .unwrap();
    Quote {
        signature,
        message,
        pcrs,
    }
}

#[test]
fn each_link_below_the_report_is_judged() {
    assert_eq!(Paravisor::new().refusals(), []);

    let mut runtime_data = Paravisor::new();
    runtime_data.tamper = |data| *data = data.replace("vm-configuration", "vm-configuratioN");
    assert_eq!(runtime_data.refusals(), [Check::ReportData]);

    let mut nonce = Paravisor::new();
    nonce.nonce = b"nonce of yesterday";
    assert_eq!(nonce.refusals(), [Check::QuoteNonce]);

    let mut pcr = Paravisor::new();
    pcr.pcrs[4] = Sha256Digest([5; 32]);
    assert_eq!(pcr.refusals(), [Check::PcrValues]);

    let mut initdata = Paravisor::new();
    initdata.pcrs[8] = Sha256Digest([8; 32]);
    assert_eq!(initdata.refusals(), [Check::Initdata]);

    let mut claimed = Paravisor::new();
    let quoted = [Sha256Digest::ZERO; 24];
    assert_eq!(refusals(&claimed.judge(&quoted)), [Check::QuotePcrs]);
}

/// What the guest had the paravisor include, and whether each form of evidence passes
/// with it: one that says that the report binds the nonce, and one that does not.
#[test]
fn user_data_answer_the_nonce_where_the_version_says_so() {
    let member = |bytes: &[u8]| format!(r#","user-data":"{}""#, hex::encode_upper(bytes));
    let padded = |nonce: &[u8]| {
        let mut bytes = nonce.to_vec();
        bytes.resize(64, 0);
        member(&bytes)
    };
    let unread = |depth| format!(r#","x":{}1{}"#, "[".repeat(depth), "]".repeat(depth));
    let user_data: [&[Check]; 2] = [&[], &[Check::UserData]];
    let runtime_data = &[Check::RuntimeData][..];
    for (what, written, required, not_asked) in [
        ("the nonce", padded(b"nonce"), user_data[0], user_data[0]),
        ("zeros", padded(b""), user_data[1], user_data[0]),
        ("absent", String::new(), user_data[1], user_data[0]),
        (
            "null",
            r#","user-data":null"#.to_owned(),
            user_data[1],
            user_data[0],
        ),
        (
            "another",
            padded(b"nonce of yesterday"),
            user_data[1],
            user_data[1],
        ),
        ("a prefix", padded(b"nonc"), user_data[1], user_data[1]),
        ("more", padded(b"nonce\0x"), user_data[1], user_data[1]),
        (
            "its last byte",
            padded(&[b"nonce".to_vec(), vec![0; 58], vec![1]].concat()),
            user_data[1],
            user_data[1],
        ),
        ("not padded", member(b"nonce"), runtime_data, runtime_data),
        (
            "twice",
            padded(b"nonce") + &padded(b"nonce"),
            runtime_data,
            runtime_data,
        ),
        (
            "beside a member nested 100 deep",
            padded(b"nonce") + &unread(100),
            user_data[0],
            user_data[0],
        ),
        (
            "beside a member nested too deep",
            padded(b"nonce") + &unread(1000),
            runtime_data,
            runtime_data,
        ),
        (
            "no text",
            r#","user-data":7"#.to_owned(),
            runtime_data,
            runtime_data,
        ),
    ] {
        for (asked, wanted) in [
            (UserData::Required, required),
            (UserData::NotAsked, not_asked),
        ] {
            let mut paravisor = Paravisor::new();
            paravisor.asked = asked;
            paravisor.user_data.clone_from(&written);
            assert_eq!(paravisor.refusals(), wanted, "{what}, {asked:?}");
        }
    }
}

/// The host relabels real evidence of version 2, or takes its runtime data away: it can
/// be no other version, and nothing that was signed can be changed.
#[test]
fn evidence_of_version_2_needs_the_user_data_of_real_evidence() {
    let name = "azure-vtpm/evidence-v2.json";
    let nonce = user_data(name);
    let mut relabelled: Value = serde_json::from_slice(&vector(name)).unwrap();
    let older: Value = serde_json::from_slice(&vector("azure-vtpm/evidence-v1.json")).unwrap();
    for version in [0, 3, 4_294_967_295_u32] {
        relabelled["version"] = version.into();
        let error = AzureEvidence::parse(relabelled.to_string().as_bytes()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("version {version} is not known")),
            "{error}"
        );
    }
    let mut as_second = older;
    as_second["version"] = 2.into();
    let evidence = AzureEvidence::parse(as_second.to_string().as_bytes()).unwrap();
    let verdict = judge(&evidence, "azure-vtpm/evidence-v1.json", b"challenge");
    assert_eq!(refusals(&verdict), [Check::UserData], "{verdict}");
    let evidence = AzureEvidence::parse(&vector(name)).unwrap();
    assert!(judge(&evidence, name, &nonce).is_accepted());
}

#[test]
fn the_attestation_key_is_the_only_one_of_its_id() {
    for keys in [
        jwk("HCLEkPub"),
        [jwk("HCLAkPub"), jwk("HCLAkPub")].join(","),
        jwk("HCLAkPub").replace("RSA", "EC"),
        String::new(),
    ] {
        let mut paravisor = Paravisor::new();
        paravisor.keys = keys;
        assert_eq!(paravisor.refusals(), [Check::RuntimeData]);
    }
    let mut with_other = Paravisor::new();
    with_other.keys = [jwk("HCLEkPub"), jwk("HCLAkPub")].join(",");
    assert_eq!(with_other.refusals(), []);
}

#[test]
fn a_refused_report_leaves_the_quote_unjudged() {
    let mut paravisor = Paravisor::new();
    paravisor.scene.references.revocation = Revocation::Required { max_age_seconds: 0 };
    let quoted = paravisor.pcrs;
    let verdict = paravisor.judge(&quoted);
    assert_eq!(refusals(&verdict), [Check::Revocation]);
    assert_eq!(
        verdict.outcome(Check::ReportData),
        Some(Outcome::NotReached)
    );
}

#[test]
fn host_data_of_a_paravisor_are_zero() {
    let mut paravisor = Paravisor::new();
    paravisor.scene.put(0xC0, &HostData([1; 32]).0);
    assert_eq!(paravisor.refusals(), [Check::HostData]);
}

#[test]
fn without_accepted_pcrs_nothing_is_accepted() {
    let name = "azure-vtpm/hcl-report.bin";
    let expected = AzureExpected {
        nonce: b"challenge",
        initdata: None,
        pcrs: &PcrReferences::default(),
    };
    let references = references(&expected_measurement(name));
    let verdict = older_evidence().appraise(&Roots::amd(), &references, &expected, pinned_time());
    assert_eq!(refusals(&verdict), [Check::PcrValues]);
    assert!(references.products.contains_key(&Product::Milan));
}
