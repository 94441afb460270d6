//! `kata-cc verify` and `kata-cc measure`, on evidence of the simulated processor.
//!
//! Needs the firmware of Debian's `ovmf-amdsev` and a built `kata-cc`; says what is missing
//! and passes otherwise.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

mod owner;
mod scene;

use std::{fs, process::Command};

use agent_evidence::LaunchMeasurement;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use guest_image_measurement::{
    Sha256Digest, Sha384Digest, VcpuCount, VcpuModel,
    id_block::{self, IdAuthentication, IdBlock},
};
use owner::{POLICY, references};
use policy_appraisal::{
    Workload,
    snp::{Identities, Product, ReferenceValues, SigningKey},
};
use scene::{Scene, json_of, kata_cc, log};
use serde_json::{Value, json};
use tests_simulated_psp::{
    authority::Authority,
    processor::{Guest, Model, RefusedLaunch},
};

type Change = fn(&mut Scene);

#[test]
fn each_change_is_refused_by_its_name_and_none_is_accepted() {
    let changes: [(&str, Change, &[&str]); 13] = [
        ("nothing", |_| {}, &[]),
        ("kernel", |s| s.files.kernel[0] ^= 1, &["guest-identity"]),
        ("initrd", |s| s.files.initrd.push(0), &["guest-identity"]),
        (
            "command line",
            |s| s.launch.cmdline.push_str(" debug"),
            &["guest-identity"],
        ),
        (
            "vcpus",
            |s| s.launch.vcpus = VcpuCount::new(3).unwrap(),
            &["guest-identity"],
        ),
        (
            "vcpu type",
            |s| s.launch.model = VcpuModel::Milan,
            &["guest-identity"],
        ),
        (
            "initdata or policy",
            |s| s.launch.snp.host_data[31] ^= 1,
            &["host-data"],
        ),
        (
            "replayed nonce",
            |s| s.nonce = b"an earlier nonce".to_vec(),
            &["report-data"],
        ),
        (
            "debug policy",
            |s| s.launch.snp.policy |= 1 << 19,
            &["debug"],
        ),
        (
            "old TCB",
            |s| s.references["products"]["Genoa"]["tcb"]["snp"] = 24.into(),
            &["tcb-floor"],
        ),
        (
            "edited log",
            |s| s.told = Some(log(&["wab"])),
            &["report-data", "measurement-log"],
        ),
        (
            "entry dropped from the log",
            |s| s.told = Some(log(&[])),
            &["report-data", "measurement-log"],
        ),
        (
            "refused product",
            |s| s.references["refused_products"] = json!(["Genoa"]),
            &["refused-product"],
        ),
    ];
    for (name, change, expected) in changes {
        let Some(mut scene) = Scene::open() else {
            return;
        };
        change(&mut scene);
        assert_eq!(scene.refusals(), expected, "{name}");
    }
}

fn signing_key() -> id_block::SigningKey {
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    let body = STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    id_block::SigningKey::from_pem(&pem).unwrap()
}

#[test]
fn a_signed_identity_stands_in_for_a_measurement_and_binds_the_launch() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    // Not among the vCPU counts that the owner measures.
    scene.launch.vcpus = VcpuCount::new(3).unwrap();
    let block = IdBlock {
        launch_digest: scene.guest().measurement(),
        family_id: [1; 16],
        image_id: [2; 16],
        guest_svn: 7,
        policy: POLICY,
    };
    let random = SystemRandom::new();
    let (id, author) = (signing_key(), signing_key());
    let signed = IdAuthentication::sign(&block, &id, Some(&author), &random).unwrap();
    scene.launch.snp.identity = Some((block.to_bytes(), signed.page().to_vec()));
    assert_eq!(scene.refusals(), ["guest-identity"]);
    scene.references["identities"]["signed"] = json!([{
        "id_key_digest": signed.id_key_digest().to_string(),
        "author_key_digest": signed.author_key_digest().to_string(),
        "family_id": "01".repeat(16),
        "image_id": "02".repeat(16),
        "guest_svn": 7,
    }]);
    assert_eq!(scene.refusals(), [""; 0]);
    scene.references["identities"]["signed"][0]["guest_svn"] = 8.into();
    assert_eq!(scene.refusals(), ["guest-identity"]);

    let refused = |scene: &Scene| Guest::launch(&scene.launch, &scene.files).unwrap_err();
    scene.launch.snp.policy |= 1 << 19;
    assert_eq!(refused(&scene), RefusedLaunch::BlockPolicy);
    scene.launch.snp.policy = POLICY;
    scene.files.kernel.push(0);
    assert!(matches!(refused(&scene), RefusedLaunch::Measurement { .. }));
    scene.files.kernel.pop();
    let (_, page) = scene.launch.snp.identity.as_mut().unwrap();
    page[0x40] ^= 1;
    assert!(matches!(refused(&scene), RefusedLaunch::Authentication(_)));
}

#[test]
fn an_extra_container_is_refused_by_its_name() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    scene.arguments = vec!["--learn".to_owned(), scene.path("workload.json")];
    assert_eq!(scene.refusals(), [""; 0]);
    scene.arguments = vec!["--workload".to_owned(), scene.path("workload.json")];
    assert_eq!(scene.refusals(), [""; 0]);
    for images in [&["web", "web"][..], &["web", "miner"], &["miner"]] {
        scene.log = log(images);
        assert_eq!(scene.refusals(), ["workload"], "{images:?}");
    }
}

#[test]
fn the_examples_of_the_documentation_are_read() {
    let text = include_str!("../../../docs/verify.md");
    let mut examples = text.split("```json").skip(1);
    let mut example = || examples.next().unwrap().split_once("```").unwrap().0;
    let references: ReferenceValues = serde_json::from_str(example()).unwrap();
    assert!(references.products.contains_key(&Product::Genoa));
    assert!(references.refused_products.contains(&Product::Milan));
    let endorsed: Value = serde_json::from_str(example()).unwrap();
    let endorsed: Identities = serde_json::from_value(endorsed["identities"].clone()).unwrap();
    assert_eq!(endorsed.endorsed[0].minimum_svn, 1);
    let workload: Workload = serde_json::from_str(example()).unwrap();
    assert_eq!(workload.containers.len(), 1);
}

#[test]
fn a_report_of_a_stranger_is_refused() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Authority::open(&stranger.path().join("authority")).unwrap();
    let ours = std::mem::replace(&mut scene.authority, stranger);
    scene.arguments = vec!["--roots".to_owned(), ours.roots().display().to_string()];
    assert_eq!(scene.refusals(), ["chain"]);
}

#[test]
fn amds_roots_are_the_default_and_did_not_sign_this() {
    let Some(scene) = Scene::open() else { return };
    scene.verify(&[]);
    let output = Command::new(kata_cc())
        .args(["verify", &scene.path("evidence.json"), "--nonce", "00"])
        .args(["--references", &scene.path("references.json"), "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let verdict = json_of(&output);
    let mut chain = verdict["checks"].as_array().unwrap().iter();
    let chain = chain.find(|check| check["check"] == "chain");
    assert_eq!(chain.unwrap()["outcome"], "refused");
}

#[test]
fn every_product_key_and_version_is_accepted() {
    let kinds = [SigningKey::Vcek, SigningKey::Vlek];
    for product in Product::ALL {
        for (signing_key, report_version) in kinds.into_iter().zip([2, 3]).chain([(kinds[0], 5)]) {
            let Some(mut scene) = Scene::open() else {
                return;
            };
            scene.model = Model {
                product,
                signing_key,
                report_version,
            };
            let references = references(product, LaunchMeasurement([0; 48]));
            scene.references = serde_json::to_value(references).unwrap();
            let refusals = scene.refusals();
            assert_eq!(
                refusals, [""; 0],
                "{product} {signing_key} {report_version}"
            );
        }
    }
}

#[test]
fn the_table_says_what_was_logged_and_how_it_ended() {
    let Some(scene) = Scene::open() else { return };
    let output = scene.verify(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("container  c1 of image web,"), "{text}");
    assert!(text.ends_with("\naccepted\n"), "{text}");
}

#[test]
fn what_the_launch_binds_may_be_given_as_a_document_or_a_policy() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    let initdata = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n\"a.toml\" = \"\"\n";
    let policy = "package agent_policy\n";
    fs::write(scene.path("initdata.toml"), initdata).unwrap();
    fs::write(scene.path("policy.rego"), policy).unwrap();
    let by_initdata = Sha384Digest::of(initdata.as_bytes());
    let by_policy = Sha256Digest::of(policy.as_bytes());
    let bindings = [
        ("--initdata", "initdata.toml", &by_initdata.as_bytes()[..32]),
        ("--policy", "policy.rego", by_policy.as_bytes()),
    ];
    for (option, file, host_data) in bindings {
        scene.binding = vec![option.to_owned(), scene.path(file)];
        assert_eq!(scene.refusals(), ["host-data"], "{option}");
        scene.launch.snp.host_data = host_data.try_into().unwrap();
        assert_eq!(scene.refusals(), [""; 0], "{option}");
    }
}

#[test]
fn time_decides_about_certificates_and_lists() {
    let Some(scene) = Scene::open() else { return };
    for (time, refused) in [
        ("2023-12-31T23:59:59Z", "validity"),
        ("2031-01-02T00:00:00Z", "revocation"),
    ] {
        let output = scene.verify(&["--json", "--time", time]);
        let verdict = json_of(&output);
        let checks = verdict["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["check"] == refused);
        assert_eq!(found.unwrap()["outcome"], "refused", "{time}");
    }
}

#[test]
fn what_cannot_be_judged_ends_with_another_code() {
    let Some(scene) = Scene::open() else { return };
    scene.verify(&[]);
    let verify = |evidence: &str, references: &str, more: &[&str]| {
        let mut command = Command::new(kata_cc());
        command.args(["verify", &scene.path(evidence)]);
        command.args(["--references", &scene.path(references)]);
        let output = command.args(more).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), errors)
    };
    fs::write(scene.path("typo.json"), r#"{"product":{}}"#).unwrap();
    let nonce = ["--nonce", "00"];
    for (evidence, references, more, code, named) in [
        ("none.json", "references.json", &nonce[..], 3, "none.json"),
        ("typo.json", "references.json", &nonce, 4, "evidence"),
        ("evidence.json", "typo.json", &nonce, 3, "product"),
        ("evidence.json", "references.json", &[], 3, "--nonce"),
        (
            "evidence.json",
            "references.json",
            &["--nonce", "x"],
            2,
            "--nonce",
        ),
        (
            "evidence.json",
            "references.json",
            &["--report-data", "00"],
            3,
            "--nonce",
        ),
    ] {
        let (found, errors) = verify(evidence, references, more);
        assert_eq!(found, Some(code), "{errors}");
        assert!(errors.contains(named), "{errors}");
    }
}

#[test]
fn a_digest_is_computed_and_another_explained() {
    let Some(mut scene) = Scene::open() else {
        return;
    };
    let measure = |scene: &Scene, more: &[&str]| {
        let mut command = Command::new(kata_cc());
        command.args(["measure", &scene.path("image")]);
        command.args(more).output().unwrap()
    };
    let expected = scene.guest().measurement().to_string();
    let output = measure(&scene, &["--vcpus", "2", "--json"]);
    assert_eq!(json_of(&output)[0]["launch_digest"], expected);
    scene.launch.vcpus = VcpuCount::new(7).unwrap();
    scene.launch.cmdline.push_str(" agent.debug_console");
    let other = scene.guest().measurement().to_string();
    let output = measure(&scene, &["--explain", &other]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("7 vCPUs of type EPYC,"), "{text}");
    assert!(text.contains("agent.debug_console"), "{text}");
    let output = measure(&scene, &["--explain", &"0".repeat(96)]);
    assert_eq!(output.status.code(), Some(3));
    fs::write(scene.path("image/vmlinuz"), "another").unwrap();
    let output = measure(&scene, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("vmlinuz"));
}
