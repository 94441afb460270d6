//! The TPM client against a software TPM, and the evidence of a paravisor's guest with
//! one, judged by our own verifier.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod recorded;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_evidence::{
    Check, Outcome, ReportData, Sha256Digest, Sha384Digest, Verdict,
    azure::{Attest, AzureEvidence, AzureExpected, HclReport, PcrReferences},
    evidence::Evidence,
    log::{Entry, Event, EventDigests, EventError, ExecEntry, MeasurementLog, Workload},
    tee::{
        Paravisor, Tee as _, TeeError, TeeKind,
        tpm::{Command, INITDATA_PCR, LOG_PCR, Register, ResponseError, Tpm, TpmError},
    },
};
use support::{
    hcl_blob, refusals,
    scene::Scene,
    swtpm::{Swtpm, define, fill, make_attestation_key},
    vector,
};

const REPORT_INDEX: u32 = 0x0140_0001;
const USER_DATA_INDEX: u32 = 0x0140_0002;
const KEY: u32 = 0x8100_0003;

#[derive(Debug, thiserror::Error)]
enum AppendError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

fn digests(text: &[u8]) -> EventDigests {
    EventDigests {
        sha_256: Sha256Digest::of(&[text]),
        sha_384: Sha384Digest::of(&[text]),
    }
}

fn logged(log: &mut MeasurementLog, tpm: &dyn Register) -> Result<(), AppendError> {
    let event = Event::parse("domain", "operation", "content").unwrap();
    log.append_after(event, |digests| Ok(tpm.extend(digests)?))
}

#[test]
fn an_extension_changes_its_pcr_as_computed_and_no_other() {
    let Some(swtpm) = Swtpm::start() else { return };
    let tpm = Tpm::start(swtpm.connect()).unwrap();
    let before = tpm.pcrs().unwrap();
    let mut log = MeasurementLog::new();
    logged(&mut log, &tpm).unwrap();
    logged(&mut log, &tpm).unwrap();
    let mut expected = before;
    expected[usize::from(LOG_PCR)] = log.register_256();
    assert_eq!(tpm.pcrs().unwrap(), expected);
    assert_ne!(log.register_256(), Sha256Digest::ZERO);

    let initdata = Sha256Digest([8; 32]);
    tpm.extend_initdata(initdata).unwrap();
    expected[usize::from(INITDATA_PCR)] = Sha256Digest::of(&[&[0; 32], &initdata.0]);
    assert_eq!(tpm.pcrs().unwrap(), expected);
}

#[test]
fn both_banks_are_extended() {
    let Some(swtpm) = Swtpm::start() else { return };
    let stream = swtpm.connect();
    let mut raw = stream.try_clone().unwrap();
    let tpm = Tpm::start(stream).unwrap();
    tpm.extend(LOG_PCR, &digests(b"text")).unwrap();
    // TPM2_PCR_Read of PCR 15 in the SHA-384 bank.
    let read = hex::decode("8001000000140000017e00000001000c03008000").unwrap();
    raw.write_all(&read).unwrap();
    let mut response = [0; 256];
    let length = raw.read(&mut response).unwrap();
    let value = Sha384Digest::of(&[&[0; 48], &Sha384Digest::of(&[b"text"]).0]);
    assert_eq!(response[length - 48..length], value.0);
}

#[test]
fn a_pcr_that_the_locality_may_not_extend_is_refused_by_command_and_code() {
    let Some(swtpm) = Swtpm::start() else { return };
    let tpm = Tpm::start(swtpm.connect()).unwrap();
    let before = tpm.pcrs().unwrap();
    let error = tpm.extend(17, &digests(b"text")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tpm refused TPM2_PCR_Extend with code 0x907"
    );
    assert_eq!(tpm.pcrs().unwrap(), before);
}

#[test]
fn a_real_report_is_read_back_byte_for_byte() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut stream = swtpm.connect();
    let blob = vector("azure-vtpm/crate-hcl-report-snp.bin");
    define(&mut stream, REPORT_INDEX, blob.len());
    fill(&mut stream, REPORT_INDEX, &blob);
    let tpm = Arc::new(Tpm::start(stream).unwrap());
    assert_eq!(tpm.nv_read(REPORT_INDEX).unwrap().unwrap(), blob);
    assert_eq!(tpm.nv_read(USER_DATA_INDEX).unwrap(), None);
    let tee = Paravisor::find(&tpm).unwrap().unwrap();
    assert_eq!(tee.kind(), TeeKind::AzSnpVtpm);
}

#[test]
fn a_tpm_without_a_snp_report_is_no_paravisors() {
    let Some(swtpm) = Swtpm::start() else { return };
    let tpm = Arc::new(Tpm::start(swtpm.connect()).unwrap());
    assert!(Paravisor::find(&tpm).unwrap().is_none());
    drop(tpm);
    for content in [vec![0xFF; 64], hcl_blob(&[0; 1184], b"{}")] {
        let Some(swtpm) = Swtpm::start() else { return };
        let mut stream = swtpm.connect();
        let is_report = HclReport::parse(&content).is_ok();
        define(&mut stream, REPORT_INDEX, content.len());
        fill(&mut stream, REPORT_INDEX, &content);
        let tpm = Arc::new(Tpm::start(stream).unwrap());
        let found = Paravisor::find(&tpm).unwrap();
        assert_eq!(found.is_some(), is_report);
    }
}

#[test]
fn user_data_are_written_to_an_index_that_is_made_if_need_be() {
    let Some(swtpm) = Swtpm::start() else { return };
    let mut stream = swtpm.connect();
    define(&mut stream, 0x0140_0003, 32);
    let tpm = Tpm::start(stream).unwrap();
    for byte in [1, 2] {
        tpm.nv_write(USER_DATA_INDEX, &[byte; 64]).unwrap();
        assert_eq!(tpm.nv_read(USER_DATA_INDEX).unwrap().unwrap(), [byte; 64]);
    }
    let error = tpm.nv_write(0x0140_0003, &[1; 64]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nv index 0x01400003 has 32 bytes, not 64"
    );
}

/// A guest's TPM with a paravisor behind it: after the guest has written user data,
/// there is a new report with them.
struct PlayedTpm {
    stream: UnixStream,
    scene: Arc<Mutex<Scene>>,
    key: String,
    /// User data in the last command, if it wrote some.
    written: Option<[u8; 64]>,
}

impl PlayedTpm {
    fn start(swtpm: &Swtpm, scene: &Arc<Mutex<Scene>>) -> Self {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let mut stream = swtpm.connect();
        let modulus = make_attestation_key(&mut stream, KEY);
        let mut played = Self {
            stream,
            scene: Arc::clone(scene),
            key: URL_SAFE_NO_PAD.encode(modulus),
            written: None,
        };
        let blob = played.blob(&[0; 64]);
        define(&mut played.stream, REPORT_INDEX, blob.len());
        fill(&mut played.stream, REPORT_INDEX, &blob);
        played
    }

    fn blob(&self, user_data: &[u8; 64]) -> Vec<u8> {
        let runtime = format!(
            r#"{{"keys":[{{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"{}"}}],"user-data":"{}"}}"#,
            self.key,
            hex::encode_upper(user_data),
        );
        let Sha256Digest(digest) = Sha256Digest::of(&[runtime.as_bytes()]);
        let mut scene = self.scene.lock().unwrap();
        scene.put(0x50, &[digest, [0; 32]].concat());
        scene.put(0xC0, &[0; 32]);
        hcl_blob(&scene.signed(), runtime.as_bytes())
    }
}

impl Write for PlayedTpm {
    fn write(&mut self, command: &[u8]) -> io::Result<usize> {
        let handle = command.get(14..18);
        if command[6..10] == 0x137_u32.to_be_bytes()
            && handle == Some(&USER_DATA_INDEX.to_be_bytes())
        {
            self.written = Some(command[33..97].try_into().unwrap());
        }
        self.stream.write(command)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Read for PlayedTpm {
    fn read(&mut self, response: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(response)?;
        if let Some(user_data) = self.written.take() {
            let blob = self.blob(&user_data);
            fill(&mut self.stream, REPORT_INDEX, &blob);
        }
        Ok(length)
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
    let tpm = Arc::new(Tpm::start(PlayedTpm::start(&swtpm, &scene)).unwrap());
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
    let verdict = judge(&evidence, b"another", None, &scene);
    assert_eq!(refusals(&verdict), [Check::QuoteNonce]);

    // What was extended since is not in it; an entry left out is seen.
    let earlier = log.clone();
    let exec = ExecEntry {
        container: "c".to_owned(),
        exec: "e".to_owned(),
        process: Sha256Digest([1; 32]),
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

#[test]
fn a_report_carries_the_user_data_or_there_is_none() {
    let Some(swtpm) = Swtpm::start() else { return };
    let scene = Arc::new(Mutex::new(Scene::genoa()));
    let played = PlayedTpm::start(&swtpm, &scene);
    let tpm = Arc::new(Tpm::start(played).unwrap());
    let tee = Paravisor::find(&tpm);
    let obtained = tee.unwrap().unwrap().obtain(&ReportData([7; 64])).unwrap();
    let found = String::from_utf8_lossy(&obtained.report).contains(&"07".repeat(64));
    assert!(found);
    assert!(obtained.certificates.is_empty());
    drop(tpm);

    // A paravisor that never makes a new report.
    let Some(swtpm) = Swtpm::start() else { return };
    let PlayedTpm { stream, .. } = PlayedTpm::start(&swtpm, &scene);
    let tpm = Arc::new(Tpm::start(stream).unwrap());
    let tee = Paravisor::find(&tpm).unwrap().unwrap();
    let tee = tee.with_patience(Duration::from_millis(10));
    let error = tee.obtain(&ReportData([7; 64])).unwrap_err();
    assert!(matches!(error, TeeError::Silent(_)), "{error}");
}

#[test]
fn a_nonce_too_long_for_a_quote_is_refused_before_anything_is_asked() {
    let Some(swtpm) = Swtpm::start() else { return };
    let scene = Arc::new(Mutex::new(Scene::genoa()));
    let tpm = Arc::new(Tpm::start(PlayedTpm::start(&swtpm, &scene)).unwrap());
    let tee = Paravisor::find(&tpm).unwrap().unwrap();
    for length in [49, 64, 65, 1024] {
        let error = tee.evidence(&vec![1; length], &MeasurementLog::new());
        assert!(
            matches!(error, Err(TeeError::Tpm(TpmError::Nonce(said))) if said == length),
            "{error:?}"
        );
    }
    assert_eq!(tpm.nv_read(USER_DATA_INDEX).unwrap(), None);
}
