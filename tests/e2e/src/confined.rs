//! What the processes of a pod's VM are on the node.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tests_harness::{OWN_MIB, Pod, own_mib};

use crate::Stage;

/// The first number that the installed configuration gives to such processes.
const FIRST_USER: u32 = 1_879_048_192;
const PROGRAMS: [&str; 2] = ["qemu-system-x86_64", "vhost-device-vsock"];

/// Each process is a user that no other process is, without capabilities, and of the node's
/// files finds none; together they take no more than a RuntimeClass counts for them, and with the
/// pod its users are free again.
pub fn qemu_of_a_pod_is_nobody_and_finds_nothing_of_the_node(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let pods = [stage.pod()?, stage.pod()?];
    let mut users = BTreeSet::new();
    for pod in &pods {
        let found = processes(stage, pod)?;
        ensure!(!found.is_empty(), "pod {} has no QEMU", pod.id());
        let maps = found
            .iter()
            .map(|process| fs::read_to_string(process.join("smaps")));
        let own: f64 = maps.flatten().map(|maps| own_mib(&maps)).sum();
        ensure!(
            own > 1.0 && own < OWN_MIB,
            "the VM itself takes {own:.1} MiB"
        );
        for process in found {
            let user = user_of(&process)?;
            ensure!(user >= FIRST_USER, "{} runs as {user}", process.display());
            ensure!(users.insert(user), "user {user} runs two processes");
            let seen = [
                "etc/passwd",
                "proc/1",
                "run/containerd",
                "sys",
                "usr/bin/sh",
                "var",
                "home",
            ];
            let seen = seen.into_iter().find(|path| {
                let path = process.join("root").join(path);
                path.exists()
            });
            ensure!(seen.is_none(), "{} finds {seen:?}", process.display());
            let sandboxes = fs::read_dir(process.join("root/run/kata-cc"));
            for sandbox in sandboxes.into_iter().flatten() {
                let name = sandbox?.file_name();
                ensure!(name == pod.id(), "{} finds {name:?}", process.display());
            }
        }
    }
    for pod in pods {
        pod.remove()?;
    }
    let notes = fs::read_dir(stage.bed().node().path("/run/kata-cc/.users"))?;
    for note in notes {
        let name = note?.file_name().into_string().unwrap_or_default();
        let is_lent = name.parse().is_ok_and(|user| users.contains(&user));
        ensure!(!is_lent, "user {name} is not free again");
    }
    Ok(())
}

/// The directories in `/proc` of a pod's QEMU and vsock device.
fn processes(stage: &Stage, pod: &Pod<'_>) -> Result<Vec<PathBuf>> {
    let node = stage.bed().node();
    let all = node.processes()?.into_iter().filter(|process| {
        let mut arguments = process.arguments.iter();
        let is_its = arguments.any(|argument| argument.contains(pod.id()));
        is_its && PROGRAMS.iter().any(|program| process.is(program))
    });
    Ok(all
        .map(|process| node.path(format!("/proc/{}", process.pid)))
        .collect())
}

/// The one user that a process is, which has no capabilities.
fn user_of(process: &Path) -> Result<u32> {
    let status = fs::read_to_string(process.join("status"))?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.with_context(|| format!("no {name} of {}", process.display()))
    };
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        let value = field(set)?.trim();
        ensure!(value.bytes().all(|digit| digit == b'0'), "{set} {value}");
    }
    let ids: BTreeSet<&str> = field("Uid:")?.split_whitespace().collect();
    ensure!(ids.len() == 1, "several users: {ids:?}");
    ensure!(
        field("Groups:")?.trim().is_empty(),
        "groups: {}",
        field("Groups:")?
    );
    let id = ids.first().context("no user")?;
    Ok(id.parse()?)
}
