//! Responses of a TPM that somebody cut or changed on their way.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use super::*;

/// Hands out recorded responses, whatever is asked.
struct Recorded(VecDeque<Vec<u8>>);

impl Write for Recorded {
    fn write(&mut self, command: &[u8]) -> io::Result<usize> {
        Ok(command.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Recorded {
    fn read(&mut self, response: &mut [u8]) -> io::Result<usize> {
        let recorded = self.0.pop_front().unwrap_or_default();
        response[..recorded.len()].copy_from_slice(&recorded);
        Ok(recorded.len())
    }
}

/// Keeps the last response to each command.
struct Recorder(UnixStream, Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Write for Recorder {
    fn write(&mut self, command: &[u8]) -> io::Result<usize> {
        self.0.write(command)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for Recorder {
    fn read(&mut self, response: &mut [u8]) -> io::Result<usize> {
        let length = self.0.read(response)?;
        let recorded = response[..length].to_vec();
        // "Send it again" comes when the TPM likes.
        if recorded[6..10] != 0x922_u32.to_be_bytes() {
            self.1.lock().unwrap().push_back(recorded);
        }
        Ok(length)
    }
}

fn use_all<T: Read + Write + Send>(channel: T) -> Result<(), TpmError> {
    let tpm = Tpm::start(channel)?;
    tpm.extend(LOG_PCR, &digests(b"text"))?;
    tpm.nv_read(REPORT_INDEX)?;
    tpm.nv_write(USER_DATA_INDEX, &[1; 64])?;
    let quote = tpm.quote(KEY, b"nonce")?;
    assert_eq!(Attest::parse(&quote.message).unwrap().nonce, b"nonce");
    Ok(())
}

fn recording() -> Option<VecDeque<Vec<u8>>> {
    let swtpm = Swtpm::start()?;
    let mut stream = swtpm.connect();
    make_attestation_key(&mut stream, KEY);
    define(&mut stream, REPORT_INDEX, 64);
    fill(&mut stream, REPORT_INDEX, &[5; 64]);
    let kept = Arc::new(Mutex::new(VecDeque::new()));
    use_all(Recorder(stream, Arc::clone(&kept))).unwrap();
    Some(kept.lock().unwrap().clone())
}

#[test]
fn responses_that_are_cut_or_longer_are_refused_by_the_name_of_their_command() {
    let Some(recording) = recording() else { return };
    use_all(Recorded(recording.clone())).unwrap();
    let names = [
        Command::GetCapability,
        Command::PcrExtend,
        Command::NvReadPublic,
        Command::NvRead,
        Command::NvReadPublic,
        Command::NvDefineSpace,
        Command::NvWrite,
        Command::Quote,
        Command::PcrRead,
        Command::PcrRead,
        Command::PcrRead,
    ];
    assert_eq!(recording.len(), names.len());
    for (at, name) in names.into_iter().enumerate() {
        // A refusal has no size to lie about but its own.
        for length in 0..=recording[at].len() + 1 {
            for honest_size in [false, true] {
                let mut changed = recording.clone();
                if length == changed[at].len() {
                    continue;
                }
                changed[at].resize(length, 0);
                if honest_size && length >= 6 {
                    let size = u32::try_from(length).unwrap().to_be_bytes();
                    changed[at][2..6].copy_from_slice(&size);
                }
                let error = use_all(Recorded(changed)).unwrap_err();
                let TpmError::Malformed { command, .. } = error else {
                    panic!("{name} {length}: {error}")
                };
                assert_eq!(command, name, "{length}");
            }
        }
    }
}

#[test]
fn tampered_responses_are_refused_by_name() {
    let Some(recording) = recording() else { return };
    let refused = |at: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = recording.clone();
        change(&mut changed[at]);
        use_all(Recorded(changed)).unwrap_err()
    };
    let source = |error: TpmError| match error {
        TpmError::Malformed { source, .. } => source,
        error => panic!("{error}"),
    };
    let tag = source(refused(1, &|response| response[1] = 1));
    assert_eq!(tag, ResponseError::Tag(0x8001));
    let session = source(refused(1, &|response| *response.last_mut().unwrap() = 1));
    assert_eq!(session, ResponseError::Session);
    let index = source(refused(2, &|response| response[15] ^= 1));
    assert_eq!(index, ResponseError::Other("index"));
    let bank = source(refused(8, &|response| response[19] = 0x0C));
    assert_eq!(bank, ResponseError::Other("bank"));
    let scheme = source(refused(7, &|response| {
        let scheme = response.len() - 5 - 256 - 6;
        response[scheme + 1] = 0x16;
    }));
    assert_eq!(scheme, ResponseError::Other("signature scheme"));
    // Values that are well-formed and not those that were signed.
    let pcrs = refused(8, &|response| *response.last_mut().unwrap() ^= 1);
    assert!(matches!(pcrs, TpmError::Pcrs), "{pcrs}");
    // A code without more is the TPM's refusal, with a body it is nothing.
    let code = refused(1, &|response| {
        response.truncate(10);
        response[1] = 1;
        response[5] = 10;
        response[8..10].copy_from_slice(&[1, 1]);
    });
    assert_eq!(
        code.to_string(),
        "the tpm refused TPM2_PCR_Extend with code 0x101"
    );
    let body = source(refused(1, &|response| {
        response[1] = 1;
        response[9] = 1;
    }));
    assert_eq!(body, ResponseError::Refusal);
    // No bank for the log.
    let banks = refused(0, &|response| {
        for place in 0..response.len() - 1 {
            if response[place] == 0 && matches!(response[place + 1], 0x0B | 0x0C) {
                response[place + 1] = 0x04;
            }
        }
    });
    assert!(matches!(banks, TpmError::NoBank(LOG_PCR)), "{banks}");
}

#[test]
fn a_failed_extension_leaves_the_log_as_it_was() {
    let Some(recording) = recording() else { return };
    let mut log = MeasurementLog::new();
    // After the banks nothing comes any more.
    let tpm = Tpm::start(Recorded(recording.into_iter().take(1).collect())).unwrap();
    let error = logged(&mut log, &tpm).unwrap_err();
    assert!(matches!(error, AppendError::Tpm(_)), "{error}");
    assert_eq!(log, MeasurementLog::new());
}
