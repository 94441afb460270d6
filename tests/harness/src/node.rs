//! An empty machine in namespaces, and the way into it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{run::run_ok, tools};

/// A process in a bed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its PID inside.
    pub pid: u32,
    /// Its command line.
    pub arguments: Vec<String>,
}

impl Process {
    /// Is `program` what runs, wherever it is installed?
    #[must_use]
    pub fn is(&self, program: &str) -> bool {
        let name = self
            .arguments
            .first()
            .map(Path::new)
            .and_then(Path::file_name);
        name.is_some_and(|name| name == program)
    }
}

/// Namespaces that live as long as this value, or until [`Node::keep`].
#[derive(Debug)]
pub struct Node {
    keeper: Option<Child>,
    first: u32,
    name: String,
}

impl Node {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// When the caller is not root or the kernel refuses.
    pub fn up() -> Result<Self> {
        Self::start(false)
    }

    /// Makes namespaces that stay when the caller ends; [`Node::keeper`] ends them on SIGTERM.
    ///
    /// # Errors
    /// As [`Node::up`].
    pub fn up_detached() -> Result<Self> {
        Self::start(true)
    }

    fn start(detached: bool) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the bed needs root: it makes namespaces, interfaces and mounts of its own");
        }
        let name = format!("kata-cc-bed-{}", tools::unique());
        let mut command = Command::new(tools::bed()?);
        command
            .args(["keeper", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if detached {
            command.arg("--detached");
        }
        let mut keeper = command.spawn().context("starting the bed's keeper")?;
        let first = first_pid(keeper.stdout.take())?;
        Ok(Self {
            keeper: Some(keeper),
            first,
            name,
        })
    }

    /// The PID, outside, of the bed's first process.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The PID of the process to end the bed with.
    #[must_use]
    pub fn keeper(&self) -> Option<u32> {
        self.keeper.as_ref().map(Child::id)
    }

    /// The name of the bed's cgroups.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path inside, as seen from outside.
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        Path::new("/proc")
            .join(self.first.to_string())
            .join("root")
            .join(relative)
    }

    /// A command that runs `program` inside; a relative name is looked up there.
    ///
    /// # Panics
    /// When the `bed` program has gone since [`Node::up`] found it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        command_inside(self.first, program).expect("the bed's own binary started this node")
    }

    /// Writes a file inside, making its directories.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, inside: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(inside.as_ref());
        let parent = path.parent().context("a file has a directory")?;
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, content))
            .with_context(|| format!("writing {} in the bed", inside.as_ref().display()))
    }

    /// Reads a file inside, lossily.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, inside: impl AsRef<Path>) -> Result<String> {
        let bytes = std::fs::read(self.path(inside.as_ref()))
            .with_context(|| format!("reading {} in the bed", inside.as_ref().display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All processes inside, by their PIDs there.
    ///
    /// # Errors
    /// When the bed is gone.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.path("/proc")).context("listing the bed's processes")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse() else {
                continue;
            };
            // Threads of the kernel and processes that have ended have no command line.
            let line = self
                .read(format!("/proc/{pid}/cmdline"))
                .unwrap_or_default();
            let arguments: Vec<_> = line.split_terminator('\0').map(str::to_owned).collect();
            if !arguments.is_empty() {
                all.push(Process { pid, arguments });
            }
        }
        Ok(all)
    }

    /// Does a process inside have this file open? Nobody has one that is not there.
    ///
    /// # Errors
    /// When the bed is gone.
    pub fn holds_open(&self, inside: impl AsRef<Path>) -> Result<bool> {
        let of =
            |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        let Ok(file) = of(&self.path(inside)) else {
            return Ok(false);
        };
        let processes = self.processes()?;
        Ok(processes.iter().any(|process| {
            // A process may end, and close, while it is looked at.
            let open = std::fs::read_dir(self.path(format!("/proc/{}/fd", process.pid)));
            let mut open = open.into_iter().flatten().flatten();
            open.any(|entry| of(&entry.path()).is_ok_and(|it| it == file))
        }))
    }

    /// Kills a process inside with SIGKILL.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&self, process: &Process) -> Result<()> {
        self.signal("-KILL", process)
    }

    /// Stops a process inside with SIGSTOP: it holds what it holds and answers nobody.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn freeze(&self, process: &Process) -> Result<()> {
        self.signal("-STOP", process)
    }

    fn signal(&self, signal: &str, process: &Process) -> Result<()> {
        let pid = process.pid.to_string();
        self.run("busybox", &["kill", signal, &pid]).map(drop)
    }

    /// Does something inside listen on this TCP port?
    ///
    /// # Errors
    /// When the kernel's table cannot be read.
    pub fn listens_on(&self, port: u16) -> Result<bool> {
        let (suffix, listening) = (format!(":{port:04X}"), "0A");
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", self.first));
        for table in tables {
            let sockets = std::fs::read_to_string(table).context("reading the bed's sockets")?;
            let found = sockets.lines().any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let (local, state) = (fields.next(), fields.nth(1));
                local.is_some_and(|local| local.ends_with(&suffix)) && state == Some(listening)
            });
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Starts a server inside that writes to the log file `log`; it ends with the bed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(&self, mut command: Command, log: &str) -> Result<Child> {
        self.write(log, "")?;
        let file = File::options().append(true).open(self.path(log))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting the server that logs to {log}"))
    }

    /// Runs a short command inside and returns its output.
    ///
    /// # Errors
    /// When it fails or takes longer than 30 seconds.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        run_ok(command, Duration::from_secs(30))
    }

    /// Gives up ownership: the bed stays until its keeper is told to end.
    pub fn keep(mut self) {
        self.keeper = None;
    }
}

/// A command that runs `program` in the bed whose first process is `first`.
///
/// # Errors
/// When the `bed` program is not beside the running one.
pub fn command_inside(first: u32, program: impl AsRef<Path>) -> Result<Command> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={first}"))
        .args([
            "--mount", "--net", "--pid", "--cgroup", "--uts", "--ipc", "--",
        ])
        .arg(tools::bed()?)
        .args(["join", "--"])
        .arg(program.as_ref());
    Ok(command)
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        let pid = i32::try_from(keeper.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(pid) = pid {
            // It is our own child and not yet waited for, so the PID is still its own.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        drop(keeper.stdin.take());
        if let Err(error) = keeper.wait() {
            eprintln!("the bed's keeper cannot be waited for: {error}");
        }
    }
}

fn first_pid(stdout: Option<ChildStdout>) -> Result<u32> {
    let mut line = String::new();
    BufReader::new(stdout.context("the keeper has no output")?).read_line(&mut line)?;
    line.trim()
        .parse()
        .context("the bed's keeper ended before the bed stood")
}
