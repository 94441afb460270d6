//! Azure's confidential VMs: what the paravisor's TPM gives (`az-snp-vtpm`).
//!
//! The paravisor asked for the hardware's report and keeps it in an NV index of its TPM;
//! 64 bytes that the guest writes to another index it includes in the next one, some
//! seconds later. A key that the report vouches for signs a quote of the nonce and the
//! PCRs, which have the measurement log and the initdata
//! (Azure, *guest attestation for confidential VMs*).
//!
//! Nothing here is judged: whoever made the TPM up fails at the verifier.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    source::{Tee, TeeError, TeeKind},
    tpm::{LOG_PCR, Tpm, TpmError},
};
use crate::{
    azure::{HclReport, compose, workload_nonce},
    field::ReportData,
    log::MeasurementLog,
    obtained::Obtained,
};

/// The paravisor's blob.
const REPORT_INDEX: u32 = 0x0140_0001;
/// What the guest wants in the next one.
const USER_DATA_INDEX: u32 = 0x0140_0002;
/// The key `HCLAkPub`.
const ATTESTATION_KEY: u32 = 0x8100_0003;
/// The paravisor makes a report every few seconds at most.
const REFRESH: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(500);

/// Evidence through the paravisor's TPM.
#[derive(Debug)]
pub struct Paravisor<T> {
    tpm: Arc<Tpm<T>>,
    /// One question at a time: they share the index.
    turn: Mutex<()>,
    patience: Duration,
}

impl<T: Read + Write> Paravisor<T> {
    /// Looks for the paravisor's report of an SNP guest in this TPM.
    ///
    /// # Errors
    ///
    /// [`TpmError`] if the TPM does not say whether it has one.
    pub fn find(tpm: &Arc<Tpm<T>>) -> Result<Option<Self>, TpmError> {
        let blob = tpm.nv_read(REPORT_INDEX)?;
        let is_snp = blob.is_some_and(|blob| HclReport::parse(&blob).is_ok());
        Ok(is_snp.then(|| Self {
            tpm: Arc::clone(tpm),
            turn: Mutex::new(()),
            patience: REFRESH,
        }))
    }

    /// The same, but waits no longer than this for a new report.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The report with these bytes in its runtime data; waits until the paravisor has
    /// made it. Other users of the TPM are served meanwhile.
    fn report_with(&self, user_data: &ReportData) -> Result<Vec<u8>, TeeError> {
        self.tpm.nv_write(USER_DATA_INDEX, &user_data.0)?;
        let deadline = Instant::now() + self.patience;
        loop {
            let blob = self.tpm.nv_read(REPORT_INDEX)?.ok_or(TeeError::Answer)?;
            let report = HclReport::parse(&blob).map_err(|_| TeeError::Answer)?;
            if report.user_data().as_ref() == Some(user_data) {
                return Ok(blob);
            }
            if Instant::now() >= deadline {
                return Err(TeeError::Silent(self.patience));
            }
            thread::sleep(PAUSE);
        }
    }
}

impl<T: Read + Write + Send> Tee for Paravisor<T> {
    fn kind(&self) -> TeeKind {
        TeeKind::AzSnpVtpm
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Obtained {
            report: self.report_with(report_data)?,
            // Azure gives them by a service of its own, which a verifier asks as well.
            certificates: Vec::new(),
        })
    }

    /// CoCo's form, version 2: the quote answers [`workload_nonce`] and has the log in PCR 15.
    fn evidence(&self, nonce: &[u8], log: &MeasurementLog) -> Result<String, TeeError> {
        let nonce = workload_nonce(nonce).0;
        let user_data = ReportData::padded(&nonce).map_err(|_| TpmError::Nonce(nonce.len()))?;
        // First, because it is quick.
        let quote = self.tpm.quote(ATTESTATION_KEY, &nonce)?;
        if quote.pcrs.get(usize::from(LOG_PCR)) != Some(&log.register_256()) {
            return Err(TeeError::OtherLog);
        }
        let obtained = self.obtain(&user_data)?;
        Ok(compose(&quote, &obtained, log))
    }
}
