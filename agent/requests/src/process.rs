//! Requests about one process of a container and its streams.

use agent_protocol::{
    id::{ContainerId, ExecId, ProcessId},
    limits::STREAM_CHUNK_BYTES_MAX,
    rpc::agent,
};
use policy_engine::{Asked, AskedExec};

use crate::{
    capabilities::Processes,
    error::{RequestError, Unsupported},
    parse::{Parse, container_id, process_id, rule},
    spec::ProcessSpec,
};

/// The highest signal number of Linux.
const SIGNAL_MAX: u32 = 64;

/// A further process to start in a container.
#[derive(Debug)]
pub struct ExecProcess {
    /// The container.
    pub container: ContainerId,
    /// The new process's id.
    pub exec: ExecId,
    /// What it runs and how.
    pub process: ProcessSpec,
}

/// A signal to send.
#[derive(Debug)]
pub struct SignalProcess {
    /// The container.
    pub container: ContainerId,
    /// The process.
    pub process: ProcessId,
    /// The signal's number, 1 to 64; 0 only asks whether the process is there.
    pub signal: i32,
}

/// Bytes for a process's standard input; none closes it.
#[derive(Debug)]
pub struct WriteStdin {
    /// The container.
    pub container: ContainerId,
    /// The process.
    pub process: ProcessId,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A wish for output of a process.
#[derive(Debug)]
pub struct ReadStream {
    /// The container.
    pub container: ContainerId,
    /// The process.
    pub process: ProcessId,
    /// The most bytes wanted, 1 to 1 MiB.
    pub len: usize,
}

/// A new size of a process's terminal.
#[derive(Debug)]
pub struct TtyWinResize {
    /// The container.
    pub container: ContainerId,
    /// The process.
    pub process: ProcessId,
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// A request that names one process.
pub trait ProcessRequest {
    /// The container and the process in it.
    fn names(&self) -> (&ContainerId, &ProcessId);
}

macro_rules! process_request {
    ($($name:ident,)*) => {
        $(impl ProcessRequest for $name {
            fn names(&self) -> (&ContainerId, &ProcessId) {
                (&self.container, &self.process)
            }
        })*
    };
}

process_request!(
    SignalProcess,
    WriteStdin,
    ReadStream,
    TtyWinResize,
    WaitProcess,
    CloseStdin,
);

impl Parse for ExecProcess {
    type Message = agent::ExecProcessRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let container = container_id(&message.container_id)?;
        let ProcessId::Exec(exec) = process_id(&container, &message.exec_id)? else {
            return Err(RequestError::Invalid("exec id"));
        };
        if (message.stdin_port, message.stdout_port, message.stderr_port) != (0, 0, 0) {
            return Err(Unsupported::StdioPorts.into());
        }
        let process = message
            .process
            .into_option()
            .ok_or(RequestError::Missing("process"))?;
        Ok(Self {
            container,
            exec,
            // Of its capabilities those count that its container has.
            process: ProcessSpec::parse(process, Processes::Own)?,
        })
    }
}

impl ExecProcess {
    fn judged(&self) -> AskedExec<'_> {
        let process = &self.process.process;
        AskedExec {
            container: self.container.as_str(),
            args: process.args().as_deref().unwrap_or_default(),
            environment: process.env().as_deref().unwrap_or_default(),
            directory: process.cwd().to_str().unwrap_or_default(),
            terminal: self.process.terminal(),
            user: self.process.asked_user(),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            limited: process.rlimits().is_some(),
        }
    }
}

impl Parse for SignalProcess {
    type Message = agent::SignalProcessRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let container = container_id(&message.container_id)?;
        let process = process_id(&container, &message.exec_id)?;
        let signal = i32::try_from(message.signal)
            .ok()
            .filter(|_| message.signal <= SIGNAL_MAX);
        let signal = signal.ok_or(RequestError::Invalid("signal"))?;
        Ok(Self {
            container,
            process,
            signal,
        })
    }
}

impl Parse for WriteStdin {
    type Message = agent::WriteStreamRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let container = container_id(&message.container_id)?;
        let process = process_id(&container, &message.exec_id)?;
        Ok(Self {
            container,
            process,
            bytes: message.data,
        })
    }
}

impl Parse for ReadStream {
    type Message = agent::ReadStreamRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let container = container_id(&message.container_id)?;
        let process = process_id(&container, &message.exec_id)?;
        // No bytes would read as the end of the stream.
        let len = usize::try_from(message.len).unwrap_or(STREAM_CHUNK_BYTES_MAX);
        Ok(Self {
            container,
            process,
            len: len.clamp(1, STREAM_CHUNK_BYTES_MAX),
        })
    }
}

impl Parse for TtyWinResize {
    type Message = agent::TtyWinResizeRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let container = container_id(&message.container_id)?;
        let process = process_id(&container, &message.exec_id)?;
        let size =
            |value: u32| u16::try_from(value).map_err(|_| RequestError::Invalid("terminal size"));
        Ok(Self {
            container,
            process,
            rows: size(message.row)?,
            columns: size(message.column)?,
        })
    }
}

macro_rules! plain_process_requests {
    ($($(#[$doc:meta])* $name:ident($message:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            /// The container.
            pub container: ContainerId,
            /// The process.
            pub process: ProcessId,
        }

        impl Parse for $name {
            type Message = $message;

            fn parse(message: Self::Message) -> Result<Self, RequestError> {
                let container = container_id(&message.container_id)?;
                let process = process_id(&container, &message.exec_id)?;
                Ok(Self { container, process })
            }
        }
    )*};
}

plain_process_requests! {
    /// A process whose end is awaited.
    WaitProcess(agent::WaitProcessRequest);
    /// A process that gets no more input.
    CloseStdin(agent::CloseStdinRequest);
}

rule! {
    ExecProcess => "ExecProcessRequest", |asked| Asked::Exec(asked.judged());
    SignalProcess => "SignalProcessRequest", |asked| Asked::Signal { container: asked.container.as_str(), signal: asked.signal };
    WaitProcess => "WaitProcessRequest";
    WriteStdin => "WriteStreamRequest", |asked| Asked::Of(asked.container.as_str());
    ReadStream => "ReadStreamRequest", |asked| Asked::Of(asked.container.as_str());
    CloseStdin => "CloseStdinRequest", |asked| Asked::Of(asked.container.as_str());
    TtyWinResize => "TtyWinResizeRequest", |asked| Asked::Of(asked.container.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_sides_of_sixteen_bits() {
        for (side, valid) in [(0, true), (65_535, true), (65_536, false)] {
            for (row, column) in [(side, 1), (1, side)] {
                let message = agent::TtyWinResizeRequest {
                    container_id: "c1".to_owned(),
                    row,
                    column,
                    ..Default::default()
                };
                assert_eq!(
                    TtyWinResize::parse(message).is_ok(),
                    valid,
                    "{row}x{column}"
                );
            }
        }
    }

    #[test]
    fn a_signal_beyond_the_last_is_refused() {
        for (signal, valid) in [
            (0, true),
            (9, true),
            (64, true),
            (65, false),
            (u32::MAX, false),
        ] {
            let message = agent::SignalProcessRequest {
                container_id: "c1".into(),
                signal,
                ..Default::default()
            };
            assert_eq!(SignalProcess::parse(message).is_ok(), valid, "{signal}");
        }
    }

    #[test]
    fn a_read_asks_for_at_least_one_byte_and_at_most_a_mebibyte() {
        for (len, expected) in [(0, 1), (5, 5), (u32::MAX, STREAM_CHUNK_BYTES_MAX)] {
            let message = agent::ReadStreamRequest {
                container_id: "c1".into(),
                len,
                ..Default::default()
            };
            assert_eq!(ReadStream::parse(message).unwrap().len, expected);
        }
    }

    #[test]
    fn an_exec_needs_an_id_of_its_own() {
        for exec_id in ["", "c1", "../x"] {
            let message = agent::ExecProcessRequest {
                container_id: "c1".into(),
                exec_id: exec_id.into(),
                ..Default::default()
            };
            assert!(ExecProcess::parse(message).is_err(), "{exec_id:?}");
        }
    }
}
