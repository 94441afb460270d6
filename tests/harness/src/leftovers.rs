//! What exists in a bed at one moment, to prove that a pod left nothing behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    bed::{Bed, Handler, wait_until},
    node::Node,
    pod::{ContainerRequest, Pod, PodRequest},
};

/// Directories whose entries are a pod's, not a log's or an image's.
const DIRECTORIES: [&str; 8] = [
    "/run/kata-cc",
    "/var/lib/kata-cc/scratch",
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/containerd/io.containerd.grpc.v1.cri",
    "/run/containerd/s",
    "/run/netns",
    "/var/lib/cni/networks",
    "/dev/shm",
];

/// Where containerd puts groups of pods that name no parent.
const PARENT_GROUP: &str = "k8s.io";

/// Everything of the kinds that a pod makes: processes, mounts, cgroups, interfaces, files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// Lists what is there now.
    ///
    /// # Errors
    /// When the bed cannot be read.
    pub fn now(node: &Node) -> Result<Self> {
        let mut all = BTreeSet::new();
        processes(node, &mut all)?;
        mounts(node, &mut all)?;
        let roots = std::iter::once("/sys/fs/cgroup").chain(DIRECTORIES);
        for root in roots {
            walk(&node.path(root), root, &mut all);
        }
        for line in node.run("ip", &["-brief", "link"])?.lines() {
            let name = line.split([' ', '@']).next().unwrap_or_default();
            all.insert(format!("interface {name}"));
        }
        Ok(Self(all))
    }

    /// Lists what is there after the first pod, which makes what all pods share: the bridge,
    /// the parent cgroup, directories.
    ///
    /// # Errors
    /// When the pod does not run or the bed cannot be read.
    pub fn baseline(bed: &Bed, handler: Handler) -> Result<Self> {
        let pod = Pod::run(bed, handler, PodRequest::default())?;
        pod.complete(ContainerRequest::busybox(&["true"]))?;
        pod.remove()?;
        Self::now(bed.node())
    }

    /// Waits until nothing is there that was not there at `self`.
    ///
    /// # Errors
    /// Lists what stays.
    pub fn wait_until_gone(&self, node: &Node, deadline: Duration) -> Result<()> {
        let mut left = Vec::new();
        wait_until("nothing is left behind", deadline, || {
            left = Self::now(node)?.0.difference(&self.0).cloned().collect();
            Ok(left.is_empty())
        })
        .with_context(|| format!("left behind: {left:#?}"))
    }
}

fn processes(node: &Node, all: &mut BTreeSet<String>) -> Result<()> {
    // Commands of the harness itself come and go.
    let lasting = node.processes()?.into_iter().filter(|one| !one.is("ip"));
    all.extend(lasting.map(|one| format!("process {}: {}", one.pid, one.arguments.join(" "))));
    Ok(())
}

fn mounts(node: &Node, all: &mut BTreeSet<String>) -> Result<()> {
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", node.first()))?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    all.extend(points.map(|point| format!("mount {point}")));
    Ok(())
}

/// Directories and files below `root`; what vanishes meanwhile is not there.
fn walk(root: &Path, shown: &str, all: &mut BTreeSet<String>) {
    let mut pending = vec![(root.to_owned(), PathBuf::from(shown))];
    while let Some((path, shown)) = pending.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let in_cgroup = shown.starts_with("/sys/fs/cgroup");
            if in_cgroup && !directory {
                continue;
            }
            let shown = shown.join(&name);
            // The groups' common parent is the node's; who removes it when it is empty may.
            if !(in_cgroup && name == PARENT_GROUP) {
                all.insert(format!("file {}", shown.display()));
            }
            // A container's root is the container's business.
            if directory && name != "rootfs" {
                pending.push((path.join(&name), shown));
            }
        }
    }
}
