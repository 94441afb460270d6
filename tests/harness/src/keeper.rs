//! The process that outlives nobody: it holds the bed's namespaces and takes the bed away.
//!
//! Three processes stand in a row, each single-threaded. The **user** (a test,
//! the demo) holds a pipe. The **keeper** sits in a session of its own, so that
//! Ctrl-C does not reach it, and waits for the pipe to close, for SIGTERM or
//! for the bed to die; then it ends the bed and removes its cgroups. The
//! [first process](crate::first_process) is PID 1 of the bed: the kernel kills
//! it when the keeper dies, and everything else in the bed with it. However the
//! user ends — return, panic, SIGKILL — nothing stays.

use std::{
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::setsid,
};

use crate::cgroups;

/// How a keeper behaves.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// Names the bed's cgroups.
    pub name: String,
    /// Stay when the pipe on standard input closes; only SIGTERM ends the bed.
    pub detached: bool,
}

/// Makes the namespaces, starts the first process, prints its PID and stays until the end.
///
/// # Errors
/// When the kernel refuses a namespace or a cgroup.
pub fn keep(options: &KeeperOptions) -> Result<()> {
    // Refused only to the leader of a group, which then is out of reach of Ctrl-C already.
    let _ = setsid();
    let signals = SigSet::from_iter([
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ]);
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    cgroups::create(&options.name)?;
    let kept = start_and_wait(options, &signals);
    let removed = cgroups::remove(&options.name);
    kept.and(removed)
}

fn start_and_wait(options: &KeeperOptions, signals: &SignalFd) -> Result<()> {
    // Only the PID namespace: the keeper itself stays in the machine's view of everything.
    unshare(CloneFlags::CLONE_NEWPID).context("making a PID namespace (the bed needs root)")?;
    let mut first = Command::new("/proc/self/exe")
        .args(["first", &options.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the bed's first process")?;
    let announced = announce(&mut first);
    let waited = announced.and_then(|()| wait_for_the_end(options, signals));
    first.kill().context("ending the bed")?;
    first.wait().context("waiting for the bed's end")?;
    waited
}

/// Passes on that the bed stands, with its PID as seen from outside.
fn announce(first: &mut Child) -> Result<()> {
    let stdout = first
        .stdout
        .take()
        .context("the first process has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("the bed's first process could not set up its namespaces");
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", first.id())?;
    out.flush()?;
    Ok(())
}

fn wait_for_the_end(options: &KeeperOptions, signals: &SignalFd) -> Result<()> {
    let input = std::io::stdin();
    let mut watched = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if !options.detached {
        watched.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
    }
    // A signal, or the end of the pipe: each means the end.
    poll(&mut watched, PollTimeout::NONE).context("waiting for the bed's end")?;
    Ok(())
}
