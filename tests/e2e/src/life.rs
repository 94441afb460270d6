//! How containers live and end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_cri::v1::LinuxContainerResources;
use tests_harness::{ContainerRequest, Pod, wait_until};

use crate::Stage;

/// A container that listens to SIGTERM ends by itself; one that does not is killed after its grace.
pub fn sigterm_comes_first_and_sigkill_when_it_is_ignored(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let polite = pod.start(ContainerRequest::shell(
        "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done",
    ))?;
    polite.wait_for_output("ready")?;
    polite.stop(60)?;
    let exit = polite.wait()?;
    ensure!(exit.code == 5 && exit.stdout.contains("bye"), "{exit:?}");
    let stubborn = pod.start(ContainerRequest::shell(
        "trap 'echo no' TERM; echo ready; while :; do sleep 0.1; done",
    ))?;
    stubborn.wait_for_output("ready")?;
    let start = Instant::now();
    stubborn.stop(2)?;
    let exit = stubborn.wait()?;
    ensure!(exit.code == 137, "{exit:?}");
    ensure!(
        start.elapsed() >= Duration::from_secs(2),
        "killed before its grace had passed"
    );
    // The first process of a container hears only what it has a handler for.
    let deaf = pod.start(ContainerRequest::busybox(&["sleep", "1000"]))?;
    let start = Instant::now();
    deaf.stop(2)?;
    let exit = deaf.wait()?;
    ensure!(
        exit.code == 137 && start.elapsed() >= Duration::from_secs(2),
        "{exit:?}"
    );
    pod.remove()
}

/// The kernel's out-of-memory killer is seen through to CRI.
pub fn a_container_out_of_memory_is_reported_as_such(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let exit = pod.complete(ContainerRequest {
        resources: LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            ..LinuxContainerResources::default()
        },
        ..ContainerRequest::busybox(&["tail", "/dev/zero"])
    })?;
    ensure!(exit.code == 137 && exit.reason == "OOMKilled", "{exit:?}");
    pod.remove()
}

/// Processor time grows with work, memory is that of the workload.
pub fn stats_are_plausible(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let fill = "head -c 20000000 /dev/zero > /dev/shm/fill; echo full; while :; do :; done";
    let container = pod.start(ContainerRequest::shell(fill))?;
    container.wait_for_output("full")?;
    let processor = || -> Result<u64> {
        let stats = container.cri().container_stats(container.id())?;
        let cpu = stats.cpu.context("stats of the processor")?;
        Ok(cpu.usage_core_nano_seconds.context("processor time")?.value)
    };
    let start = processor()?;
    wait_until(
        "a second of processor time is counted",
        Duration::from_secs(60),
        || Ok(processor()? > start + 1_000_000_000),
    )?;
    let stats = container.cri().container_stats(container.id())?;
    let memory = stats.memory.context("stats of memory")?;
    let used = memory.usage_bytes.context("used memory")?.value;
    ensure!((1 << 16..1 << 29).contains(&used), "{used} bytes of memory");
    let working = memory.working_set_bytes.context("the working set")?.value;
    ensure!(
        (1 << 16..=used).contains(&working),
        "{working} of {used} bytes"
    );
    the_pods_network_is_behind_its_number(stage, &pod)?;
    pod.remove()
}

/// kubelet reads a pod's counters where the number of its sandbox's task leads to.
fn the_pods_network_is_behind_its_number(stage: &Stage, pod: &Pod<'_>) -> Result<()> {
    let mut ctr = stage.bed().ctr_command();
    let listed = ctr.args(["tasks", "list"]).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let line = listed.lines().find(|line| line.starts_with(pod.id()));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let number = number.with_context(|| format!("no task of the pod: {listed}"))?;
    let counters = stage.bed().node().read(format!("/proc/{number}/net/dev"))?;
    ensure!(counters.contains("eth0:"), "{counters}");
    Ok(())
}

/// The same pod starts a container anew; its neighbour does not notice.
pub fn one_container_restarts_while_another_runs_on(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let neighbour = pod.start(ContainerRequest::shell(
        "date +%s%N > /tmp/born; while :; do sleep 1; done",
    ))?;
    for round in 1..=3 {
        let script = format!("test ! -e /tmp/mark && touch /tmp/mark && exit {round}");
        let exit = pod.complete(ContainerRequest::shell(&script))?;
        ensure!(exit.code == round, "round {round}: {exit:?}");
    }
    ensure!(!neighbour.shell("cat /tmp/born")?.is_empty());
    pod.remove()
}
