//! Our own form of evidence: a report that binds nonce and measurement log.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use agent_evidence::{
    HostData, Obtained, Sha256Digest,
    evidence::compose,
    log::{ContainerDigests, ContainerEntry, Entry, Event, MeasurementLog, Operation},
};
use policy_appraisal::{
    Check, Evidence, EvidenceError, LoggedEvidence, LoggedExpected, Workload, snp::UnverifiedReport,
};
use support::{refusals, scene::Scene};

const NONCE: &[u8] = b"a nonce of 32 bytes, as it were.";

fn log(container: &str) -> MeasurementLog {
    let mut log = MeasurementLog::new();
    for (operation, content) in [
        (Operation::Boot, "image release"),
        (Operation::Image, "sha256:11"),
        (Operation::Container, container),
    ] {
        log.append(Event::of(operation, content).unwrap()).unwrap();
    }
    log
}

fn evidence(scene: &mut Scene) -> LoggedEvidence {
    let log = log("web");
    scene.put(0x50, &log.bound_report_data(NONCE).0);
    LoggedEvidence {
        report: UnverifiedReport::parse(&scene.signed()).unwrap(),
        endorsements: scene.endorsements(),
        nonce: NONCE.to_vec(),
        log,
    }
}

fn judge(scene: &Scene, evidence: &LoggedEvidence, nonce: &[u8]) -> Vec<Check> {
    let expected = LoggedExpected {
        nonce,
        host_data: HostData([0xD2; 32]),
    };
    refusals(&evidence.appraise(&scene.roots(), &scene.references, &expected, scene.at))
}

#[test]
fn a_log_that_the_report_binds_is_accepted() {
    let mut scene = Scene::genoa();
    let evidence = evidence(&mut scene);
    assert_eq!(judge(&scene, &evidence, NONCE), []);
}

#[test]
fn a_replayed_nonce_is_refused_by_the_report_data() {
    let mut scene = Scene::genoa();
    let evidence = evidence(&mut scene);
    assert_eq!(
        judge(&scene, &evidence, b"the nonce of today"),
        [Check::ReportData]
    );
}

#[test]
fn an_edited_log_is_refused_by_name() {
    let mut scene = Scene::genoa();
    let mut evidence = evidence(&mut scene);
    evidence.log = log("web, and nothing else");
    assert_eq!(
        judge(&scene, &evidence, NONCE),
        [Check::ReportData, Check::MeasurementLog]
    );
}

#[test]
fn a_shortened_log_is_refused_by_name() {
    let mut scene = Scene::genoa();
    let mut evidence = evidence(&mut scene);
    evidence.log = MeasurementLog::new();
    assert!(judge(&scene, &evidence, NONCE).contains(&Check::MeasurementLog));
}

#[test]
fn evidence_survives_being_written_and_read() {
    let mut scene = Scene::genoa();
    let evidence = evidence(&mut scene);
    let text = evidence.to_json();
    let Evidence::Logged(read) = Evidence::parse(text.as_bytes()).unwrap() else {
        panic!("another form")
    };
    assert_eq!(judge(&scene, &read, NONCE), []);
    assert_eq!(read.to_json(), text);
    assert_eq!(read.log.events().len(), 3);
}

#[test]
fn what_the_guest_composes_is_accepted_with_and_without_a_table() {
    let mut scene = Scene::genoa();
    let evidence = evidence(&mut scene);
    for certificates in [Vec::new(), vec![0; 4096]] {
        let obtained = Obtained {
            report: evidence.report.as_bytes().to_vec(),
            certificates,
        };
        let text = compose(&obtained, NONCE, &evidence.log);
        let mut read = LoggedEvidence::parse(text.as_bytes()).unwrap();
        assert!(read.endorsements.certificates().is_empty());
        read.endorsements = scene.endorsements();
        assert_eq!(judge(&scene, &read, NONCE), []);
    }
}

#[test]
fn an_extra_container_is_refused_by_name() {
    let mut scene = Scene::genoa();
    let mut log = MeasurementLog::new();
    let web = ContainerEntry {
        container: "web".to_owned(),
        image: Some("sha256:11".to_owned()),
        digests: ContainerDigests {
            process: Sha256Digest([1; 32]),
            environment: Sha256Digest([2; 32]),
            mounts: Sha256Digest([3; 32]),
            rights: Sha256Digest([4; 32]),
            settings: Sha256Digest([5; 32]),
        },
        marks: Vec::new(),
        chosen: Vec::new(),
        count: 1,
    };
    let mut learnt = MeasurementLog::new();
    learnt
        .append(Entry::from(web.clone()).event().unwrap())
        .unwrap();
    let workload = Workload::learn(&learnt).unwrap();
    for (count, expected) in [(1, &[][..]), (2, &[Check::Workload])] {
        let entry = ContainerEntry {
            count,
            ..web.clone()
        };
        log.append(Entry::from(entry).event().unwrap()).unwrap();
        scene.put(0x50, &log.bound_report_data(NONCE).0);
        let evidence = LoggedEvidence {
            report: UnverifiedReport::parse(&scene.signed()).unwrap(),
            endorsements: scene.endorsements(),
            nonce: NONCE.to_vec(),
            log: log.clone(),
        };
        let owner = LoggedExpected {
            nonce: NONCE,
            host_data: HostData([0xD2; 32]),
        };
        let (roots, references) = (scene.roots(), &scene.references);
        let verdict = evidence.appraise_with(&roots, references, &owner, Some(&workload), scene.at);
        assert_eq!(refusals(&verdict), expected);
        assert_eq!(judge(&scene, &evidence, NONCE), []);
    }
}

#[test]
fn text_of_no_known_form_is_refused() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"tee":"snp"}"#,
        r#"{"svn":"1","report_data":""}"#,
    ] {
        assert!(
            matches!(
                Evidence::parse(text.as_bytes()),
                Err(EvidenceError::Json(_))
            ),
            "{text}"
        );
    }
    let tdx = br#"{"tee":"tdx"}"#;
    assert!(matches!(Evidence::parse(tdx), Err(EvidenceError::Tee(_))));
}
