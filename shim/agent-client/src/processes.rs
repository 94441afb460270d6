//! Requests that concern one process: its life, its streams, its terminal.

use agent_protocol::{
    limits::STREAM_CHUNK_BYTES_MAX,
    rpc::agent::{
        CloseStdinRequest, ExecProcessRequest, ReadStreamRequest, SignalProcessRequest,
        TtyWinResizeRequest, WaitProcessRequest, WriteStreamRequest,
    },
};

use crate::{
    AgentClient, AgentError,
    client::{CALL_DEADLINE, call, unbounded, within},
};

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
        let answer = self.agent.exec_process(within(CALL_DEADLINE), request);
        call("ExecProcess", answer).await?;
        Ok(())
    }

    /// Sends a signal.
    pub async fn signal(&self, process: &GuestProcess, signal: u32) -> Result<(), AgentError> {
        let request = SignalProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            signal,
            ..Default::default()
        };
        let answer = self.agent.signal_process(within(CALL_DEADLINE), &request);
        call("SignalProcess", answer).await?;
        Ok(())
    }

    /// Waits for a process to end, however long that takes.
    pub async fn wait(&self, process: &GuestProcess) -> Result<i32, AgentError> {
        let request = WaitProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..Default::default()
        };
        let answer = self.agent.wait_process(unbounded(), &request);
        Ok(call("WaitProcess", answer).await?.status)
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
        let response = match output {
            Output::Stdout => {
                let answer = self.agent.read_stdout(unbounded(), &request);
                call("ReadStdout", answer).await?
            }
            Output::Stderr => {
                let answer = self.agent.read_stderr(unbounded(), &request);
                call("ReadStderr", answer).await?
            }
        };
        Ok(response.data)
    }

    /// Writes to a process; answers how many bytes were taken.
    pub async fn write(&self, process: &GuestProcess, data: &[u8]) -> Result<usize, AgentError> {
        let request = WriteStreamRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            data: data.to_vec(),
            ..Default::default()
        };
        let answer = self.agent.write_stdin(unbounded(), &request);
        let taken = call("WriteStdin", answer).await?.len;
        Ok(usize::try_from(taken).unwrap_or(usize::MAX))
    }

    /// Tells a process that its input has ended.
    pub async fn close_stdin(&self, process: &GuestProcess) -> Result<(), AgentError> {
        let request = CloseStdinRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..Default::default()
        };
        let answer = self.agent.close_stdin(within(CALL_DEADLINE), &request);
        call("CloseStdin", answer).await?;
        Ok(())
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
        let answer = self.agent.tty_win_resize(within(CALL_DEADLINE), &request);
        call("TtyWinResize", answer).await?;
        Ok(())
    }
}
