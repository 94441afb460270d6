//! The owner's initdata: found on a disk, held against the hardware, laid out.
//!
//! The disk is the host's to give or to change. With a TEE its digest must be
//! `HOST_DATA` of the guest's own report; any doubt (a disk that cannot be read, two
//! of them, another digest, none although something is bound, a report that cannot be
//! had) ends in a guest that answers every request with one sentence. Under Azure's
//! paravisor there is no `HOST_DATA`: the digest goes into PCR 8 of its TPM before the
//! initdata is used, and a verifier finds it there. Without a TEE nothing can prove anything, and initdata is taken as it is.

mod disks;
pub(crate) mod error;
mod files;
mod settle;

use std::{path::Path, sync::Arc};

use agent_evidence::{
    Sha256Digest,
    log::BootEntry,
    snp::OwnReport,
    tee::{
        self, Tee, TeeKind,
        tpm::{Tpm, TpmDevice},
    },
};
use agent_measured::{Measured, NoteError};
use settle::Bound;
use tracing::{error, info, warn};

use crate::{
    judge::{Judge, Standing},
    version::VERSION,
};

/// The guest's TEE, where there is one that answers.
pub type Hardware = Option<Arc<dyn Tee>>;

/// What boot found out.
pub struct Boot {
    /// Judges requests from here on.
    pub judge: Arc<Judge>,
    /// Makes reports.
    pub hardware: Hardware,
}

/// Finds out where the guest stands and logs it; blocks, for seconds at most.
///
/// # Errors
///
/// When not even the boot can be measured, or a TPM does not answer.
pub fn find(log: &Arc<Measured>, tpm: Option<&Arc<Tpm<TpmDevice>>>) -> Result<Boot, NoteError> {
    let found = match tpm {
        Some(tpm) => tee::detect_with(tpm)?,
        None => tee::detect(),
    };
    let hardware: Hardware = found.map(Arc::from);
    log.note(boot_entry(&hardware))?;
    let bound = bound(&hardware);
    let found = disks::scan(Path::new("/sys/block"), Path::new("/dev"));
    let standing = settle::settle(bound, found, log, |document| {
        files::lay_out(Path::new(agent_protocol::initdata::DIRECTORY), document)
    });
    let tee = hardware.as_ref().map_or("none", |tee| tee.kind().name());
    match &standing {
        Standing::Open { .. } => info!(tee, "no initdata"),
        Standing::Awaiting(_) => warn!(tee, "launch binds what has not come"),
        Standing::Configured => info!(tee, "initdata taken"),
        Standing::Policy(_) => info!(tee, "policy taken"),
        Standing::Refused(reason) => error!(tee, told = %reason, "every request will be refused"),
    }
    Ok(Boot {
        judge: Arc::new(Judge::new(&standing, Arc::clone(log))),
        hardware,
    })
}

/// The standing of an agent that is not the guest's first process, as in tests: there
/// is no hardware and no disk.
///
/// # Errors
///
/// When not even the start can be measured.
pub fn none(log: &Arc<Measured>) -> Result<Boot, NoteError> {
    log.note(boot_entry(&None))?;
    Ok(Boot {
        judge: Arc::new(Judge::new(&Standing::Open { bound: None }, Arc::clone(log))),
        hardware: None,
    })
}

fn boot_entry(hardware: &Hardware) -> BootEntry {
    let told = |path| std::fs::read_to_string(path).unwrap_or_default();
    let line = told("/proc/cmdline");
    BootEntry {
        agent: VERSION.to_owned(),
        kernel: told("/proc/sys/kernel/osrelease").trim_end().to_owned(),
        cmdline: Sha256Digest::of(&[line.trim_end_matches('\n').as_bytes()]),
        tee: hardware.as_ref().map(|tee| tee.kind().name().to_owned()),
    }
}

/// What of the launch binds initdata.
fn bound(hardware: &Hardware) -> Result<Bound, error::BoundError> {
    match hardware {
        Some(tee) if tee.kind() == TeeKind::AzSnpVtpm => Ok(Bound::Register),
        Some(tee) => Ok(Bound::HostData(OwnReport::ask(&**tee)?.host_data())),
        None if tee::is_confidential() => Err(error::BoundError::NoReports),
        None => Ok(Bound::Nothing),
    }
}
