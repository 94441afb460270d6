//! `kata-cc verify`: judges evidence, and says what the guest did.
//!
//! Everything that decides comes from the command line: evidence, reference values, roots,
//! time, nonce. Evidence is hostile; it is parsed and judged by `policy-appraisal`, and what is
//! printed of it is escaped. A value that is missing refuses, it never passes by default.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | accepted: every check was made and passed |
//! | 1 | refused: at least one check refused, or was not reached |
//! | 2 | wrong usage |
//! | 3 | an input cannot be read, or is not what it should be |
//! | 4 | the evidence is malformed, or of a form that is not known |
//!
//! With `--json` each of them prints an object with `accepted`, `checks`, `kernel_guard` and `log`;
//! where there is no verdict, checks and log are empty, the guard is unknown, and `error` says why.

mod certificates;
mod failure;
mod guard;
mod inputs;
mod judge;
mod kds;
mod learn;
mod show;

use std::path::PathBuf;

use agent_evidence::HostData;
use clap::Args;
pub(crate) use failure::of_usage;
use guest_image_measurement::launches::Launches;
use inputs::{Bytes, Inputs};
use judge::Judged;
use policy_appraisal::Timestamp;
pub(crate) use show::escaped;

/// Exit code for evidence that was refused.
const REFUSED: u8 = 1;

/// Judge evidence of a guest: which chip signed it, what booted, what was bound, what ran.
///
/// Exit codes: 0 accepted, 1 refused, 2 wrong usage, 3 an input cannot be read or is not what
/// it should be, 4 the evidence is malformed.
#[derive(Args)]
pub(crate) struct Options {
    /// Evidence, JSON: this project's own form, or CoCo's snp or az-snp-vtpm
    evidence: PathBuf,
    /// What is accepted, JSON
    #[arg(long, value_name = "FILE")]
    references: PathBuf,
    /// Trust anchors instead of AMD's, PEM or DER
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Time at which certificates and lists are judged, as 2026-01-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    time: Option<Timestamp>,
    /// Nonce that was given for this evidence, in hexadecimal
    #[arg(long, value_name = "HEX", group = "freshness")]
    nonce: Option<Bytes>,
    /// Report data that CoCo's snp form must have, in hexadecimal
    #[arg(long, value_name = "HEX", group = "freshness")]
    report_data: Option<Bytes>,
    /// Runtime data whose SHA-384 CoCo's snp form must have as report data
    #[arg(long, value_name = "FILE", group = "freshness")]
    runtime_data: Option<PathBuf>,
    /// HOST_DATA that binds initdata or policy [default: zeros, a guest without]
    #[arg(long, value_name = "HEX", group = "binding")]
    host_data: Option<HostData>,
    /// Initdata document whose digest HOST_DATA must be
    #[arg(long, value_name = "FILE", group = "binding")]
    initdata: Option<PathBuf>,
    /// Policy whose digest HOST_DATA must be, as AKS binds it
    #[arg(long, value_name = "FILE", group = "binding")]
    policy: Option<PathBuf>,
    /// Digest of the initdata that az-snp-vtpm evidence must have in PCR 8, in hexadecimal
    #[arg(long, value_name = "HEX")]
    initdata_digest: Option<agent_evidence::Sha256Digest>,
    /// PCR values that az-snp-vtpm evidence may have, JSON
    #[arg(long, value_name = "FILE")]
    pcrs: Option<PathBuf>,
    /// Guest image or IGVM file that may have booted, beside the measurements in the references (repeatable)
    #[arg(long, value_name = "PATH")]
    guest_image: Vec<PathBuf>,
    /// Endorsement of the image that booted, as AKS and ACI have it: raw or in base64
    #[arg(long, value_name = "FILE")]
    uvm_endorsement: Option<PathBuf>,
    #[command(flatten)]
    launches: Launches,
    /// What may have run, JSON; without it the log is only shown
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// Write what ran as a file for --workload, if the evidence is accepted
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    learn: Option<PathBuf>,
    /// Certificates beside the evidence's: PEM, DER, a certificate table, or what Azure's
    /// certificate service (THIM) answers (repeatable)
    #[arg(long, value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Revocation lists beside the evidence's: PEM or DER (repeatable)
    #[arg(long, value_name = "FILE")]
    revocation_list: Vec<PathBuf>,
    /// Directory in which certificates and lists are looked for and kept
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Fetch what the store lacks from a key server, such as <https://kdsintf.amd.com>
    #[arg(long, value_name = "URL", requires = "store")]
    kds: Option<String>,
    /// Print every check as JSON
    #[arg(long)]
    json: bool,
}

/// Judges and prints; gives the exit code.
pub(crate) fn run(options: &Options) -> u8 {
    let judged = Inputs::read(options)
        .and_then(|inputs| judge::judge(&inputs))
        .and_then(|judged| {
            if let Some(path) = &options.learn {
                learn::write(&judged, path)?;
            }
            Ok(judged)
        });
    match judged {
        Ok(judged) => print_verdict(&judged, options.json),
        Err(error) => failure::of_inputs(&error, options.json),
    }
}

fn print_verdict(judged: &Judged, as_json: bool) -> u8 {
    if as_json {
        failure::print_json(judged);
    } else {
        print!("{judged}");
    }
    if judged.is_accepted() { 0 } else { REFUSED }
}
