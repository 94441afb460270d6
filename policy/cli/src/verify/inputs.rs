//! What a verdict is made from, read and parsed before anything is judged.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use agent_evidence::{HostData, LaunchMeasurement, ReportData, Sha256Digest};
use agent_protocol::initdata::{Initdata, PolicyText};
use anyhow::{Context as _, Result, bail};
use guest_image_measurement::Sha384Digest;
use policy_appraisal::{
    Evidence, EvidenceError, Freshness, MAX_EVIDENCE_LEN, Timestamp, Workload,
    azure::PcrReferences,
    snp::{ReferenceValues, Roots},
};
use serde::de::DeserializeOwned;

use super::{Options, certificates::endorse, guard::Guards};
use crate::measure::expected;

/// Longest file read of those that an owner writes, in bytes.
const MAX_OWN_LEN: usize = 4 * 1024 * 1024;

/// Bytes written in hexadecimal.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl FromStr for Bytes {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode(text).map(Self)
    }
}

/// Everything, parsed.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) evidence: Evidence,
    pub(crate) references: ReferenceValues,
    pub(crate) roots: Roots,
    pub(crate) at: Timestamp,
    pub(crate) freshness: Freshness,
    pub(crate) host_data: HostData,
    pub(crate) initdata_digest: Option<Sha256Digest>,
    pub(crate) pcrs: PcrReferences,
    pub(crate) workload: Option<Workload>,
    pub(crate) guards: Guards,
}

impl Inputs {
    pub(crate) fn read(options: &Options) -> Result<Self> {
        let mut evidence = evidence(&options.evidence)?;
        let mut references: ReferenceValues = json("the references", &options.references)?;
        let mut guards = Guards::default();
        for image in &options.guest_image {
            for launch in expected(&options.launches, image)? {
                let measurement = LaunchMeasurement(*launch.launch_digest.as_bytes());
                references.identities.measurements.insert(measurement);
                guards.add(measurement, launch.guard);
            }
        }
        endorse(&mut evidence, options)?;
        Ok(Self {
            evidence,
            references,
            roots: roots(options)?,
            at: options.time.map_or_else(now, Ok)?,
            freshness: freshness(options)?,
            host_data: host_data(options)?,
            initdata_digest: options.initdata_digest,
            pcrs: match &options.pcrs {
                Some(path) => json("the PCR values", path)?,
                None => PcrReferences::default(),
            },
            workload: match &options.workload {
                Some(path) => Some(json("the workload", path)?),
                None => None,
            },
            guards,
        })
    }
}

/// Evidence of any form; [`EvidenceError`] is in the error if the file can be read and is none.
fn evidence(path: &Path) -> Result<Evidence> {
    let text = read_up_to(path, MAX_EVIDENCE_LEN)?;
    let evidence = match text {
        Some(text) => Evidence::parse(&text),
        None => Err(EvidenceError::TooLong),
    };
    evidence.with_context(|| format!("the evidence {}", path.display()))
}

fn roots(options: &Options) -> Result<Roots> {
    match &options.roots {
        None => Ok(Roots::amd()),
        Some(path) => {
            let roots = Roots::parse(&bounded(path, MAX_OWN_LEN)?);
            roots.with_context(|| format!("the roots {}", path.display()))
        }
    }
}

fn freshness(options: &Options) -> Result<Freshness> {
    let padded = |bytes: &[u8]| Ok(Freshness::ReportData(ReportData::padded(bytes)?));
    match (&options.nonce, &options.report_data, &options.runtime_data) {
        (Some(nonce), _, _) => Ok(Freshness::Nonce(nonce.0.clone())),
        (_, Some(bytes), _) => padded(&bytes.0),
        (_, _, Some(path)) => {
            let digest = Sha384Digest::of(&bounded(path, MAX_OWN_LEN)?);
            padded(digest.as_bytes())
        }
        _ => bail!(
            "without --nonce, --report-data or --runtime-data anybody's old evidence would do: say what was asked for"
        ),
    }
}

fn host_data(options: &Options) -> Result<HostData> {
    if let Some(path) = &options.initdata {
        let document = Initdata::parse(&bounded(path, MAX_OWN_LEN)?);
        let document = document.with_context(|| format!("the initdata {}", path.display()))?;
        return Ok(HostData(document.digest().host_data()));
    }
    if let Some(path) = &options.policy {
        let text = String::from_utf8(bounded(path, MAX_OWN_LEN)?)?;
        let policy = PolicyText::parse(&text);
        let policy = policy.with_context(|| format!("the policy {}", path.display()))?;
        return Ok(HostData(policy.host_data()));
    }
    Ok(options.host_data.unwrap_or(HostData::ZERO))
}

fn now() -> Result<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.context("this machine's clock is before 1970: give --time")?;
    Ok(Timestamp::from_unix_seconds(now.as_secs().try_into()?))
}

fn json<T: DeserializeOwned>(what: &str, path: &Path) -> Result<T> {
    let text = bounded(path, MAX_OWN_LEN)?;
    agent_documents::measure_json(&text).with_context(|| format!("{what} {}", path.display()))?;
    let mut reader = serde_json::Deserializer::from_slice(&text);
    let parsed = serde_path_to_error::deserialize(&mut reader);
    let parsed = parsed.with_context(|| format!("{what} {}", path.display()))?;
    reader
        .end()
        .with_context(|| format!("{what} {}", path.display()))?;
    Ok(parsed)
}

pub(super) fn bounded(path: &Path, limit: usize) -> Result<Vec<u8>> {
    match read_up_to(path, limit)? {
        Some(content) => Ok(content),
        None => bail!("{} has more than {limit} bytes", path.display()),
    }
}

/// All of a file, unless it has more bytes than that.
fn read_up_to(path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let shown = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(shown)?;
    let more = u64::try_from(limit)?.saturating_add(1);
    file.take(more)
        .read_to_end(&mut content)
        .with_context(shown)?;
    Ok((content.len() <= limit).then_some(content))
}
