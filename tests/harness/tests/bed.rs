//! The bed holds its own promises, with runc in place of our runtime.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use tests_harness::{
    Bed, BedOptions, ContainerRequest, Handler, Leftovers, Pod, PodRequest, Release, wait_until,
};

fn bed() -> Result<Bed> {
    Bed::up(BedOptions {
        containerd: Release::V1_7.provide()?,
        prefix: None,
        detached: false,
    })
}

#[test]
fn a_pod_runs_and_leaves_nothing_and_neither_does_the_bed() -> Result<()> {
    let bed = bed()?;
    let before = Leftovers::baseline(&bed, Handler::Runc)?;
    let pod = Pod::run(&bed, Handler::Runc, PodRequest::default())?;
    let exit = pod.complete(ContainerRequest::shell("echo out; echo err >&2; exit 3"))?;
    assert_eq!(
        (exit.code, exit.stdout.as_str(), exit.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    assert!(pod.address()?.starts_with("10.88."));
    pod.remove()?;
    before.wait_until_gone(bed.node(), Duration::from_secs(10))?;

    let (first, name) = (bed.node().first(), bed.node().name().to_owned());
    drop(bed);
    assert!(!fs::exists(format!("/proc/{first}"))?);
    let cgroups = fs::read_dir("/sys/fs/cgroup").context("this machine has cgroups")?;
    for hierarchy in cgroups.flatten() {
        assert!(!hierarchy.path().join(&name).exists());
    }
    Ok(())
}

#[test]
fn a_user_that_is_killed_takes_the_bed_along() -> Result<()> {
    let mut sleeper = std::process::Command::new("sleep")
        .arg("60")
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut keeper = std::process::Command::new(env!("CARGO_BIN_EXE_bed"))
        .args(["keeper", "kata-cc-bed-killed"])
        .stdin(sleeper.stdout.take().context("a pipe")?)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    sleeper.kill()?;
    sleeper.wait()?;
    wait_until("the keeper ends", Duration::from_secs(20), || {
        Ok(keeper.try_wait()?.is_some())
    })
}
