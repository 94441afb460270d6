//! Containers: with the host paths, the image and the features that each needs.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_cri::v1::StatusResponse;
use prost::Message;
use serde_json::{Value, json};

use super::{Played, Player};
use crate::{recording::Call, wire};

impl Player<'_> {
    /// The live id for a recorded one.
    pub(super) fn live(&self, recorded: &Value) -> Option<&Played> {
        let recorded = recorded.as_str()?;
        self.containers.iter().find(|one| one.recorded == recorded)
    }

    pub(super) fn create(&mut self, call: &Call) -> Result<bool> {
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
        self.name_address(&mut config)?;
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

    /// The kubelet knows the pod's address by now.
    pub(super) fn name_address(&self, config: &mut Value) -> Result<()> {
        let Some(id) = &self.sandbox else {
            return Ok(());
        };
        let network = self.cri.clone().sandbox_status(id)?.network;
        let address = BASE64_STANDARD.encode(network.unwrap_or_default().ip);
        for one in config["envs"].as_array_mut().into_iter().flatten() {
            if one["key"] == json!("IP") {
                one["value"] = json!(address);
            }
        }
        Ok(())
    }

    /// Pulls the images that a container needs and names them by their ids.
    pub(super) fn name_images(&mut self, config: &mut Value) -> Result<()> {
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
    pub(super) fn without_features(&self, config: &mut Value) -> Result<()> {
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

    pub(super) fn pulled(&mut self, image: &Value) -> Result<String> {
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

    pub(super) fn start(&mut self, call: &Call) -> Result<bool> {
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
}

/// `main`, and for a restart `main.1`.
fn full_name(metadata: &Value) -> String {
    let name = metadata["name"].as_str().unwrap_or_default();
    match metadata["attempt"].as_u64() {
        None | Some(0) => name.to_owned(),
        Some(attempt) => format!("{name}.{attempt}"),
    }
}
