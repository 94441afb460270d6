//! A paravisor behind a software TPM, played by the tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use agent_evidence::Sha256Digest;

use super::{
    hcl::hcl_blob,
    swtpm::{Swtpm, define, fill, make_attestation_key},
};

pub const REPORT_INDEX: u32 = 0x0140_0001;
pub const USER_DATA_INDEX: u32 = 0x0140_0002;
pub const KEY: u32 = 0x8100_0003;

/// A guest's TPM with a paravisor behind it: after the guest has written user data,
/// there is a new report with them.
pub struct PlayedTpm {
    pub stream: UnixStream,
    /// Makes the report that binds the runtime data of this digest.
    report: Box<dyn FnMut(Sha256Digest) -> Vec<u8> + Send>,
    key: String,
    /// User data in the last command, if it wrote some.
    written: Option<[u8; 64]>,
}

impl PlayedTpm {
    pub fn start(
        swtpm: &Swtpm,
        report: impl FnMut(Sha256Digest) -> Vec<u8> + Send + 'static,
    ) -> Self {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let mut stream = swtpm.connect();
        let modulus = make_attestation_key(&mut stream, KEY);
        let mut played = Self {
            stream,
            report: Box::new(report),
            key: URL_SAFE_NO_PAD.encode(modulus),
            written: None,
        };
        let blob = played.blob(&[0; 64]);
        define(&mut played.stream, REPORT_INDEX, blob.len());
        fill(&mut played.stream, REPORT_INDEX, &blob);
        played
    }

    fn blob(&mut self, user_data: &[u8; 64]) -> Vec<u8> {
        let runtime = format!(
            r#"{{"keys":[{{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"{}"}}],"user-data":"{}"}}"#,
            self.key,
            hex::encode_upper(user_data),
        );
        let report = (self.report)(Sha256Digest::of(&[runtime.as_bytes()]));
        hcl_blob(&report, runtime.as_bytes())
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
