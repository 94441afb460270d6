//! What a user is told when something is wrong: one sentence that names the thing.
//!
//! Everything goes through `kata-cc run`, as a user would; each scenario also sees
//! that nothing of the failed pod stays.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests_harness::{Pod, PodRequest, REGISTRY, run};

use crate::Stage;

const DEADLINE: Duration = Duration::from_secs(180);
const DROP_IN: &str = "/run/bed/kata-cc/config.d/99-test.toml";

fn pod_of(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\nspec:\n  restartPolicy: Never\n  \
         containers:\n    - name: only\n      image: {image}\n      command: [\"true\"]\n"
    )
}

/// Runs `yaml`, which must fail with one line that holds each of `words`, and leave nothing.
fn fails(stage: &Stage, yaml: &str, handler: &str, words: &[&str]) -> Result<()> {
    if !stage.has_vms() {
        return Ok(());
    }
    let bed = stage.bed();
    let before = stage.before()?;
    bed.node().write("/run/bed/bad.yaml", yaml)?;
    let prefix = bed.prefix().context("the bed has the product")?;
    let mut command = bed.command(prefix.bin("kata-cc"));
    command.args(["run", "--handler", handler, "/run/bed/bad.yaml"]);
    let ran = run(command, DEADLINE)?;
    ensure!(
        ran.code.is_some_and(|code| code != 0),
        "it ended with {:?}: {}",
        ran.code,
        ran.output()
    );
    // Beside the sentence is only what a pod without policy is told.
    let lines: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("kata-cc: no policy:"))
        .collect();
    ensure!(lines.len() == 1, "not one sentence: {}", ran.stderr);
    for word in words {
        ensure!(
            ran.stderr.contains(word),
            "{word:?} is not in: {}",
            ran.stderr
        );
    }
    let mut cri = bed.cri()?;
    let left: Vec<_> = cri
        .sandboxes()?
        .into_iter()
        .filter(|id| !stage.is_shared(id))
        .collect();
    ensure!(left.is_empty(), "sandboxes are left: {left:?}");
    before.wait_until_gone(bed.node(), Duration::from_secs(30))
}

/// Runs a good pod while the shim's configuration has this drop-in.
fn fails_with_configuration(stage: &Stage, drop_in: &str, words: &[&str]) -> Result<()> {
    let node = stage.bed().node();
    let busybox = format!("{REGISTRY}/busybox:1");
    stage.before()?;
    node.write(DROP_IN, drop_in)?;
    let result = fails(stage, &pod_of(&busybox), "kata-cc", words);
    std::fs::remove_file(node.path(DROP_IN))?;
    result
}

/// `--handler` names a runtime that containerd does not have.
pub fn a_wrong_handler_is_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    fails(
        stage,
        &pod_of(&format!("{REGISTRY}/busybox:1")),
        "no-such-handler",
        &["no-such-handler"],
    )
}

/// The file and the line are named.
pub fn malformed_yaml_is_named_with_its_place(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: [unclosed\n";
    fails(stage, yaml, "kata-cc", &["/run/bed/bad.yaml"])
}

/// The registry answers that it has no such image.
pub fn an_image_that_does_not_exist_is_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let image = format!("{REGISTRY}/no-such-image:1");
    fails(stage, &pod_of(&image), "kata-cc", &[&image])
}

/// Nothing listens where the image should come from.
pub fn an_unreachable_registry_is_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let image = "10.90.0.1:5999/busybox:1";
    fails(stage, &pod_of(image), "kata-cc", &[image])
}

/// The guest compares each layer with its digest; the node, which downloads none, cannot.
pub fn a_layer_with_a_wrong_digest_is_refused_and_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let image = format!("{REGISTRY}/spoiled:1");
    fails(stage, &pod_of(&image), "kata-cc", &[&image, "digest"])
}

/// The shim refuses a configuration it does not understand.
pub fn an_unknown_configuration_key_is_named_with_file_and_line(
    stage: &'static Stage,
) -> Result<()> {
    let _turn = stage.alone();
    let drop_in = "[hypervisor.qemu]\ndefault_vcpu = 1\n";
    let place = format!("{DROP_IN}:2");
    fails_with_configuration(stage, drop_in, &["default_vcpu", &place])
}

/// The guest image is not where the configuration says.
pub fn a_missing_kernel_is_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let drop_in = "[hypervisor.qemu]\nguest_image = \"/run/bed/no-such-image\"\n";
    fails_with_configuration(stage, drop_in, &["/run/bed/no-such-image"])
}

/// The node has less memory than the pod asks for.
pub fn a_pod_larger_than_the_node_is_refused(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let drop_in = "[hypervisor.qemu]\ndefault_memory = 4000000\n";
    fails_with_configuration(stage, drop_in, &["memory", "4000000"])
}

/// kubelet tries such a pod again and again: each time it hears why, and nothing is left.
pub fn a_pod_that_needs_the_nodes_namespaces_is_refused_and_leaves_nothing(
    stage: &'static Stage,
) -> Result<()> {
    if !stage.has_vms() {
        return Ok(());
    }
    let _turn = stage.alone();
    let before = stage.before()?;
    for _ in 0..2 {
        let request = PodRequest {
            host_ipc: true,
            ..PodRequest::default()
        };
        let refused = Pod::run(stage.bed(), stage.handler(), request);
        let text = format!("{:#}", refused.err().context("it runs")?);
        ensure!(text.contains("remove hostIPC"), "{text}");
    }
    before.wait_until_gone(stage.bed().node(), Duration::from_secs(30))
}
