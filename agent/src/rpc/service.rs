//! Every call of the protocol. Each is the same few steps: parse the message,
//! have it judged, act on the permit, map the error.
//!
//! Calls that change something run in a task of their own: a host that hangs up in
//! the middle does not leave half of the work behind.

use std::sync::Arc;

use agent_containers::{Containers, CreateError, OomEvents, Output};
use agent_protocol::rpc::{
    agent as wire, agent_ttrpc::AgentService, csi, empty::Empty, health, health_ttrpc, types,
};
use agent_requests::{self as request, Parse};
use async_trait::async_trait;
use policy_engine::Permit;
use protobuf::MessageFull;
use tokio::{sync::Notify, task::spawn_blocking};
use tracing::info;
use ttrpc::{Result as Answer, r#async::TtrpcContext};

use super::{
    answers,
    status::{CallError, to_wire},
};
use crate::{judge::Judge, network::Network, sandbox::Sandbox, version::VERSION};

/// All that calls act on.
#[derive(Debug)]
pub struct Guest {
    /// Judges requests.
    pub judge: Arc<Judge>,
    /// The pod.
    pub sandbox: Arc<Sandbox>,
    /// Its containers.
    pub containers: Arc<Containers>,
    /// Its network.
    pub network: Network,
    /// Containers out of memory.
    pub oom: Arc<OomEvents>,
    /// Told when the pod is taken down.
    pub destroyed: Arc<Notify>,
}

impl Guest {
    /// The one way from a message to a permit.
    fn permit<R>(&self, message: R::Message) -> Result<Permit<R>, CallError>
    where
        R: Parse<Message: MessageFull>,
    {
        let prepared = self.judge.prepare::<R>(&message);
        Ok(self.judge.judge(R::parse(message)?, prepared)?)
    }

    async fn read(
        &self,
        message: wire::ReadStreamRequest,
        output: Output,
    ) -> Answer<wire::ReadStreamResponse> {
        let read = async {
            let prepared = self.judge.prepare::<request::ReadStream>(&message);
            let request = request::ReadStream::parse(message)?;
            let (container, name) = (request.container.clone(), request.process.clone());
            // A denial reads as the end, whether or not there is such a process; and the
            // workload must not block on a pipe that nobody empties (Kata agent protocol,
            // section 15).
            let Ok(permit) = self.judge.judge(request, prepared) else {
                self.containers.discard_output(&container, &name, output);
                return Ok(Vec::new());
            };
            let process = self.containers.process(&permit)?;
            Ok(process.read(&permit, output).await?)
        };
        let data = answer("read", read.await)?;
        Ok(wire::ReadStreamResponse {
            data,
            ..Default::default()
        })
    }
}

fn answer<T>(call: &'static str, result: Result<T, CallError>) -> Answer<T> {
    result.map_err(|error| to_wire(call, &error))
}

/// Work that goes on when the host hangs up.
async fn detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, CallError>
where
    T: Send + 'static,
    E: Into<CallError> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(CallError::Lost),
    }
}

async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CallError>
where
    T: Send + 'static,
    E: Into<CallError> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(CallError::Lost),
    }
}

// `async_trait` must see the methods that a macro would write, so the whole
// implementation is written out by one.
macro_rules! agent_service {
    (
        $($method:ident($message:ty) -> $answer:ty = $name:literal |$guest:ident, $request:ident| $body:block)*
        ;
        $($missing:ident($missing_message:ty) -> $missing_answer:ty = $missing_name:literal, $missing_rule:literal;)*
    ) => {
        /// All calls of the service.
        #[cfg(test)]
        const CALLS: &[&str] = &[
            $($name,)*
            $($missing_name,)*
            "ReadStdout",
            "ReadStderr",
        ];

        #[async_trait]
        impl AgentService for Guest {
            $(async fn $method(&self, _: &TtrpcContext, $request: $message) -> Answer<$answer> {
                let $guest = self;
                let result: Result<$answer, CallError> = async { $body }.await;
                answer($name, result)
            })*

            $(async fn $missing(&self, _: &TtrpcContext, message: $missing_message) -> Answer<$missing_answer> {
                struct Missing;
                impl policy_engine::Request for Missing {
                    const RULE: &'static str = $missing_rule;
                }
                // What is denied is denied, whether the guest has it or not.
                let prepared = self.judge.prepare::<Missing>(&message);
                let judged = self.judge.judge(Missing, prepared).map_err(CallError::from);
                answer(
                    $missing_name,
                    judged.and(Err(CallError::Unimplemented($missing_name))),
                )
            })*

            async fn read_stdout(
                &self,
                _: &TtrpcContext,
                message: wire::ReadStreamRequest,
            ) -> Answer<wire::ReadStreamResponse> {
                self.read(message, Output::Stdout).await
            }

            async fn read_stderr(
                &self,
                _: &TtrpcContext,
                message: wire::ReadStreamRequest,
            ) -> Answer<wire::ReadStreamResponse> {
                self.read(message, Output::Stderr).await
            }
        }
    };
}

agent_service! {
    create_sandbox(wire::CreateSandboxRequest) -> Empty = "CreateSandbox" |guest, message| {
        let permit = guest.permit::<request::CreateSandbox>(message)?;
        let (sandbox, destroyed) = (Arc::clone(&guest.sandbox), Arc::clone(&guest.destroyed));
        detached(async move {
            let making = Arc::clone(&sandbox);
            let created = blocking(move || making.create(permit)).await;
            if sandbox.in_use().is_err() {
                // What failed half-way is not tried again: this guest has had its pod.
                destroyed.notify_one();
            }
            created
        })
        .await?;
        info!("sandbox created");
        // The network is there from now on, and no other policy can come.
        guest.containers.pull_ahead(guest.judge.images());
        Ok(Empty::new())
    }

    destroy_sandbox(wire::DestroySandboxRequest) -> Empty = "DestroySandbox" |guest, message| {
        let permit = guest.permit::<request::DestroySandbox>(message)?;
        guest.sandbox.end();
        let (containers, destroyed) = (Arc::clone(&guest.containers), Arc::clone(&guest.destroyed));
        let work = async move {
            containers.remove_all(&permit).await;
            destroyed.notify_one();
            Ok::<(), CallError>(())
        };
        detached(work).await?;
        Ok(Empty::new())
    }

    create_container(wire::CreateContainerRequest) -> Empty = "CreateContainer" |guest, message| {
        let permit = guest.permit::<request::CreateContainer>(message)?;
        guest.sandbox.in_use()?;
        let containers = Arc::clone(&guest.containers);
        let created = detached(async move { containers.create(permit).await }).await;
        if let Err(CallError::Create(CreateError::Denied(denied))) = &created {
            guest.judge.note(denied);
        }
        created?;
        Ok(Empty::new())
    }

    start_container(wire::StartContainerRequest) -> Empty = "StartContainer" |guest, message| {
        let permit = guest.permit::<request::StartContainer>(message)?;
        let containers = Arc::clone(&guest.containers);
        detached(async move { containers.start(permit).await }).await?;
        Ok(Empty::new())
    }

    remove_container(wire::RemoveContainerRequest) -> Empty = "RemoveContainer" |guest, message| {
        let permit = guest.permit::<request::RemoveContainer>(message)?;
        let containers = Arc::clone(&guest.containers);
        detached(async move { containers.remove(permit).await }).await?;
        Ok(Empty::new())
    }

    exec_process(wire::ExecProcessRequest) -> Empty = "ExecProcess" |guest, message| {
        let permit = guest.permit::<request::ExecProcess>(message)?;
        let containers = Arc::clone(&guest.containers);
        detached(async move { containers.exec(permit).await }).await?;
        Ok(Empty::new())
    }

    signal_process(wire::SignalProcessRequest) -> Empty = "SignalProcess" |guest, message| {
        let permit = guest.permit::<request::SignalProcess>(message)?;
        guest.containers.signal(&permit)?;
        Ok(Empty::new())
    }

    wait_process(wire::WaitProcessRequest) -> wire::WaitProcessResponse = "WaitProcess" |guest, message| {
        let permit = guest.permit::<request::WaitProcess>(message)?;
        let process = guest.containers.process(&permit)?;
        let status = process.wait(&permit).await;
        Ok(wire::WaitProcessResponse { status, ..Default::default() })
    }

    write_stdin(wire::WriteStreamRequest) -> wire::WriteStreamResponse = "WriteStdin" |guest, message| {
        let permit = guest.permit::<request::WriteStdin>(message)?;
        let process = guest.containers.process(&permit)?;
        let len = process.write(&permit).await?;
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Ok(wire::WriteStreamResponse { len, ..Default::default() })
    }

    close_stdin(wire::CloseStdinRequest) -> Empty = "CloseStdin" |guest, message| {
        let permit = guest.permit::<request::CloseStdin>(message)?;
        guest.containers.process(&permit)?.close_stdin(&permit).await;
        Ok(Empty::new())
    }

    tty_win_resize(wire::TtyWinResizeRequest) -> Empty = "TtyWinResize" |guest, message| {
        let permit = guest.permit::<request::TtyWinResize>(message)?;
        guest.containers.process(&permit)?.resize(&permit)?;
        Ok(Empty::new())
    }

    stats_container(wire::StatsContainerRequest) -> wire::StatsContainerResponse = "StatsContainer" |guest, message| {
        let permit = guest.permit::<request::StatsContainer>(message)?;
        Ok(guest.containers.stats(&permit)?)
    }

    update_container(wire::UpdateContainerRequest) -> Empty = "UpdateContainer" |guest, message| {
        let permit = guest.permit::<request::UpdateContainer>(message)?;
        guest.containers.update(&permit)?;
        Ok(Empty::new())
    }

    pause_container(wire::PauseContainerRequest) -> Empty = "PauseContainer" |guest, message| {
        let permit = guest.permit::<request::PauseContainer>(message)?;
        guest.containers.pause(&permit)?;
        Ok(Empty::new())
    }

    resume_container(wire::ResumeContainerRequest) -> Empty = "ResumeContainer" |guest, message| {
        let permit = guest.permit::<request::ResumeContainer>(message)?;
        guest.containers.resume(&permit)?;
        Ok(Empty::new())
    }

    get_diagnostic_data(wire::GetDiagnosticDataRequest) -> wire::GetDiagnosticDataResponse = "GetDiagnosticData" |guest, message| {
        let permit = guest.permit::<request::GetDiagnosticData>(message)?;
        let containers = Arc::clone(&guest.containers);
        let data = blocking(move || containers.termination_message(&permit)).await?;
        Ok(wire::GetDiagnosticDataResponse { data, ..Default::default() })
    }

    update_interface(wire::UpdateInterfaceRequest) -> types::Interface = "UpdateInterface" |guest, message| {
        let interface = message.interface.clone().unwrap_or_default();
        let permit = guest.permit::<request::UpdateInterface>(message)?;
        let network = guest.network.clone();
        detached(async move { network.update_interface(&permit).await }).await?;
        Ok(interface)
    }

    update_routes(wire::UpdateRoutesRequest) -> wire::Routes = "UpdateRoutes" |guest, message| {
        let permit = guest.permit::<request::UpdateRoutes>(message)?;
        guest.network.update_routes(&permit).await?;
        Ok(guest.network.routes_after(&permit).await?)
    }

    add_arp_neighbors(wire::AddARPNeighborsRequest) -> Empty = "AddARPNeighbors" |guest, message| {
        let permit = guest.permit::<request::AddArpNeighbors>(message)?;
        guest.network.add_neighbors(&permit).await?;
        Ok(Empty::new())
    }

    list_interfaces(wire::ListInterfacesRequest) -> wire::Interfaces = "ListInterfaces" |guest, message| {
        let permit = guest.permit::<request::ListInterfaces>(message)?;
        Ok(guest.network.list_interfaces(&permit).await?)
    }

    list_routes(wire::ListRoutesRequest) -> wire::Routes = "ListRoutes" |guest, message| {
        let permit = guest.permit::<request::ListRoutes>(message)?;
        Ok(guest.network.list_routes(&permit).await?)
    }

    copy_file(wire::CopyFileRequest) -> Empty = "CopyFile" |guest, message| {
        let permit = guest.permit::<request::CopyFile>(message)?;
        let containers = Arc::clone(&guest.containers);
        blocking(move || containers.copy(permit)).await?;
        Ok(Empty::new())
    }

    get_oom_event(wire::GetOOMEventRequest) -> wire::OOMEvent = "GetOOMEvent" |guest, message| {
        guest.permit::<request::GetOomEvent>(message)?;
        let container_id = guest.oom.next().await.to_string();
        Ok(wire::OOMEvent { container_id, ..Default::default() })
    }

    get_guest_details(wire::GuestDetailsRequest) -> wire::GuestDetailsResponse = "GetGuestDetails" |guest, message| {
        Ok(answers::guest_details(&guest.permit(message)?))
    }

    get_volume_stats(wire::VolumeStatsRequest) -> csi::VolumeStatsResponse = "GetVolumeStats" |guest, message| {
        let permit = guest.permit::<request::GetVolumeStats>(message)?;
        blocking(move || answers::volume_stats(&permit).map_err(CallError::Volume)).await
    }

    online_cpu_mem(wire::OnlineCPUMemRequest) -> Empty = "OnlineCPUMem" |guest, message| {
        // All CPUs and all memory are there from the start.
        guest.permit::<request::OnlineCpuMem>(message)?;
        Ok(Empty::new())
    }

    set_policy(wire::SetPolicyRequest) -> Empty = "SetPolicy" |guest, message| {
        // Judged by the launch, not by a policy.
        let request = request::SetPolicy::parse(message)?;
        guest.judge.set_policy(&request.policy)?;
        Ok(Empty::new())
    }

    ;

    update_ephemeral_mounts(wire::UpdateEphemeralMountsRequest) -> Empty = "UpdateEphemeralMounts", "UpdateEphemeralMountsRequest";
    remove_stale_virtiofs_share_mounts(wire::RemoveStaleVirtiofsShareMountsRequest) -> Empty = "RemoveStaleVirtiofsShareMounts", "RemoveStaleVirtiofsShareMountsRequest";
    get_ip_tables(wire::GetIPTablesRequest) -> wire::GetIPTablesResponse = "GetIPTables", "GetIPTablesRequest";
    set_ip_tables(wire::SetIPTablesRequest) -> wire::SetIPTablesResponse = "SetIPTables", "SetIPTablesRequest";
    get_metrics(wire::GetMetricsRequest) -> wire::Metrics = "GetMetrics", "GetMetricsRequest";
    mem_agent_memcg_set(wire::MemAgentMemcgConfig) -> Empty = "MemAgentMemcgSet", "MemAgentMemcgConfig";
    mem_agent_compact_set(wire::MemAgentCompactConfig) -> Empty = "MemAgentCompactSet", "MemAgentCompactConfig";
    reseed_random_dev(wire::ReseedRandomDevRequest) -> Empty = "ReseedRandomDev", "ReseedRandomDevRequest";
    mem_hotplug_by_probe(wire::MemHotplugByProbeRequest) -> Empty = "MemHotplugByProbe", "MemHotplugByProbeRequest";
    set_guest_date_time(wire::SetGuestDateTimeRequest) -> Empty = "SetGuestDateTime", "SetGuestDateTimeRequest";
    add_swap(wire::AddSwapRequest) -> Empty = "AddSwap", "AddSwapRequest";
    add_swap_path(wire::AddSwapPathRequest) -> Empty = "AddSwapPath", "AddSwapPathRequest";
    resize_volume(wire::ResizeVolumeRequest) -> Empty = "ResizeVolume", "ResizeVolumeRequest";
}

#[async_trait]
impl health_ttrpc::Health for Guest {
    async fn check(
        &self,
        _: &TtrpcContext,
        _: health::CheckRequest,
    ) -> Answer<health::HealthCheckResponse> {
        Ok(health::HealthCheckResponse {
            status: health::health_check_response::ServingStatus::SERVING.into(),
            ..Default::default()
        })
    }

    async fn version(
        &self,
        _: &TtrpcContext,
        _: health::CheckRequest,
    ) -> Answer<health::VersionCheckResponse> {
        Ok(health::VersionCheckResponse {
            grpc_version: "0.0.1".into(),
            agent_version: VERSION.into(),
            ..Default::default()
        })
    }
}

#[cfg(test)]
#[path = "denied_tests.rs"]
mod denied_tests;
