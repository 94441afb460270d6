//! Requests that concern one process: its life, its streams, its terminal.

use agent_protocol::{
    limits::STREAM_CHUNK_BYTES_MAX,
    rpc::agent::{
        CloseStdinRequest, ExecProcessRequest, ReadStreamRequest, SignalProcessRequest,
        TtyWinResizeRequest, WaitProcessRequest, WaitProcessResponse, WriteStreamRequest,
        WriteStreamResponse,
    },
};

use crate::{
    AgentClient, AgentError, answers,
    client::{Patience, SHORT_BYTES_MAX, SOON},
};

/// The longest answer with output, in bytes: a chunk and what says that it is one.
const OUTPUT_BYTES_MAX: usize = STREAM_CHUNK_BYTES_MAX + SHORT_BYTES_MAX;

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or a terminal's only output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A process in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestProcess {
    /// The container.
    pub container: String,
    /// The exec, or empty for the container's first process.
    pub exec: String,
}

impl AgentClient {
    /// Starts a further process.
    pub async fn exec_process(&self, request: &ExecProcessRequest) -> Result<(), AgentError> {
        self.tell("ExecProcess", SOON, request).await
    }

    /// Sends a signal.
    pub async fn signal(&self, process: &GuestProcess, signal: u32) -> Result<(), AgentError> {
        let request = SignalProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            signal,
            ..Default::default()
        };
        self.tell("SignalProcess", SOON, &request).await
    }

    /// Waits for a process to end, however long that takes.
    pub async fn wait(&self, process: &GuestProcess) -> Result<u8, AgentError> {
        let request = WaitProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..Default::default()
        };
        let parse = |answer: WaitProcessResponse| answers::exit_code(&answer);
        let answer = (SHORT_BYTES_MAX, parse);
        self.ask("WaitProcess", Patience::Unbounded, &request, answer)
            .await
    }

    /// Reads what a process has written; empty means that there will be no more.
    pub async fn read(
        &self,
        process: &GuestProcess,
        output: Output,
    ) -> Result<Vec<u8>, AgentError> {
        let request = ReadStreamRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            len: u32::try_from(STREAM_CHUNK_BYTES_MAX).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let method = match output {
            Output::Stdout => "ReadStdout",
            Output::Stderr => "ReadStderr",
        };
        let answer = (OUTPUT_BYTES_MAX, answers::output);
        self.ask(method, Patience::Unbounded, &request, answer)
            .await
    }

    /// Writes to a process; answers how many bytes were taken.
    pub async fn write(&self, process: &GuestProcess, data: &[u8]) -> Result<usize, AgentError> {
        let request = WriteStreamRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            data: data.to_vec(),
            ..Default::default()
        };
        let parse = |answer: WriteStreamResponse| answers::taken(&answer, data.len());
        let answer = (SHORT_BYTES_MAX, parse);
        self.ask("WriteStdin", Patience::Unbounded, &request, answer)
            .await
    }

    /// Tells a process that its input has ended.
    pub async fn close_stdin(&self, process: &GuestProcess) -> Result<(), AgentError> {
        let request = CloseStdinRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..Default::default()
        };
        self.tell("CloseStdin", SOON, &request).await
    }

    /// Tells a process the size of its terminal.
    pub async fn resize(
        &self,
        process: &GuestProcess,
        row: u32,
        column: u32,
    ) -> Result<(), AgentError> {
        let request = TtyWinResizeRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            row,
            column,
            ..Default::default()
        };
        self.tell("TtyWinResize", SOON, &request).await
    }
}
