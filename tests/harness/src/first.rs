//! PID 1 of the bed: sets up its namespaces, then only reaps.

use std::{fs, io::Write, os::fd::AsFd, process::Command};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};

use crate::{cgroups, network};

/// Runs as the bed's first process until its standard input closes.
///
/// # Errors
/// When a namespace cannot be set up.
pub fn first_process(name: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("binding the bed to its keeper")?;
    let hierarchies = cgroups::hierarchies()?;
    cgroups::move_self(name)?;
    unshare(
        CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .context("making namespaces")?;
    mounts()?;
    cgroups::mount_all(&hierarchies)?;
    network::loopback_and_registry(|arguments| {
        let status = Command::new("ip").args(arguments).status()?;
        if !status.success() {
            bail!("ip {} failed", arguments.join(" "));
        }
        Ok(())
    })?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("allowing forwarding in the bed")?;
    let child = SigSet::from_iter([Signal::SIGCHLD]);
    child.thread_block()?;
    let signals = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    reap(&signals)
}

fn mounts() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("making mounts private")?;
    let fresh = [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("tmpfs", "/run", Some("mode=755")),
        ("tmpfs", "/var/lib", Some("mode=755")),
        ("tmpfs", "/dev/shm", Some("mode=1777")),
    ];
    for (kind, target, options) in fresh {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("mounting a fresh {target}"))?;
    }
    // A container needs its mounts to reach its shim, so the bed's root is shared within the bed.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)
        .context("sharing mounts inside the bed")
}

fn reap(signals: &SignalFd) -> Result<()> {
    let input = std::io::stdin();
    loop {
        let mut watched = [
            PollFd::new(input.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut watched, PollTimeout::NONE).context("waiting for the bed's end")?;
        if watched[0].any().unwrap_or(true) {
            return Ok(());
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        while !matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(_)
        ) {}
    }
}
