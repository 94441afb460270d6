//! The whole promise, in one go: a key reaches the genuine pod, and no other.
//!
//! The owner's part is a script of the owner's commands. Then the node changes one bit: of the
//! initrd, of the initdata, of the policy, of the image.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    bed::{Bed, wait_until},
    images::{Image, busybox},
    network::HOST,
    registry::REGISTRY,
    run::{run, run_ok},
    simulated::{SimulatedTee, firmware_is_installed},
    tools::Prefix,
};

/// The owner's directory in the bed.
const OWNER: &str = "/run/bed/owner-of-words";
const SIGNATURES_PORT: u16 = 8092;
const DROP_IN: &str = "/run/bed/kata-cc/config.d/60-keys.toml";
const DEADLINE: Duration = Duration::from_secs(300);
/// What only who has the key can read.
pub const WORDS: &str = "these words were encrypted";
const SCRIPT: &str = "hack/examples/quick-start.sh";
const POD: &str = "hack/examples/words.yaml";
const EXAMPLE_REGISTRY: &str = "registry.example";

/// The image before its owner encrypts it.
pub const WORDS_IMAGE: Image = Image {
    name: "words:plain",
    config: &["--config.cmd=/bin/sh", "--config.env=PATH=/bin"],
    layers: &[busybox, words],
    copy: &[],
};

/// The layer that has the words.
///
/// # Errors
/// When it cannot be written.
pub fn words(root: &Path) -> Result<()> {
    fs::write(root.join("words"), format!("{WORDS}\n")).context("writing the words")
}

/// A decision of the broker, as `kata-cc broker explain --json` prints it.
#[derive(Debug, Clone, Deserialize)]
pub struct Decision {
    /// `attest` or `resource`.
    pub asked: String,
    /// Whether it was given.
    pub given: bool,
    /// Which resource was asked for.
    pub resource: Option<String>,
    /// The checks that refused.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// A check that refused.
#[derive(Debug, Clone, Deserialize)]
pub struct Refusal {
    /// Its name.
    pub check: String,
    /// What would have passed.
    pub expected: String,
    /// What was there.
    pub received: String,
}

#[derive(Debug, Deserialize)]
struct Decisions {
    decisions: Vec<Decision>,
}

/// A pod of which the node changed one bit, and what the broker receives then.
struct Changed {
    what: &'static str,
    pod: String,
    received: String,
}

/// What `kata-cc initdata make --json` prints.
#[derive(Deserialize)]
struct Made {
    host_data: String,
    annotation: Annotation,
}

#[derive(Deserialize)]
struct Annotation {
    value: String,
}

/// The owner, the broker, and a node with a processor that is simulated.
#[derive(Debug)]
pub struct Promise<'a> {
    bed: &'a Bed,
    prefix: &'a Prefix,
    tee: SimulatedTee,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        // Other pods of the bed have no such processor.
        let _ = fs::remove_file(self.bed.node().path(DROP_IN));
    }
}

/// What the promise needs on this bed, or why it cannot be had.
///
/// # Errors
/// When something is missing or cannot be built.
pub(crate) fn prepare<'a>(bed: &'a Bed, prefix: &'a Prefix) -> Result<Promise<'a>> {
    if !firmware_is_installed() {
        bail!("the firmware of ovmf-amdsev is not installed: hack/setup installs it");
    }
    Promise::prepare(bed, prefix, &WORDS_IMAGE)
}

/// Shows the promise.
///
/// # Errors
/// When it is not kept.
pub(crate) fn show_the_promise(promise: &Promise<'_>) -> Result<()> {
    eprintln!("demo: {SCRIPT}: an encrypted and signed image, and a broker with its key");
    let said = promise.play("release")?;
    ensure!(said.contains(WORDS), "the genuine pod printed: {said}");
    eprintln!("demo: the genuine pod got the key and printed: {WORDS}");
    ensure!(
        promise.keys_given()? == 1,
        "the broker gave more than one key"
    );
    promise.deny_every_change()
}

impl<'a> Promise<'a> {
    /// What an owner has before: an image, and a web server for signatures; and a processor that
    /// is simulated.
    ///
    /// # Errors
    /// When something cannot be built or started.
    pub fn prepare(bed: &'a Bed, prefix: &'a Prefix, plain: &Image) -> Result<Self> {
        let promise = Self {
            bed,
            prefix,
            tee: SimulatedTee::install(bed)?,
        };
        let node = bed.node();
        node.run("mkdir", &["-p", &format!("{OWNER}/lookaside")])?;
        plain.push(node, bed.registry())?;
        promise.write_files()?;
        let mut server = node.command("busybox");
        server.args(["httpd", "-f", "-p", &format!("{HOST}:{SIGNATURES_PORT}")]);
        server.args(["-h", &format!("{OWNER}/lookaside")]);
        node.serve(server, "/run/bed/signatures.log")?;
        wait_until("the signature store listens", DEADLINE, || {
            node.listens_on(SIGNATURES_PORT)
        })?;
        Ok(promise)
    }

    /// A file of the owner's, as seen from outside of the bed.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.bed.node().path(format!("{OWNER}/{name}"))
    }

    /// Runs a shell script of the owner's.
    ///
    /// # Errors
    /// When it fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        let mut command = self.bed.command("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = self.prefix.path().join("bin");
        command
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("GNUPGHOME", format!("{OWNER}/gnupg"))
            .env("HOME", OWNER)
            .args(["-euo", "pipefail", "-c", &format!("cd {OWNER}; {script}")]);
        run_ok(command, DEADLINE)
    }

    fn write_files(&self) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (from, to) in [(SCRIPT, "quick-start.sh"), (POD, "words.yaml")] {
            let text = fs::read_to_string(root.join(from))?;
            let text = text.replace(EXAMPLE_REGISTRY, REGISTRY);
            self.bed.node().write(format!("{OWNER}/{to}"), text)?;
        }
        self.shell(&format!(
            "mkdir -m 700 gnupg; mkdir registries.d
             printf 'default-docker:\\n  sigstore-staging: file://{OWNER}/lookaside\\n' >registries.d/default.yaml
             echo '{{\"default\":[{{\"type\":\"insecureAcceptAnything\"}}]}}' >accept.json"
        ))
        .map(drop)
    }

    /// Plays the owner's commands: `release`, to the pod that gets its key, or `all`; answers with
    /// what they print.
    ///
    /// # Errors
    /// When one fails.
    pub fn play(&self, acts: &str) -> Result<String> {
        self.bed.node().write(DROP_IN, self.tee.configuration())?;
        let image = self.tee.image().display().to_string();
        let roots = self.tee.make_roots(self.bed)?.display().to_string();
        let said = self.shell(&format!(
            "bash ./quick-start.sh {REGISTRY} {HOST} /run/bed/trust/ca.crt {image} {roots} words.yaml {acts} 2>owner.log"
        ));
        said.with_context(|| self.bed.tail(&format!("{OWNER}/owner.log")))
    }

    /// Changes one bit of the initrd, of the initdata, of the policy and of the image: none of
    /// these pods gets a key.
    ///
    /// # Errors
    /// When one does, or is refused for another reason.
    pub fn deny_every_change(&self) -> Result<()> {
        self.changed_initrd()?;
        let changed = [self.changed_initdata()?, self.changed_policy()?];
        // At the same time: HOST_DATA tells which of them was refused.
        thread::scope(|scope| {
            let run = |one| scope.spawn(move || self.refused_by_broker(one, "host-data"));
            let runs = changed.each_ref().map(run);
            let ends = runs.map(|run| run.join().unwrap_or_else(|_| bail!("a run panicked")));
            ends.into_iter().collect::<Result<()>>()
        })?;
        self.changed_image()
    }

    /// What the broker decided so far.
    ///
    /// # Errors
    /// When its log cannot be read, or was changed.
    pub fn decisions(&self) -> Result<Vec<Decision>> {
        let text = self.shell("kata-cc broker explain --directory broker --last 1000 --json")?;
        let read: Decisions = serde_json::from_str(&text).context("reading what was decided")?;
        Ok(read.decisions)
    }

    fn keys_given(&self) -> Result<usize> {
        let all = self.decisions()?;
        let keys = all.iter().filter(|one| one.given && one.resource.is_some());
        Ok(keys.count())
    }

    /// Runs a pod that was changed: it must end without a key and without the words.
    fn refused(&self, what: &str, pod: &str) -> Result<String> {
        let given = self.keys_given()?;
        let path = format!("{OWNER}/changed-{what}.yaml");
        self.bed.node().write(&path, pod)?;
        let mut command = self.bed.command(self.prefix.bin("kata-cc"));
        command.args(["run", "--handler", "kata-cc", &path]);
        let ran = run(command, DEADLINE)?;
        let said = ran.output();
        ensure!(
            ran.code != Some(0) && !said.contains(WORDS),
            "with one bit of the {what} changed the pod ran: {said}"
        );
        ensure!(
            self.keys_given()? == given,
            "with one bit of the {what} changed the broker gave a key"
        );
        Ok(said)
    }

    /// As [`Self::refused`], by the broker: tells which check refused the evidence.
    fn refused_by_broker(&self, changed: &Changed, check: &str) -> Result<()> {
        let what = changed.what;
        let before = self.decisions()?.len();
        let said = self.refused(what, &changed.pod)?;
        let since = self.decisions()?.split_off(before);
        let mut refusals = since.iter().flat_map(|one| &one.refusals);
        let refusal =
            refusals.find(|one| one.check == check && one.received.contains(&changed.received));
        let refusal = refusal
            .with_context(|| format!("no check {check} refused: {since:?}; the pod: {said}"))?;
        let Refusal {
            check,
            expected,
            received,
        } = refusal;
        eprintln!(
            "demo: one bit of the {what} changed: no key. The check {check} refused: expected \
             {expected}, received {received}"
        );
        Ok(())
    }

    fn pod(&self) -> Result<String> {
        fs::read_to_string(self.path("pod.yaml")).context("reading the owner's pod")
    }

    fn changed_initrd(&self) -> Result<()> {
        let node = self.bed.node();
        let changed = self.path("guest");
        fs::create_dir_all(&changed)?;
        for name in ["vmlinuz", "manifest.json"] {
            symlink(self.tee.image().join(name), changed.join(name))?;
        }
        let mut initrd = fs::read(self.tee.image().join("initrd.img"))?;
        // A bit of the zstd frame's header that decoders must not look at (RFC 8878, 3.1.1.1.1.4):
        // what boots is the same, and the launch is another.
        *initrd.get_mut(4).context("an initrd has a header")? ^= 1 << 4;
        fs::write(changed.join("initrd.img"), initrd)?;
        let configuration = self.tee.configuration();
        let genuine = self.tee.image().display().to_string();
        let other = configuration.replace(&genuine, &format!("{OWNER}/guest"));
        node.write(DROP_IN, other)?;
        let initrd = Changed {
            what: "initrd",
            pod: self.pod()?,
            received: "measurement".to_owned(),
        };
        let refused = self.refused_by_broker(&initrd, "guest-identity");
        node.write(DROP_IN, configuration)?;
        refused
    }

    /// The owner's pod with initdata of these files of the owner's beside the others.
    fn with_initdata(&self, what: &'static str, sigstore: &str, policy: &str) -> Result<Changed> {
        let make = |sigstore: &str, policy: &str| -> Result<Made> {
            let text = self.shell(&format!(
                "kata-cc initdata make --json aa.toml=broker/aa.toml cdh.toml image-policy.json \
                 sigstore.yaml={sigstore} owner.asc pod-policy.json={policy}"
            ))?;
            serde_json::from_str(&text).context("reading what initdata was made")
        };
        let (genuine, made) = (
            make("sigstore.yaml", "policy.json")?,
            make(sigstore, policy)?,
        );
        let pod = self.pod()?;
        let has = pod.contains(&genuine.annotation.value);
        ensure!(has, "the pod has other initdata");
        Ok(Changed {
            what,
            pod: pod.replace(&genuine.annotation.value, &made.annotation.value),
            received: made.host_data,
        })
    }

    /// Writes a copy of a file in which the first such word has one bit changed in its last letter.
    fn flip(&self, name: &str, word: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.path(name))?;
        let at = text
            .find(word)
            .with_context(|| format!("{name} has no {word}"))?;
        let mut bytes = text.into_bytes();
        let last = at + word.len() - 1;
        *bytes.get_mut(last).context("a word has a last letter")? ^= 1;
        fs::write(self.path(to), &bytes).with_context(|| format!("writing {to}"))
    }

    fn changed_initdata(&self) -> Result<Changed> {
        self.shell(
            "kata-cc initdata show broker/initdata.toml --entry pod-policy.json >policy.json",
        )?;
        self.flip("sigstore.yaml", "Signatures", "changed-sigstore.yaml")?;
        self.with_initdata("initdata", "changed-sigstore.yaml", "policy.json")
    }

    fn changed_policy(&self) -> Result<Changed> {
        self.flip("policy.json", "/word", "changed-policy.json")?;
        let mut changed = self.with_initdata("policy", "sigstore.yaml", "changed-policy.json")?;
        // What the changed policy allows is asked for.
        changed.pod = changed.pod.replace("cat /words", "cat /wores");
        Ok(changed)
    }

    /// In the registry's storage, where the node may well be: the manifest that the policy names.
    fn changed_image(&self) -> Result<()> {
        let policy = fs::read_to_string(self.path("policy.json"))?;
        let (_, digest) = policy.split_once("@sha256:").context("a pinned image")?;
        let digest = digest.get(..64).context("a digest")?;
        let blob = self
            .bed
            .registry()
            .blob(self.bed.node(), &format!("sha256:{digest}"));
        let genuine = fs::read(&blob)?;
        let mut changed = genuine.clone();
        let middle = changed.len() / 2;
        *changed.get_mut(middle).context("a manifest has bytes")? ^= 1;
        fs::write(&blob, &changed)?;
        let before = self.decisions()?.len();
        let said = self.refused("image", &self.pod()?);
        fs::write(&blob, genuine)?;
        let said = said?;
        ensure!(self.decisions()?.len() == before, "the broker was asked");
        let sentence = said.lines().find(|line| line.contains("cannot pull"));
        let sentence = sentence.with_context(|| format!("another reason: {said}"))?;
        eprintln!("demo: one bit of the image changed: no key. The guest refused: {sentence}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_made_of_the_script() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut print = std::process::Command::new("bash");
        print.arg(root.join(SCRIPT)).arg("--page");
        let page = run_ok(print, DEADLINE)?;
        let written = fs::read_to_string(root.join("docs/quick-start.md"))?;
        ensure!(
            page == written,
            "{SCRIPT} --page >docs/quick-start.md makes it anew"
        );
        Ok(())
    }
}
