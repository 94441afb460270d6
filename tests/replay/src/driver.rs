//! Speaks the calls of a kubelet about one pod to a containerd, and notes what comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use k8s_cri::v1::{ContainerState, ContainerStatus, ExecSyncResponse, StatusResponse};
use prost::Message;
use serde_json::{Value, json};
use tests_harness::{Bed, Cri, Handler, built, run, stream, wait_until};

use crate::{
    disk::{Disk, content},
    facts::{Facts, Names},
    image::{self, PROBE},
    listing::{Kind, Listing},
    recording::{Call, Recording, UID},
    wire,
};

/// Longer than a program of the recordings runs, on a machine that emulates processors.
const ENDS_WITHIN: Duration = Duration::from_secs(40);
/// Longer than a change of a volume takes to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(40);
const STREAMS_WITHIN: Duration = Duration::from_secs(90);
/// What a user types.
const INPUT: &str = "typed by a user\n";
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
    // Other pods share the node.
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
        self.disk.make_volumes(&self.volumes)?;
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
                // Images are pulled when a container needs them, as with any pull policy.
                _ => true,
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

    /// The live id for a recorded one.
    fn live(&self, recorded: &Value) -> Option<&Played> {
        let recorded = recorded.as_str()?;
        self.containers.iter().find(|one| one.recorded == recorded)
    }

    fn create(&mut self, call: &Call) -> Result<bool> {
        self.disk.make_sources(&call.host_paths)?;
        let mut config = call.request["config"].clone();
        self.name_images(&mut config)?;
        self.without_features(&mut config)?;
        let namespaces = &mut config["linux"]["security_context"]["namespace_options"];
        if namespaces["target_id"].is_string() {
            let target = self
                .live(&namespaces["target_id"])
                .map(|one| one.live.clone());
            namespaces["target_id"] = json!(target.unwrap_or_default());
        } else if let Some(members) = namespaces.as_object_mut() {
            members.remove("target_id");
        }
        let name = full_name(&config["metadata"]);
        let request = json!({
            "pod_sandbox_id": self.sandbox,
            "config": config,
            "sandbox_config": self.sandbox_config()?,
        });
        let answer = match self.ask("CreateContainer", &request)? {
            Ok(answer) => answer,
            Err(refusal) => {
                self.say(format!("{name}/refused"), refusal);
                return Ok(true);
            }
        };
        let recorded = call.response["container_id"].as_str().unwrap_or_default();
        let live = wire::first_text(&answer, 1)?;
        self.names.add(&live, &format!("CONTAINER-{name}"));
        self.containers.push(Played {
            ends_alone: !self.stopped.contains(recorded),
            recorded: recorded.to_owned(),
            live,
            name,
            config,
            runs: false,
        });
        Ok(true)
    }

    /// Pulls the images that a container needs and names them by their ids.
    fn name_images(&mut self, config: &mut Value) -> Result<()> {
        let id = self.pulled(&config["image"]["user_specified_image"].clone())?;
        config["image"]["image"] = json!(id);
        config["image"]["runtime_handler"] = json!(self.handler.name());
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            if mount["image"].is_object() {
                let id = self.pulled(&mount["image"]["user_specified_image"].clone())?;
                mount["image"]["image"] = json!(id);
                mount["image"]["runtime_handler"] = json!(self.handler.name());
                let annotations = &mut mount["image"]["annotations"];
                annotations["io.containerd.cri.runtime-handler"] = json!(self.handler.name());
            } else if let Some(members) = mount.as_object_mut() {
                members.remove("image");
            }
        }
        Ok(())
    }

    /// Asks only for what containerd offers with the runtime, as kubelet does where the pod says
    /// `IfPossible`: asked for more, containerd 2.1 ends with a fault of its own.
    fn without_features(&self, config: &mut Value) -> Result<()> {
        let answer = self.cri.call("RuntimeService/Status", Vec::new())?;
        let offers = StatusResponse::decode(answer.as_slice())?.runtime_handlers;
        let ours = offers.iter().find(|one| one.name == self.handler.name());
        let features = ours.and_then(|one| one.features.as_ref());
        if features.is_some_and(|features| features.recursive_read_only_mounts) {
            return Ok(());
        }
        let mounts = config["mounts"].as_array_mut().into_iter().flatten();
        for mount in mounts.filter_map(Value::as_object_mut) {
            mount.remove("recursive_read_only");
        }
        Ok(())
    }

    fn pulled(&mut self, image: &Value) -> Result<String> {
        let image = image.as_str().context("an image has a name")?;
        if let Some(id) = self.images.get(image) {
            return Ok(id.clone());
        }
        let config = self.sandbox_config()?;
        let request = json!({
            "image": {
                "image": image,
                "runtime_handler": self.handler.name(),
                "annotations": config["annotations"],
            },
            "sandbox_config": config,
        });
        let answer = self.ask("PullImage", &request)?;
        let answer = answer.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        let id = wire::first_text(&answer, 1)?;
        self.names.add(&id, "IMAGE");
        self.images.insert(image.to_owned(), id.clone());
        Ok(id)
    }

    fn start(&mut self, call: &Call) -> Result<bool> {
        let Some((at, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        let answer = self.ask("StartContainer", &json!({"container_id": live}))?;
        self.keep_bundle(&name, &live)?;
        if let Err(refusal) = answer {
            self.say(format!("{name}/start"), refusal);
            self.note_end(at)?;
            return Ok(true);
        }
        let container = &mut self.containers[at];
        container.runs = true;
        // One that reads ends when its client goes.
        if container.ends_alone && container.config["stdin"] != json!(true) {
            self.wait_for_end(at)?;
        }
        Ok(true)
    }

    fn find(&self, recorded: &Value) -> Option<(usize, String, String)> {
        let recorded = recorded.as_str()?;
        let mut all = self.containers.iter().enumerate();
        let (at, one) = all.find(|(_, one)| one.recorded == recorded)?;
        Some((at, one.live.clone(), one.name.clone()))
    }

    fn wait_for_end(&mut self, at: usize) -> Result<()> {
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
    fn note_end(&mut self, at: usize) -> Result<()> {
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
        let log = self
            .bed
            .node()
            .read(format!("{directory}/{log}"))
            .unwrap_or_default();
        for kind in ["stdout", "stderr"] {
            self.say(format!("{name}/log.{kind}"), stream(&log, kind));
        }
        let message = termination_message(&config);
        let message = message.and_then(|path| self.bed.node().read(path).ok());
        self.say(format!("{name}/status.told"), message.unwrap_or_default());
        Ok(())
    }

    fn exec(&mut self, call: &Call) -> Result<bool> {
        let Some((at, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        if !self.containers[at].runs {
            return Ok(true);
        }
        let command = call.request["cmd"].clone();
        let words: Vec<_> = command.as_array().into_iter().flatten().collect();
        let words: Vec<_> = words.iter().filter_map(|word| word.as_str()).collect();
        let is_terminal = call.request["tty"] == json!(true);
        let said = if is_terminal || call.request["stdin"] == json!(true) {
            let input = if is_terminal { "" } else { INPUT };
            self.stream(call, &live, input)?
        } else {
            match self.run(&live, &command)? {
                Ok(answer) => {
                    let (out, err) = (text(&answer.stdout), text(&answer.stderr));
                    format!("{} out {out:?} err {err:?}", answer.exit_code)
                }
                Err(refusal) => refusal,
            }
        };
        self.say(format!("{name}/did.{}", words.join(" ")), said);
        Ok(true)
    }

    /// Gives the container's process its input, and goes.
    fn attach(&mut self, call: &Call) -> Result<bool> {
        let Some((at, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        if self.containers[at].runs {
            self.look()?;
            let said = self.stream(call, &live, INPUT)?;
            self.say(format!("{name}/attached"), said);
            if self.containers[at].ends_alone {
                self.wait_for_end(at)?;
            }
        }
        Ok(true)
    }

    /// Speaks through a stream that containerd opens for a request.
    fn stream(&self, call: &Call, live: &str, input: &str) -> Result<String> {
        let mut request = call.request.clone();
        request["container_id"] = json!(live);
        let url = match self.ask(&call.method, &request)? {
            Ok(answer) => wire::first_text(&answer, 1)?,
            Err(refusal) => return Ok(refusal),
        };
        let mut client = self.bed.command(built("replay-stream")?);
        client.args([&url, input]);
        let ran = run(client, STREAMS_WITHIN)?;
        Ok(ran.output())
    }

    fn run(&self, live: &str, command: &Value) -> Result<Result<ExecSyncResponse, String>> {
        // The recorded second is too short for processors that are emulated.
        let request = json!({"container_id": live, "cmd": command, "timeout": 60});
        match self.ask("ExecSync", &request)? {
            Ok(bytes) => Ok(Ok(ExecSyncResponse::decode(bytes.as_slice())?)),
            Err(refusal) => Ok(Err(refusal)),
        }
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

    /// Looks into every container that runs.
    fn look(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.looked, true) {
            return Ok(());
        }
        let running = self.containers.iter().filter(|one| one.runs);
        let running: Vec<_> = running
            .map(|one| (one.live.clone(), one.name.clone()))
            .collect();
        for (live, name) in running {
            let stage = self.stage;
            let name = match stage {
                0 => name,
                stage => format!("{name}@{stage}"),
            };
            match self.run(&live, &json!([PROBE]))? {
                Ok(answer) if answer.exit_code == 0 => {
                    for line in text(&answer.stdout).lines() {
                        let (fact, value) = line.split_once('=').unwrap_or((line, ""));
                        // Nothing but files has changed.
                        if stage > 0 && !fact.starts_with("file.") {
                            continue;
                        }
                        self.say(format!("{name}/{fact}"), value);
                    }
                }
                Ok(answer) => {
                    let said = format!("{} {}", answer.exit_code, text(&answer.stderr));
                    self.say(format!("{name}/probe"), said);
                }
                Err(refusal) => self.say(format!("{name}/probe"), refusal),
            }
        }
        Ok(())
    }

    /// Changes volumes, and waits until their users see it.
    fn change(&mut self, call: &Call) -> Result<bool> {
        self.look()?;
        let listing = call.request["listing"]
            .as_str()
            .context("a change has a listing")?;
        let new = self.recording.listing(listing)?;
        self.stage += 1;
        self.disk.change(&self.volumes, &new, self.stage)?;
        let wanted = self.changed_files(&new);
        self.volumes = new;
        let running: Vec<_> = self.containers.iter().filter(|one| one.runs).collect();
        let mut unseen = BTreeMap::new();
        for one in running {
            let Some((paths, expected)) = wanted.get(&one.name) else {
                continue;
            };
            let command = json!(
                [
                    ["cat"].as_slice(),
                    &paths.iter().map(String::as_str).collect::<Vec<_>>()
                ]
                .concat()
            );
            let seen = wait_until("a change is seen", SEEN_WITHIN, || {
                let answer = self.run(&one.live, &command)?;
                Ok(answer.is_ok_and(|answer| answer.stdout == *expected))
            });
            let seen = if seen.is_ok() {
                "seen"
            } else {
                "not seen in time"
            };
            unseen.insert(format!("{}/changed.{}", one.name, self.stage), seen);
        }
        for (name, value) in unseen {
            self.say(name, value);
        }
        self.looked = false;
        Ok(true)
    }

    /// For each container the paths of files that changed, and what all of them hold now.
    fn changed_files(&self, new: &Listing) -> BTreeMap<String, (Vec<String>, Vec<u8>)> {
        let old: BTreeSet<_> = self.volumes.versions().collect();
        let mut all = BTreeMap::new();
        for one in &self.containers {
            let (mut paths, mut bytes) = (Vec::new(), Vec::new());
            for (volume, version) in new.versions().filter(|now| !old.contains(now)) {
                let point = mount_point(&one.config, &format!("{}/{volume}", self.disk.directory));
                let Some(point) = point else { continue };
                let inside = format!("{volume}/{version}/");
                for entry in &new.entries {
                    let Some(rest) = entry.path.strip_prefix(&inside) else {
                        continue;
                    };
                    if let Kind::File { size } = entry.kind {
                        paths.push(format!("{point}/{rest}"));
                        bytes.extend(content(&entry.path, size, self.stage));
                    }
                }
            }
            if !paths.is_empty() {
                all.insert(one.name.clone(), (paths, bytes));
            }
        }
        all
    }

    fn stop(&mut self, call: &Call) -> Result<bool> {
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

    fn stop_sandbox(&mut self) -> Result<bool> {
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
        if let Err(refusal) =
            self.ask("StopPodSandbox", &json!({"pod_sandbox_id": self.sandbox}))?
        {
            self.say("pod.stop".to_owned(), refusal);
        }
        Ok(true)
    }

    fn remove(&mut self, call: &Call) -> Result<bool> {
        let Some((_, live, name)) = self.find(&call.request["container_id"]) else {
            return Ok(true);
        };
        if let Err(refusal) = self.ask("RemoveContainer", &json!({"container_id": live}))? {
            self.say(format!("{name}/remove"), refusal);
        }
        Ok(true)
    }
}

/// `main`, and for a restart `main.1`.
fn full_name(metadata: &Value) -> String {
    let name = metadata["name"].as_str().unwrap_or_default();
    match metadata["attempt"].as_u64() {
        None | Some(0) => name.to_owned(),
        Some(attempt) => format!("{name}.{attempt}"),
    }
}

/// Where a container sees what the host has at `path`.
fn mount_point(config: &Value, path: &str) -> Option<String> {
    let mut mounts = config["mounts"].as_array()?.iter();
    let mount = mounts.find(|mount| mount["host_path"] == json!(path))?;
    mount["container_path"].as_str().map(str::to_owned)
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A UID that no other pod of this process has.
fn unique_uid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("0e91a9b2-6f0a-4d4e-9c55-{count:012x}")
}
