//! The parent's side: a child when one is needed, and what its end means.

use std::{
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use policy_engine::rego::{
    Evaluate, Failure, LoadError, Question,
    worker::{Client, LOAD_MAX, answer_max},
};
use rustix::process::{Pid, PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal};

use crate::deadline::Timed;

/// The argument with which the guest's program becomes the child.
pub const EVALUATOR_ARGUMENT: &str = "evaluate-policy";
/// Of nobody.
const UNPRIVILEGED: u32 = 65_534;
/// The child ends itself before this has passed as well.
const MARGIN: Duration = Duration::from_secs(2);

/// A loaded text, evaluated by a child.
#[derive(Debug)]
pub struct Bounded {
    program: PathBuf,
    text: Arc<str>,
    child: Option<Child>,
}

#[derive(Debug)]
struct Child {
    client: Client<Timed>,
    process: OwnedFd,
}

impl Bounded {
    /// Has a child of this program load a text.
    ///
    /// # Errors
    ///
    /// [`LoadError`] of the text, or that no child can load it within its bounds.
    pub fn load(text: &str) -> Result<Self, LoadError> {
        let mut bounded = Self {
            program: PathBuf::from("/proc/self/exe"),
            text: text.into(),
            child: None,
        };
        bounded.child = Some(bounded.start()?);
        Ok(bounded)
    }

    fn start(&self) -> Result<Child, LoadError> {
        let mut child = spawn(&self.program).map_err(|_| LoadError::Bounds(Failure::Process))?;
        child.within(LOAD_MAX);
        match child.client.load(&self.text) {
            Ok(loaded) => loaded.map(|()| child),
            Err(error) => Err(LoadError::Bounds(meaning(&error))),
        }
    }
}

impl Evaluate for Bounded {
    fn evaluate(&mut self, question: &Question<'_>) -> Result<Option<String>, Failure> {
        let mut child = match self.child.take() {
            Some(child) => child,
            None => self.start().map_err(|_| Failure::Process)?,
        };
        child.within(answer_max());
        match child.client.ask(question) {
            // It said that it is too late, and has ended since.
            Ok(Err(Failure::Time)) => Err(Failure::Time),
            Ok(answer) => {
                self.child = Some(child);
                answer
            }
            Err(error) => Err(meaning(&error)),
        }
    }
}

/// What it means that there was no answer.
fn meaning(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::Time,
        _ => Failure::Memory,
    }
}

impl Child {
    fn within(&mut self, max: Duration) {
        let max = max.saturating_add(MARGIN);
        self.client.stream().within(max);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

fn spawn(program: &PathBuf) -> io::Result<Child> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new(program);
    command
        .arg0("policy-evaluator")
        .arg(EVALUATOR_ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(theirs.try_clone()?)
        .stdout(theirs)
        .stderr(Stdio::null());
    if getuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    let child = command.spawn()?;
    // Nobody waits for it: whatever waits for the program's other children does.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(ErrorKind::InvalidData)?;
    Ok(Child {
        client: Client::new(Timed::new(ours)),
        process: pidfd_open(pid, PidfdFlags::empty())?,
    })
}
