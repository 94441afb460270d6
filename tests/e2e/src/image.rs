//! Where image layers go, and where not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests_harness::{ContainerRequest, TestImages, wait_until};

use crate::Stage;

/// containerd's client waits up to three seconds before it dials a lost snapshotter again.
const REDIAL: Duration = Duration::from_secs(30);

fn layers(stage: &Stage) -> Result<Vec<String>> {
    let bed = stage.bed();
    let manifest = bed
        .registry()
        .manifest(bed.node(), TestImages::BUSYBOX.name)?;
    let layers = manifest["layers"]
        .as_array()
        .context("a manifest has layers")?;
    let digests = layers.iter().filter_map(|layer| layer["digest"].as_str());
    Ok(digests.map(str::to_owned).collect())
}

/// containerd asks the registry for manifest and configuration; only the guest asks for layers.
pub fn the_node_downloads_no_layer(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let pod = stage.pod()?;
    ensure!(pod.complete(ContainerRequest::busybox(&["true"]))?.code == 0);
    pod.remove()?;
    let log = stage.bed().registry().log(stage.bed().node())?;
    for digest in layers(stage)? {
        let (node, pods) = log.fetches(&digest);
        ensure!(node == 0, "the node downloaded layer {digest} {node} times");
        ensure!(pods > 0, "no guest downloaded layer {digest}");
    }
    Ok(())
}

/// containerd remembers snapshots that the snapshotter has forgotten; pods run all the same.
pub fn pods_run_after_the_snapshotters_directory_was_wiped(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    if !stage.has_vms() {
        return Ok(());
    }
    let node = stage.bed().node();
    let pod = stage.pod()?;
    ensure!(pod.complete(ContainerRequest::busybox(&["true"]))?.code == 0);
    pod.remove()?;
    let snapshotter = node
        .processes()?
        .into_iter()
        .find(|process| process.is("kata-cc-snapshotter"))
        .context("a snapshotter runs")?;
    node.kill(&snapshotter)?;
    node.run("rm", &["-rf", "/var/lib/kata-cc/snapshotter"])?;
    stage.bed().start_snapshotter()?;
    wait_until("containerd reaches the snapshotter", REDIAL, || {
        let listed = ["snapshots", "--snapshotter", "kata-cc", "list"];
        Ok(stage.bed().ctr(&listed, REDIAL)?.code == Some(0))
    })?;
    let pod = stage.pod()?;
    let exit = pod.complete(ContainerRequest::shell("echo again"))?;
    ensure!(exit.stdout == "again\n", "{exit:?}");
    pod.remove()?;
    let log = stage.bed().registry().log(node)?;
    for digest in layers(stage)? {
        ensure!(
            log.fetches(&digest).0 == 0,
            "the node downloaded layer {digest}"
        );
    }
    Ok(())
}
