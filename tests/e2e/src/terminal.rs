//! A user's terminal window, with a program in it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests_harness::wait_until;

const DEADLINE: Duration = Duration::from_secs(40);

/// A pseudo-terminal whose other side is read all the time.
#[derive(Debug)]
pub struct Terminal {
    window: File,
    inside: OwnedFd,
    seen: Arc<Mutex<String>>,
    program: Option<Child>,
}

impl Terminal {
    /// Opens a window of `rows` by `columns`.
    ///
    /// # Errors
    /// When the system has no more terminals.
    pub fn open(rows: u16, columns: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).context("opening a terminal")?;
        let window = File::from(pair.master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, sink) = (window.try_clone()?, Arc::clone(&seen));
        // Ends with an error once the last program has left the terminal.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default());
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Ok(Self {
            window,
            inside: pair.slave,
            seen,
            program: None,
        })
    }

    /// Starts a program in the window.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self, mut command: Command) -> Result<()> {
        let side = || self.inside.try_clone().map(Stdio::from);
        let child = command
            .stdin(side()?)
            .stdout(side()?)
            .stderr(side()?)
            .spawn()?;
        self.program = Some(child);
        Ok(())
    }

    /// Everything seen so far.
    #[must_use]
    pub fn seen(&self) -> String {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until `text` is seen.
    ///
    /// # Errors
    /// When it is not within the deadline.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        wait_until(&format!("the terminal shows {text:?}"), DEADLINE, || {
            Ok(self.seen().contains(text))
        })
        .with_context(|| format!("it shows {:?}", self.seen()))
    }

    /// Types a line.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.window.write_all(line.as_bytes()).context("typing")
    }

    /// Types a line again and again until `text` is seen.
    ///
    /// # Errors
    /// When it is not within the deadline.
    pub fn type_until(&mut self, line: &str, text: &str) -> Result<()> {
        let mut window = self.window.try_clone()?;
        let result = wait_until(&format!("the terminal shows {text:?}"), DEADLINE, || {
            window.write_all(line.as_bytes())?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(self.seen().contains(text))
        });
        result.with_context(|| format!("it shows {:?}", self.seen()))
    }

    /// Changes the window's size and tells the program.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let status = Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(Stdio::from(self.inside.try_clone()?))
            .status()?;
        ensure!(status.success(), "stty cannot resize the window");
        let program = self.program.as_ref().context("no program runs")?.id();
        // The program itself is the child of the command that entered the bed.
        let children = fs::read_to_string(format!("/proc/{program}/task/{program}/children"))?;
        for child in children.split_whitespace() {
            kill(Pid::from_raw(child.parse()?), Signal::SIGWINCH)?;
        }
        Ok(())
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it runs on until the deadline.
    pub fn wait(&mut self) -> Result<i32> {
        let program = self.program.as_mut().context("no program runs")?;
        let mut status = None;
        let ended = wait_until("the program in the terminal ends", DEADLINE, || {
            status = program.try_wait()?;
            Ok(status.is_some())
        });
        if ended.is_err() {
            program.kill()?;
            program.wait()?;
        }
        ended?;
        status
            .and_then(|status| status.code())
            .context("the program was killed")
    }
}
