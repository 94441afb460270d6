//! Every call of the protocol, asked of a guest that denies everything.

use agent_containers::{Images, PullConfig, Reaper, Storages, Surroundings};
use agent_measured::Measured;
use agent_protocol::{
    id::{ContainerId, ExecId},
    rpc::oci,
};
use agent_scratch_disk::Scratch;
use protobuf::MessageField;
use ttrpc::Code;

use super::*;
use crate::{judge::Standing, told::Told};

const THERE: &str = "there";
const NOT_THERE: &str = "not-there";
const EXEC: &str = "exec";

fn guest(standing: &Standing) -> Guest {
    let log = Arc::new(Measured::default());
    let oom = Arc::new(OomEvents::default());
    let storages = Arc::new(Storages::default());
    let pulls = PullConfig {
        https_proxy: None,
        no_proxy: None,
        pull_deadline: std::time::Duration::from_secs(1),
    };
    let containers = Containers::new(Surroundings {
        reaper: Reaper::default(),
        oom: Arc::clone(&oom),
        storages: Arc::clone(&storages),
        images: Arc::new(Images::new(pulls, Arc::new(Scratch::memory()))),
        log: Arc::clone(&log),
        pipe_size: None,
        output_patience: std::time::Duration::from_secs(60),
    });
    let id = ContainerId::parse(THERE).unwrap();
    containers.insert_idle(&id, &ExecId::parse(EXEC).unwrap());
    Guest {
        judge: Arc::new(Judge::new(standing, Arc::clone(&log))),
        sandbox: Arc::new(Sandbox::new(storages)),
        containers: Arc::new(containers),
        network: Network::connect(log).unwrap(),
        oom,
        destroyed: Arc::new(Notify::new()),
    }
}

fn context() -> TtrpcContext {
    TtrpcContext {
        mh: Default::default(),
        metadata: Default::default(),
        timeout_nano: 0,
        connection_data: Default::default(),
    }
}

fn process() -> oci::Process {
    oci::Process {
        Args: vec!["sh".into()],
        Cwd: "/".into(),
        ..Default::default()
    }
}

fn said<T: std::fmt::Debug>(answer: Answer<T>) -> Result<String, (Code, String)> {
    match answer {
        Ok(answer) => Ok(format!("{answer:?}")),
        Err(ttrpc::Error::RpcStatus(status)) => Err((status.code(), status.message)),
        Err(other) => panic!("{other}"),
    }
}

/// What the guest says to each call about this container and this process of it.
macro_rules! ask {
    ($guest:expr, $($method:ident($message:ident) { $($field:ident: $value:expr),* $(,)? } = $name:literal;)*) => {{
        let mut answers = Vec::new();
        $({
            let message = wire::$message { $($field: $value,)* ..Default::default() };
            answers.push(($name, said($guest.$method(&context(), message).await)));
        })*
        answers
    }};
}

type Answers = Vec<(&'static str, Result<String, (Code, String)>)>;

async fn ask(guest: &Guest, id: &str) -> Answers {
    let exec = || EXEC.to_owned();
    let id = || id.to_owned();
    ask! { guest,
        create_sandbox(CreateSandboxRequest) {} = "CreateSandbox";
        destroy_sandbox(DestroySandboxRequest) {} = "DestroySandbox";
        create_container(CreateContainerRequest) {
            container_id: id(),
            storages: vec![wire::Storage {
                driver: "image_guest_pull".into(),
                source: "r.example/a:1".into(),
                mount_point: format!("/run/kata-containers/{}/rootfs", id()),
                ..Default::default()
            }],
            OCI: MessageField::some(oci::Spec {
                Process: MessageField::some(process()),
                ..Default::default()
            }),
        } = "CreateContainer";
        start_container(StartContainerRequest) { container_id: id() } = "StartContainer";
        remove_container(RemoveContainerRequest) { container_id: id() } = "RemoveContainer";
        exec_process(ExecProcessRequest) {
            container_id: id(),
            exec_id: exec(),
            process: MessageField::some(process()),
        } = "ExecProcess";
        signal_process(SignalProcessRequest) { container_id: id(), exec_id: exec() } = "SignalProcess";
        wait_process(WaitProcessRequest) { container_id: id(), exec_id: exec() } = "WaitProcess";
        write_stdin(WriteStreamRequest) { container_id: id(), exec_id: exec() } = "WriteStdin";
        read_stdout(ReadStreamRequest) { container_id: id(), exec_id: exec() } = "ReadStdout";
        read_stderr(ReadStreamRequest) { container_id: id(), exec_id: exec() } = "ReadStderr";
        close_stdin(CloseStdinRequest) { container_id: id(), exec_id: exec() } = "CloseStdin";
        tty_win_resize(TtyWinResizeRequest) { container_id: id(), exec_id: exec() } = "TtyWinResize";
        stats_container(StatsContainerRequest) { container_id: id() } = "StatsContainer";
        update_container(UpdateContainerRequest) { container_id: id() } = "UpdateContainer";
        pause_container(PauseContainerRequest) { container_id: id() } = "PauseContainer";
        resume_container(ResumeContainerRequest) { container_id: id() } = "ResumeContainer";
        get_diagnostic_data(GetDiagnosticDataRequest) {
            container_id: id(),
            log_type: "termination_log".into(),
        } = "GetDiagnosticData";
        update_interface(UpdateInterfaceRequest) {
            interface: MessageField::some(types::Interface {
                name: "eth0".into(),
                hwAddr: "02:00:00:00:00:01".into(),
                ..Default::default()
            }),
        } = "UpdateInterface";
        update_routes(UpdateRoutesRequest) {
            routes: MessageField::some(wire::Routes::default()),
        } = "UpdateRoutes";
        add_arp_neighbors(AddARPNeighborsRequest) {
            neighbors: MessageField::some(wire::ARPNeighbors::default()),
        } = "AddARPNeighbors";
        list_interfaces(ListInterfacesRequest) {} = "ListInterfaces";
        list_routes(ListRoutesRequest) {} = "ListRoutes";
        copy_file(CopyFileRequest) {
            path: format!("/run/kata-containers/shared/containers/{}", id()),
            file_mode: 0o100_644,
        } = "CopyFile";
        get_oom_event(GetOOMEventRequest) {} = "GetOOMEvent";
        get_guest_details(GuestDetailsRequest) {} = "GetGuestDetails";
        get_volume_stats(VolumeStatsRequest) {
            volume_guest_path: format!("/run/kata-containers/{}", id()),
        } = "GetVolumeStats";
        online_cpu_mem(OnlineCPUMemRequest) {} = "OnlineCPUMem";
        set_policy(SetPolicyRequest) { policy: "package agent_policy".into() } = "SetPolicy";
    }
}

async fn ask_for_what_the_guest_has_not(guest: &Guest) -> Answers {
    ask! { guest,
        update_ephemeral_mounts(UpdateEphemeralMountsRequest) {} = "UpdateEphemeralMounts";
        remove_stale_virtiofs_share_mounts(RemoveStaleVirtiofsShareMountsRequest) {} = "RemoveStaleVirtiofsShareMounts";
        get_ip_tables(GetIPTablesRequest) {} = "GetIPTables";
        set_ip_tables(SetIPTablesRequest) {} = "SetIPTables";
        get_metrics(GetMetricsRequest) {} = "GetMetrics";
        mem_agent_memcg_set(MemAgentMemcgConfig) {} = "MemAgentMemcgSet";
        mem_agent_compact_set(MemAgentCompactConfig) {} = "MemAgentCompactSet";
        reseed_random_dev(ReseedRandomDevRequest) {} = "ReseedRandomDev";
        mem_hotplug_by_probe(MemHotplugByProbeRequest) {} = "MemHotplugByProbe";
        set_guest_date_time(SetGuestDateTimeRequest) {} = "SetGuestDateTime";
        add_swap(AddSwapRequest) {} = "AddSwap";
        add_swap_path(AddSwapPathRequest) {} = "AddSwapPath";
        resize_volume(ResizeVolumeRequest) {} = "ResizeVolume";
    }
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_their_own_connection_only() {
    use agent_protocol::rpc::{health::CheckRequest, health_ttrpc::HealthClient};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let address = format!("unix://{}", path.display());
    let mut server = crate::rpc::serve(guest(&Standing::Configured), &address)
        .await
        .unwrap();
    let no_frames: [Vec<u8>; 4] = [
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec(),
        // A request whose body is no message, and one that is cut off.
        [&[0, 0, 0, 4, 0, 0, 0, 1, 1, 0][..], &[0xff; 4]].concat(),
        vec![0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 7],
    ];
    for bytes in no_frames {
        let mut host = tokio::net::UnixStream::connect(&path).await.unwrap();
        host.write_all(&bytes).await.unwrap();
        host.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = host.read_to_end(&mut answer);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(10), read)
            .await
            .unwrap();
        drop(host);
        let client = ttrpc::r#async::Client::connect(&address).await.unwrap();
        let health = HealthClient::new(client);
        let context = ttrpc::context::with_duration(std::time::Duration::from_secs(10));
        health.check(context, &CheckRequest::new()).await.unwrap();
    }
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_guest_that_denies_everything_answers_alike_for_what_is_there_and_what_is_not() {
    let guest = guest(&Standing::Refused(Told::new("because")));
    let mut there = ask(&guest, THERE).await;
    assert_eq!(there, ask(&guest, NOT_THERE).await);
    there.extend(ask_for_what_the_guest_has_not(&guest).await);
    let mut asked: Vec<_> = there.iter().map(|(name, _)| *name).collect();
    let mut calls: Vec<_> = CALLS.to_vec();
    asked.sort_unstable();
    calls.sort_unstable();
    assert_eq!(asked, calls, "every call is asked");
    for (name, answer) in there {
        match answer {
            // To a shim, a denial of a stream reads as its end.
            Ok(answer) => assert!(name.starts_with("ReadStd"), "{name}: {answer}"),
            Err((code, text)) => {
                assert_eq!(code, Code::PERMISSION_DENIED, "{name}: {text}");
                assert!(text.contains("is blocked by policy: "), "{name}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn where_all_is_allowed_what_is_there_can_be_told_from_what_is_not() {
    let guest = guest(&Standing::Open { bound: None });
    let close = |id: &str| wire::CloseStdinRequest {
        container_id: id.into(),
        exec_id: EXEC.into(),
        ..Default::default()
    };
    assert!(guest.close_stdin(&context(), close(THERE)).await.is_ok());
    let answer = said(guest.close_stdin(&context(), close(NOT_THERE)).await);
    let (code, text) = answer.unwrap_err();
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(text.starts_with("Invalid container id not-there"), "{text}");
}
