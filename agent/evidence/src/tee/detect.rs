//! Which TEE this guest runs in.

use std::sync::Arc;

#[cfg(feature = "simulated-tee")]
use super::simulated::SimulatedTee;
use super::{
    configfs::ConfigfsTsm,
    paravisor::Paravisor,
    sev_guest::SevGuest,
    source::Tee,
    tpm::{Tpm, TpmDevice, TpmError},
};

/// The TEE that this guest runs in, if it is one that we know and that is asked directly.
pub fn detect() -> Option<Box<dyn Tee>> {
    let configfs = ConfigfsTsm::open().map(|tee| Box::new(tee) as Box<dyn Tee>);
    let found = configfs.or_else(|| SevGuest::open().map(|tee| Box::new(tee) as Box<dyn Tee>));
    #[cfg(feature = "simulated-tee")]
    let found = found.or_else(|| SimulatedTee::open().map(|tee| Box::new(tee) as Box<dyn Tee>));
    found
}

/// The same, or the paravisor whose TPM this is. A report straight from the hardware
/// comes before what a TPM says, which any host can make up.
///
/// # Errors
///
/// When the TPM does not say whether it is a paravisor's.
pub fn detect_with(tpm: &Arc<Tpm<TpmDevice>>) -> Result<Option<Box<dyn Tee>>, TpmError> {
    match detect() {
        Some(tee) => Ok(Some(tee)),
        None => {
            let found = Paravisor::find(tpm)?;
            Ok(found.map(|tee| Box::new(tee) as Box<dyn Tee>))
        }
    }
}

/// Whether the kernel says that it runs in a TEE, whatever [`detect`] finds: in one
/// whose reports cannot be had, what needs a report must fail instead of doing without.
///
/// Linux makes the platform device `sev-guest` from what the processor itself says
/// (`SEV_STATUS`), and the processor flag `tdx_guest` from the TDX module's leaf.
pub fn is_confidential() -> bool {
    let flags = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("flags"))?;
        Some(line.split_whitespace().any(|flag| flag == "tdx_guest"))
    };
    std::path::Path::new("/sys/bus/platform/devices/sev-guest").exists() || flags() == Some(true)
}
