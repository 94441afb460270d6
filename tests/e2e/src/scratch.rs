//! The disk that the node lends to a pod.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use anyhow::{Result, ensure};
use k8s_cri::v1::Mount;
use tests_harness::{ContainerRequest, Pod, PodRequest};

use crate::Stage;

const DIRECTORY: &str = "/var/lib/kata-cc/scratch";
const VOLUME: &str = "/var/lib/kubelet/pods/scratch/volumes/kubernetes.io~empty-dir/cache";
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.katacontainers.config.hypervisor.scratch_disk_mib", "64"),
    (
        "io.katacontainers.config.runtime.emptydir_size_limits",
        "cache=1Mi",
    ),
];
const SECRET: &str = "what-the-pod-wrote-and-nobody-else-may-read";

fn disk(stage: &Stage, sandbox: &str) -> PathBuf {
    stage
        .bed()
        .node()
        .path(format!("{DIRECTORY}/{sandbox}.img"))
}

/// What a container writes to its root and to an `emptyDir` fills a file of the node, in
/// which it is not to be found; the volume has its limit; the file goes with the pod.
pub fn what_a_pod_writes_lies_encrypted_on_the_node_and_goes_with_it(
    stage: &'static Stage,
) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let node = stage.bed().node();
    fs::create_dir_all(node.path(VOLUME))?;
    let request = PodRequest {
        annotations: ANNOTATIONS
            .map(|(key, value)| (key.into(), value.into()))
            .into(),
        ..PodRequest::default()
    };
    let pod = Pod::run(stage.bed(), stage.handler(), request)?;
    let script = format!(
        "yes {SECRET} | head -c 4000000 > /written; \
         yes {SECRET} | head -c 4000000 | dd of=/cache/written bs=4096; \
         sync; stat -c %s /written /cache/written"
    );
    let exit = pod.complete(ContainerRequest {
        mounts: vec![Mount {
            container_path: "/cache".to_owned(),
            host_path: VOLUME.to_owned(),
            ..Mount::default()
        }],
        ..ContainerRequest::shell(&script)
    })?;
    let sizes: Vec<u64> = exit.stdout.lines().flat_map(str::parse).collect();
    let [root, volume] = sizes[..] else {
        anyhow::bail!("{exit:?}");
    };
    ensure!(root == 4_000_000, "the root holds {root} bytes");
    ensure!(
        (900_000..=1 << 20).contains(&volume),
        "the volume holds {volume} bytes"
    );
    // What the kernel says when a project has used up its quota.
    ensure!(exit.stderr.contains("quota exceeded"), "{exit:?}");

    let disk = disk(stage, pod.id());
    let metadata = fs::metadata(&disk)?;
    let written = metadata.blocks() * 512;
    ensure!(metadata.len() == 64 << 20, "{} bytes", metadata.len());
    ensure!(written > 5_000_000, "{written} bytes are on the disk");
    ensure!(written < metadata.len() / 2, "the disk is not sparse");
    let bytes = fs::read(&disk)?;
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    ensure!(
        !holds(SECRET.as_bytes()),
        "the node reads what the pod wrote"
    );
    ensure!(
        fs::read_dir(node.path(VOLUME))?.next().is_none(),
        "the node has files of the pod"
    );
    pod.remove()?;
    ensure!(!disk.exists(), "the disk is left");
    Ok(())
}
