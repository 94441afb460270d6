//! The streams of one process: pipes, or the master side of its terminal.
//!
//! Output waits in the pipe until the host reads it, so a log loses nothing and a
//! chatty workload slows down to its reader. Waiting costs no memory and no
//! thread. Only a host that reads nothing at all does not hold up a container's first
//! process for ever ([`crate::unread`]). After the process has ended, what is left is handed out; if somebody
//! else still holds the pipe, its end is declared after [`DRAIN_TIME`].

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    io::Errno,
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout_at},
};

use crate::{reaper::Exit, unread::Unread, watched::watch};

/// How long an ended process's output may still arrive.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// What a pipe holds by default; a larger read would seldom be filled.
const READ_BYTES_MAX: usize = 64 << 10;

type Stream = Arc<AsyncFd<OwnedFd>>;

/// One of a process's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error; with a terminal, the same as standard output.
    Stderr,
}

/// The agent's ends of a process's streams.
#[derive(Debug)]
pub(super) struct Stdio {
    stdin: Mutex<Option<Stream>>,
    stdout: Stream,
    stderr: Stream,
    terminal: Option<Stream>,
    unread: [Unread; 2],
}

/// The workload's ends of a process's pipes.
#[derive(Debug)]
pub struct WorkloadEnds {
    /// To read from.
    pub stdin: OwnedFd,
    /// To write to.
    pub stdout: OwnedFd,
    /// To write to.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// Three pipes; the ends of the workload belong to its user, so that it may
    /// open `/dev/stderr` again.
    ///
    /// # Errors
    ///
    /// When a pipe cannot be made.
    pub(super) fn pipes(
        owner: (u32, u32),
        size: Option<usize>,
    ) -> io::Result<(Self, WorkloadEnds)> {
        let (stdin, to_stdin) = io::pipe()?;
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        let ends = WorkloadEnds {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let (uid, gid) = owner;
        for end in [&ends.stdin, &ends.stdout, &ends.stderr] {
            std::os::unix::fs::fchown(end, Some(uid), Some(gid))?;
            if let Some(size) = size {
                rustix::pipe::fcntl_setpipe_size(end, size)?;
            }
        }
        let own = Self {
            stdin: Mutex::new(Some(stream(to_stdin.into())?)),
            stdout: stream(from_stdout.into())?,
            stderr: stream(from_stderr.into())?,
            terminal: None,
            unread: Default::default(),
        };
        Ok((own, ends))
    }

    /// The master side of a terminal.
    ///
    /// # Errors
    ///
    /// When it cannot be made non-blocking.
    pub(super) fn terminal(master: OwnedFd) -> io::Result<Self> {
        let master = stream(master)?;
        Ok(Self {
            stdin: Mutex::new(Some(Arc::clone(&master))),
            stdout: Arc::clone(&master),
            stderr: Arc::clone(&master),
            terminal: Some(master),
            unread: Default::default(),
        })
    }

    fn output(&self, output: Output) -> &Stream {
        match output {
            Output::Stdout => &self.stdout,
            Output::Stderr => &self.stderr,
        }
    }

    /// Reads at most `len` bytes, waiting for the first; none means the end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read.
    pub(super) async fn read(
        &self,
        output: Output,
        len: usize,
        exit: &Exit,
    ) -> io::Result<Vec<u8>> {
        let (stream, unread) = (self.output(output), self.unread(output));
        let _reading = unread.reading();
        if let Some(first) = unread.first(len) {
            return Ok(first);
        }
        loop {
            let bytes = tokio::select! {
                biased;
                bytes = read_some(stream, len) => bytes?,
                _ = exit.wait() => {
                    let deadline = Instant::now() + DRAIN_TIME;
                    let rest = timeout_at(deadline, read_some(stream, len)).await;
                    rest.unwrap_or_else(|_| Ok(Vec::new()))?
                }
            };
            if let Some(bytes) = unread.deliver(bytes, len) {
                return Ok(bytes);
            }
        }
    }

    /// Lets the process go on when the host reads nothing of its output for so long; `say`
    /// hears how many bytes were dropped. A terminal's output waits.
    pub(super) async fn let_go_when_unread(&self, patience: Duration, say: impl Fn(Output, u64)) {
        if self.terminal.is_none() {
            let [stdout, stderr] = &self.unread;
            tokio::join!(
                stdout.watch(self.stdout.get_ref(), patience, |n| say(Output::Stdout, n)),
                stderr.watch(self.stderr.get_ref(), patience, |n| say(Output::Stderr, n)),
            );
        }
    }

    fn unread(&self, output: Output) -> &Unread {
        let [stdout, stderr] = &self.unread;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    /// Reads and forgets all of a stream.
    pub(super) async fn discard(&self, output: Output, exit: &Exit) {
        while let Ok(bytes) = self.read(output, READ_BYTES_MAX, exit).await {
            if bytes.is_empty() {
                return;
            }
        }
    }

    /// Writes all bytes, waiting for the workload to take them.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the stream is closed on either side.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let stream = self
            .stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let stream = stream.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, rest)?);
            let count = stream.async_io(Interest::WRITABLE, write).await?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Closes the process's standard input; a terminal stays open, as its other
    /// side is the output, and gets the end-of-file character instead.
    pub(super) async fn close_stdin(&self) {
        const END_OF_FILE: [u8; 1] = [4];
        if self.terminal.is_some() {
            let _ = self.write(&END_OF_FILE).await;
        }
        drop(
            self.stdin
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Sets the size of the terminal; `false` if there is none.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the size.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> io::Result<bool> {
        let Some(terminal) = &self.terminal else {
            return Ok(false);
        };
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(terminal.get_ref(), size)?;
        Ok(true)
    }
}

fn stream(fd: OwnedFd) -> io::Result<Stream> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    watch(fd).map(Arc::new)
}

/// One read; memory is taken only when there is something to read.
async fn read_some(stream: &Stream, len: usize) -> io::Result<Vec<u8>> {
    let read = |fd: &OwnedFd| {
        let mut bytes = vec![0; len.min(READ_BYTES_MAX)];
        let count = match rustix::io::read(fd, bytes.as_mut_slice()) {
            Ok(count) => count,
            // How a terminal says that nobody has it open any more.
            Err(Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        bytes.truncate(count);
        bytes.shrink_to_fit();
        Ok(bytes)
    };
    loop {
        let mut ready = stream.readable().await?;
        if let Ok(result) = ready.try_io(|stream| read(stream.get_ref())) {
            return result;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
    };

    use super::*;
    use crate::reaper::Reaper;

    fn owner() -> (u32, u32) {
        (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        )
    }

    #[tokio::test]
    async fn output_is_read_to_its_end() {
        let reaper = Reaper::default();
        let exit = reaper.claim(&reaper.expecting(), 1_000_001);
        let (stdio, ends) = Stdio::pipes(owner(), None).unwrap();
        let mut stdout = File::from(ends.stdout);
        stdout.write_all(b"abcdef").unwrap();
        drop(stdout);
        assert_eq!(stdio.read(Output::Stdout, 4, &exit).await.unwrap(), b"abcd");
        assert_eq!(stdio.read(Output::Stdout, 4, &exit).await.unwrap(), b"ef");
        assert_eq!(stdio.read(Output::Stdout, 4, &exit).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_pipe_held_by_others_ends_soon_after_the_process() {
        let reaper = Reaper::default();
        let expecting = reaper.expecting();
        reaper_ended(&reaper, 1_000_002);
        let exit = reaper.claim(&expecting, 1_000_002);
        let (stdio, _ends) = Stdio::pipes(owner(), None).unwrap();
        assert_eq!(stdio.read(Output::Stderr, 4, &exit).await.unwrap(), b"");
    }

    async fn read_all(stdio: &Stdio, len: usize, pause: Duration, exit: &Exit) -> String {
        let mut text = Vec::new();
        loop {
            tokio::time::sleep(pause).await;
            match stdio.read(Output::Stdout, len, exit).await.unwrap() {
                bytes if bytes.is_empty() => return String::from_utf8(text).unwrap(),
                bytes => text.extend(bytes),
            }
        }
    }

    fn lines(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|number| format!("line {number} of a chatty workload\n"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_silent_host_stops_no_workload_and_hears_of_the_gap() {
        let reaper = Reaper::default();
        let exit = reaper.claim(&reaper.expecting(), 1_000_003);
        let (stdio, ends) = Stdio::pipes(owner(), None).unwrap();
        // Many times what the pipe holds, written as fast as the workload can.
        let writer = tokio::task::spawn_blocking(move || {
            let mut stdout = File::from(ends.stdout);
            for line in lines(20_000) {
                stdout.write_all(line.as_bytes()).unwrap();
            }
        });
        let (say, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let watch = stdio.let_go_when_unread(Duration::from_millis(50), |output, bytes| {
            say.send((output, bytes)).unwrap();
        });
        let work = async {
            writer.await.unwrap();
            let text = read_all(&stdio, 4096, Duration::ZERO, &exit).await;
            (text, heard.recv().await.unwrap())
        };
        let (text, (output, bytes)) = tokio::select! {
            found = work => found,
            () = watch => unreachable!("it goes on until it is cancelled"),
        };
        let (notice, rest) = text.split_once('\n').unwrap();
        let dropped: usize = notice
            .trim_start_matches('[')
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let written: String = lines(20_000).collect();
        assert_eq!(dropped + rest.len(), written.len(), "{notice}");
        // The rest of the line that was cut came later.
        assert_eq!(output, Output::Stdout);
        assert!(
            (1..=dropped as u64).contains(&bytes),
            "{bytes} of {dropped}"
        );
        assert!(written.ends_with(rest));
        assert!(rest.starts_with("line "), "{rest:.40}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_reader_loses_nothing() {
        let reaper = Reaper::default();
        let exit = reaper.claim(&reaper.expecting(), 1_000_004);
        let (stdio, ends) = Stdio::pipes(owner(), None).unwrap();
        let writer = tokio::task::spawn_blocking(move || {
            let mut stdout = File::from(ends.stdout);
            for line in lines(20_000) {
                stdout.write_all(line.as_bytes()).unwrap();
            }
        });
        // It takes longer than the patience in all, and far less from one read to the next.
        let patience = Duration::from_secs(1);
        let watch = stdio.let_go_when_unread(patience, |_, bytes| panic!("{bytes} dropped"));
        let work = read_all(&stdio, 16 << 10, patience / 20, &exit);
        let text = tokio::select! {
            text = work => text,
            () = watch => unreachable!("it goes on until it is cancelled"),
        };
        writer.await.unwrap();
        assert_eq!(text, lines(20_000).collect::<String>());
    }

    fn reaper_ended(reaper: &Reaper, pid: i32) {
        reaper.ended(pid, 0);
    }

    #[tokio::test]
    async fn closing_input_reaches_the_workload() {
        let (stdio, ends) = Stdio::pipes(owner(), None).unwrap();
        stdio.write(b"in").await.unwrap();
        stdio.close_stdin().await;
        let mut text = String::new();
        File::from(ends.stdin).read_to_string(&mut text).unwrap();
        assert_eq!(text, "in");
        let error = stdio.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
