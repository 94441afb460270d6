//! What an owner gives to a pod, and what the pod can prove.

use std::{
    collections::{BTreeMap, HashMap},
    time::{SystemTime, UNIX_EPOCH},
};

use agent_evidence::{
    Check, HostData, Timestamp,
    evidence::{LoggedEvidence, LoggedExpected},
    log::{AllowedContainer, Entry, MeasurementLog, Workload},
    snp::{ReferenceValues, Roots},
};
use agent_protocol::initdata::{
    ANNOTATION, Algorithm, POLICY_ANNOTATION,
    packed::{from_annotation, pack, to_annotation, unpack},
    write,
};
use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tests_harness::{ContainerRequest, Pod, PodRequest, SimulatedTee, firmware_is_installed};

use crate::Stage;

const DROP_IN: &str = "/run/bed/kata-cc/config.d/50-attest.toml";
/// How the host lies about what the launch binds: nothing.
const UNBIND: &str = r#"for argument; do
    set -- "$@" "$(sed -E 's|"host-data":"[^"]*"|"host-data":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="|' <<<"$argument")"
    shift
done"#;

const POLICY: &str = "package agent_policy\n\ndefault AllowRequestsFailingPolicy := false\n";

/// The annotation's value for initdata with one entry.
fn initdata(name: &str, text: &str) -> Result<String> {
    let entries = BTreeMap::from([(name.to_owned(), text.to_owned())]);
    Ok(to_annotation(&pack(&write(Algorithm::Sha256, &entries)?)?))
}

fn pod<'bed>(stage: &'bed Stage, annotations: &[(&str, &str)]) -> Result<Pod<'bed>> {
    let pairs = annotations.iter();
    let annotations: HashMap<String, String> = pairs
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let request = PodRequest {
        annotations,
        ..PodRequest::default()
    };
    Pod::run(stage.bed(), stage.handler(), request)
}

/// A pod with initdata runs like any other, and its containers hear that no TEE protects them.
///
/// # Errors
/// When the claim does not hold.
pub fn a_pod_with_initdata_runs(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let value = initdata("aa.toml", "[token_configs]\n")?;
    let pod = pod(stage, &[(ANNOTATION, &value)])?;
    let ask = "wget -qO- http://127.0.0.1:8006/info; \
               wget -O- 'http://127.0.0.1:8006/aa/evidence?runtime_data=n' 2>&1";
    let exit = pod.complete(ContainerRequest::shell(ask))?;
    ensure!(
        exit.stdout.contains(r#""feature":"attestation""#),
        "{exit:?}"
    );
    ensure!(exit.stdout.contains("500 Internal"), "{exit:?}");
    pod.remove()
}

/// What the guest would not take, or cannot honour, ends the pod with a sentence.
///
/// # Errors
/// When the claim does not hold.
pub fn what_the_guest_cannot_take_is_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let good = initdata("aa.toml", "")?;
    let with_policy = initdata("policy.rego", POLICY)?;
    let policy = STANDARD.encode(POLICY);
    let both = [(ANNOTATION, good.as_str()), (POLICY_ANNOTATION, &policy)];
    for (annotations, words) in [
        (
            &[(ANNOTATION, "*")][..],
            "initdata annotation is not base64",
        ),
        (&[(ANNOTATION, "YWJj")], "gzip"),
        (&both, "the launch can bind one of them"),
        (&[(ANNOTATION, &with_policy)], "does not evaluate policies"),
        (
            &[(POLICY_ANNOTATION, &policy)],
            "does not evaluate policies",
        ),
    ] {
        match pod(stage, annotations) {
            Ok(_) => bail!("a pod runs that should fail with {words:?}"),
            Err(error) => ensure!(format!("{error:#}").contains(words), "{error:#}"),
        }
    }
    Ok(())
}

/// With a simulated secure processor, or not at all: nothing else here makes reports.
fn with_tee(
    stage: &'static Stage,
    script: &str,
    claim: fn(&'static Stage, &SimulatedTee) -> Result<()>,
) -> Result<()> {
    let _turn = stage.alone();
    if !stage.has_vms() {
        return Ok(());
    }
    if !firmware_is_installed() {
        eprintln!("skipped: the firmware of ovmf-amdsev is not installed");
        return Ok(());
    }
    let tee = SimulatedTee::install(stage.bed())?;
    tee.wrap(stage.bed(), script)?;
    stage.bed().node().write(DROP_IN, tee.configuration())?;
    let result = claim(stage, &tee);
    std::fs::remove_file(stage.bed().node().path(DROP_IN))?;
    result
}

/// What an owner expects; each field is changed once.
#[derive(Clone)]
struct Owner {
    roots: Roots,
    references: ReferenceValues,
    nonce: Vec<u8>,
    host_data: HostData,
    workload: Workload,
    at: Timestamp,
}

impl Owner {
    fn of(stage: &Stage, tee: &SimulatedTee, annotation: &str) -> Result<Self> {
        let references = json!({
            "products": {"Genoa": {
                "tcb": {"bootloader": 10, "tee": 1, "snp": 23, "microcode": 84},
                "firmware": "1.55.0",
            }},
            "revocation": "optional",
            "guest_policy": {"abi_major": 0, "abi_minor": 0, "smt_allowed": true},
            "identities": {"measurements": [tee.launch_digest(1)?]},
        });
        let document = unpack(&from_annotation(annotation)?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self {
            roots: Roots::parse(&tee.roots(stage.bed())?)?,
            references: serde_json::from_value(references)?,
            nonce: b"today".to_vec(),
            host_data: HostData(document.digest().host_data()),
            workload: Workload::default(),
            at: Timestamp::from_unix_seconds(now.try_into()?),
        })
    }

    fn refusals(&self, evidence: &LoggedEvidence) -> Vec<Check> {
        let expected = LoggedExpected {
            nonce: &self.nonce,
            host_data: self.host_data,
        };
        let workload = Some(&self.workload);
        let verdict =
            evidence.appraise_with(&self.roots, &self.references, &expected, workload, self.at);
        let mut checks: Vec<Check> = verdict.refusals().map(|finding| finding.check).collect();
        checks.dedup();
        if !verdict.is_accepted() && checks.is_empty() {
            checks.extend(verdict.findings().first().map(|finding| finding.check));
        }
        checks
    }
}

fn evidence(pod: &Pod<'_>) -> Result<LoggedEvidence> {
    let ask = "wget -qO- 'http://127.0.0.1:8006/aa/evidence?runtime_data=today'";
    let exit = pod.complete(ContainerRequest::shell(ask))?;
    LoggedEvidence::parse(exit.stdout.trim().as_bytes())
        .with_context(|| format!("the pod's evidence: {exit:?}"))
}

fn containers(log: &MeasurementLog) -> Result<Vec<AllowedContainer>> {
    let mut containers = Vec::new();
    for event in log.events() {
        if let Some(Entry::Container(entry)) = Entry::of(event).transpose()?
            && let Some(image) = entry.image
        {
            containers.push(AllowedContainer {
                image,
                process: Some(entry.process),
                at_most: 1,
            });
        }
    }
    Ok(containers)
}

/// One pod's evidence is accepted by its owner, and refused when anything differs from
/// what the owner expects.
///
/// # Errors
/// When the claim does not hold.
pub fn a_pod_proves_what_ran_and_every_change_is_refused_by_name(
    stage: &'static Stage,
) -> Result<()> {
    with_tee(stage, "", prove)
}

fn prove(stage: &'static Stage, tee: &SimulatedTee) -> Result<()> {
    let annotation = initdata("aa.toml", "a = 1\n")?;
    let first = pod(stage, &[(ANNOTATION, &annotation)])?;
    let mut owner = Owner::of(stage, tee, &annotation)?;
    let good = evidence(&first)?;
    owner.workload.containers = containers(&good.log)?;
    ensure!(owner.workload.containers.len() == 1, "{:?}", owner.workload);
    let refusals = owner.refusals(&good);
    ensure!(
        refusals.is_empty(),
        "genuine evidence is refused: {refusals:?}"
    );

    let second = evidence(&first)?;
    first.remove()?;
    let mut foreign = good.clone();
    foreign.report = second.report.clone();
    let mut edited = good.clone();
    edited.log = MeasurementLog::new();
    for event in good.log.events().iter().skip(1) {
        edited.log.append(event.clone())?;
    }
    for (what, evidence, check) in [
        ("a report of another question", &foreign, Check::ReportData),
        ("an edited log", &edited, Check::MeasurementLog),
        ("an extra container", &second, Check::Workload),
    ] {
        let refusals = owner.refusals(evidence);
        ensure!(refusals.contains(&check), "{what}: {refusals:?}");
    }
    for (what, change, check) in changes() {
        let mut changed = owner.clone();
        change(&mut changed)?;
        let refusals = changed.refusals(&good);
        ensure!(refusals == [check], "{what}: {refusals:?}");
    }
    // Another number of vCPUs is another launch, as are another kernel, initrd and command line.
    let mut other = owner.clone();
    other.references.identities.measurements = [tee.launch_digest(2)?.parse()?].into();
    let refusals = other.refusals(&good);
    ensure!(refusals == [Check::GuestIdentity], "{refusals:?}");
    Ok(())
}

type Change = fn(&mut Owner) -> Result<()>;

fn changes() -> [(&'static str, Change, Check); 5] {
    [
        (
            "a replayed nonce",
            |owner| {
                owner.nonce = b"tomorrow".to_vec();
                Ok(())
            },
            Check::ReportData,
        ),
        (
            "other initdata",
            |owner| {
                let other = unpack(&from_annotation(&initdata("aa.toml", "a = 2\n")?)?)?;
                owner.host_data = HostData(other.digest().host_data());
                Ok(())
            },
            Check::HostData,
        ),
        (
            "an old TCB",
            |owner| {
                for floor in owner.references.products.values_mut() {
                    floor.tcb.snp += 1;
                }
                Ok(())
            },
            Check::TcbFloor,
        ),
        (
            "another guest policy",
            |owner| {
                owner.references.guest_policy.single_socket = true;
                Ok(())
            },
            Check::GuestPolicy,
        ),
        (
            "AMD's roots",
            |owner| {
                owner.roots = Roots::amd();
                Ok(())
            },
            Check::Chain,
        ),
    ]
}

/// The host gives other `HOST_DATA` than the digest of the disk that it delivers.
///
/// # Errors
/// When the claim does not hold.
pub fn a_guest_whose_launch_binds_something_else_refuses_everything(
    stage: &'static Stage,
) -> Result<()> {
    with_tee(stage, UNBIND, |stage, _| {
        let annotation = initdata("aa.toml", "a = 1\n")?;
        for (annotations, words) in [
            (
                &[(ANNOTATION, annotation.as_str())][..],
                "but the launch binds 0101",
            ),
            (&[], "the host delivered neither"),
            (
                &[(POLICY_ANNOTATION, "YWJj")],
                "the policy has the digest ba7816bf",
            ),
        ] {
            match pod(stage, annotations) {
                Ok(_) => bail!("a pod runs that should fail with {words:?}"),
                Err(error) => ensure!(format!("{error:#}").contains(words), "{error:#}"),
            }
        }
        Ok(())
    })
}
