//! Running a program to its end, with a deadline and its output.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// What a program left behind when it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Ran {
    /// Both outputs, for a message about a failure.
    #[must_use]
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The one executor behind the crate's blocking interface.
pub(crate) fn executor() -> &'static tokio::runtime::Runtime {
    static EXECUTOR: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    EXECUTOR.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("an executor needs only threads and an epoll")
    })
}

/// Runs `command` to its end; kills it at the deadline.
///
/// # Errors
/// When it cannot be started or is still running at the deadline.
pub fn run(command: Command, deadline: Duration) -> Result<Ran> {
    let shown = shown(&command);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true).stdin(Stdio::null());
    let output = executor()
        .block_on(async { tokio::time::timeout(deadline, command.output()).await })
        .with_context(|| format!("{shown} is still running after {deadline:?}"))?
        .with_context(|| format!("{shown} cannot be started"))?;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `command` and returns its standard output; any other end than exit code 0 is an error.
///
/// # Errors
/// As [`run`], and when the program fails.
pub fn run_ok(command: Command, deadline: Duration) -> Result<String> {
    let shown = shown(&command);
    let ran = run(command, deadline)?;
    if ran.code != Some(0) {
        bail!("{shown} ended with {:?}: {}", ran.code, ran.output().trim());
    }
    Ok(ran.stdout)
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}
