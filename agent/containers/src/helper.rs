//! The helper's side of a [`Job`]: one thread, one call of the container library.
//!
//! It gets the job and the workload's streams over its standard input, a socket
//! to the agent, and answers there. It logs nothing: what the library would log
//! includes arguments and environments.

use std::{
    error::Error,
    fmt::Write as _,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use agent_documents::parse_json;
use agent_requests::paths::{RUNTIME_ROOT, STATE_ROOT};
use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    error::LibcontainerError,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
};
use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags},
    process::{Resource, Rlimit},
};

use crate::{
    dispositions, floor,
    job::{Job, MESSAGE_BYTES_MAX, Outcome, Refusal},
    program::{Confinement, Program},
    spec::write_private,
};

/// Most bytes of a reason; the rest adds nothing for its reader.
const REASON_BYTES_MAX: usize = 1024;

/// Does the job on standard input and answers there.
#[must_use]
pub fn run() -> std::process::ExitCode {
    let socket = std::io::stdin();
    let job = receive(socket.as_fd()).and_then(|(job, streams)| {
        floor::load(job.may_open_vsock())?;
        Ok((job, streams))
    });
    let outcome = match job {
        Ok((job, given)) => match perform(job, given) {
            Ok(pid) => Outcome::Done { pid },
            Err(error) => {
                let message = words(&error);
                let refusal = refusal(&message);
                Outcome::Failed { refusal, message }
            }
        },
        Err(message) => Outcome::Failed {
            refusal: Refusal::Other,
            message,
        },
    };
    let sent = serde_json::to_vec(&outcome)
        .is_ok_and(|text| rustix::net::send(socket.as_fd(), &text, SendFlags::NOSIGNAL).is_ok());
    if sent {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}

type Streams = [OwnedFd; 3];

/// What the process is given, as far as there is any of it.
#[derive(Default)]
struct Given {
    verdict: Option<OwnedFd>,
    streams: Option<Streams>,
}

impl Given {
    fn of(fds: impl Iterator<Item = OwnedFd>) -> Self {
        let mut fds = fds;
        Self {
            verdict: fds.next(),
            streams: fds.collect::<Vec<_>>().try_into().ok(),
        }
    }
}

fn receive(socket: impl AsFd) -> Result<(Job, Given), String> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|error| format!("helper cannot read its job: {error}"))?;
    let fds = control
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten();
    let given = Given::of(fds);
    let text = bytes.get(..message.bytes).unwrap_or_default();
    let job = parse_json(text).map_err(|_| "helper cannot read its job".to_owned())?;
    Ok((job, given))
}

fn perform(job: Job, given: Given) -> Result<i32, LibcontainerError> {
    workload_limits();
    // Answers go out with NOSIGNAL, so the helper itself does not need SIGPIPE ignored.
    dispositions::reset();
    match job {
        Job::Create {
            id,
            bundle,
            console,
            vsock: _,
        } => create(id, &bundle, console.as_deref(), given),
        Job::Start { id } => {
            Container::load(Path::new(RUNTIME_ROOT).join(id))?.start()?;
            Ok(0)
        }
        Job::Exec {
            id,
            process,
            console,
            vsock: _,
        } => exec(id, &process, console.as_deref(), given),
    }
}

fn builder(id: String, streams: Option<Streams>) -> Result<ContainerBuilder, LibcontainerError> {
    let builder = ContainerBuilder::new(id, SyscallType::default()).with_root_path(RUNTIME_ROOT)?;
    Ok(match streams {
        Some([stdin, stdout, stderr]) => builder
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr),
        None => builder,
    })
}

fn create(
    id: String,
    bundle: &Path,
    console: Option<&Path>,
    given: Given,
) -> Result<i32, LibcontainerError> {
    let program = Program::new(given.verdict, Confinement::default());
    let container = builder(id, given.streams)?
        .with_console_socket(console)
        .with_executor(program)
        .as_init(bundle)
        .with_systemd(false)
        .build()?;
    Ok(container.pid().map_or(0, |pid| pid.as_raw()))
}

fn exec(
    id: String,
    file: &Path,
    console: Option<&Path>,
    given: Given,
) -> Result<i32, LibcontainerError> {
    let bundle = Path::new(STATE_ROOT).join(&id);
    let container = Spec::load(bundle.join("config.json"))?;
    let confinement = kept_back(&container, file)?;
    let pid = builder(id, given.streams)?
        .with_console_socket(console)
        .with_executor(Program::new(given.verdict, confinement))
        .as_tenant()
        .with_detach(true)
        .with_process(Some(file))
        .build()?;
    Ok(pid.as_raw())
}

/// Takes out of a further process's file what it gets from [`Program`].
fn kept_back(container: &Spec, file: &Path) -> Result<Confinement, LibcontainerError> {
    let text = std::fs::read(file).map_err(LibcontainerError::OtherIO)?;
    let json = LibcontainerError::OtherSerialization;
    let mut process = parse_json(&text).map_err(json)?;
    let confinement = Confinement::of(container, &mut process);
    let text = serde_json::to_vec(&process).map_err(json)?;
    write_private(file, &text).map_err(LibcontainerError::OtherIO)?;
    Ok(confinement)
}

/// What workloads start with unless their spec says otherwise, as under systemd.
fn workload_limits() {
    let files = Rlimit {
        current: Some(1024),
        maximum: Some(524_288),
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, files);
}

/// The library's words for a failure and its causes.
fn words(error: &LibcontainerError) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            let _ = write!(text, ": {part}");
        }
        cause = error.source();
    }
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Of which kind a failure is. The library's processes hand each other texts, so there is
/// nothing better to go by; a text that is not known here is told as no more than a refusal.
fn refusal(words: &str) -> Refusal {
    const KNOWN: [(&str, Refusal); 6] = [
        ("not found in $PATH", Refusal::NoExecutable),
        ("does not have correct permissions", Refusal::NotExecutable),
        ("failed to check permissions", Refusal::NotExecutable),
        ("PATH environment variable is not set", Refusal::NoPath),
        ("current working directory", Refusal::WorkingDirectory),
        ("failed to prepare rootfs", Refusal::Mount),
    ];
    let known = KNOWN.iter().find(|(part, _)| words.contains(part));
    known.map_or(Refusal::Other, |(_, refusal)| *refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_s_words_become_a_kind() {
        for (words, kind) in [
            (
                "executor failed: executable 'x' not found in $PATH",
                Refusal::NoExecutable,
            ),
            (
                "executable 'x' at path '\"/x\"' does not have correct permissions",
                Refusal::NotExecutable,
            ),
            ("PATH environment variable is not set", Refusal::NoPath),
            ("whatever else", Refusal::Other),
        ] {
            assert_eq!(refusal(words), kind, "{words}");
        }
    }
}
