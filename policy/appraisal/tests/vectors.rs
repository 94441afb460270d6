//! Reports that real chips signed, and certificates that AMD really issued.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use agent_evidence::{HostData, LaunchMeasurement, ReportData};
use policy_appraisal::{
    Check, Endorsements, Outcome, Timestamp,
    snp::{
        AuthenticReport, Expected, FirmwareVersion, GuestPolicyRules, Identities, JsonEvidence,
        Levels, Mitigations, PlatformRules, Product, ProductFloor, ReferenceValues, Revocation,
        Roots, Rule, SigningKey, Store, TcbFloor, ThimCertificates, UnverifiedReport,
    },
};
use serde_json::Value;
use support::{pinned_time, refusals, vector};

const AWS: &str = "CN=cc-us-east-2.amazonaws.com";

/// Accepts what the vectors have, and not more.
fn references() -> ReferenceValues {
    let floor = |bootloader, snp, microcode, build| ProductFloor {
        tcb: TcbFloor {
            fmc: None,
            bootloader,
            tee: 0,
            snp,
            microcode,
        },
        firmware: FirmwareVersion {
            major: 1,
            minor: if build == 40 { 55 } else { 49 },
            build,
        },
    };
    ReferenceValues {
        products: BTreeMap::from([
            (Product::Milan, floor(2, 5, 68, 3)),
            (Product::Genoa, floor(10, 23, 25, 40)),
        ]),
        refused_products: BTreeSet::new(),
        revocation: Revocation::Optional,
        vlek_providers: BTreeSet::new(),
        masked_chip_id: false,
        guest_policy: GuestPolicyRules {
            abi_major: 0,
            abi_minor: 0,
            smt_allowed: true,
            cxl_allowed: false,
            single_socket: false,
            aes_256_xts: false,
            rapl_disabled: false,
            ciphertext_hiding: false,
            page_swap_disabled: false,
        },
        vmpl: Levels::default(),
        identities: Identities::default(),
        platform: PlatformRules {
            alias_check_complete: Rule::Either,
            ..PlatformRules::default()
        },
        mitigations: Mitigations::default(),
    }
}

struct Vector {
    report: UnverifiedReport,
    endorsements: Endorsements,
    claims: Value,
}

fn load(report: &str, certificates: &str) -> Vector {
    let claims: Value =
        serde_json::from_slice(&vector("generated/expected-report-claims.json")).unwrap();
    let bytes = match report.strip_suffix(".hex") {
        Some(_) => hex::decode(vector(report).trim_ascii()).unwrap(),
        None => vector(report),
    };
    Vector {
        report: UnverifiedReport::parse(&bytes).unwrap(),
        endorsements: Endorsements::parse(&vector(certificates)).unwrap(),
        claims: claims[report].clone(),
    }
}

impl Vector {
    fn text(&self, claim: &str) -> &str {
        self.claims[claim].as_str().unwrap()
    }

    fn expected(&self) -> Expected {
        Expected {
            report_data: self.text("report_data").parse::<ReportData>().unwrap(),
            host_data: self.text("host_data").parse::<HostData>().unwrap(),
        }
    }

    /// The references, with this report's measurement.
    fn references(&self) -> ReferenceValues {
        let measurement: LaunchMeasurement = self.text("measurement").parse().unwrap();
        let mut references = references();
        references.identities.measurements.insert(measurement);
        references
    }

    fn authentic(&self, references: &ReferenceValues) -> AuthenticReport {
        self.report
            .clone()
            .authenticate(&self.endorsements, &Roots::amd(), references, pinned_time())
            .unwrap_or_else(|refused| panic!("{refused}"))
    }
}

const VCEK_REPORTS: [(&str, &str); 5] = [
    (
        "snp/milan-v2-azure.report.bin",
        "snp/milan-v2-azure.vcek.der",
    ),
    (
        "snp/milan-v2-sevcrate.report.hex",
        "snp/milan-v2-sevcrate.vcek.der",
    ),
    (
        "snp/milan-v2-debug-policy.report.bin",
        "snp/milan-v2-debug-policy.vcek.der",
    ),
    ("snp/genoa-v3.report.bin", "snp/genoa-v3.vcek.der"),
    (
        "azure-aci/snp_report.bin",
        "azure-aci/uvm_host_amd_certificate.pem",
    ),
];

#[test]
fn real_reports_are_accepted_and_the_debuggable_one_is_not() {
    for (report, certificates) in VCEK_REPORTS {
        let vector = load(report, certificates);
        let references = vector.references();
        let verdict = vector
            .authentic(&references)
            .appraise(&references, &vector.expected());
        let wanted: &[Check] = if report.contains("debug") {
            &[Check::Debug]
        } else {
            &[]
        };
        assert_eq!(refusals(&verdict), wanted, "{report}\n{verdict}");
    }
}

#[test]
fn fields_are_those_that_another_program_read() {
    for (report, certificates) in VCEK_REPORTS {
        let vector = load(report, certificates);
        let authentic = vector.authentic(&references());
        let claims = &vector.claims;
        assert_eq!(authentic.product().name().to_lowercase(), claims["product"]);
        assert_eq!(authentic.signing_key(), SigningKey::Vcek);
        assert_eq!(authentic.version(), claims["version"]);
        assert_eq!(authentic.guest_svn(), claims["guest_svn"]);
        assert_eq!(authentic.vmpl(), claims["vmpl"]);
        for (ours, name) in [
            (authentic.guest_policy().to_string(), "policy"),
            (authentic.platform_info().to_string(), "platform_info"),
            (authentic.family_id().to_string(), "family_id"),
            (authentic.image_id().to_string(), "image_id"),
            (authentic.report_data().to_string(), "report_data"),
            (authentic.measurement().to_string(), "measurement"),
            (authentic.host_data().to_string(), "host_data"),
            (authentic.id_key_digest().to_string(), "id_key_digest"),
            (
                authentic.author_key_digest().to_string(),
                "author_key_digest",
            ),
            (authentic.report_id().to_string(), "report_id"),
            (authentic.report_id_ma().to_string(), "report_id_ma"),
            (authentic.chip_id().to_string(), "chip_id"),
            (
                hex::encode(authentic.reported_tcb().to_bytes()),
                "reported_tcb",
            ),
            (authentic.current_firmware().to_string(), "current_version"),
            (
                authentic.committed_firmware().to_string(),
                "committed_version",
            ),
        ] {
            assert_eq!(ours, claims[name].as_str().unwrap(), "{report} {name}");
        }
    }
}

#[test]
fn claims_bear_the_names_of_the_key_broker() {
    let vector = load("snp/genoa-v3.report.bin", "snp/genoa-v3.vcek.der");
    let claims = vector.authentic(&references()).claims();
    assert_eq!(claims["reported_tcb_microcode"], 25);
    assert_eq!(claims["platform_smt_enabled"], true);
    assert_eq!(claims["policy_debug_allowed"], false);
    assert_eq!(claims["measurement"], vector.claims["measurement"]);
    assert_eq!(claims["init_data"], vector.claims["host_data"]);
}

#[test]
fn milan_is_refused_by_default() {
    let vector = load(
        "snp/milan-v2-azure.report.bin",
        "snp/milan-v2-azure.vcek.der",
    );
    let mut json = serde_json::to_value(vector.references()).unwrap();
    json.as_object_mut().unwrap().remove("refused_products");
    let references = serde_json::from_value(json).unwrap();
    let refused = vector
        .report
        .authenticate(
            &vector.endorsements,
            &Roots::amd(),
            &references,
            pinned_time(),
        )
        .unwrap_err();
    assert_eq!(refusals(&refused), [Check::RefusedProduct]);
    assert!(
        refused.to_string().contains("refused_products"),
        "{refused}"
    );
}

fn vlek(at: &str, change: fn(&mut ReferenceValues)) -> Vec<Check> {
    let vector = load(
        "snp/milan-v3-aws-vlek.report.bin",
        "snp/milan-v3-aws-vlek.vlek.der",
    );
    let mut references = vector.references();
    references.vlek_providers.insert(AWS.to_owned());
    references.vmpl = Levels::only(1);
    change(&mut references);
    let at: Timestamp = at.parse().unwrap();
    let judged =
        vector
            .report
            .clone()
            .authenticate(&vector.endorsements, &Roots::amd(), &references, at);
    match judged {
        Ok(authentic) => refusals(&authentic.appraise(&references, &vector.expected())),
        Err(refused) => refusals(&refused),
    }
}

#[test]
fn vlek_is_accepted_from_a_named_provider_until_it_expires() {
    assert_eq!(vlek("2025-06-01T00:00:00Z", |_| {}), []);
    assert_eq!(vlek("2025-12-10T22:14:21Z", |_| {}), []);
    assert_eq!(vlek("2025-12-10T22:14:22Z", |_| {}), [Check::Validity]);
    assert_eq!(
        vlek("2025-06-01T00:00:00Z", |r| r.vmpl = Levels::only(0)),
        [Check::Vmpl]
    );
    assert_eq!(
        vlek("2025-06-01T00:00:00Z", |r| r.vlek_providers.clear()),
        [Check::SigningKey]
    );
}

#[test]
fn certificates_that_amd_did_not_sign_are_refused() {
    for name in [
        "snp/milan-mismatch-rawhwid.vcek.der",
        "snp/milan-mismatch-derhwid.vcek.der",
    ] {
        let vector = load(
            "snp/milan-v2-azure.report.bin",
            "snp/milan-v2-azure.vcek.der",
        );
        let endorsements = Endorsements::parse(&support::vector(name)).unwrap();
        let refused = vector
            .report
            .authenticate(&endorsements, &Roots::amd(), &references(), pinned_time())
            .unwrap_err();
        assert_eq!(refusals(&refused), [Check::Chain], "{name}\n{refused}");
        assert_eq!(
            refused.outcome(Check::Certificate),
            Some(Outcome::Passed),
            "both forms of hwID are read"
        );
    }
}

#[test]
fn a_turin_certificate_is_read_and_chains_to_its_root() {
    let vector = load("snp/genoa-v3.report.bin", "snp/turin.vcek.der");
    let refused = vector
        .report
        .authenticate(
            &vector.endorsements,
            &Roots::amd(),
            &references(),
            pinned_time(),
        )
        .unwrap_err();
    assert_eq!(refusals(&refused), [Check::Signature], "{refused}");
    assert_eq!(refused.outcome(Check::Chain), Some(Outcome::Passed));
}

#[test]
fn a_certificate_of_another_chip_is_refused() {
    let ours = load(
        "snp/milan-v2-azure.report.bin",
        "snp/milan-v2-azure.vcek.der",
    );
    let theirs = load(
        "snp/milan-v2-sevcrate.report.hex",
        "snp/milan-v2-sevcrate.vcek.der",
    );
    let refused = ours
        .report
        .authenticate(
            &theirs.endorsements,
            &Roots::amd(),
            &references(),
            pinned_time(),
        )
        .unwrap_err();
    assert_eq!(refusals(&refused), [Check::Signature]);
}

#[test]
fn two_sources_of_the_roots_agree() {
    for (product, kind) in [
        ("genoa", ""),
        ("genoa", "_vlek"),
        ("milan", ""),
        ("milan", "_vlek"),
        ("turin", "_vcek"),
        ("turin", "_vlek"),
    ] {
        let file = vector(&format!("amd-roots/ask_ark_{product}{kind}.pem"));
        // A second root for a product is an error unless it is the same one.
        Roots::amd().add(&file).unwrap();
    }
}

#[test]
fn certificates_come_in_any_order_and_container() {
    let vector = load(
        "snp/milan-v2-azure.report.bin",
        "snp/milan-v2-azure.vcek.der",
    );
    let leaf = support::vector("snp/milan-v2-azure.vcek.der");
    let chain = support::vector("amd-roots/ask_ark_milan.pem");
    let carried = Endorsements::parse(&chain).unwrap();
    let [ask, ark] = carried.certificates() else {
        panic!("two certificates")
    };
    let der = |parts: &[&[u8]]| parts.concat();
    let guid = |text: &str| hex::decode(text.replace('-', "")).unwrap();
    let table = table(&[
        (guid("c0b406a4-a803-4952-9743-3fb6014cd0ae"), ark.as_der()),
        (guid("00000000-0000-0000-0000-000000000001"), b"of a vendor"),
        (guid("63da758d-e664-4564-adc5-f4b93be8accd"), &leaf),
        (guid("4ab7b379-bbac-4fe4-a02f-05aef327c782"), ask.as_der()),
    ]);
    for container in [
        leaf.clone(),
        der(&[&leaf, ask.as_der(), ark.as_der()]),
        der(&[ark.as_der(), ask.as_der(), &leaf, &leaf]),
        der(&[ask.as_der(), &leaf]),
        table,
    ] {
        let endorsements = Endorsements::parse(&container).unwrap();
        let report = vector.report.clone();
        let judged =
            report.authenticate(&endorsements, &Roots::amd(), &references(), pinned_time());
        assert!(judged.is_ok());
    }
}

fn table(entries: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let mut offset = 24 * (entries.len() + 1);
    let mut table = Vec::new();
    for (guid, data) in entries {
        table.extend(guid);
        table.extend(u32::try_from(offset).unwrap().to_le_bytes());
        table.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        offset += data.len();
    }
    table.extend([0; 24]);
    entries.iter().for_each(|(_, data)| table.extend(*data));
    table
}

#[test]
fn thim_gives_certificates_and_the_tcb_they_are_for() {
    for name in [
        "uvm_host_amd_certificate.json",
        "context.host-amd-cert-base64",
    ] {
        let vector = load(
            "azure-aci/snp_report.bin",
            "azure-aci/uvm_host_amd_certificate.pem",
        );
        let answer = support::vector(&format!("azure-aci/{name}"));
        assert!(ThimCertificates::is_one(&answer), "{name}");
        let thim = ThimCertificates::parse(&answer).unwrap();
        assert_eq!(thim.tcb, vector.report.locator().tcb, "{name}");
        // The second is of another chip at the same TCB.
        let judged = vector.report.authenticate(
            &thim.endorsements,
            &Roots::amd(),
            &references(),
            pinned_time(),
        );
        assert_eq!(judged.is_ok(), name.ends_with(".json"), "{name}");
    }
}

#[test]
fn certificates_are_not_taken_for_an_answer_of_thim() {
    for name in [
        "azure-aci/uvm_host_amd_certificate.pem",
        "snp/genoa-v3.vcek.der",
        "azure-aci/context.reference-info-base64",
    ] {
        let bytes = support::vector(name);
        assert!(!ThimCertificates::is_one(&bytes), "{name}");
        assert!(ThimCertificates::parse(&bytes).is_err(), "{name}");
    }
    for wrong in [
        "{}",
        r#"{"vcekCert":"","tcbm":"7308","certificateChain":""}"#,
        r#"{"vcekCert":"-----BEGIN CERTIFICATE-----","tcbm":"7308000000000003","certificateChain":""}"#,
    ] {
        assert!(
            ThimCertificates::parse(wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn the_decoded_form_survives_every_real_report() {
    for (report, certificates) in VCEK_REPORTS {
        let vector = load(report, certificates);
        let evidence = JsonEvidence {
            report: vector.report.clone(),
            endorsements: vector.endorsements,
        };
        let again = JsonEvidence::parse(evidence.to_json().as_bytes()).unwrap();
        assert_eq!(again.report, vector.report, "{report}");
        assert_eq!(again.endorsements, evidence.endorsements);
    }
}

#[test]
fn the_store_is_laid_out_like_the_key_server() {
    let vector = load("snp/genoa-v3.report.bin", "snp/genoa-v3.vcek.der");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let locator = vector.report.locator();
    assert_eq!(store.find(&locator).unwrap(), Endorsements::default());
    let chip = hex::encode(locator.chip_id.0);
    let request = format!("/vcek/v1/Genoa/{chip}?blSPL=10&teeSPL=0&snpSPL=23&ucodeSPL=25");
    assert_eq!(locator.kds_request(Product::Genoa).unwrap(), request);

    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write(
        &format!("vcek/{chip}/10_00_23_25_vcek.der"),
        &support::vector("snp/genoa-v3.vcek.der"),
    );
    write(
        "vcek/v1/Genoa/cert_chain",
        &support::vector("amd-roots/ask_ark_genoa.pem"),
    );
    let found = store.find(&locator).unwrap();
    assert_eq!(found.certificates().len(), 3);
    write("vcek/v1/Genoa/crl", b"not a list");
    assert!(store.find(&locator).is_err());
}
