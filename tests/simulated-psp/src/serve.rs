//! Answers the guest's requests over the serial port, and ends with it.
//!
//! The format is that of `agent_evidence::tee::SimulatedTee`; that both sides agree is what
//! the test that boots a guest shows. The guest is the tests' own, yet a request is read at
//! its one length and everything else ends the service.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{prctl, signal::Signal};
use policy_appraisal::snp::SigningKey;

use crate::{
    authority::Authority,
    processor::{Guest, Model},
};

/// Begins every message.
pub const HELLO: [u8; 16] = *b"kata-cc sim-psp1";
/// Name of the serial port.
pub const PORT: &str = "org.kata-cc.simulated-psp";

/// GUID of an intermediate certificate, bytes in the order of its text.
pub const ASK: &str = "4ab7b379bbac4fe4a02f05aef327c782";
/// GUID of a certificate of a chip.
pub const VCEK: &str = "63da758de6644564adc5f4b93be8accd";
const VLEK: &str = "a8074bc2a25a483eaae639c045a0b8a1";
const CRL: &str = "92f81bc358114d3d97ffd19f88dc67ea";
/// GUID, offset and length.
const ENTRY_LEN: usize = 24;

/// Serves the guest until it is gone. Standard input is the port, read and written; the process
/// ends with its parent, which is QEMU.
pub fn serve(authority: &Authority, model: Model, guest: &Guest, parent: i32) -> Result<()> {
    close_others()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid().as_raw() != parent {
        return Ok(());
    }
    let table = certificate_table(authority, model)?;
    let port = nix::unistd::dup(io::stdin())?;
    let mut port = UnixStream::from(port);
    loop {
        let mut request = [0; 16 + 4 + 64];
        match port.read_exact(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.context("reading a request")?,
        }
        let (hello, rest) = request.split_first_chunk::<16>().expect("84 bytes");
        let (sequence, report_data) = rest.split_first_chunk::<4>().expect("68 bytes");
        if *hello != HELLO {
            bail!("the guest sends something else than requests");
        }
        let report_data = report_data.try_into().expect("64 bytes");
        let report = model.report(guest, authority.chip(), report_data);
        let mut answer = HELLO.to_vec();
        answer.extend(sequence);
        answer.extend(0_u32.to_le_bytes());
        answer.extend(u32::try_from(report.len())?.to_le_bytes());
        answer.extend(u32::try_from(table.len())?.to_le_bytes());
        answer.extend(report);
        answer.extend(&table);
        port.write_all(&answer).context("answering the guest")?;
    }
}

/// What QEMU inherits is not ours: a tap, a monitor or a vsock device that we kept open would outlive it.
fn close_others() -> Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Ok(number) = entry?.file_name().to_string_lossy().parse::<i32>() {
            open.push(number);
        }
    }
    for number in open.into_iter().filter(|number| *number > 2) {
        // One of them was the listing itself.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// What a host gives with the report: leaf, intermediate, revocation list.
pub fn certificate_table(authority: &Authority, model: Model) -> Result<Vec<u8>> {
    let leaf = match model.signing_key {
        SigningKey::Vcek => VCEK,
        SigningKey::Vlek => VLEK,
    };
    let entries = [
        (
            leaf,
            authority.leaf(model.product, model.signing_key, model.tcb()),
        ),
        (ASK, authority.issuer(model.product, model.signing_key)),
        (CRL, authority.revocation_list(model.product, &[])?),
    ];
    table_of(&entries)
}

/// A certificate table (AMD 56421, extended guest request) of these GUIDs and contents.
pub fn table_of(entries: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut table = Vec::new();
    let mut contents: Vec<u8> = Vec::new();
    let head = (entries.len() + 1) * ENTRY_LEN;
    for (guid, content) in entries {
        table.extend(hex::decode(guid)?);
        table.extend(u32::try_from(head + contents.len())?.to_le_bytes());
        table.extend(u32::try_from(content.len())?.to_le_bytes());
        contents.extend(content);
    }
    table.extend([0; ENTRY_LEN]);
    table.extend(contents);
    Ok(table)
}
