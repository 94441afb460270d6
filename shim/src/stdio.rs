//! Moves a process's input and output between containerd's pipes and the guest.
//!
//! containerd makes named pipes and opens its ends before the shim is asked to start
//! a process. The shim opens outputs for reading and writing, so that opening never
//! blocks and a containerd that restarts does not break the pipe; and it holds a
//! writing end of the input, so that the input ends when both the client and
//! `CloseIO` say so, not before a client has come. A process without input is told at once that
//! there will be none; one with a terminal is not, because its terminal stays. Output is read
//! ahead by one chunk.

use std::{
    io,
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::fcntl::{FcntlArg, fcntl};
use shim_agent_client::{AgentClient, GuestProcess, Output};
use thiserror::Error;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    task::JoinHandle,
};

/// What the kernel may buffer between shim and containerd.
const PIPE_BYTES: i32 = 1 << 20;
const STDIN_CHUNK_BYTES: usize = 32 << 10;

/// Where one stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// The stream is not connected.
    Null,
    /// A named pipe.
    Fifo(PathBuf),
    /// A file, appended to.
    File(PathBuf),
}

/// The streams of a process, as containerd names them.
#[derive(Debug, Clone)]
pub(crate) struct Stdio {
    /// The input's address, as containerd wrote it; empty for none.
    pub(crate) stdin: String,
    /// The output's address, as containerd wrote it; empty for none.
    pub(crate) stdout: String,
    /// The error output's address, as containerd wrote it; empty for none.
    pub(crate) stderr: String,
    /// Whether the process has a terminal, and so one output.
    pub(crate) terminal: bool,
}

/// Why streams cannot be connected.
#[derive(Debug, Error)]
pub(crate) enum StdioError {
    /// A scheme that needs a program on the host.
    #[error(
        "{stream} {address:?} cannot be used: this runtime writes to named pipes and file:// only"
    )]
    Scheme {
        /// Which stream.
        stream: &'static str,
        /// What was asked for.
        address: String,
    },
    /// A pipe or file cannot be opened.
    #[error("cannot open {stream} {path}")]
    Open {
        /// Which stream.
        stream: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn target(stream: &'static str, address: &str) -> Result<Target, StdioError> {
    if address.is_empty() {
        return Ok(Target::Null);
    }
    if address.starts_with('/') {
        return Ok(Target::Fifo(address.into()));
    }
    if let Some(path) = address.strip_prefix("fifo://") {
        return Ok(Target::Fifo(path.into()));
    }
    match address.strip_prefix("file://") {
        Some(path) if stream != "stdin" => Ok(Target::File(path.into())),
        _ => Err(StdioError::Scheme {
            stream,
            address: address.to_owned(),
        }),
    }
}

impl Stdio {
    /// Checks that all addresses can be used.
    ///
    /// # Errors
    ///
    /// [`StdioError::Scheme`] names the stream.
    pub(crate) fn check(&self) -> Result<(), StdioError> {
        target("stdin", &self.stdin)?;
        target("stdout", &self.stdout)?;
        target("stderr", &self.stderr)?;
        Ok(())
    }
}

/// The running copies of one process.
#[derive(Debug)]
pub(crate) struct Pumps {
    outputs: Vec<JoinHandle<()>>,
    input: Option<JoinHandle<()>>,
    moved: Arc<AtomicU64>,
}

/// The shim's own writing end of the input. The input ends when this is dropped and the
/// client has closed its end, too.
#[derive(Debug)]
pub(crate) struct StdinKeeper(#[expect(dead_code, reason = "held, not used")] pipe::Sender);

/// Opened streams of a process that is about to start.
pub(crate) struct OpenStdio {
    stdin: Stdin,
    outputs: Vec<(Output, Sink)>,
    /// Present if there is an input that is not closed yet.
    pub(crate) keeper: Option<StdinKeeper>,
}

enum Stdin {
    /// It comes from a client.
    Pipe(pipe::Receiver),
    /// There is none, and its end is told.
    Ended,
    /// There is none, and the process has a terminal.
    Silent,
}

enum Sink {
    Pipe(pipe::Sender),
    File(File),
    /// Output is read and thrown away, because the guest must not block on a reader that is
    /// gone.
    Null,
}

impl OpenStdio {
    /// Opens all streams. With `closed`, the input ends with its present writers.
    ///
    /// # Errors
    ///
    /// [`StdioError`] names the stream.
    pub(crate) async fn open(stdio: &Stdio, closed: bool) -> Result<Self, StdioError> {
        let mut opened = Self {
            stdin: if stdio.terminal {
                Stdin::Silent
            } else {
                Stdin::Ended
            },
            outputs: Vec::new(),
            keeper: None,
        };
        if let Target::Fifo(path) = target("stdin", &stdio.stdin)? {
            let failed = |source| StdioError::Open {
                stream: "stdin",
                path: path.clone(),
                source,
            };
            let receiver = pipe::OpenOptions::new().open_receiver(&path);
            opened.stdin = Stdin::Pipe(receiver.map_err(failed)?);
            if !closed {
                let keeper = pipe::OpenOptions::new()
                    .open_sender(&path)
                    .map_err(failed)?;
                opened.keeper = Some(StdinKeeper(keeper));
            }
        }
        opened
            .output(Output::Stdout, "stdout", &stdio.stdout)
            .await?;
        if !stdio.terminal {
            opened
                .output(Output::Stderr, "stderr", &stdio.stderr)
                .await?;
        }
        Ok(opened)
    }

    async fn output(
        &mut self,
        output: Output,
        stream: &'static str,
        address: &str,
    ) -> Result<(), StdioError> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| StdioError::Open {
                stream,
                path,
                source,
            }
        };
        let sink = match target(stream, address)? {
            Target::Null => return Ok(()),
            Target::Fifo(path) => {
                let mut options = pipe::OpenOptions::new();
                let sender = options.read_write(true).open_sender(&path);
                let sender = sender.map_err(failed(&path))?;
                // Fewer switches between shim and containerd; the default works too.
                let _ = fcntl(sender.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
                Sink::Pipe(sender)
            }
            Target::File(path) => {
                let mut options = OpenOptions::new();
                let file = options.create(true).append(true).open(&path).await;
                Sink::File(file.map_err(failed(&path))?)
            }
        };
        self.outputs.push((output, sink));
        Ok(())
    }

    /// Starts copying.
    pub(crate) fn start(self, agent: &AgentClient, process: &GuestProcess) -> Pumps {
        let moved = Arc::new(AtomicU64::new(0));
        let outputs = self.outputs.into_iter().map(|(output, sink)| {
            let pump = pump_output(
                agent.clone(),
                process.clone(),
                output,
                sink,
                Arc::clone(&moved),
            );
            tokio::spawn(pump)
        });
        let outputs = outputs.collect();
        let (agent, process) = (agent.clone(), process.clone());
        let input = match self.stdin {
            Stdin::Pipe(stdin) => Some(tokio::spawn(pump_input(agent, process, stdin))),
            Stdin::Ended => Some(tokio::spawn(
                async move { end_input(&agent, &process).await },
            )),
            Stdin::Silent => None,
        };
        Pumps {
            outputs,
            input,
            moved,
        }
    }
}

impl Pumps {
    /// Waits until all output has reached containerd, or nothing moves any more.
    pub(crate) async fn drain(&mut self, patience: std::time::Duration) {
        for output in &mut self.outputs {
            let mut before = self.moved.load(Ordering::Relaxed);
            while tokio::time::timeout(patience, &mut *output).await.is_err() {
                let now = self.moved.load(Ordering::Relaxed);
                if now == before {
                    tracing::warn!("output not drained: nobody reads it");
                    output.abort();
                    break;
                }
                before = now;
            }
        }
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        for output in &self.outputs {
            output.abort();
        }
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

impl Sink {
    async fn write(&mut self, data: &[u8]) {
        let written = match self {
            Self::Pipe(pipe) => pipe.write_all(data).await,
            Self::File(file) => file.write_all(data).await,
            Self::Null => Ok(()),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "output cannot be written and is dropped");
            *self = Self::Null;
        }
    }
}

async fn pump_output(
    agent: AgentClient,
    process: GuestProcess,
    output: Output,
    mut sink: Sink,
    moved: Arc<AtomicU64>,
) {
    let read = async || match agent.read(&process, output).await {
        Ok(data) => data,
        Err(error) => {
            if !error.is_gone() {
                tracing::debug!(%error, "output ended");
            }
            Vec::new()
        }
    };
    let mut data = read().await;
    while !data.is_empty() {
        let ((), next) = tokio::join!(sink.write(&data), read());
        moved.fetch_add(
            u64::try_from(data.len()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        data = next;
    }
    if let Sink::File(file) = &mut sink {
        let _ = file.flush().await;
    }
}

async fn pump_input(agent: AgentClient, process: GuestProcess, mut stdin: pipe::Receiver) {
    let mut buffer = vec![0; STDIN_CHUNK_BYTES];
    loop {
        let data = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
        };
        if let Err(error) = write_all(&agent, &process, data).await {
            tracing::debug!(%error, "input not taken any more");
            return;
        }
    }
    end_input(&agent, &process).await;
}

async fn end_input(agent: &AgentClient, process: &GuestProcess) {
    if let Err(error) = agent.close_stdin(process).await {
        tracing::debug!(%error, "input not closed");
    }
}

async fn write_all(
    agent: &AgentClient,
    process: &GuestProcess,
    mut data: &[u8],
) -> Result<(), shim_agent_client::AgentError> {
    while !data.is_empty() {
        let taken = agent.write(process, data).await?;
        // A guest that takes nothing has closed its end.
        if taken == 0 {
            return Ok(());
        }
        data = data.get(taken..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_pipes_files_or_refused() {
        let fifo = |path: &str| Target::Fifo(path.into());
        assert_eq!(target("stdout", "").unwrap(), Target::Null);
        assert_eq!(target("stdout", "/run/x").unwrap(), fifo("/run/x"));
        assert_eq!(target("stdin", "fifo:///run/x").unwrap(), fifo("/run/x"));
        assert_eq!(
            target("stderr", "file:///log").unwrap(),
            Target::File("/log".into())
        );
        for (stream, address) in [
            ("stdin", "file:///x"),
            ("stdout", "binary:///bin/logger"),
            ("stdout", "relative"),
        ] {
            let error = target(stream, address).unwrap_err().to_string();
            assert!(error.contains(address), "{error}");
        }
    }

    #[tokio::test]
    async fn input_stays_open_until_the_keeper_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let stdio = Stdio {
            stdin: path.display().to_string(),
            stdout: String::new(),
            stderr: String::new(),
            terminal: false,
        };
        let mut opened = OpenStdio::open(&stdio, false).await.unwrap();
        let Stdin::Pipe(mut stdin) = opened.stdin else {
            panic!("no input");
        };
        let mut client = pipe::OpenOptions::new().open_sender(&path).unwrap();
        client.write_all(b"abc").await.unwrap();
        drop(client);
        let mut buffer = [0; 8];
        assert_eq!(stdin.read(&mut buffer).await.unwrap(), 3);
        let more = tokio::time::timeout(
            std::time::Duration::from_millis(20),
            stdin.read(&mut buffer),
        );
        assert!(more.await.is_err());
        drop(opened.keeper.take());
        assert_eq!(stdin.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn input_that_nobody_gives_has_ended_unless_there_is_a_terminal() {
        for terminal in [false, true] {
            let stdio = Stdio {
                stdin: String::new(),
                stdout: String::new(),
                stderr: String::new(),
                terminal,
            };
            let opened = OpenStdio::open(&stdio, false).await.unwrap();
            assert_eq!(matches!(opened.stdin, Stdin::Ended), !terminal);
            assert!(opened.keeper.is_none());
        }
    }
}
