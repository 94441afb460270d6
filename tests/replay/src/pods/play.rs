//! A pod's whole life: init containers first, hooks and probes, what has to come of it, its end.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use k8s_cri::v1::ContainerState;
use serde_json::{Value, json};
use tests_harness::wait_until;

use super::{
    changes::deny_changes,
    expected::{Container, End, Expected},
    life::Life,
};
use crate::kubelet::list;

/// Longer than a program of the pods takes to end or to be ready, on an emulated processor.
const SOON: Duration = Duration::from_secs(90);
/// A pod is deleted with this grace period, in seconds.
const GRACE_SECONDS: i64 = 1;

/// A container of the pod that was started.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) name: String,
    pub(super) id: String,
}

impl Life<'_> {
    /// Drives the pod as its YAML says, and denies the node each change of a container before it is
    /// started.
    ///
    /// # Errors
    /// What came otherwise than expected.
    pub fn play(&mut self, expected: &Expected) -> Result<()> {
        let mut started = Vec::new();
        let spec = self.pod()["spec"].clone();
        for container in list(&spec["initContainers"]) {
            let one = self.bring_up(expected.pod, container)?;
            match container["restartPolicy"] == "Always" {
                true => self.probe(&one, container, "startupProbe")?,
                false => self.wait_for_end(&one, 0)?,
            }
            started.push(one);
        }
        for container in list(&spec["containers"]) {
            started.push(self.bring_up(expected.pod, container)?);
        }
        for container in list(&spec["containers"]) {
            let mut all = started.iter();
            let one = all.find(|one| container["name"] == one.name.as_str());
            let one = one.context("every container was started")?;
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                self.probe(one, container, probe)?;
            }
        }
        for container in expected.containers {
            let mut all = started.iter();
            let one = all.find(|one| one.name == container.name);
            let one = one.with_context(|| format!("{} was not started", container.name))?;
            self.judge(one, container)
                .with_context(|| format!("container {}", container.name))?;
        }
        ensure!(
            started.len() == expected.containers.len(),
            "unexpected containers"
        );
        self.stop(&started, expected)
    }

    /// Starts a container after each change of it was denied, and runs its hook.
    fn bring_up(&mut self, pod: &str, container: &Value) -> Result<Started> {
        let name = container["name"]
            .as_str()
            .context("a container has a name")?;
        let config = self.config(name)?;
        deny_changes(self, pod, name, &config)?;
        let id = self.start(&config)?;
        let id = id.map_err(|refusal| anyhow!("container {name}: {refusal}"))?;
        let one = Started {
            name: name.to_owned(),
            id,
        };
        self.hook(&one, container, "postStart")?;
        Ok(one)
    }

    /// Runs a hook; its words are taken as they are.
    fn hook(&self, one: &Started, container: &Value, hook: &str) -> Result<()> {
        let command = &container["lifecycle"][hook]["exec"]["command"];
        if command.is_array() {
            let answer = self.exec(
                &one.id,
                &serde_json::from_value::<Vec<String>>(command.clone())?,
            )?;
            let answer = answer.map_err(|refusal| anyhow!("{hook} of {}: {refusal}", one.name))?;
            ensure!(answer.exit_code == 0, "{hook} of {}: {answer:?}", one.name);
        }
        Ok(())
    }

    /// Asks a probe until it is content.
    fn probe(&self, one: &Started, container: &Value, probe: &str) -> Result<()> {
        let command = &container[probe]["exec"]["command"];
        if !command.is_array() {
            return Ok(());
        }
        let command = self.expanded(container, command);
        wait_until(&format!("{probe} of {}", one.name), SOON, || {
            let answer = self.exec(&one.id, &command)?;
            let answer = answer.map_err(|refusal| anyhow!("{probe} of {}: {refusal}", one.name))?;
            Ok(answer.exit_code == 0)
        })
    }

    pub(super) fn wait_for_end(&self, one: &Started, code: i32) -> Result<()> {
        wait_until(&format!("{} ends", one.name), SOON, || {
            Ok(self.status(&one.id)?.state == ContainerState::ContainerExited as i32)
        })
        .with_context(|| format!("it said {:?}", self.output(&one.name)))?;
        let found = self.status(&one.id)?.exit_code;
        let said = self.output(&one.name)?;
        ensure!(found == code, "{} ended with {found}: {said}", one.name);
        Ok(())
    }

    /// Holds a container against what is expected of it. What runs also denies a command that
    /// its policy has not.
    fn judge(&self, one: &Started, expected: &Container) -> Result<()> {
        if let End::Exits(code) = expected.end {
            self.wait_for_end(one, code)?;
        }
        wait_until(&format!("it says {:?}", expected.says), SOON, || {
            Ok(self
                .output(&one.name)?
                .replace('\r', "")
                .contains(expected.says))
        })
        .with_context(|| format!("it said {:?}", self.output(&one.name)))?;
        if expected.end == End::Runs {
            let running = self.status(&one.id)?.state == ContainerState::ContainerRunning as i32;
            ensure!(running, "it has ended: {:?}", self.status(&one.id)?);
            let words = ["cat", "/etc/shadow"].map(str::to_owned);
            let refusal = self.exec(&one.id, &words)?.err();
            let refusal = refusal.context("a command that the policy has not was run")?;
            super::changes::is_denied(&refusal, "EXEC_NOT_DECLARED", "")?;
        }
        Ok(())
    }

    /// Stops what runs, all at once, as a kubelet does; what handles its stop signal ends well.
    fn stop(&self, started: &[Started], expected: &Expected) -> Result<()> {
        let runs = |one: &&Started| {
            let mut all = expected.containers.iter();
            all.any(|container| container.name == one.name && container.end == End::Runs)
        };
        let running: Vec<_> = started.iter().filter(runs).collect();
        for one in &running {
            self.hook(one, &self.container(&one.name)?, "preStop")?;
        }
        std::thread::scope(|scope| {
            let stop = |one: &Started| {
                let request = json!({"container_id": one.id, "timeout": GRACE_SECONDS.to_string()});
                let answer = self.ask("StopContainer", &request)?;
                answer.map_err(|refusal| anyhow!("stopping {}: {refusal}", one.name))
            };
            let all: Vec<_> = running
                .iter()
                .map(|&one| scope.spawn(move || stop(one)))
                .collect();
            let ended = all.into_iter().map(|one| one.join());
            ended
                .map(|one| one.expect("a stop does not panic").map(drop))
                .collect::<Result<Vec<()>>>()
        })?;
        for one in running {
            let status = self.status(&one.id)?;
            let ended = status.state == ContainerState::ContainerExited as i32;
            ensure!(ended, "{} runs on: {status:?}", one.name);
        }
        Ok(())
    }
}
