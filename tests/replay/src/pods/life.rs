//! One pod of a YAML on a node, driven as a kubelet does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_cri::v1::{
    ContainerStatus, ExecSyncResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse,
};
use prost::Message;
use serde_json::{Value, json};
use tests_harness::{Bed, Cri, Handler, stream};

use crate::{
    disk::Disk,
    driver::unique_uid,
    kubelet::{
        Known, Objects, container_config, directory, environment, layout, list, place,
        sandbox_config, volume_of, words,
    },
    recording::HostPath,
    wire,
};

const LOGS: &str = "/run/bed/pods";
const HANDLER: Handler = Handler::KataCc;
/// What a kubelet makes of a pod's addresses.
const HOSTS: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// What containerd answered instead of doing it.
pub type Refusal = String;

/// A pod that has its sandbox.
#[derive(Debug)]
pub struct Life<'bed> {
    bed: &'bed Bed,
    cri: Cri,
    objects: Objects,
    known: Known,
    disk: Disk<'bed>,
    sandbox_config: Value,
    sandbox: String,
    images: BTreeMap<String, (String, String)>,
    /// Containers whose files lie on the node.
    prepared: BTreeSet<String>,
}

impl<'bed> Life<'bed> {
    /// Makes the first pod of a YAML: its volumes and its sandbox. `change` changes what containerd
    /// is asked for the sandbox.
    ///
    /// # Errors
    /// When the node cannot be made; that containerd refused the sandbox is the inner error.
    pub fn begin(
        bed: &'bed Bed,
        yaml: &str,
        change: fn(&mut Value),
    ) -> Result<Result<Self, Refusal>> {
        let uid = unique_uid();
        let objects = Objects::read(yaml, &uid)?;
        let known = Known {
            node: "worker-1".to_owned(),
            host_address: "10.90.0.1".to_owned(),
            address: String::new(),
            memory: 8 << 30,
            has_service: true,
        };
        let disk = Disk::of_pod(bed.node(), &uid);
        let laid_out = layout(&objects, &known)?;
        let content = |path: &str, _| laid_out.contents.get(path).cloned().unwrap_or_default();
        disk.make_volumes(&laid_out.listing, &content)?;
        let mut sandbox_config = sandbox_config(&objects, LOGS);
        sandbox_config["annotations"]["io.containerd.cri.runtime-handler"] = json!(HANDLER.name());
        change(&mut sandbox_config);
        let mut life = Self {
            bed,
            cri: bed.cri()?,
            objects,
            known,
            disk,
            sandbox_config,
            sandbox: String::new(),
            images: BTreeMap::new(),
            prepared: BTreeSet::new(),
        };
        Ok(match life.run_sandbox()? {
            Ok(()) => Ok(life),
            Err(refusal) => {
                life.disk.remove()?;
                Err(refusal)
            }
        })
    }

    fn run_sandbox(&mut self) -> Result<Result<(), Refusal>> {
        let logs = self.logs()?;
        std::fs::create_dir_all(self.bed.node().path(logs))?;
        let request = json!({"config": self.sandbox_config, "runtime_handler": HANDLER.name()});
        match self.ask("RunPodSandbox", &request)? {
            Ok(answer) => self.sandbox = wire::first_text(&answer, 1)?,
            Err(refusal) => return Ok(Err(refusal)),
        }
        let network = self.cri.sandbox_status(&self.sandbox)?.network;
        self.known.address = network.unwrap_or_default().ip;
        let hostname = self.sandbox_config["hostname"].as_str().unwrap_or_default();
        let hosts = format!("{HOSTS}{}\t{hostname}\n", self.known.address);
        let path = format!("{}/etc-hosts", self.disk.directory);
        self.bed.node().write(path, hosts)?;
        Ok(Ok(()))
    }

    /// Takes the pod away.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn end(mut self) -> Result<()> {
        self.cri.remove_sandbox(&self.sandbox)?;
        self.disk.remove()
    }

    fn logs(&self) -> Result<&str> {
        self.sandbox_config["log_directory"]
            .as_str()
            .context("a pod has logs")
    }

    pub(super) fn pod(&self) -> &Value {
        &self.objects.pod
    }

    /// The node that it is on.
    #[must_use]
    pub fn bed(&self) -> &'bed Bed {
        self.bed
    }

    /// Writes another content into a file of a volume, as a node can at any time.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn spoil(&self, volume: &str, file: &str, content: &str) -> Result<()> {
        let mut volumes = list(&self.pod()["spec"]["volumes"]);
        let found = volumes.find(|one| one["name"] == volume);
        let path = place(self.pod(), found.context("a volume of the pod")?).path;
        let path = format!("{path}/..data/{file}");
        self.bed.node().read(&path)?;
        self.bed.node().write(path, content)
    }

    /// A container of the YAML.
    pub(super) fn container(&self, name: &str) -> Result<Value> {
        let spec = &self.objects.pod["spec"];
        let lists = ["initContainers", "containers"];
        let mut all = lists.into_iter().flat_map(|key| list(&spec[key]));
        let found = all.find(|one| one["name"] == name);
        found
            .cloned()
            .with_context(|| format!("no container {name}"))
    }

    pub(super) fn ask(&self, method: &str, request: &Value) -> Result<Result<Vec<u8>, Refusal>> {
        let bytes = wire::request(method, request)?;
        let service = match method {
            "PullImage" => "ImageService",
            _ => "RuntimeService",
        };
        let answer = self.cri.call(&format!("{service}/{method}"), bytes);
        Ok(answer.map_err(|error| format!("{error:#}")))
    }

    /// What containerd is asked for a container of the YAML, whose image it has then.
    ///
    /// # Errors
    /// When there is none, or its image cannot be pulled.
    pub fn config(&mut self, name: &str) -> Result<Value> {
        let container = self.container(name)?;
        let image = container["image"]
            .as_str()
            .context("a container has an image")?;
        let (id, user) = self.pulled(image)?;
        let parts = (id.as_str(), user.as_str());
        let mut config = container_config(&self.objects, &container, &self.known, parts)?;
        config["image"]["runtime_handler"] = json!(HANDLER.name());
        self.prepare(name, &container, &config)?;
        Ok(config)
    }

    /// Pulls an image; its id, and the user that it says.
    pub(super) fn pulled(&mut self, image: &str) -> Result<(String, String)> {
        if let Some(known) = self.images.get(image) {
            return Ok(known.clone());
        }
        let request = json!({
            "image": {
                "image": image,
                "runtime_handler": HANDLER.name(),
                "annotations": self.sandbox_config["annotations"],
            },
            "sandbox_config": self.sandbox_config,
        });
        let answer = self.ask("PullImage", &request)?;
        let answer = answer.map_err(|refusal| anyhow!("pulling {image}: {refusal}"))?;
        let pulled = (wire::first_text(&answer, 1)?, self.image_user(image)?);
        self.images.insert(image.to_owned(), pulled.clone());
        Ok(pulled)
    }

    fn image_user(&self, image: &str) -> Result<String> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: image.to_owned(),
                runtime_handler: HANDLER.name().to_owned(),
                ..ImageSpec::default()
            }),
            verbose: false,
        };
        let answer = self
            .cri
            .call("ImageService/ImageStatus", request.encode_to_vec())?;
        let image = ImageStatusResponse::decode(answer.as_slice())?.image;
        let image = image.context("a pulled image is there")?;
        Ok(image
            .uid
            .map_or(image.username, |uid| uid.value.to_string()))
    }

    /// Makes what the mounts of a container are of, once.
    fn prepare(&mut self, name: &str, container: &Value, config: &Value) -> Result<()> {
        if !self.prepared.insert(name.to_owned()) {
            return Ok(());
        }
        let environment = environment(&self.objects, container, &self.known)?;
        let mounts: Vec<_> = list(&config["mounts"]).collect();
        let mut sources = Vec::new();
        for (mount, made) in list(&container["volumeMounts"]).zip(&mounts) {
            let mut part = [&mount["subPath"], &mount["subPathExpr"]].into_iter();
            let part = json!([part.find(|part| part.is_string())]);
            if let Some(part) = words(&part, &environment).first() {
                let volume = volume_of(&self.objects.pod, mount);
                let path = made["host_path"].as_str().unwrap_or_default();
                sources.push(HostPath::part(path, &format!("{}/{part}", volume.path)));
            }
        }
        let message = mounts.last().and_then(|one| one["host_path"].as_str());
        sources.extend(message.map(HostPath::open_file));
        self.disk.make_sources(&sources)
    }

    /// Creates a container; its id, or why not.
    ///
    /// # Errors
    /// When nothing can be asked.
    pub fn create(&self, config: &Value) -> Result<Result<String, Refusal>> {
        let request = json!({
            "pod_sandbox_id": self.sandbox,
            "config": config,
            "sandbox_config": self.sandbox_config,
        });
        match self.ask("CreateContainer", &request)? {
            Ok(answer) => Ok(Ok(wire::first_text(&answer, 1)?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Creates and starts a container; its id, or why not. Of one that was refused nothing stays.
    ///
    /// # Errors
    /// When nothing can be asked.
    pub fn start(&self, config: &Value) -> Result<Result<String, Refusal>> {
        let id = match self.create(config)? {
            Ok(id) => id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        match self.ask("StartContainer", &json!({"container_id": id}))? {
            Ok(_) => Ok(Ok(id)),
            Err(refusal) => {
                let gone = self.ask("RemoveContainer", &json!({"container_id": id}))?;
                gone.map_err(|refusal| anyhow!("removing what was refused: {refusal}"))?;
                Ok(Err(refusal))
            }
        }
    }

    /// Runs a command in a container, as a probe is run.
    ///
    /// # Errors
    /// When nothing can be asked.
    pub fn exec(&self, id: &str, command: &[String]) -> Result<Result<ExecSyncResponse, Refusal>> {
        let request = json!({"container_id": id, "cmd": command, "timeout": 60});
        match self.ask("ExecSync", &request)? {
            Ok(bytes) => Ok(Ok(ExecSyncResponse::decode(bytes.as_slice())?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// What containerd says of a container.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn status(&self, id: &str) -> Result<ContainerStatus> {
        self.cri.clone().container_status(id)
    }

    /// What a container wrote to standard output and error, as far as containerd could read it.
    ///
    /// # Errors
    /// When there is no log.
    pub fn output(&self, name: &str) -> Result<String> {
        let log = format!("{}/{name}/0.log", self.logs()?);
        let log = self.bed.node().read(log).unwrap_or_default();
        Ok(stream(&log, "stdout") + &stream(&log, "stderr"))
    }

    /// The termination message that a container left.
    ///
    /// # Errors
    /// When it has no file for it.
    pub fn message(&self, name: &str) -> Result<String> {
        let path = format!("{}/containers/{name}/127f3fbf", directory(self.pod()));
        self.bed.node().read(path)
    }

    /// The variables of a container as its static probes know them.
    pub(super) fn expanded(&self, container: &Value, command: &Value) -> Vec<String> {
        let own = list(&container["env"]).filter_map(|one| {
            let (name, value) = (one["name"].as_str()?, one["value"].as_str()?);
            Some((name.to_owned(), value.to_owned()))
        });
        words(command, &own.collect::<Vec<_>>())
    }
}

/// Sets a variable of what containerd is asked.
pub(super) fn set_variable(config: &mut Value, name: &str, value: &str) {
    let variable = json!({"key": name, "value": BASE64_STANDARD.encode(value)});
    if let Some(all) = config["envs"].as_array_mut() {
        all.retain(|one| one["key"] != name);
        all.push(variable);
    }
}
