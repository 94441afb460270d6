//! A TPM that says anything: every command of the client, answered with the input's
//! parts, each of which begins with its length in 16 bits.
#![no_main]

use std::io::{self, Read, Write};

use agent_evidence::{
    Sha256Digest, Sha384Digest,
    log::EventDigests,
    tee::tpm::{LOG_PCR, Tpm},
};

/// `TPM_RC_*` that mean "send it again", which the client does after a pause.
const AGAIN: [[u8; 4]; 4] = [
    [0, 0, 9, 0x08],
    [0, 0, 9, 0x0A],
    [0, 0, 9, 0x20],
    [0, 0, 9, 0x22],
];

struct Hostile<'a>(&'a [u8]);

impl Write for Hostile<'_> {
    fn write(&mut self, command: &[u8]) -> io::Result<usize> {
        Ok(command.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Hostile<'_> {
    fn read(&mut self, response: &mut [u8]) -> io::Result<usize> {
        let Some((length, rest)) = self.0.split_first_chunk::<2>() else {
            return Ok(0);
        };
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length.min(response.len()));
        self.0 = rest;
        response[..part.len()].copy_from_slice(part);
        if part.len() >= 10 && AGAIN.iter().any(|code| part[6..10] == *code) {
            response[6] = 1;
        }
        Ok(part.len())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(tpm) = Tpm::start(Hostile(bytes)) else {
        return;
    };
    let digests = EventDigests {
        sha_256: Sha256Digest::ZERO,
        sha_384: Sha384Digest::ZERO,
    };
    let _ = tpm.extend(LOG_PCR, &digests);
    if let Ok(Some(content)) = tpm.nv_read(0x0140_0001) {
        assert!(content.len() <= usize::from(u16::MAX));
    }
    let _ = tpm.nv_write(0x0140_0002, &[1; 64]);
    let _ = tpm.pcrs();
    if let Ok(quote) = tpm.quote(0x8100_0003, b"nonce") {
        assert!(quote.signature.len() < 4096);
    }
});
