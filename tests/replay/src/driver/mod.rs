//! Speaks the calls of a kubelet about one pod to a containerd, and notes what comes back.

mod create;
mod end;
mod look;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tests_harness::{Bed, Cri, Handler};

use crate::{
    disk::{Disk, recorded_content},
    facts::{Facts, Names},
    image,
    listing::Listing,
    recording::{Call, Recording, UID},
    wire,
};

const LOGS: &str = "/run/bed/pods";

/// What came of a pod.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was seen, from inside and from outside.
    pub facts: Facts,
    /// The OCI specs that containerd gave to the shim, by container; the pod's is `sandbox`.
    pub bundles: BTreeMap<String, Value>,
}

/// Plays the recorded pod `pod` on `bed`.
///
/// # Errors
/// When the node cannot be made as it was, or nothing more can be asked of containerd; what
/// containerd refuses is part of the outcome.
pub fn play(bed: &Bed, handler: Handler, pod: &str) -> Result<Outcome> {
    let mut player = Player::new(bed, handler, pod)?;
    let played = player.play();
    // However it ended: other pods share the node.
    if let Some(sandbox) = &player.sandbox {
        let _ = player.cri.remove_sandbox(sandbox);
    }
    played.with_context(|| format!("playing {pod} with {}", handler.name()))?;
    Ok(player.outcome)
}

/// A container that was created.
#[derive(Debug)]
struct Played {
    recorded: String,
    live: String,
    /// With the number of its attempt, if that is not the first.
    name: String,
    config: Value,
    runs: bool,
    ends_alone: bool,
}

struct Player<'bed> {
    bed: &'bed Bed,
    cri: Cri,
    handler: Handler,
    recording: Recording,
    disk: Disk<'bed>,
    volumes: Listing,
    /// Live ids of images by their names.
    images: BTreeMap<String, String>,
    names: Names,
    sandbox: Option<String>,
    containers: Vec<Played>,
    stopped: BTreeSet<String>,
    /// How often volumes have changed.
    stage: usize,
    looked: bool,
    outcome: Outcome,
}

impl<'bed> Player<'bed> {
    fn new(bed: &'bed Bed, handler: Handler, pod: &str) -> Result<Self> {
        let uid = unique_uid();
        let images = image::names();
        let mut words = vec![(UID, uid.as_str()), ("/var/log/pods", LOGS)];
        words.extend(
            image::RECORDED
                .into_iter()
                .zip(images.iter().map(String::as_str)),
        );
        let recording = Recording::open(pod, &words)?;
        let mut names = Names::default();
        names.add(&uid, "UID");
        // The bed's pause image runs another program than a node's.
        names.add("/bin/busybox sleep 2147483647", "/pause");
        Ok(Self {
            bed,
            cri: bed.cri()?,
            handler,
            disk: Disk::of_pod(bed.node(), &uid),
            volumes: recording.volumes.clone(),
            stopped: recording.stopped(),
            recording,
            images: BTreeMap::new(),
            names,
            sandbox: None,
            containers: Vec::new(),
            stage: 0,
            looked: false,
            outcome: Outcome::default(),
        })
    }

    fn play(&mut self) -> Result<()> {
        self.disk
            .make_volumes(&self.volumes, &recorded_content(0))?;
        for call in self.recording.calls.clone() {
            let done = match call.method.as_str() {
                "RunPodSandbox" => self.run_sandbox(&call)?,
                "CreateContainer" => self.create(&call)?,
                "StartContainer" => self.start(&call)?,
                "ExecSync" | "Exec" => self.exec(&call)?,
                "Attach" => self.attach(&call)?,
                "UpdateContainerResources" => self.update(&call)?,
                "Changed" => self.change(&call)?,
                "StopContainer" => self.stop(&call)?,
                "StopPodSandbox" => self.stop_sandbox()?,
                "RemoveContainer" => self.remove(&call)?,
                // Images are pulled when a container needs them; on the port that was forwarded
                // nobody listened; what the kubelet did to other pods is not in the recordings.
                "PullImage" | "PortForward" | "RemovePodSandbox" => true,
                other => bail!("{other} cannot be played"),
            };
            if !done {
                break;
            }
        }
        Ok(())
    }

    /// Asks containerd; text of its refusal tells nothing that is chance.
    fn ask(&self, method: &str, request: &Value) -> Result<Result<Vec<u8>, String>> {
        let bytes = wire::request(method, request)?;
        let service = match method {
            "PullImage" => "ImageService",
            _ => "RuntimeService",
        };
        let answer = self.cri.call(&format!("{service}/{method}"), bytes);
        Ok(answer.map_err(|error| self.names.plain(&format!("{error:#}"))))
    }

    fn say(&mut self, name: String, value: impl AsRef<str>) {
        let value = self.names.plain(value.as_ref());
        let value = value.replace('\n', "\\n");
        self.outcome.facts.insert(name, value);
    }

    fn sandbox_config(&self) -> Result<Value> {
        let mut config = self.recording.sandbox_config()?.clone();
        config["annotations"]["io.containerd.cri.runtime-handler"] = json!(self.handler.name());
        Ok(config)
    }

    fn run_sandbox(&mut self, call: &Call) -> Result<bool> {
        let config = self.sandbox_config()?;
        let logs = config["log_directory"].as_str().context("a pod has logs")?;
        std::fs::create_dir_all(self.bed.node().path(logs))?;
        let request = json!({"config": config, "runtime_handler": self.handler.name()});
        let answer = match self.ask("RunPodSandbox", &request)? {
            Ok(answer) => answer,
            Err(refusal) => {
                self.say("pod.refused".to_owned(), refusal);
                return Ok(false);
            }
        };
        let id = wire::first_text(&answer, 1)?;
        self.names.add(&id, "SANDBOX");
        if let Some(network) = self.cri.sandbox_status(&id)?.network
            && !network.ip.is_empty()
        {
            self.names.add(&network.ip, "ADDRESS");
        }
        let recorded = call.response["pod_sandbox_id"].as_str().unwrap_or_default();
        self.keep_bundle("sandbox", &id)?;
        self.containers.push(Played {
            recorded: recorded.to_owned(),
            live: id.clone(),
            name: "sandbox".to_owned(),
            config: Value::Null,
            runs: false,
            ends_alone: false,
        });
        self.sandbox = Some(id);
        Ok(true)
    }

    /// Keeps what containerd gave to the shim, while it is there.
    fn keep_bundle(&mut self, name: &str, id: &str) -> Result<()> {
        let path = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
        if let Ok(text) = self.bed.node().read(path) {
            let spec = serde_json::from_str(&text).context("containerd's bundle is JSON")?;
            self.outcome.bundles.insert(name.to_owned(), spec);
        }
        Ok(())
    }

    fn find(&self, recorded: &Value) -> Option<(usize, String, String)> {
        let recorded = recorded.as_str()?;
        let mut all = self.containers.iter().enumerate();
        let (at, one) = all.find(|(_, one)| one.recorded == recorded)?;
        Some((at, one.live.clone(), one.name.clone()))
    }

    fn update(&mut self, call: &Call) -> Result<bool> {
        let Some((_, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        let mut request = call.request.clone();
        request["container_id"] = json!(live);
        let answer = self.ask("UpdateContainerResources", &request)?;
        let answer = answer.map_or_else(|refusal| refusal, |_| "done".to_owned());
        self.say(format!("{name}/resized"), answer);
        Ok(true)
    }
}

/// A UID that no other pod of this process has.
pub(crate) fn unique_uid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("0e91a9b2-6f0a-4d4e-9c55-{count:012x}")
}
