//! Into containers: execs, streams, the probe, and changes of volumes that they see.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_cri::v1::ExecSyncResponse;
use prost::Message;
use serde_json::{Value, json};
use tests_harness::{built, run, wait_until};

use super::Player;
use crate::{
    disk::content,
    image::PROBE,
    listing::{Kind, Listing},
    recording::Call,
    wire,
};

/// Longer than a change of a volume takes to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(40);
const STREAMS_WITHIN: Duration = Duration::from_secs(90);
/// What a user types.
const INPUT: &str = "typed by a user\n";

impl Player<'_> {
    pub(super) fn exec(&mut self, call: &Call) -> Result<bool> {
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
    pub(super) fn attach(&mut self, call: &Call) -> Result<bool> {
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
    pub(super) fn stream(&self, call: &Call, live: &str, input: &str) -> Result<String> {
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

    pub(super) fn run(
        &self,
        live: &str,
        command: &Value,
    ) -> Result<Result<ExecSyncResponse, String>> {
        // The recorded second is too short for processors that are emulated.
        let request = json!({"container_id": live, "cmd": command, "timeout": 60});
        match self.ask("ExecSync", &request)? {
            Ok(bytes) => Ok(Ok(ExecSyncResponse::decode(bytes.as_slice())?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Looks into every container that runs.
    pub(super) fn look(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.looked, true) {
            return Ok(());
        }
        let running = self.containers.iter().filter(|one| one.runs);
        let running: Vec<_> = running
            .map(|one| (one.live.clone(), one.name.clone()))
            .collect();
        for (live, name) in running {
            let name = match self.stage {
                0 => name,
                stage => format!("{name}@{stage}"),
            };
            match self.run(&live, &json!([PROBE]))? {
                Ok(answer) if answer.exit_code == 0 => self.note_seen(&name, &answer.stdout),
                Ok(answer) => {
                    let said = format!("{} {}", answer.exit_code, text(&answer.stderr));
                    self.say(format!("{name}/probe"), said);
                }
                Err(refusal) => self.say(format!("{name}/probe"), refusal),
            }
        }
        Ok(())
    }

    /// Notes what the probe printed; after a change only files, because nothing else changed.
    fn note_seen(&mut self, name: &str, printed: &[u8]) {
        let only = if self.stage > 0 { "file." } else { "" };
        for line in text(printed).lines().filter(|line| line.starts_with(only)) {
            let (fact, value) = line.split_once('=').unwrap_or((line, ""));
            self.say(format!("{name}/{fact}"), value);
        }
    }

    /// Changes volumes, and waits until their users see it.
    pub(super) fn change(&mut self, call: &Call) -> Result<bool> {
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
    pub(super) fn changed_files(&self, new: &Listing) -> BTreeMap<String, (Vec<String>, Vec<u8>)> {
        let old: BTreeSet<_> = self.volumes.versions().collect();
        let mut all = BTreeMap::new();
        for one in &self.containers {
            let (mut paths, mut bytes) = (Vec::new(), Vec::new());
            for (volume, version) in new.versions().filter(|now| !old.contains(now)) {
                let point = mount_point(&one.config, &format!("{}/{volume}", self.disk.directory));
                let Some(point) = point else { continue };
                for (inside, path, size) in files(new, volume, version) {
                    paths.push(format!("{point}/{inside}"));
                    bytes.extend(content(path, size, self.stage));
                }
            }
            if !paths.is_empty() {
                all.insert(one.name.clone(), (paths, bytes));
            }
        }
        all
    }
}

/// The files of a volume's version: each by its path in it, its whole path, its size.
fn files<'a>(
    listing: &'a Listing,
    volume: &str,
    version: &str,
) -> impl Iterator<Item = (&'a str, &'a str, usize)> {
    let inside = format!("{volume}/{version}/");
    listing
        .entries
        .iter()
        .filter_map(move |entry| match entry.kind {
            Kind::File { size } => {
                Some((entry.path.strip_prefix(&inside)?, entry.path.as_str(), size))
            }
            _ => None,
        })
}

/// Where a container sees what the host has at `path`.
fn mount_point(config: &Value, path: &str) -> Option<String> {
    let mut mounts = config["mounts"].as_array()?.iter();
    let mount = mounts.find(|mount| mount["host_path"] == json!(path))?;
    mount["container_path"].as_str().map(str::to_owned)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
