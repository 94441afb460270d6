//! What the measurement log says about a container: the same for the same pod on every start,
//! whatever the node calls it, and another as soon as anything differs that the pod's owner
//! decides.
//!
//! The spec that the container library gets is taken apart field by field. Each field is in
//! [`TABLE`]: in one of the five parts that have a digest each, or out for a reason. A spec
//! with a field that the table lacks is not run, so nothing is left out unseen. The page is
//! `docs/workload-digest.md`; a test compares it with the table.

mod facts;
mod mounts;
mod source;

use std::collections::BTreeMap;

use agent_evidence::{
    Sha256Digest,
    log::{ContainerDigests, ExecDigests},
};
use agent_protocol::path::GuestPath;
use agent_requests::Sysctl;
pub use facts::pod_facts;
use oci_spec::runtime::{Process as SpecProcess, Spec};
use policy_engine::{
    environment::{self, PodFacts},
    workload::{
        Part::{self, Environment, Mounts, Process, Rights, Settings},
        Workload, is_for_all, sorted,
    },
};
use serde_json::{Value, json};
pub use source::{Source, source};
use thiserror::Error;

/// Where a field of the spec goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    In(Part),
    /// In no part, because.
    Out(&'static str),
}

use Place::{In, Out};

/// Every field of a spec that the guest makes, by its path.
const TABLE: [(&str, Place); 21] = [
    ("ociVersion", Out("the guest's own")),
    ("process.args", In(Process)),
    ("process.cwd", In(Process)),
    ("process.terminal", In(Process)),
    ("process.env", In(Environment)),
    ("process.user.uid", In(Rights)),
    ("process.user.gid", In(Rights)),
    ("process.user.additionalGids", In(Rights)),
    ("process.capabilities", In(Rights)),
    ("process.noNewPrivileges", In(Rights)),
    ("process.rlimits", In(Rights)),
    (
        "process.oomScoreAdj",
        Out("the kubelet makes it of the node's memory"),
    ),
    ("root.path", Out("the guest's own")),
    ("root.readonly", In(Mounts)),
    ("mounts", In(Mounts)),
    ("linux.maskedPaths", In(Rights)),
    ("linux.readonlyPaths", In(Rights)),
    ("linux.seccomp", In(Rights)),
    ("linux.namespaces", In(Settings)),
    (
        "linux.resources",
        Out("a host can always give less; no limit gives access to anything"),
    ),
    ("linux.cgroupsPath", Out("the guest's own")),
];

/// A spec that cannot be told in the log, and so is not run.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// A field that the table lacks: a bug of the guest's.
    #[error("the field {0} of the OCI spec is not in the table of the workload digest")]
    Field(String),
    /// The spec is no JSON: a bug of the guest's.
    #[error("the OCI spec is no JSON")]
    Json(#[from] serde_json::Error),
}

/// What a container is, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// All of it.
    pub workload: Workload,
    /// Its digests.
    pub digests: ContainerDigests,
    /// Values that Kubernetes makes, which are in no digest: `NAME=value`.
    pub chosen: Vec<String>,
}

/// What a further process in a container is.
///
/// # Errors
///
/// [`WorkloadError`] for a process that the guest does not make.
pub fn exec(process: &SpecProcess, facts: &PodFacts) -> Result<ExecDigests, WorkloadError> {
    let mut spec = Spec::default();
    spec.set_process(Some(process.clone()))
        .set_root(None)
        .set_mounts(None)
        .set_linux(None)
        .set_hostname(None);
    let ContainerDigests {
        process,
        environment,
        rights,
        ..
    } = workload(&spec, &[], &[], facts)?.digests;
    Ok(ExecDigests {
        process,
        environment,
        rights,
    })
}

/// Takes the spec of a container that has these volumes apart.
///
/// # Errors
///
/// [`WorkloadError`] for a spec that the guest does not make.
pub fn workload(
    spec: &Spec,
    sysctls: &[Sysctl],
    volumes: &[GuestPath],
    facts: &PodFacts,
) -> Result<Described, WorkloadError> {
    let mut workload = Workload::default();
    let mut chosen = Vec::new();
    let mut put = |path: &str, value: Value| -> Result<bool, WorkloadError> {
        let Some((_, place)) = TABLE.iter().find(|(known, _)| *known == path) else {
            return Ok(false);
        };
        if let In(part) = place {
            let value = normal(path, value, (volumes, facts), &mut chosen)?;
            workload.put(*part, path, value);
        }
        Ok(true)
    };
    take_apart("", serde_json::to_value(spec)?, &mut put)?;
    let sysctls = sysctls
        .iter()
        .filter(|one| !is_for_all(&one.key, &one.value));
    let sysctls: BTreeMap<_, _> = sysctls.map(|one| (&one.key, &one.value)).collect();
    workload.put(Settings, "sysctls", json!(sysctls));
    let digest = |part| Sha256Digest(workload.digest(part));
    let digests = ContainerDigests {
        process: digest(Process),
        environment: digest(Environment),
        mounts: digest(Mounts),
        rights: digest(Rights),
        settings: digest(Settings),
    };
    Ok(Described {
        workload,
        digests,
        chosen: bounded(chosen),
    })
}

/// Calls `put` for each field that it knows, from the outside in.
fn take_apart(
    path: &str,
    value: Value,
    put: &mut impl FnMut(&str, Value) -> Result<bool, WorkloadError>,
) -> Result<(), WorkloadError> {
    if !path.is_empty() && put(path, value.clone())? {
        return Ok(());
    }
    match value {
        Value::Null => Ok(()),
        Value::Object(fields) => fields.into_iter().try_for_each(|(name, field)| {
            let inner = if path.is_empty() {
                name
            } else {
                format!("{path}.{name}")
            };
            take_apart(&inner, field, put)
        }),
        _ => Err(WorkloadError::Field(path.to_owned())),
    }
}

/// A field in the one spelling that all equal ones have.
fn normal(
    path: &str,
    value: Value,
    (volumes, facts): (&[GuestPath], &PodFacts),
    chosen: &mut Vec<String>,
) -> Result<Value, WorkloadError> {
    Ok(match path {
        "process.env" => {
            let environment = environment::normal(serde_json::from_value(value)?, facts);
            chosen.extend(environment.chosen);
            json!(environment.fixed)
        }
        "mounts" => {
            let normal = mounts::normal(serde_json::from_value(value)?, volumes, facts);
            chosen.extend(normal.chosen);
            json!(normal.fixed)
        }
        "linux.namespaces" => json!(namespaces(&value)),
        // Sets, which each release of a node's software writes in its own order.
        "process.user.additionalGids"
        | "process.capabilities"
        | "process.rlimits"
        | "linux.maskedPaths"
        | "linux.readonlyPaths"
        | "linux.seccomp" => sorted(value),
        _ => value,
    })
}

/// The kinds, and whether each is the container's own or the pod's.
fn namespaces(value: &Value) -> Vec<String> {
    let kind = |one: &Value| {
        let name = one.get("type")?.as_str()?;
        let place = if one.get("path").is_some_and(Value::is_string) {
            "the pod's"
        } else {
            "own"
        };
        Some(format!("{name}: {place}"))
    };
    let mut kinds: Vec<_> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(kind)
        .collect();
    kinds.sort();
    kinds
}

/// Most bytes of texts that an entry lists.
const CHOSEN_BYTES_MAX: usize = 4096;

/// Texts for the log, sorted, or their digest where they are too many.
#[must_use]
pub fn bounded(mut chosen: Vec<String>) -> Vec<String> {
    chosen.sort();
    let bytes: usize = chosen.iter().map(String::len).sum();
    if bytes <= CHOSEN_BYTES_MAX {
        return chosen;
    }
    let texts: Vec<&[u8]> = chosen
        .iter()
        .flat_map(|one| [one.as_bytes(), b"\0"])
        .collect();
    vec![format!(
        "{} values, sha256 {}",
        chosen.len(),
        Sha256Digest::of(&texts)
    )]
}

#[cfg(test)]
mod tests;
