//! A guest that answers each request with more, or other, than it may.

use std::{sync::Arc, time::Duration};

use agent_protocol::rpc::{
    agent::{
        GetDiagnosticDataRequest, GetDiagnosticDataResponse, GetOOMEventRequest, NetworkStats,
        OOMEvent, ReadStreamRequest, ReadStreamResponse, StartContainerRequest,
        StatsContainerRequest, StatsContainerResponse, WaitProcessRequest, WaitProcessResponse,
        WriteStreamRequest, WriteStreamResponse,
    },
    agent_ttrpc::{AgentService, create_agent_service},
    empty::Empty,
};
use async_trait::async_trait;
use futures::StreamExt;
use tokio::net::UnixStream;
use ttrpc::{
    r#async::TtrpcContext,
    asynchronous::{Server, transport::Listener},
};

use crate::{AgentClient, AgentError, GuestProcess, LINE_BYTES_MAX, Output};

struct Liar;

#[async_trait]
impl AgentService for Liar {
    async fn stats_container(
        &self,
        _: &TtrpcContext,
        _: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        Ok(StatsContainerResponse {
            // Two bytes each as sent, a hundred times as much when they are decoded.
            network_stats: vec![NetworkStats::default(); 1 << 20],
            ..Default::default()
        })
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        _: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        Ok(WaitProcessResponse {
            status: -1,
            ..Default::default()
        })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let asked = usize::try_from(request.len).unwrap();
        Ok(ReadStreamResponse {
            data: vec![b'x'; asked + 1],
            ..Default::default()
        })
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        Ok(WriteStreamResponse {
            len: u32::try_from(request.data.len()).unwrap() + 1,
            ..Default::default()
        })
    }

    async fn get_oom_event(
        &self,
        _: &TtrpcContext,
        _: GetOOMEventRequest,
    ) -> ttrpc::Result<OOMEvent> {
        Ok(OOMEvent {
            container_id: "of-another-pod".into(),
            ..Default::default()
        })
    }

    async fn get_diagnostic_data(
        &self,
        _: &TtrpcContext,
        _: GetDiagnosticDataRequest,
    ) -> ttrpc::Result<GetDiagnosticDataResponse> {
        Ok(GetDiagnosticDataResponse {
            data: "x".repeat(3 << 20),
            ..Default::default()
        })
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        _: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let text = format!("\x1b]0;owned\x07{}", "x".repeat(3 << 20));
        let status = ttrpc::get_status(ttrpc::Code::UNAVAILABLE, text);
        Err(ttrpc::Error::RpcStatus(status))
    }
}

async fn liar() -> (AgentClient, Server) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let streams = futures::stream::iter([Ok(theirs)]).chain(futures::stream::pending());
    let mut server = Server::new()
        .add_listener(Listener::new(streams))
        .register_service(create_agent_service(Arc::new(Liar)));
    server.start().await.unwrap();
    (AgentClient::new(ours), server)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, AgentError>, why: &str) {
    let error = answer.unwrap_err();
    assert!(error.is_answer(), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(error.code(), ttrpc::Code::INTERNAL);
}

#[tokio::test]
async fn answers_that_no_honest_guest_gives_are_refused() {
    let (agent, _server) = liar().await;
    let process = GuestProcess {
        container: "web".into(),
        exec: String::new(),
    };
    refused(agent.stats("web").await, "more than 65536 bytes");
    refused(agent.wait(&process).await, "no process exits with -1");
    let output = agent.read(&process, Output::Stdout).await;
    refused(output, "more than");
    let taken = agent.write(&process, b"input").await;
    refused(taken, "more bytes than were sent");
    let event = agent.oom_event(|id| id.as_str() == "web").await;
    refused(event, "a container that this pod does not have");
    refused(agent.termination_log("web").await, "more than 65536 bytes");
}

#[tokio::test]
async fn a_refusal_cannot_pose_as_a_lost_connection_or_write_to_a_terminal() {
    let (agent, server) = liar().await;
    let error = agent.start_container("web").await.unwrap_err();
    assert_eq!(error.code(), ttrpc::Code::INTERNAL);
    let text = error.to_string();
    assert!(text.len() < LINE_BYTES_MAX + 64 && !text.contains(char::is_control));
    drop(server);
    let check = agent.check(Duration::from_secs(5)).await.unwrap_err();
    assert_ne!(check.code(), ttrpc::Code::OK);
}
