//! A key from its owner to a pod in a VM, by the owner's own commands; and where it is not seen.

mod search;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tests_harness::{Image, Promise, REGISTRY, WORDS, WORDS_IMAGE, busybox, wait_until, words};

use self::search::{Marker, files_with};
use crate::Stage;

const DEADLINE: Duration = Duration::from_secs(300);
const OWNER: &str = "/run/bed/owner-of-words";
/// A resource that is no image key: what a registry would be told.
const SECRET: &str = "PLANTED-SECRET-of-the-owner";

/// The image of the quick start, in ten layers.
const TEN_LAYERS: Image = Image {
    layers: &[
        busybox, words, next, next, next, next, next, next, next, next,
    ],
    ..WORDS_IMAGE
};

/// A layer that no other image has.
fn next(root: &std::path::Path) -> Result<()> {
    let directory = root.join("layers");
    fs::create_dir_all(&directory)?;
    let number = fs::read_dir(&directory)?.count();
    fs::write(directory.join(number.to_string()), format!("{number}\n")).context("writing a layer")
}

/// The quick start as it is printed, with an image of ten encrypted layers: each pod costs one
/// attestation and gets its key; the pod of before gets none, nor does one of which the node
/// changed one bit; and no log or file shows the key, or another secret that was released.
pub fn a_key_reaches_the_genuine_pod_and_no_changed_one(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    if !stage.has_simulated_tee() {
        return Ok(());
    }
    let prefix = stage.bed().prefix().context("a bed with VMs has them")?;
    let promise = Promise::prepare(stage.bed(), prefix, &TEN_LAYERS)?;
    let said = promise.play("all")?;
    ensure!(said.matches(WORDS).count() == 2, "two pods run: {said}");
    ensure!(said.contains("accepted"), "the evidence is judged: {said}");
    one_attestation_for_each_pod(&promise)?;
    promise.deny_every_change()?;
    nothing_shows_what_was_released(stage, &promise)
}

/// Ten layers under one key for the first pod, ten under another for the second.
fn one_attestation_for_each_pod(promise: &Promise<'_>) -> Result<()> {
    let decisions = promise.decisions()?;
    let given = |asked: &str| {
        let of_this = decisions.iter().filter(|one| one.asked == asked);
        of_this.filter(|one| one.given).count()
    };
    ensure!(given("attest") == 2, "{decisions:?}");
    ensure!(given("resource") == 2, "{decisions:?}");
    let mut refusals = decisions.iter().flat_map(|one| &one.refusals);
    ensure!(
        refusals.clone().count() > 0 && refusals.all(|one| one.check == "host-data"),
        "the pod of before is refused by its initdata: {decisions:?}"
    );
    Ok(())
}

/// Searches node and guest while a pod runs that got a key and a secret.
fn nothing_shows_what_was_released(stage: &Stage, promise: &Promise<'_>) -> Result<()> {
    let key = fs::read(promise.path("image.key"))?;
    let markers = [
        Marker::new("the key", key.clone()),
        Marker::new("the key in hexadecimal", hex::encode(&key)),
        Marker::new("the key in base64", STANDARD.encode(&key)),
        Marker::new("the secret", SECRET),
        Marker::new("the secret in base64", STANDARD.encode(SECRET)),
    ];
    plant(promise, &markers)?;
    let node = stage.bed().node();
    let mut command = node.command(prefix_program(stage)?);
    command.args([
        "run",
        "--handler",
        "kata-cc",
        &format!("{OWNER}/planted.yaml"),
    ]);
    let mut run = node.serve(command, "/run/bed/planted.log")?;
    wait_until("the pod has searched its guest", DEADLINE, || {
        if let Some(status) = run.try_wait()? {
            bail!(
                "the pod ended with {status}: {}",
                node.read("/run/bed/planted.log")?
            );
        }
        Ok(node.read("/run/bed/planted.log")?.contains("searched"))
    })?;
    let found = files_with(node, &markers)?;
    let said = node.read("/run/bed/planted.log")?;
    for process in node.processes()? {
        if process.is("kata-cc") && process.arguments.iter().any(|one| one == "run") {
            node.run("busybox", &["kill", "-TERM", &process.pid.to_string()])?;
        }
    }
    run.wait()?;
    let got: Vec<_> = promise.decisions()?;
    let got = got
        .iter()
        .filter(|one| one.given)
        .filter_map(|one| one.resource.as_deref());
    ensure!(
        got.clone().any(|name| name == "default/secret/registry"),
        "the secret was not released: {got:?}",
        got = got.collect::<Vec<_>>()
    );
    // What the search is able to find: the guest's own words, and the owner's own key.
    ensure!(
        said.contains("[words] /words"),
        "the guest was not searched: {said}"
    );
    let (of_owner, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(path, _)| path.starts_with(OWNER));
    ensure!(
        of_owner.iter().any(|(_, what)| *what == "the key"),
        "the node was not searched: {of_owner:?}"
    );
    ensure!(
        others.is_empty(),
        "released secrets lie on the node: {others:?}"
    );
    ensure!(
        !said.contains("[words] FOUND"),
        "released secrets lie in the guest: {said}"
    );
    // What came after: the end of the pod is logged, too.
    let later = files_with(node, &markers)?;
    let later: Vec<_> = later
        .iter()
        .filter(|(path, _)| !path.starts_with(OWNER))
        .collect();
    ensure!(
        later.is_empty(),
        "released secrets lie on the node: {later:?}"
    );
    Ok(())
}

fn prefix_program(stage: &Stage) -> Result<std::path::PathBuf> {
    let prefix = stage.bed().prefix().context("a bed with VMs has them")?;
    Ok(prefix.bin("kata-cc"))
}

/// Makes a pod that gets a secret beside its key, searches its guest, and stays.
fn plant(promise: &Promise<'_>, markers: &[Marker]) -> Result<()> {
    let secret = format!(
        r#"{{"auths":{{"registry.example":{{"auth":"{}"}}}}}}"#,
        STANDARD.encode(format!("owner:{SECRET}"))
    );
    fs::write(promise.path("secret.json"), secret)?;
    let words = markers.iter().filter_map(Marker::in_pieces);
    let patterns: String = words.map(|word| format!(" -e {word}")).collect();
    let own = Marker::new("its own words", WORDS).in_pieces();
    let search = format!(
        "grep -rlF {own} /words; for d in /* /dev/shm; do case $d in /proc|/sys|/dev) ;; \
         *) grep -rlF {patterns} $d && echo FOUND;; esac; done; \
         cat /proc/*/environ | grep -F {patterns} && echo FOUND; echo searched; sleep 100000",
        own = own.context("the words are plain text")?
    );
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: planted }}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n    - name: words\n      \
         image: {REGISTRY}/words:2\n      command: [\"sh\", \"-c\", {}]\n",
        serde_json::Value::from(search)
    );
    fs::write(promise.path("plain-planted.yaml"), yaml)?;
    promise
        .shell(
            "kata-cc broker put --directory broker --store-key broker.key default/secret/registry secret.json
             cp cdh.toml with-secret.toml
             echo 'authenticated_registry_credentials_uri = \"kbs:///default/secret/registry\"' >>with-secret.toml
             kata-cc initdata make --output planted-base.toml aa.toml=broker/aa.toml cdh.toml=with-secret.toml \\
                 image-policy.json sigstore.yaml owner.asc >/dev/null
             gen=(kata-cc policy gen --no-service-account --no-cache --extra-root /run/bed/trust/ca.crt \\
                 --initdata planted-base.toml)
             \"${gen[@]}\" plain-planted.yaml >planted.yaml
             \"${gen[@]}\" --output initdata plain-planted.yaml >broker/planted.toml
             sed -i 's/^initdata = .*/initdata = [\"initdata.toml\", \"planted.toml\"]/' broker/broker.toml",
        )
        .map(drop)
}
