//! The whole way of a key: a broker on a socket with TLS, a guest with reports in AMD's format
//! under a root of the tests.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod bed;

use std::fs;

use agent_evidence::log::MeasurementLog;
use agent_keys_protocol::{TeeKey, log_evidence, report_data};
use policy_broker::audit;
use ureq::http::StatusCode;

use self::bed::{Bed, HOST_DATA, KEY, MEASUREMENT, NAME, log, with_container};

#[test]
fn a_genuine_guest_gets_its_key_and_only_its_own_key_opens_it() {
    let bed = Bed::new("");
    let (cookie, token, key) = bed.attested(&log(true, 1));
    for header in [
        ("Cookie", cookie.as_str()),
        ("Authorization", &format!("Bearer {token}")),
    ] {
        let (status, sealed) = bed.get(NAME, header);
        assert_eq!(status, StatusCode::OK, "{sealed}");
        assert_eq!(key.open(sealed.as_bytes()).unwrap().expose(), KEY);
        let other = TeeKey::generate().unwrap();
        assert!(other.open(sealed.as_bytes()).is_err());
        assert!(!sealed.contains(std::str::from_utf8(KEY).unwrap()));
    }
}

#[test]
fn a_missing_resource_is_404_for_an_attested_session_and_401_for_others() {
    let bed = Bed::new("");
    let (cookie, token, _) = bed.attested(&log(true, 1));
    let (status, text) = bed.get("default/key/none", ("Cookie", &cookie));
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("ResourceNotFound"));
    let (status, text) = bed.get("default/key/none", ("X", "y"));
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text.contains("TokenNotFound"));
    let foreign = format!("Bearer {}x", &token[..token.len() - 2]);
    let (status, text) = bed.get(NAME, ("Authorization", &foreign));
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text.contains("TokenVerifierError"));
}

#[test]
fn names_that_are_none_are_refused_before_anything_is_looked_up() {
    let bed = Bed::new("");
    let (cookie, ..) = bed.attested(&log(true, 1));
    for name in [
        "",
        "default",
        "default/key",
        "default/key/web/more",
        "../../store.key",
        "default/../web",
        "default/key/..",
        "default/key/",
        "default//web",
        "default/%2e%2e/web",
        "default/key/%2e",
        "default/key/web?query=1",
        "default/.key/web",
    ] {
        let (status, text) = bed.get(name, ("Cookie", &cookie));
        assert_eq!(status, StatusCode::NOT_FOUND, "{name}");
        assert!(text.contains("InvalidRequestPath"), "{name}: {text}");
    }
}

#[test]
fn a_second_attestation_on_one_session_is_refused_and_a_nonce_answers_once() {
    let bed = Bed::new("");
    let key = TeeKey::generate().unwrap();
    let (cookie, challenge) = bed.begin();
    let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
    bed.attest(&cookie, &evidence).unwrap();
    assert!(bed.refusal(&evidence, &cookie).contains("attested already"));
    let (other, _) = bed.begin();
    assert!(bed.refusal(&evidence, &other).contains("nonce"));
}

#[test]
fn evidence_of_a_good_guest_with_the_key_of_another_is_refused() {
    let bed = Bed::new("");
    let (good, bad) = (TeeKey::generate().unwrap(), TeeKey::generate().unwrap());
    let (cookie, challenge) = bed.begin();
    let mut evidence = bed.evidence(&challenge.nonce, &good, &log(true, 1));
    evidence.runtime_data.tee_pubkey = bad.public().clone();
    assert_eq!(bed.refusal(&evidence, &cookie), "refused by report-data");
}

#[test]
fn evidence_that_a_container_had_made_for_the_agents_nonce_is_refused() {
    let bed = Bed::new("");
    let (key, log) = (TeeKey::generate().unwrap(), log(true, 1));
    let (cookie, challenge) = bed.begin();
    // What a container can have bound is a nonce of its choice, in the guest's own way.
    let additional = log_evidence(log.as_bytes());
    let wanted = report_data(&challenge.nonce, key.public(), &additional);
    let bound = log.bound_report_data(&wanted).0;
    let evidence = bed.evidence_over(&challenge.nonce, &key, &additional, &bound);
    assert_eq!(bed.refusal(&evidence, &cookie), "refused by report-data");
}

#[test]
fn a_changed_guest_gets_no_key_and_the_audit_log_says_which_check_refused_it() {
    for (offset, check) in [(MEASUREMENT, "guest-identity"), (HOST_DATA, "host-data")] {
        let mut bed = Bed::new("");
        bed.scene.report[offset] ^= 1;
        let key = TeeKey::generate().unwrap();
        let (cookie, challenge) = bed.begin();
        let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
        assert_eq!(
            bed.refusal(&evidence, &cookie),
            format!("refused by {check}")
        );
        assert_eq!(
            bed.get(NAME, ("Cookie", &cookie)).0,
            StatusCode::UNAUTHORIZED
        );
        let read = audit::read(&bed.directory(), 10).unwrap();
        let refusal = &read.lines[0].refusals[0];
        assert_eq!(
            (refusal.check.as_str(), read.lines[0].given),
            (check, false)
        );
        assert!(!refusal.expected.is_empty() && !refusal.advice.is_empty());
    }
}

#[test]
fn a_guest_without_bound_initdata_or_policy_gets_nothing() {
    let mut bed = Bed::new("");
    let key = TeeKey::generate().unwrap();
    for (is_zero, log) in [
        (false, log(false, 1)),
        (false, MeasurementLog::new()),
        (true, log(true, 1)),
    ] {
        let fill = if is_zero { 0 } else { 0xD2 };
        bed.scene.report[HOST_DATA..HOST_DATA + 32].fill(fill);
        let (cookie, challenge) = bed.begin();
        let evidence = bed.evidence(&challenge.nonce, &key, &log);
        let check = if is_zero {
            "host-data"
        } else {
            "measurement-log"
        };
        assert_eq!(
            bed.refusal(&evidence, &cookie),
            format!("refused by {check}")
        );
    }
}

#[test]
fn a_minimum_version_revokes_policies_and_images_while_the_broker_runs() {
    let bed = Bed::new("[minimum]\npolicy = 2\n");
    let (cookie, ..) = bed.attested(&log(true, 2));
    let key = TeeKey::generate().unwrap();
    let (old, challenge) = bed.begin();
    let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
    assert_eq!(bed.refusal(&evidence, &old), "refused by policy-version");
    let own = bed.directory().join("broker.toml");
    let text = fs::read_to_string(&own).unwrap() + "guest_image = 1\n";
    fs::write(&own, text).unwrap();
    // The token of before is worth nothing now, and the image has no version.
    let (status, text) = bed.get(NAME, ("Cookie", &cookie));
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text.contains("TokenVerifierError"), "{text}");
    let (cookie, challenge) = bed.begin();
    let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 2));
    assert_eq!(
        bed.refusal(&evidence, &cookie),
        "refused by guest-image-version"
    );
}

#[test]
fn a_secret_can_require_that_only_named_containers_run() {
    let bed = Bed::new("[[require]]\nresource = \"default/key/*\"\nworkload = \"web.json\"\n");
    for (log, kind) in [
        (log(true, 1), Some("MeasurementLogRequired")),
        (with_container("sha256:bad"), Some("PolicyDeny")),
        (with_container("sha256:web"), None),
    ] {
        let (cookie, ..) = bed.attested(&log);
        let (status, text) = bed.get(NAME, ("Cookie", &cookie));
        assert_eq!(status == StatusCode::OK, kind.is_none(), "{text}");
        assert!(text.contains(kind.unwrap_or("ciphertext")), "{text}");
    }
}

#[test]
fn a_policy_of_the_owners_narrows_who_gets_what() {
    let bed = Bed::new("resource_policy = \"resource.rego\"\n");
    let (cookie, ..) = bed.attested(&log(true, 1));
    let (status, text) = bed.get(NAME, ("Cookie", &cookie));
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text.contains("PolicyDeny"), "{text}");
    // It allows this one, which is not there.
    let (status, _) = bed.get("default/other/web", ("Cookie", &cookie));
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[test]
fn evidence_that_the_owners_policy_does_not_affirm_gets_no_token() {
    for (policy, values) in [
        ("{\"hardware\": 32, \"executables\": 2}", "{}"),
        ("{\"hardware\": 258, \"executables\": 2}", "{}"),
        ("{\"hardware\": 2, \"executable\": 2}", "{}"),
        ("{\"hardware\": query_reference_value(\"missing\")}", "{}"),
        (
            "{\"hardware\": query_reference_value(\"old\")}",
            r#"{"old": {"value": 2, "expires": "2025-01-01T00:00:00Z"}}"#,
        ),
    ] {
        let bed = Bed::new("");
        let own = bed.directory().join("broker.toml");
        let text = format!("package policy\n\ntrust_claims := {policy}\n");
        fs::write(bed.directory().join("attestation.rego"), text).unwrap();
        fs::write(bed.directory().join("values.json"), values).unwrap();
        let text = fs::read_to_string(&own).unwrap()
            + "attestation_policy = \"attestation.rego\"\nreference_values = \"values.json\"\n";
        fs::write(&own, text).unwrap();
        let key = TeeKey::generate().unwrap();
        let (cookie, challenge) = bed.begin();
        let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
        assert_eq!(
            bed.refusal(&evidence, &cookie),
            "refused by attestation-policy",
            "{policy}"
        );
    }
}

#[test]
fn nothing_is_administered_over_the_network() {
    let bed = Bed::new("");
    let (cookie, ..) = bed.attested(&log(true, 1));
    for path in [
        "resource/default/key/web",
        "attestation-policy",
        "resource-policy",
        "reference-value",
    ] {
        let mut answer = bed.post(path, &cookie, "{}");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(text.contains("InvalidRequestPath"));
    }
}

#[test]
fn what_is_no_message_and_what_is_too_long_is_refused() {
    let bed = Bed::new("");
    assert_eq!(bed.post("auth", "", "{").status(), StatusCode::UNAUTHORIZED);
    let old = r#"{"version":"0.3.0","tee":"snp","extra-params":""}"#;
    let mut answer = bed.post("auth", "", old);
    assert!(
        answer
            .body_mut()
            .read_to_string()
            .unwrap()
            .contains("0.4.0")
    );
    let sample = r#"{"version":"0.4.0","tee":"sample","extra-params":""}"#;
    assert_eq!(
        bed.post("auth", "", sample).status(),
        StatusCode::UNAUTHORIZED
    );
    let long = " ".repeat(100_000);
    // The broker stops reading, which a client that still writes may see first.
    let sent = bed.agent.post(format!("{}/auth", bed.url)).send(&long);
    assert!(sent.is_err() || sent.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
    bed.begin();
}
