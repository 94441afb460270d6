//! The TPM client and a paravisor's guest, against a software TPM.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../support/hcl.rs"]
mod hcl;
#[path = "../support/paravisor.rs"]
mod paravisor;
mod recorded;
#[path = "../support/swtpm.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
mod swtpm;

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use agent_evidence::{
    ReportData, Sha256Digest, Sha384Digest,
    azure::{Attest, HclReport, workload_nonce},
    log::{Event, EventDigests, EventError, MeasurementLog},
    tee::{
        Paravisor, Tee as _, TeeError, TeeKind,
        tpm::{Command, INITDATA_PCR, LOG_PCR, Register, ResponseError, Tpm, TpmError},
    },
};
use hcl::hcl_blob;
use paravisor::{KEY, PlayedTpm, REPORT_INDEX, USER_DATA_INDEX};
use swtpm::{Swtpm, define, fill, make_attestation_key};

/// A report of nothing, which binds the runtime data of this digest.
fn report(digest: Sha256Digest) -> Vec<u8> {
    let mut report = vec![0; 1184];
    report[0x50..0x70].copy_from_slice(&digest.0);
    report
}

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
    let blob = include_bytes!(
        "../../../../policy/appraisal/tests/vectors/azure-vtpm/crate-hcl-report-snp.bin"
    );
    define(&mut stream, REPORT_INDEX, blob.len());
    fill(&mut stream, REPORT_INDEX, blob);
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

#[test]
fn a_report_carries_the_user_data_or_there_is_none() {
    let Some(swtpm) = Swtpm::start() else { return };
    let played = PlayedTpm::start(&swtpm, report);
    let tpm = Arc::new(Tpm::start(played).unwrap());
    let tee = Paravisor::find(&tpm);
    let obtained = tee.unwrap().unwrap().obtain(&ReportData([7; 64])).unwrap();
    let found = String::from_utf8_lossy(&obtained.report).contains(&"07".repeat(64));
    assert!(found);
    assert!(obtained.certificates.is_empty());
    drop(tpm);

    // A paravisor that never makes a new report.
    let Some(swtpm) = Swtpm::start() else { return };
    let PlayedTpm { stream, .. } = PlayedTpm::start(&swtpm, report);
    let tpm = Arc::new(Tpm::start(stream).unwrap());
    let tee = Paravisor::find(&tpm).unwrap().unwrap();
    let tee = tee.with_patience(Duration::from_millis(10));
    let error = tee.obtain(&ReportData([7; 64])).unwrap_err();
    assert!(matches!(error, TeeError::Silent(_)), "{error}");
}

#[test]
fn a_quote_for_a_workload_is_over_a_digest_whatever_the_workload_gave() {
    let Some(swtpm) = Swtpm::start() else { return };
    let tpm = Arc::new(Tpm::start(PlayedTpm::start(&swtpm, report)).unwrap());
    let tee = Paravisor::find(&tpm).unwrap().unwrap();
    for length in [1, 48, 1024] {
        let given = vec![1; length];
        let evidence = tee.evidence(&given, &MeasurementLog::new()).unwrap();
        let signed = workload_nonce(&given).to_string();
        assert!(evidence.contains(&signed), "{length}: {evidence}");
        assert!(!evidence.contains(&"01".repeat(48)), "{length}");
    }
}

#[test]
fn a_nonce_too_long_for_a_quote_is_refused() {
    let Some(swtpm) = Swtpm::start() else { return };
    let tpm = Arc::new(Tpm::start(PlayedTpm::start(&swtpm, report)).unwrap());
    for length in [49, 64, 65, 1024] {
        let error = tpm.quote(KEY, &vec![1; length]);
        assert!(
            matches!(error, Err(TpmError::Nonce(said)) if said == length),
            "{error:?}"
        );
    }
}
