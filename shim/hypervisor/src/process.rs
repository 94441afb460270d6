//! Child processes that cannot outlive us unnoticed.
//!
//! Each child is started, awaited and reaped by a thread of its own. The thread is what
//! `PR_SET_PDEATHSIG` refers to: the kernel sends the signal when the *thread* that forked ends,
//! not when the process does, so a worker of the async runtime must not be the parent. The thread
//! ends after the child, or with our process, and then the child is killed with it.
//!
//! Signals go through a pidfd, so that a pid that was reused meanwhile is never hit.

#![expect(
    unsafe_code,
    reason = "fork hooks and pidfd system calls have no safe form in std or nix"
)]

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag},
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::Signal,
};
use tokio::sync::{oneshot, watch};

use crate::{user::Identity, vm::ProcessExit, world::World};

/// The waiting thread runs little more than `fork` and `waitpid`.
const THREAD_STACK: usize = 256 * 1024;
/// How long a drop may block on a process that was killed.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Open files that the child gets, under the same numbers as here.
    pub(crate) inherited: Vec<OwnedFd>,
    pub(crate) stdout: Stdout,
    /// What confines it; without, it is as free as we are.
    pub(crate) confinement: Option<Confinement>,
}

/// Who a child is, and what it finds.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub(crate) identity: Identity,
    pub(crate) world: World,
}

/// What becomes of a child's standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdout {
    Captured,
    Discarded,
}

/// A running child; dropping it kills the child.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ProcessExit>>,
}

/// The read ends of a child's standard output and error.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` when it is discarded.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: OwnedFd,
}

impl Process {
    /// Starts a child with an empty environment, `/` as its directory and nothing on its input.
    pub(crate) async fn spawn(program: Program) -> io::Result<(Self, Output)> {
        let (started_sender, started) = oneshot::channel();
        let (exit_sender, exit) = watch::channel(None);
        std::thread::Builder::new()
            .name("vm-process".to_owned())
            .stack_size(THREAD_STACK)
            .spawn(move || {
                let mut child = match start(program) {
                    Ok((child, pidfd, output)) => {
                        // A caller that is gone drops its receiver, and with it kills the child.
                        let _gone = started_sender.send(Ok((child.id(), pidfd, output)));
                        child
                    }
                    Err(error) => {
                        let _gone = started_sender.send(Err(error));
                        return;
                    }
                };
                let exit = child.wait().map_or(ProcessExit::Unknown, exit_of);
                exit_sender.send_replace(Some(exit));
            })?;
        let ended = || io::Error::other("the thread that starts processes ended");
        let (pid, pidfd, output) = started.await.map_err(|_| ended())??;
        Ok((Self { pid, pidfd, exit }, output))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves once the child is reaped.
    pub(crate) fn exited(&self) -> impl Future<Output = ProcessExit> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            exit.wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|exit| *exit)
                .unwrap_or(ProcessExit::Unknown)
        }
    }

    /// Whether the child is reaped.
    pub(crate) fn is_gone(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Sends SIGKILL; a child that is gone already is no error.
    pub(crate) fn kill(&self) -> io::Result<()> {
        kill(&self.pidfd)
    }

    /// Kills and waits; false when the child is still there after `patience`.
    pub(crate) async fn kill_and_wait(&self, patience: Duration) -> io::Result<bool> {
        self.kill()?;
        Ok(tokio::time::timeout(patience, self.exited()).await.is_ok())
    }
}

impl Process {
    /// Blocks until a killed child is gone, so that it cannot touch its files after we have
    /// removed them. A killed process ends within milliseconds.
    pub(crate) fn await_end(&self) {
        match wait_gone(&self.pidfd, END_PATIENCE) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(pid = self.pid, "process survived SIGKILL"),
            Err(error) => tracing::warn!(pid = self.pid, %error, "process cannot be awaited"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_gone() {
            return;
        }
        match self.kill() {
            Ok(()) => self.await_end(),
            Err(error) => {
                tracing::warn!(pid = self.pid, %error, "process could not be killed");
            }
        }
    }
}

fn start(program: Program) -> io::Result<(Child, OwnedFd, Output)> {
    // Opened here, because in the child's world there may be none.
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    if let Some(confinement) = &program.confinement {
        confinement.world.enter()?;
    }
    let identity = program.confinement.map(|confinement| confinement.identity);
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(null.try_clone()?)
        .stdout(match program.stdout {
            Stdout::Captured => Stdio::piped(),
            Stdout::Discarded => null.into(),
        })
        .stderr(Stdio::piped())
        .process_group(0);
    let parent = nix::unistd::getpid();
    let inherited: Vec<RawFd> = program.inherited.iter().map(|fd| fd.as_raw_fd()).collect();
    let in_child = move || {
        if let Some(identity) = &identity {
            identity.assume()?;
        }
        // After the change of user, which clears it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was set; then nobody would send it.
        if nix::unistd::getppid() != parent {
            return Err(io::Error::from(Errno::ESRCH));
        }
        close_on_exec_from(libc::STDERR_FILENO + 1)?;
        for fd in &inherited {
            // SAFETY: the numbers are those of `program.inherited`, which lives until the child
            // runs; the borrow does not outlive this call.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes plain system calls (setgroups, setresgid,
    // setresuid, prctl, getppid, close_range, fcntl) and neither allocates nor takes a lock.
    unsafe { command.pre_exec(in_child) };
    let mut child = command.spawn()?;
    match (pidfd_open(child.id()), child.stderr.take()) {
        (Ok(pidfd), Some(stderr)) => {
            let stdout = child.stdout.take().map(OwnedFd::from);
            Ok((
                child,
                pidfd,
                Output {
                    stdout,
                    stderr: stderr.into(),
                },
            ))
        }
        (pidfd, _) => {
            child.kill()?;
            child.wait()?;
            Err(pidfd
                .err()
                .unwrap_or_else(|| io::Error::other("no pipe to the child")))
        }
    }
}

/// Marks every open file from `first` on as not to be inherited, whoever opened it.
fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: close_range(2) takes three integers; with this flag it closes nothing by itself.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn exit_of(status: ExitStatus) -> ProcessExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcessExit::Code(code),
        (None, Some(signal)) => ProcessExit::Signal(signal),
        (None, None) => ProcessExit::Unknown,
    }
}

/// A handle on whatever process has this pid now.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends SIGKILL to the process behind a handle; one that is gone is no error.
pub(crate) fn kill(pidfd: &OwnedFd) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory of ours.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            no_info,
            0,
        )
    };
    match (sent, Errno::last()) {
        (0, _) | (_, Errno::ESRCH) => Ok(()),
        (_, errno) => Err(errno.into()),
    }
}

/// Waits for the end of the process behind a handle, reaped or not: a pidfd is readable then.
pub(crate) fn wait_gone(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// When a process started, in clock ticks since boot: with the pid, a name that is not reused.
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    parse_start_time(&std::fs::read_to_string(path)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/<pid>/stat"))
}

/// Field 22 of proc_pid_stat(5); the command in field 2 may hold anything, `)` included.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    after_command.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, num::NonZeroU32};

    use super::*;
    use crate::user::User;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        Program {
            path: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            inherited: Vec::new(),
            stdout: Stdout::Captured,
            confinement: None,
        }
    }

    async fn exit(process: &Process) -> ProcessExit {
        tokio::time::timeout(PATIENCE, process.exited())
            .await
            .unwrap()
    }

    #[test]
    fn start_time_ignores_the_command_name() {
        let stat = "7 (a) 1 2) R 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_start_time(stat), Some(4711));
        assert_eq!(parse_start_time("7 (sh) R 1"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[tokio::test]
    async fn every_waiter_learns_the_exit_status() {
        let (process, _output) = Process::spawn(shell("exit 3")).await.unwrap();
        let (first, second) = tokio::join!(exit(&process), exit(&process));
        assert_eq!(
            (first, second),
            (ProcessExit::Code(3), ProcessExit::Code(3))
        );
        assert!(process.is_gone());
        process.kill().unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let program = Program {
            path: "/nonexistent".into(),
            ..shell("")
        };
        let error = Process::spawn(program).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn dropping_kills() {
        let (process, _output) = Process::spawn(shell("exec sleep 1000")).await.unwrap();
        let exited = process.exited();
        drop(process);
        let exit = tokio::time::timeout(PATIENCE, exited).await.unwrap();
        assert_eq!(exit, ProcessExit::Signal(libc::SIGKILL));
    }

    #[tokio::test]
    async fn the_child_gets_named_files_and_nothing_else() {
        let (mut reader, writer) = io::pipe().unwrap();
        let number = writer.as_raw_fd();
        let mut program = shell(&format!(
            "echo inherited >/proc/self/fd/{number}; ls /proc/self/fd; env"
        ));
        program.inherited.push(writer.into());
        let (process, output) = Process::spawn(program).await.unwrap();
        assert_eq!(exit(&process).await, ProcessExit::Code(0));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inherited\n");
        let mut text = String::new();
        std::fs::File::from(output.stdout.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        // Input, output, error, the inherited file, and the directory that `ls` itself opened.
        let open = text
            .lines()
            .filter(|line| line.parse::<u32>().is_ok())
            .count();
        assert_eq!(open, 5, "{text}");
        assert!(!text.contains("CARGO"), "{text}");
    }

    #[tokio::test]
    async fn a_confined_child_is_an_unprivileged_user_in_its_own_world() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root confines");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        crate::world::make_root(&root).unwrap();
        let script = "id; echo groups $(id -G); cat /etc/hostname; ls /proc; \
            echo try >/tried; kill -0 1; cat /sys/class/net/lo/address; echo done";
        let mut world = World::of(Path::new("/bin/sh"), root);
        for tool in ["id", "cat", "ls"] {
            world.read(&Path::new("/usr/bin").join(tool));
        }
        let mut program = shell(script);
        let user = User::new(NonZeroU32::new(70_000).unwrap());
        program.confinement = Some(Confinement {
            identity: Identity::of(user),
            world,
        });
        program.arguments[1] = format!("PATH=/usr/bin; ({script}) 2>&1").into();
        let (process, output) = Process::spawn(program).await.unwrap();
        assert_eq!(exit(&process).await, ProcessExit::Code(0));
        let mut text = String::new();
        std::fs::File::from(output.stdout.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.contains("uid=70000 gid=70000"), "{text}");
        assert!(
            text.contains("groups 70000\n") && text.ends_with("done\n"),
            "{text}"
        );
        for refused in [
            "hostname: No such",
            "/proc': No such",
            "/tried: Read-only",
            "not permitted",
        ] {
            assert!(text.contains(refused), "{refused} in {text}");
        }
    }
}
