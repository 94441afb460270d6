//! What a paravisor's guest sends, from its TPM to our verdict.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../agent/evidence/tests/support/paravisor.rs"]
mod played;
mod support;
#[path = "../../../agent/evidence/tests/support/swtpm.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
mod swtpm;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use agent_evidence::{
    Sha256Digest,
    azure::{Attest, workload_nonce},
    log::{Entry, Event, EventError, ExecDigests, ExecEntry, MeasurementLog},
    tee::{
        Paravisor, Tee as _, TeeError,
        tpm::{Register, Tpm, TpmError},
    },
};
use played::PlayedTpm;
use policy_appraisal::{
    Check, Evidence, Outcome, Verdict, Workload,
    azure::{AzureEvidence, AzureExpected, PcrReferences},
};
use support::{hcl, refusals, scene::Scene};
use swtpm::Swtpm;

#[derive(Debug, thiserror::Error)]
enum AppendError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

fn logged(log: &mut MeasurementLog, tpm: &dyn Register) -> Result<(), AppendError> {
    let event = Event::parse("domain", "operation", "content").unwrap();
    log.append_after(event, |digests| Ok(tpm.extend(digests)?))
}

/// Reports of the scene's chip around runtime data.
fn reports(scene: &Arc<Mutex<Scene>>) -> impl FnMut(Sha256Digest) -> Vec<u8> + Send + 'static {
    let scene = Arc::clone(scene);
    move |Sha256Digest(digest)| {
        let mut scene = scene.lock().unwrap();
        scene.put(0x50, &[digest, [0; 32]].concat());
        scene.put(0xC0, &[0; 32]);
        scene.signed().to_vec()
    }
}

fn parsed(text: &str) -> Box<AzureEvidence> {
    match Evidence::parse(text.as_bytes()).unwrap() {
        Evidence::Azure(evidence) => evidence,
        other => panic!("another form: {other:?}"),
    }
}

/// Judges evidence with the certificates that the scene has, as an owner who accepts
/// firmware that measured nothing.
fn judge(
    evidence: &AzureEvidence,
    nonce: &[u8],
    workload: Option<&Workload>,
    scene: &Mutex<Scene>,
) -> Verdict {
    let mut evidence = evidence.clone();
    let scene = scene.lock().unwrap();
    evidence.endorsements = scene.endorsements();
    let accepted = BTreeSet::from([Sha256Digest::ZERO]);
    let expected = AzureExpected {
        nonce,
        initdata: Some(Sha256Digest([8; 32])),
        pcrs: &PcrReferences(BTreeMap::from([(4, accepted)])),
    };
    let (roots, references) = (scene.roots(), &scene.references);
    evidence.appraise_with(&roots, references, &expected, workload, scene.at)
}

#[test]
fn evidence_of_a_paravisors_guest_is_accepted_by_our_verifier() {
    let Some(swtpm) = Swtpm::start() else { return };
    let scene = Arc::new(Mutex::new(Scene::genoa()));
    let tpm = Arc::new(Tpm::start(PlayedTpm::start(&swtpm, reports(&scene))).unwrap());
    let tee = Paravisor::find(&tpm).unwrap().unwrap();
    let mut log = MeasurementLog::new();
    logged(&mut log, &*tpm).unwrap();
    tpm.extend_initdata(Sha256Digest([8; 32])).unwrap();

    let nonce = [0xA5; 48];
    let none_else = Workload::default();
    let mut evidence = parsed(&tee.evidence(&nonce, &log).unwrap());
    assert_eq!(evidence.log.as_ref(), Some(&log));
    let verdict = judge(&evidence, &nonce, Some(&none_else), &scene);
    assert!(verdict.is_accepted(), "{verdict}");
    assert_eq!(
        verdict.outcome(Check::MeasurementLog),
        Some(Outcome::Passed)
    );
    // A container cannot have the bytes of another's question signed.
    let quoted = Attest::parse(&evidence.quote.message).unwrap().nonce;
    assert_eq!(quoted, workload_nonce(&nonce).0);
    let verdict = judge(&evidence, b"another", None, &scene);
    assert_eq!(refusals(&verdict), [Check::QuoteNonce, Check::UserData]);

    // What was extended since is not in it; an entry left out is seen.
    let earlier = log.clone();
    let exec = ExecEntry {
        container: "c".to_owned(),
        digests: ExecDigests {
            process: Sha256Digest([1; 32]),
            environment: Sha256Digest([2; 32]),
            rights: Sha256Digest([3; 32]),
        },
        count: 1,
    };
    let exec = Entry::from(exec).event().unwrap();
    log.append_after(exec, |digests| {
        Ok::<_, AppendError>(Register::extend(&*tpm, digests)?)
    })
    .unwrap();
    evidence.log = Some(log.clone());
    let verdict = judge(&evidence, &nonce, None, &scene);
    assert_eq!(refusals(&verdict), [Check::MeasurementLog]);
    let mut evidence = parsed(&tee.evidence(&nonce, &log).unwrap());
    assert!(judge(&evidence, &nonce, None, &scene).is_accepted());
    let verdict = judge(&evidence, &nonce, Some(&none_else), &scene);
    assert_eq!(refusals(&verdict), [Check::Workload]);
    evidence.log = Some(earlier.clone());
    let verdict = judge(&evidence, &nonce, Some(&none_else), &scene);
    assert_eq!(refusals(&verdict), [Check::MeasurementLog]);

    let error = tee.evidence(&nonce, &earlier).unwrap_err();
    assert!(matches!(error, TeeError::OtherLog), "{error}");

    // CoCo's form without the log: nothing is said of what ran, and it cannot be asked.
    evidence.log = None;
    assert!(judge(&evidence, &nonce, None, &scene).is_accepted());
    let verdict = judge(&evidence, &nonce, Some(&none_else), &scene);
    assert_eq!(verdict.outcome(Check::Workload), Some(Outcome::NotReached));
    assert!(!verdict.is_accepted());
}
