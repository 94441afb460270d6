//! An agent that does what a test wants, and a VM that is two ends of a socket pair.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent_protocol::rpc::{
    agent::{
        CloseStdinRequest, CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest,
        ExecProcessRequest, GetOOMEventRequest, OOMEvent, ReadStreamRequest, ReadStreamResponse,
        RemoveContainerRequest, Routes, SignalProcessRequest, StartContainerRequest,
        UpdateRoutesRequest, WaitProcessRequest, WaitProcessResponse, WriteStreamRequest,
        WriteStreamResponse,
    },
    agent_ttrpc::{AgentService, create_agent_service},
    empty::Empty,
    health::{CheckRequest, HealthCheckResponse},
    health_ttrpc::{Health, create_health},
};
use async_trait::async_trait;
use futures::StreamExt;
use shim_hypervisor::{
    ConnectError, Hypervisor, ProcessExit, StartError, StopError, Vm, VmConfig, VmExit, VmExitCause,
};
use tokio::{net::UnixStream, sync::watch};
use ttrpc::{
    r#async::TtrpcContext,
    asynchronous::{Server, transport::Listener},
};

#[derive(Default)]
pub(super) struct Script {
    calls: Mutex<Vec<String>>,
    pub(super) output_left: AtomicUsize,
    pub(super) input: Mutex<Vec<u8>>,
    pub(super) ended: watch::Sender<bool>,
    /// Containers that the guest will say are out of memory.
    pub(super) starving: Mutex<Vec<String>>,
    /// Whether it says so by now.
    pub(super) complains: watch::Sender<bool>,
}

impl Script {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Agent(Arc<Script>);

#[async_trait]
impl AgentService for Agent {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        _: CreateSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.note("CreateSandbox");
        Ok(Empty::default())
    }

    async fn destroy_sandbox(
        &self,
        _: &TtrpcContext,
        _: DestroySandboxRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.note("DestroySandbox");
        Ok(Empty::default())
    }

    async fn update_routes(
        &self,
        _: &TtrpcContext,
        _: UpdateRoutesRequest,
    ) -> ttrpc::Result<Routes> {
        Ok(Routes::default())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.note(format!("Create {}", request.container_id));
        if request.container_id == "slow" {
            std::future::pending::<()>().await;
        }
        if request.container_id == "refused" {
            let status = ttrpc::get_status(ttrpc::Code::PERMISSION_DENIED, "not by this policy");
            return Err(ttrpc::Error::RpcStatus(status));
        }
        Ok(Empty::default())
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        _: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        Ok(Empty::default())
    }

    async fn exec_process(
        &self,
        _: &TtrpcContext,
        request: ExecProcessRequest,
    ) -> ttrpc::Result<Empty> {
        self.0
            .note(format!("Exec {}", request.process.Args.join(" ")));
        Ok(Empty::default())
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.note(format!("Remove {}", request.container_id));
        Ok(Empty::default())
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.note(format!("Signal {}", request.signal));
        self.0.ended.send_replace(true);
        Ok(Empty::default())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        _: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
        Ok(WaitProcessResponse {
            status: 3,
            ..WaitProcessResponse::default()
        })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let left = self.0.output_left.load(Ordering::SeqCst);
        let count = left.min(usize::try_from(request.len).unwrap_or(0));
        self.0.output_left.fetch_sub(count, Ordering::SeqCst);
        if count == 0 {
            let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
        }
        Ok(ReadStreamResponse {
            data: vec![b'x'; count],
            ..ReadStreamResponse::default()
        })
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        self.0.input.lock().unwrap().extend(&request.data);
        Ok(WriteStreamResponse {
            len: u32::try_from(request.data.len()).unwrap(),
            ..WriteStreamResponse::default()
        })
    }

    async fn get_oom_event(
        &self,
        _: &TtrpcContext,
        _: GetOOMEventRequest,
    ) -> ttrpc::Result<OOMEvent> {
        let _ = self.0.complains.subscribe().wait_for(|now| *now).await;
        let Some(container_id) = self.0.starving.lock().unwrap().pop() else {
            return std::future::pending().await;
        };
        Ok(OOMEvent {
            container_id,
            ..OOMEvent::default()
        })
    }

    async fn close_stdin(&self, _: &TtrpcContext, _: CloseStdinRequest) -> ttrpc::Result<Empty> {
        self.0.note("CloseStdin");
        // As a reader does that waits for the end of its input.
        if !self.0.input.lock().unwrap().is_empty() {
            self.0.ended.send_replace(true);
        }
        Ok(Empty::default())
    }
}

#[async_trait]
impl Health for Agent {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse::default())
    }
}

pub(super) struct Machines {
    pub(super) script: Arc<Script>,
    pub(super) dead: watch::Sender<bool>,
}

struct Machine {
    script: Arc<Script>,
    dead: watch::Sender<bool>,
    server: Mutex<Option<Server>>,
}

#[async_trait]
impl Hypervisor for Machines {
    async fn start(&self, _: VmConfig) -> Result<Box<dyn Vm>, StartError> {
        Ok(Box::new(Machine {
            script: Arc::clone(&self.script),
            dead: self.dead.clone(),
            server: Mutex::new(None),
        }))
    }
}

#[async_trait]
impl Vm for Machine {
    fn pid(&self) -> u32 {
        4242
    }

    fn processes(&self) -> Vec<u32> {
        vec![4242]
    }

    async fn connect(&self, _: u32, _: Duration) -> Result<UnixStream, ConnectError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let streams = futures::stream::iter([Ok(theirs)]).chain(futures::stream::pending());
        let agent = Arc::new(Agent(Arc::clone(&self.script)));
        let mut server = Server::new()
            .add_listener(Listener::new(streams))
            .register_service(create_agent_service(agent.clone()))
            .register_service(create_health(agent));
        server.start().await.unwrap();
        *self.server.lock().unwrap() = Some(server);
        Ok(ours)
    }

    async fn exited(&self) -> VmExit {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
        VmExit {
            cause: VmExitCause::Died,
            status: ProcessExit::Signal(9),
            message: String::new(),
        }
    }

    async fn stop(&self, _: Duration) -> Result<(), StopError> {
        self.dead.send_replace(true);
        Ok(())
    }

    fn console(&self) -> String {
        String::new()
    }
}
