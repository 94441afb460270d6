//! The ends of containers and pods, and what is told of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_cri::v1::{ContainerState, ContainerStatus};
use serde_json::{Value, json};
use tests_harness::{stream, wait_until};

use super::Player;
use crate::recording::Call;

/// Longer than a program of the recordings runs, on a machine that emulates processors.
const ENDS_WITHIN: Duration = Duration::from_secs(40);
const LOG_CLOSED: Duration = Duration::from_secs(10);

impl Player<'_> {
    pub(super) fn wait_for_end(&mut self, at: usize) -> Result<()> {
        let id = self.containers[at].live.clone();
        let mut cri = self.cri.clone();
        let ended = wait_until("a container ends", ENDS_WITHIN, || {
            Ok(cri.container_status(&id)?.state == ContainerState::ContainerExited as i32)
        });
        if ended.is_ok() {
            self.containers[at].runs = false;
        }
        self.note_end(at)
    }

    /// Notes what containerd, the log and the termination message say of a container.
    pub(super) fn note_end(&mut self, at: usize) -> Result<()> {
        let (id, name) = (
            self.containers[at].live.clone(),
            self.containers[at].name.clone(),
        );
        let config = self.containers[at].config.clone();
        let status = match self.cri.container_status(&id) {
            Ok(status) => status,
            Err(refusal) => {
                self.say(format!("{name}/status"), format!("{refusal:#}"));
                return Ok(());
            }
        };
        for (field, value) in status_facts(&status) {
            self.say(format!("{name}/status.{field}"), value);
        }
        let directory = self.recording.sandbox_config()?["log_directory"].clone();
        let directory = directory.as_str().unwrap_or_default();
        let log = config["log_path"].as_str().unwrap_or_default();
        let log = format!("{directory}/{log}");
        if !self.containers[at].runs {
            // containerd shows the end before the last line is in the file; what is in it counts.
            let _ = wait_until("containerd closes the log", LOG_CLOSED, || {
                Ok(!self.bed.node().holds_open(&log)?)
            });
        }
        let log = self.bed.node().read(log).unwrap_or_default();
        for kind in ["stdout", "stderr"] {
            self.say(format!("{name}/log.{kind}"), stream(&log, kind));
        }
        let message = termination_message(&config);
        let message = message.and_then(|path| self.bed.node().read(path).ok());
        self.say(format!("{name}/status.told"), message.unwrap_or_default());
        Ok(())
    }

    pub(super) fn stop(&mut self, call: &Call) -> Result<bool> {
        self.look()?;
        let Some((at, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        let mut request = call.request.clone();
        request["container_id"] = json!(live);
        let grace = request["timeout"]
            .as_str()
            .and_then(|digits| digits.parse().ok());
        let grace = Duration::from_secs(grace.unwrap_or(0));
        let before = Instant::now();
        if let Err(refusal) = self.ask("StopContainer", &request)? {
            self.say(format!("{name}/stop"), refusal);
        }
        let took = before.elapsed();
        self.containers[at].runs = false;
        self.note_end(at)?;
        let code = self.outcome.facts.get(&format!("{name}/status.exit"));
        if code.is_some_and(|code| code == "137") {
            let kept = if took < grace { "cut short" } else { "kept" };
            self.say(format!("{name}/status.grace"), kept);
        }
        Ok(true)
    }

    pub(super) fn stop_sandbox(&mut self) -> Result<bool> {
        self.look()?;
        let running = self
            .containers
            .iter()
            .enumerate()
            .filter(|(_, one)| one.runs);
        let running: Vec<_> = running.map(|(at, _)| at).collect();
        for at in running {
            self.note_end(at)?;
        }
        for (volume, files) in self.disk.written(&self.volumes)? {
            self.say(format!("node/{volume}"), files);
        }
        if let Err(refusal) =
            self.ask("StopPodSandbox", &json!({"pod_sandbox_id": self.sandbox}))?
        {
            self.say("pod.stop".to_owned(), refusal);
        }
        Ok(true)
    }

    pub(super) fn remove(&mut self, call: &Call) -> Result<bool> {
        let Some((_, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        if let Err(refusal) = self.ask("RemoveContainer", &json!({"container_id": live}))? {
            self.say(format!("{name}/remove"), refusal);
        }
        Ok(true)
    }
}

/// The host's path of the file for a termination message.
fn termination_message(config: &Value) -> Option<String> {
    let path = &config["annotations"]["io.kubernetes.container.terminationMessagePath"];
    let mut mounts = config["mounts"].as_array()?.iter();
    let mount = mounts.find(|mount| mount["container_path"] == *path)?;
    mount["host_path"].as_str().map(str::to_owned)
}

fn status_facts(status: &ContainerStatus) -> Vec<(&'static str, String)> {
    let user = status.user.as_ref().and_then(|user| user.linux.as_ref());
    let user = user.map_or_else(String::new, |user| {
        format!("{} {} {:?}", user.uid, user.gid, user.supplemental_groups)
    });
    let limits = status.resources.as_ref();
    let limits = limits.and_then(|limits| limits.linux.as_ref());
    let limits = limits.map_or_else(String::new, |limits| {
        let (quota, period) = (limits.cpu_quota, limits.cpu_period);
        let (shares, memory) = (limits.cpu_shares, limits.memory_limit_in_bytes);
        format!("quota {quota} period {period} shares {shares} memory {memory}")
    });
    vec![
        ("state", status.state().as_str_name().to_owned()),
        ("exit", status.exit_code.to_string()),
        ("reason", status.reason.clone()),
        ("message", status.message.clone()),
        ("image", status.image_ref.clone()),
        ("user", user),
        ("limits", limits),
    ]
}
