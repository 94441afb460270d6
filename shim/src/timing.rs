//! How long the steps of a pod's start took.
//!
//! Kept in `timing.json` of the state directory for people and benches, and logged.
//! All values are milliseconds since the sandbox's `Create` request arrived.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;

use crate::record::{StateDir, write_atomically};

/// Containers whose times are kept; a pod that restarts for ever must not fill the disk.
const CONTAINERS_MAX: usize = 64;

/// The clock of one pod.
#[derive(Debug)]
pub(crate) struct Timing {
    start: Instant,
    times: Mutex<Times>,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    vm_started_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_ready_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_ready_ms: Option<u64>,
    containers: BTreeMap<String, ContainerTimes>,
}

#[derive(Debug, Default, Clone, Serialize)]
struct ContainerTimes {
    /// The time at which `Create` arrived.
    create_ms: u64,
    /// The time at which the guest had pulled the image and made the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_pulled_ms: Option<u64>,
    /// The time at which its process ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    container_running_ms: Option<u64>,
}

/// A step of a pod's start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// The VM's CPUs run.
    VmStarted,
    /// The agent answered.
    AgentReady,
    /// The pod's network and namespaces are set up.
    SandboxReady,
    /// A container was asked for.
    Create(&'a str),
    /// The guest made the container.
    ImagePulled(&'a str),
    /// The container's process runs.
    ContainerRunning(&'a str),
}

impl Timing {
    /// Starts the clock.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            times: Mutex::default(),
        }
    }

    /// Notes that a step is done, and writes all steps so far.
    pub(crate) fn done(&self, state: &StateDir, step: Step<'_>) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let times = {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.note(step, now);
            times.clone()
        };
        match step {
            Step::VmStarted => tracing::info!(vm_started_ms = now, "vm started"),
            Step::AgentReady => tracing::info!(agent_ready_ms = now, "agent ready"),
            Step::SandboxReady => tracing::info!(sandbox_ready_ms = now, "sandbox ready"),
            Step::Create(_) => {}
            Step::ImagePulled(id) => {
                tracing::info!(
                    container.id = id,
                    image_pulled_ms = now,
                    "container created"
                );
            }
            Step::ContainerRunning(id) => {
                tracing::info!(
                    container.id = id,
                    container_running_ms = now,
                    "container running"
                );
            }
        }
        if let Err(error) = write_atomically(&state.path().join("timing.json"), &times) {
            tracing::debug!(%error, "timing not written");
        }
    }
}

impl Times {
    fn note(&mut self, step: Step<'_>, now: u64) {
        match step {
            Step::VmStarted => self.vm_started_ms = Some(now),
            Step::AgentReady => self.agent_ready_ms = Some(now),
            Step::SandboxReady => self.sandbox_ready_ms = Some(now),
            Step::Create(id) => {
                if self.containers.len() < CONTAINERS_MAX {
                    let times = ContainerTimes {
                        create_ms: now,
                        ..ContainerTimes::default()
                    };
                    self.containers.insert(id.to_owned(), times);
                }
            }
            Step::ImagePulled(id) => {
                if let Some(times) = self.containers.get_mut(id) {
                    times.image_pulled_ms = Some(now);
                }
            }
            Step::ContainerRunning(id) => {
                if let Some(times) = self.containers.get_mut(id) {
                    times.container_running_ms = Some(now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let timing = Timing::new();
        timing.done(&state, Step::VmStarted);
        for index in 0..2 * CONTAINERS_MAX {
            timing.done(&state, Step::Create(&format!("c{index}")));
        }
        timing.done(&state, Step::ContainerRunning("c1"));
        let text = std::fs::read_to_string(folder.path().join("timing.json")).unwrap();
        let times: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(times["vm_started_ms"].is_u64());
        assert!(times["containers"]["c1"]["container_running_ms"].is_u64());
        assert_eq!(
            times["containers"].as_object().unwrap().len(),
            CONTAINERS_MAX
        );
    }
}
