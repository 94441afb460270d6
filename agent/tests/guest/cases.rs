//! What a host does with a guest, and what must come of it.

use std::{future::Future, pin::Pin};

use agent_protocol::rpc::{agent, health, oci, types};
use protobuf::MessageField;
use ttrpc::Code;

use crate::{
    attack_cases::{
        a_container_opens_no_device_of_the_guest, a_second_connection_is_refused,
        copied_files_reach_no_volume_and_have_no_set_id_bits, no_request_opens_the_kernel,
        the_host_does_not_describe_the_pause_container,
    },
    disk_cases::{
        a_block_that_the_host_changes_or_puts_back_is_an_error,
        a_full_disk_is_told_and_what_fits_still_works, a_volume_is_held_to_its_size,
        an_image_takes_memory_only_without_a_disk, files_are_made_on_the_disk_by_all_at_once,
        what_a_pod_writes_is_on_the_disk_and_cannot_be_read_there,
    },
    host::{Container, Host, Outcome, call, mount},
    limit_cases::{
        filters_and_capabilities_hold, lack_of_memory_is_told,
        limits_and_statistics_are_the_kernels, processes_can_be_shared, signals_reach_and_kill,
    },
    process_cases::{programs_that_the_kernel_refuses, users_are_the_images},
    stream_cases::{
        execs_have_streams_of_their_own, output_of_64_mib_is_complete,
        terminal_has_a_size_and_an_end,
    },
    vm::MAC,
    volume_cases::{
        a_new_version_comes_in_one_step_and_the_old_one_goes,
        a_part_leads_nowhere_out_of_its_volume,
        a_volume_in_memory_outlives_its_containers_and_is_held_to_its_size,
        a_volume_lives_as_long_as_the_pod_and_a_part_of_it_is_that_part,
    },
};

pub(crate) type Case = for<'a> fn(&'a Host) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

macro_rules! cases {
    ($($name:ident,)*) => {
        pub(crate) const ALL: &[(&str, Case)] =
            &[$((stringify!($name), |host| Box::pin($name(host))),)*];
    };
}

cases! {
    health_answers_before_there_is_a_sandbox,
    calls_that_are_not_there_say_their_name,
    policies_come_first_or_never,
    network_is_set_up_before_the_sandbox,
    sandbox_is_created_once,
    the_host_does_not_describe_the_pause_container,
    a_second_connection_is_refused,
    container_runs_to_its_end,
    process_is_what_its_spec_says,
    containers_share_what_a_pod_shares,
    execs_have_streams_of_their_own,
    terminal_has_a_size_and_an_end,
    output_of_64_mib_is_complete,
    filters_and_capabilities_hold,
    processes_can_be_shared,
    signals_reach_and_kill,
    lack_of_memory_is_told,
    a_container_opens_no_device_of_the_guest,
    no_request_opens_the_kernel,
    copied_files_reach_no_volume_and_have_no_set_id_bits,
    limits_and_statistics_are_the_kernels,
    copied_files_are_mounted,
    workloads_hear_that_there_is_no_tee,
    wrong_containers_leave_nothing,
    many_containers_at_once,
    what_a_pod_writes_is_on_the_disk_and_cannot_be_read_there,
    a_volume_lives_as_long_as_the_pod_and_a_part_of_it_is_that_part,
    a_volume_in_memory_outlives_its_containers_and_is_held_to_its_size,
    a_part_leads_nowhere_out_of_its_volume,
    a_new_version_comes_in_one_step_and_the_old_one_goes,
    files_are_made_on_the_disk_by_all_at_once,
    a_volume_is_held_to_its_size,
    an_image_takes_memory_only_without_a_disk,
    a_block_that_the_host_changes_or_puts_back_is_an_error,
    a_full_disk_is_told_and_what_fits_still_works,
    pause_container_waits_and_hears_sigterm,
    sandbox_is_destroyed,
}

macro_rules! check {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(format!($($why)*).into());
        }
    };
}

pub(crate) use check;

pub(crate) fn code_of<T>(result: Result<T, ttrpc::Error>) -> Option<(Code, String)> {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => Some((status.code(), status.message)),
        _ => None,
    }
}

async fn health_answers_before_there_is_a_sandbox(host: &Host) -> Outcome {
    let check = host
        .health
        .check(call(), &health::CheckRequest::default())
        .await?;
    check!(check.status.value() == 1, "not serving");
    let details = agent::GuestDetailsRequest {
        mem_block_size: true,
        ..Default::default()
    };
    let details = host.agent.get_guest_details(call(), &details).await?;
    // The kernel has no memory that is plugged in.
    check!(details.mem_block_size_bytes == 0, "blocks of memory");
    check!(details.agent_details.init_daemon, "not init");
    host.agent
        .online_cpu_mem(call(), &agent::OnlineCPUMemRequest::default())
        .await?;
    Ok(())
}

async fn calls_that_are_not_there_say_their_name(host: &Host) -> Outcome {
    let answer = code_of(
        host.agent
            .add_swap(call(), &agent::AddSwapRequest::default())
            .await,
    );
    let (code, text) = answer.ok_or("no status")?;
    check!(
        code == Code::UNIMPLEMENTED && text.contains("AddSwap"),
        "{code:?} {text}"
    );
    let unknown = agent::StartContainerRequest {
        container_id: "nobody".into(),
        ..Default::default()
    };
    let (code, text) =
        code_of(host.agent.start_container(call(), &unknown).await).ok_or("no status")?;
    check!(
        code == Code::INVALID_ARGUMENT && text.contains("Invalid container id"),
        "{text}"
    );
    Ok(())
}

async fn policies_come_first_or_never(host: &Host) -> Outcome {
    let policy = agent::SetPolicyRequest {
        policy: "package agent_policy".into(),
        ..Default::default()
    };
    let (code, text) = code_of(host.agent.set_policy(call(), &policy).await).ok_or("no status")?;
    check!(
        code == Code::PERMISSION_DENIED && text.contains("before any other request"),
        "{code:?} {text}"
    );
    Ok(())
}

async fn workloads_hear_that_there_is_no_tee(host: &Host) -> Outcome {
    let ask = "wget -qO- http://127.0.0.1:8006/info; echo; \
               wget -O- 'http://127.0.0.1:8006/aa/evidence?runtime_data=n' 2>&1; \
               wget -O- http://127.0.0.1:8006/nothing 2>&1";
    let (out, _) = host.finish(Container::new("ask", ask)).await?;
    check!(
        out.contains(r#""feature":"attestation"}"#) && !out.contains(r#""tee""#),
        "{out}"
    );
    check!(out.contains("500 Internal Server Error"), "{out}");
    check!(out.contains("404 Not Found"), "{out}");
    Ok(())
}

/// An interface with an address, routes and a neighbour.
pub(crate) async fn set_up_network(host: &Host) -> Outcome {
    let interface = types::Interface {
        name: "eth0".into(),
        device: "eth0".into(),
        hwAddr: MAC.into(),
        mtu: 1400,
        IPAddresses: vec![types::IPAddress {
            address: "10.0.2.15".into(),
            mask: "24".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    for name in ["net0", "eth0"] {
        let interface = types::Interface {
            name: name.into(),
            ..interface.clone()
        };
        let request = agent::UpdateInterfaceRequest {
            interface: MessageField::some(interface),
            ..Default::default()
        };
        host.agent.update_interface(call(), &request).await?;
    }
    let route = |dest: &str, gateway: &str, scope| types::Route {
        dest: dest.into(),
        gateway: gateway.into(),
        device: "eth0".into(),
        scope,
        ..Default::default()
    };
    let routes = agent::Routes {
        Routes: vec![route("", "10.0.2.2", 0), route("10.9.0.0/16", "", 253)],
        ..Default::default()
    };
    let request = agent::UpdateRoutesRequest {
        routes: MessageField::some(routes),
        ..Default::default()
    };
    let after = host.agent.update_routes(call(), &request).await?;
    check!(after.Routes.len() >= 2, "{after:?}");
    let neighbor = types::ARPNeighbor {
        toIPAddress: MessageField::some(types::IPAddress {
            address: "10.0.2.77".into(),
            ..Default::default()
        }),
        device: "eth0".into(),
        lladdr: "02:00:00:00:00:77".into(),
        ..Default::default()
    };
    let neighbors = agent::ARPNeighbors {
        ARPNeighbors: vec![neighbor],
        ..Default::default()
    };
    let request = agent::AddARPNeighborsRequest {
        neighbors: MessageField::some(neighbors),
        ..Default::default()
    };
    host.agent.add_arp_neighbors(call(), &request).await?;
    Ok(())
}

pub(crate) async fn network_is_set_up_before_the_sandbox(host: &Host) -> Outcome {
    set_up_network(host).await?;
    let list = host
        .agent
        .list_interfaces(call(), &agent::ListInterfacesRequest::default())
        .await?;
    let eth0 = list
        .Interfaces
        .iter()
        .find(|entry| entry.name == "eth0")
        .ok_or("no eth0")?;
    check!(eth0.mtu == 1400 && eth0.hwAddr == MAC, "{eth0:?}");
    let addresses = &eth0.IPAddresses;
    check!(
        addresses.iter().any(|entry| entry.address == "10.0.2.15"),
        "{addresses:?}"
    );
    Ok(())
}

pub(crate) async fn sandbox_is_created_once(host: &Host) -> Outcome {
    let request = agent::CreateSandboxRequest {
        hostname: "the-pod".into(),
        dns: vec!["nameserver 10.0.2.3".into()],
        sandbox_id: "sandbox1".into(),
        storages: vec![agent::Storage {
            driver: "ephemeral".into(),
            source: "shm".into(),
            fstype: "tmpfs".into(),
            options: ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]
                .map(Into::into)
                .to_vec(),
            mount_point: "/run/kata-containers/sandbox/shm".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    host.agent.create_sandbox(call(), &request).await?;
    let again = code_of(host.agent.create_sandbox(call(), &request).await).ok_or("twice")?;
    check!(again.0 == Code::ALREADY_EXISTS, "{again:?}");
    Ok(())
}

async fn pause_container_waits_and_hears_sigterm(host: &Host) -> Outcome {
    host.signal("sandbox1", 15).await?;
    let status = host.wait("sandbox1", "").await?;
    check!(status == 0, "status {status}");
    host.remove("sandbox1").await
}

async fn container_runs_to_its_end(host: &Host) -> Outcome {
    host.run(Container::new("end", "echo out; echo err >&2; exit 7"))
        .await?;
    let out = host.stdout("end", "").await?;
    let err = host.stderr("end", "").await?;
    check!(out == b"out\n" && err == b"err\n", "{out:?} {err:?}");
    // Two waiters, and one that comes late.
    let (one, two) = tokio::join!(host.wait("end", ""), host.wait("end", "end"));
    check!(
        (one?, two?, host.wait("end", "").await?) == (7, 7, 7),
        "wrong status"
    );
    host.remove("end").await
}

async fn process_is_what_its_spec_says(host: &Host) -> Outcome {
    let script = "id -u; id -g; id -G; pwd; echo $WORD; touch /x 2>/dev/null || echo read-only; \
                  ulimit -n; hostname; echo via-dev > /dev/stderr; cat /proc/self/oom_score_adj; \
                  grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status; echo $HOME";
    let mut container = Container {
        read_only: true,
        ..Container::new("spec", script)
    };
    container.process.Env.push("WORD=word".into());
    container.process.Cwd = "/made/for/it".into();
    container.process.NoNewPrivileges = true;
    container.process.OOMScoreAdj = 500;
    container.process.User = MessageField::some(oci::User {
        Username: "app".into(),
        ..Default::default()
    });
    container.process.Rlimits = vec![oci::POSIXRlimit {
        Type: "RLIMIT_NOFILE".into(),
        Hard: 77,
        Soft: 66,
        ..Default::default()
    }];
    let (out, status) = host.finish(container).await?;
    let expected = "1000\n1001\n1001 2000\n/made/for/it\nword\nread-only\n66\nthe-pod\n500\n\
                    NoNewPrivs:\t1\nCapEff:\t0000000000000000\n/home/app\n";
    check!(out == expected && status == 0, "{out} {status}");
    users_are_the_images(host).await
}

async fn containers_share_what_a_pod_shares(host: &Host) -> Outcome {
    host.run(Container::new(
        "one",
        "echo hi > /dev/shm/word; nc -l -p 1234 -e echo there",
    ))
    .await?;
    let script = "cat /dev/shm/word; hostname; nc 127.0.0.1 1234; ps > /dev/shm/ps; \
         wc -l < /dev/shm/ps; cat /proc/self/cgroup";
    let (out, _) = host
        .finish(Container::new("two", &format!("sleep 1; {script}")))
        .await?;
    host.remove("one").await?;
    check!(out == "hi\nthe-pod\nthere\n3\n0::/\n", "{out}");
    Ok(())
}

async fn copied_files_are_mounted(host: &Host) -> Outcome {
    let path = "/run/kata-containers/shared/containers/files-0123456789abcdef-note";
    let file = |offset: i64, data: &[u8]| agent::CopyFileRequest {
        path: path.into(),
        file_size: 8,
        file_mode: 0o100_640,
        dir_mode: 0o755,
        uid: 0,
        gid: 1001,
        offset,
        data: data.into(),
        ..Default::default()
    };
    host.agent.copy_file(call(), &file(0, b"from")).await?;
    host.agent.copy_file(call(), &file(4, b"host")).await?;
    let mut container = Container::new(
        "files",
        "cat /note; stat -c %a:%g /note; echo done > /note-of-end",
    );
    container.mounts = vec![mount("/note", "bind", path, &["rbind", "ro"])];
    let mut request = container.request(&host.image);
    request.OCI.mut_or_insert_default().Annotations.insert(
        "io.kubernetes.container.terminationMessagePath".into(),
        "/note-of-end".into(),
    );
    host.agent.create_container(call(), &request).await?;
    host.start("files").await?;
    let out = String::from_utf8(host.stdout("files", "").await?)?;
    check!(out == "fromhost640:1001\n", "{out}");
    host.wait("files", "").await?;
    let log = agent::GetDiagnosticDataRequest {
        log_type: "termination_log".into(),
        container_id: "files".into(),
        ..Default::default()
    };
    let log = host.agent.get_diagnostic_data(call(), &log).await?.data;
    // Nothing is mounted there, so it is a file of the image or the workload.
    check!(log.is_empty(), "{log}");
    host.remove("files").await
}

async fn wrong_containers_leave_nothing(host: &Host) -> Outcome {
    let mut outside = Container::new("wrong", "true");
    outside.mounts = vec![mount("/x", "bind", "/etc", &["rbind"])];
    let mut user = Container::new("wrong", "true");
    user.process.User = MessageField::some(oci::User {
        Username: "nobody-here".into(),
        ..Default::default()
    });
    let mut program = Container::new("wrong", "true");
    program.process.Args = vec!["/bin/nothing-here".into()];
    for (container, word) in [
        (outside, "/x"),
        (user, "nobody-here"),
        (program, "nothing-here"),
    ] {
        let request = container.request(&host.image);
        let answer = code_of(host.agent.create_container(call(), &request).await);
        let (_, text) = answer.ok_or("a wrong container was made")?;
        check!(text.contains(word) && !text.contains("not found"), "{text}");
    }
    let image = host.image.replace("busybox:1", "busybox:none");
    let request = Container::new("wrong", "true").request(&image);
    let (_, text) = code_of(host.agent.create_container(call(), &request).await).ok_or("made")?;
    check!(
        text.contains("busybox:none") && !text.contains("not found"),
        "{text}"
    );
    eprintln!("  {text}");
    programs_that_the_kernel_refuses(host).await?;
    // The same id is free for a right one, and taken while that is there.
    host.run(Container::new("wrong", "sleep 1000")).await?;
    let request = Container::new("wrong", "true").request(&host.image);
    let (code, _) = code_of(host.agent.create_container(call(), &request).await).ok_or("twice")?;
    check!(code == Code::ALREADY_EXISTS, "{code:?}");
    host.remove("wrong").await?;
    let (out, _) = host
        .finish(Container::new("left", "ls /sys/fs/cgroup | grep -c wrong"))
        .await?;
    check!(out == "0\n", "{out}");
    Ok(())
}

async fn many_containers_at_once(host: &Host) -> Outcome {
    let ids: Vec<_> = (0..8).map(|number| format!("many{number}")).collect();
    let all = ids.iter().map(|id| async move {
        let (out, status) = host
            .finish(Container::new(id, &format!("echo {id}")))
            .await?;
        check!(out.trim() == id && status == 0, "{id}: {out} {status}");
        Outcome::Ok(())
    });
    for result in futures::future::join_all(all).await {
        result?;
    }
    Ok(())
}

pub(crate) async fn sandbox_is_destroyed(host: &Host) -> Outcome {
    host.run(Container::new("last", "sleep 1000")).await?;
    host.agent
        .destroy_sandbox(call(), &agent::DestroySandboxRequest::default())
        .await?;
    Ok(())
}
