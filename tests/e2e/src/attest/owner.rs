//! The owner of a pod, who has `kata-cc verify` and what the host never saw.

use std::{ffi::OsStr, fs, path::PathBuf, process::Command, time::Duration};

use agent_evidence::log::MeasurementLog;
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests_harness::{SimulatedTee, built, run};

use crate::Stage;

const DEADLINE: Duration = Duration::from_secs(60);

/// What an owner expects; a test changes one field.
#[derive(Clone)]
pub(super) struct Owner {
    directory: PathBuf,
    image: PathBuf,
    /// The trust anchors; AMD's if there are none.
    pub(super) roots: Option<PathBuf>,
    pub(super) references: Value,
    pub(super) nonce: &'static str,
    /// What was given to the pod: the option that says so, and the text.
    pub(super) given: (&'static str, String),
    pub(super) workload: Option<Value>,
    pub(super) vcpus: u32,
}

impl Owner {
    /// Who gave this document to a pod on a simulated processor and accepts it with one vCPU.
    pub(super) fn of(stage: &Stage, tee: &SimulatedTee, initdata: &str) -> Result<Self> {
        let directory = stage.bed().node().path("/run/bed/owner-of-evidence");
        fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            image: tee.image().to_owned(),
            roots: Some(tee.roots(stage.bed())),
            references: json!({
                "products": {"Genoa": {
                    "tcb": {"bootloader": 10, "tee": 1, "snp": 23, "microcode": 84},
                    "firmware": "1.55.0",
                }},
                "revocation": "optional",
                "guest_policy": {"abi_major": 0, "abi_minor": 0, "smt_allowed": true},
                "identities": {"measurements": []},
            }),
            nonce: "today",
            given: ("--initdata", initdata.to_owned()),
            workload: None,
            vcpus: 1,
        })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// What `kata-cc verify --json` says of evidence.
    fn verdict(&self, evidence: &Value) -> Result<Value> {
        self.verdict_with(evidence, &[])
    }

    fn verdict_with(&self, evidence: &Value, further: &[&OsStr]) -> Result<Value> {
        let mut command = Command::new(built("kata-cc")?);
        command
            .arg("verify")
            .arg(self.write("evidence.json", evidence.to_string())?)
            .arg("--references")
            .arg(self.write("references.json", self.references.to_string())?)
            .arg(self.given.0)
            .arg(self.write("given", &self.given.1)?)
            .arg("--guest-image")
            .arg(&self.image)
            .args(["--vcpus", &self.vcpus.to_string()])
            .args(["--nonce", &hex::encode(self.nonce), "--json"]);
        if let Some(roots) = &self.roots {
            command.arg("--roots").arg(roots);
        }
        if let Some(workload) = &self.workload {
            command
                .arg("--workload")
                .arg(self.write("workload.json", workload.to_string())?);
        }
        command.args(further);
        let ran = run(command, DEADLINE)?;
        let verdict: Value = serde_json::from_str(&ran.stdout)
            .with_context(|| format!("kata-cc verify: {ran:?}"))?;
        ensure!(
            ran.code == Some(i32::from(verdict["accepted"] != true)),
            "{ran:?}"
        );
        Ok(verdict)
    }

    /// The checks that refuse evidence; none if it is accepted.
    pub(super) fn refusals(&self, evidence: &Value) -> Result<Vec<String>> {
        let verdict = self.verdict(evidence)?;
        let refused: Vec<String> = verdict["checks"]
            .as_array()
            .context("a verdict has checks")?
            .iter()
            .filter(|finding| finding["outcome"] == "refused")
            .flat_map(|finding| finding["check"].as_str().map(str::to_owned))
            .collect();
        ensure!(
            verdict["accepted"] == refused.is_empty(),
            "evidence is refused by a check, or accepted: {verdict}"
        );
        Ok(refused)
    }

    /// What may run from now on: what this evidence shows.
    pub(super) fn expect_what_ran(&mut self, evidence: &Value) -> Result<()> {
        let path = self.directory.join("learnt.json");
        let verdict = self.verdict_with(evidence, &["--learn".as_ref(), path.as_os_str()])?;
        ensure!(verdict["accepted"] == true, "{verdict}");
        let learnt: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let containers = learnt["containers"].as_array().map_or(0, Vec::len);
        ensure!(containers == 1, "{learnt}");
        self.workload = Some(learnt);
        Ok(())
    }
}

/// Evidence with its log's first event cut out.
pub(super) fn without_first_event(evidence: &Value) -> Result<Value> {
    let text = evidence["log"].as_str().context("evidence has a log")?;
    let log = policy_appraisal::replay(&STANDARD.decode(text)?)?;
    let mut shorter = MeasurementLog::new();
    for event in log.events().iter().skip(1) {
        shorter.append(event.clone())?;
    }
    let mut edited = evidence.clone();
    edited["log"] = STANDARD.encode(shorter.as_bytes()).into();
    Ok(edited)
}
