//! What a host does with a guest, and what must come of it.

use std::{future::Future, pin::Pin};

use agent_protocol::rpc::{agent, health, oci, types};
use protobuf::MessageField;
use ttrpc::Code;

use crate::{
    disk_cases::{
        a_block_that_the_host_changes_or_puts_back_is_an_error,
        a_full_disk_is_told_and_what_fits_still_works, a_volume_is_held_to_its_size,
        an_image_takes_memory_only_without_a_disk, files_are_made_on_the_disk_by_all_at_once,
        what_a_pod_writes_is_on_the_disk_and_cannot_be_read_there,
    },
    host::{Container, Host, Outcome, call, mount, shell},
    vm::MAC,
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
    pause_containers_start,
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
    limits_and_statistics_are_the_kernels,
    copied_files_are_mounted,
    workloads_hear_that_there_is_no_tee,
    wrong_containers_leave_nothing,
    many_containers_at_once,
    what_a_pod_writes_is_on_the_disk_and_cannot_be_read_there,
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
    check!(details.mem_block_size_bytes > 0, "no block size");
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

pub(crate) async fn network_is_set_up_before_the_sandbox(host: &Host) -> Outcome {
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

async fn pause_containers_start(host: &Host) -> Outcome {
    for id in ["sandbox1", "sandbox2"] {
        host.run(Container {
            pause: true,
            read_only: true,
            ..Container::new(id, "unused")
        })
        .await?;
    }
    Ok(())
}

async fn pause_container_waits_and_hears_sigterm(host: &Host) -> Outcome {
    host.signal("sandbox2", 15).await?;
    let status = host.wait("sandbox2", "").await?;
    check!(status == 0, "status {status}");
    host.remove("sandbox2").await
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
                  grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status";
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
                    NoNewPrivs:\t1\nCapEff:\t0000000000000000\n";
    check!(out == expected && status == 0, "{out} {status}");
    Ok(())
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

async fn execs_have_streams_of_their_own(host: &Host) -> Outcome {
    host.run(Container::new("exec", "sleep 1000")).await?;
    host.exec("exec", "cat", shell("cat; echo closed; exit 3"))
        .await?;
    host.write("exec", "cat", b"some input\n").await?;
    let close = agent::CloseStdinRequest {
        container_id: "exec".into(),
        exec_id: "cat".into(),
        ..Default::default()
    };
    host.agent.close_stdin(call(), &close).await?;
    let out = host.stdout("exec", "cat").await?;
    check!(out == b"some input\nclosed\n", "{out:?}");
    let status = host.wait("exec", "cat").await?;
    check!(status == 3, "status {status}");
    let missing = oci::Process {
        Args: vec!["nothing-here".into()],
        ..shell("")
    };
    let error = host
        .exec("exec", "bad", missing)
        .await
        .err()
        .ok_or("ran nothing")?
        .to_string();
    check!(
        error.contains("nothing-here") && !error.contains("not found"),
        "{error}"
    );
    let twice = host.exec("exec", "quick", shell("exit 0")).await;
    twice?;
    host.wait("exec", "quick").await?;
    host.exec("exec", "quick", shell("exit 9")).await?;
    check!(
        host.wait("exec", "quick").await? == 9,
        "the id was not free again"
    );
    let (one, other) = tokio::join!(
        host.exec("exec", "same", shell("sleep 1000")),
        host.exec("exec", "same", shell("sleep 1000")),
    );
    check!(
        one.is_ok() != other.is_ok(),
        "one id was given to both or neither: {one:?}, {other:?}"
    );
    host.remove("exec").await
}

async fn terminal_has_a_size_and_an_end(host: &Host) -> Outcome {
    host.run(Container::new("tty", "sleep 1000")).await?;
    let size = oci::Box {
        Height: 30,
        Width: 90,
        ..Default::default()
    };
    let process = oci::Process {
        Terminal: true,
        ConsoleSize: MessageField::some(size),
        ..shell("read line; stty size; echo $line; tty; exit 4")
    };
    host.exec("tty", "sh", process).await?;
    let resize = agent::TtyWinResizeRequest {
        container_id: "tty".into(),
        exec_id: "sh".into(),
        row: 40,
        column: 100,
        ..Default::default()
    };
    host.agent.tty_win_resize(call(), &resize).await?;
    host.write("tty", "sh", b"typed\n").await?;
    let out = String::from_utf8(host.stdout("tty", "sh").await?)?;
    check!(
        out == "typed\r\n40 100\r\ntyped\r\n/dev/pts/0\r\n",
        "{out:?}"
    );
    check!(host.wait("tty", "sh").await? == 4, "wrong status");
    let none = agent::TtyWinResizeRequest {
        exec_id: String::new(),
        ..resize
    };
    let (code, _) =
        code_of(host.agent.tty_win_resize(call(), &none).await).ok_or("resized a pipe")?;
    check!(code == Code::UNAVAILABLE, "{code:?}");
    host.remove("tty").await?;
    let mut container =
        Container::new("tty-init", "stty size; tty; echo $0 > /dev/console; exit 5");
    container.process.Terminal = true;
    let (out, status) = host.finish(container).await?;
    check!(
        out.contains("/dev/pts/0") && status == 5,
        "{out:?} {status}"
    );
    Ok(())
}

async fn output_of_64_mib_is_complete(host: &Host) -> Outcome {
    let (out, status) = host
        .finish(Container::new(
            "big",
            "dd if=/dev/zero bs=65536 count=1024 2>/dev/null | tr '\\0' x",
        ))
        .await?;
    check!(
        out.len() == 64 << 20 && status == 0,
        "{} {status}",
        out.len()
    );
    Ok(())
}

async fn filters_and_capabilities_hold(host: &Host) -> Outcome {
    let no_mkdir = oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".into(),
        Architectures: vec!["SCMP_ARCH_X86_64".into()],
        Syscalls: vec![oci::LinuxSyscall {
            Names: vec!["mkdir".into(), "mkdirat".into()],
            Action: "SCMP_ACT_ERRNO".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let names = || vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()];
    let capabilities = oci::LinuxCapabilities {
        Bounding: names(),
        Effective: names(),
        Permitted: names(),
        ..Default::default()
    };
    let look = "mkdir /tmp/x 2>/dev/null && echo made; grep CapEff /proc/self/status; \
                grep Seccomp: /proc/self/status";
    let mut container = Container::new("filter", &format!("{look}; sleep 1000"));
    container.process.Capabilities = MessageField::some(capabilities);
    let mut request = container.request(&host.image);
    let spec = request.OCI.mut_or_insert_default();
    spec.Linux.mut_or_insert_default().Seccomp = MessageField::some(no_mkdir);
    host.agent.create_container(call(), &request).await?;
    host.start("filter").await?;
    host.exec("filter", "look", shell(look)).await?;
    let expected = "CapEff:\t0000000000000021\nSeccomp:\t2\n";
    let exec = String::from_utf8(host.stdout("filter", "look").await?)?;
    check!(exec == expected, "exec: {exec}");
    let mut first = String::new();
    while first.len() < expected.len() {
        let request = agent::ReadStreamRequest {
            container_id: "filter".into(),
            len: 1000,
            ..Default::default()
        };
        let data = host.agent.read_stdout(call(), &request).await?.data;
        check!(!data.is_empty(), "ended with {first}");
        first.push_str(&String::from_utf8(data)?);
    }
    check!(first == expected, "first: {first}");
    host.remove("filter").await
}

async fn processes_can_be_shared(host: &Host) -> Outcome {
    let container = Container::new("same-ns", "ps | grep -c '/pause$'; sleep 1000 &");
    let mut request = container.request(&host.image);
    request.sandbox_pidns = true;
    host.agent.create_container(call(), &request).await?;
    host.start("same-ns").await?;
    let out = host.stdout("same-ns", "").await?;
    check!(out == b"1\n", "{:?}", String::from_utf8_lossy(&out));
    check!(host.wait("same-ns", "").await? == 0, "failed");
    host.remove("same-ns").await
}

async fn signals_reach_and_kill(host: &Host) -> Outcome {
    let trap = "trap 'echo heard; exit 5' TERM; echo set; while :; do sleep 0.1; done";
    host.run(Container::new("trap", trap)).await?;
    let request = agent::ReadStreamRequest {
        container_id: "trap".into(),
        len: 100,
        ..Default::default()
    };
    let first = host.agent.read_stdout(call(), &request);
    check!(first.await?.data == b"set\n", "no trap");
    host.signal("trap", 15).await?;
    check!(host.wait("trap", "").await? == 5, "trap not run");
    host.signal("trap", 15).await?;
    host.remove("trap").await?;
    for (id, signal) in [("deaf", 15), ("killed", 9)] {
        host.run(Container::new(id, "sleep 1000 & sleep 1000"))
            .await?;
        host.signal(id, signal).await?;
        let status = host.wait(id, "").await?;
        check!(status == 137, "{id}: {status}");
        host.remove(id).await?;
    }
    let waiting = Container::new("unstarted", "true");
    host.agent
        .create_container(call(), &waiting.request(&host.image))
        .await?;
    host.signal("unstarted", 9).await?;
    check!(host.wait("unstarted", "").await? == 137, "not killed");
    host.remove("unstarted").await
}

async fn lack_of_memory_is_told(host: &Host) -> Outcome {
    let hungry = "x=x; while :; do x=$x$x; done";
    host.run(Container {
        memory: 32 << 20,
        ..Container::new("hungry", hungry)
    })
    .await?;
    let event = host
        .agent
        .get_oom_event(call(), &agent::GetOOMEventRequest::default())
        .await?;
    check!(event.container_id == "hungry", "{event:?}");
    check!(host.wait("hungry", "").await? == 137, "not killed");
    host.remove("hungry").await
}

async fn limits_and_statistics_are_the_kernels(host: &Host) -> Outcome {
    let container = Container {
        memory: 64 << 20,
        ..Container::new("limits", "sleep 1000")
    };
    host.run(container).await?;
    let stats = || async {
        let request = agent::StatsContainerRequest {
            container_id: "limits".into(),
            ..Default::default()
        };
        host.agent.stats_container(call(), &request).await
    };
    let before = stats().await?.cgroup_stats;
    check!(before.memory_stats.usage.limit == 64 << 20, "{before:?}");
    check!(
        before.memory_stats.usage.usage > 0 && before.pids_stats.current >= 1,
        "{before:?}"
    );
    check!(before.cpu_stats.cpu_usage.total_usage > 0, "{before:?}");
    let memory = oci::LinuxMemory {
        Limit: 128 << 20,
        ..Default::default()
    };
    let cpu = oci::LinuxCPU {
        Shares: 512,
        Quota: 50_000,
        Period: 100_000,
        ..Default::default()
    };
    let update = agent::UpdateContainerRequest {
        container_id: "limits".into(),
        resources: MessageField::some(oci::LinuxResources {
            Memory: MessageField::some(memory),
            CPU: MessageField::some(cpu),
            ..Default::default()
        }),
        ..Default::default()
    };
    host.agent.update_container(call(), &update).await?;
    check!(
        stats().await?.cgroup_stats.memory_stats.usage.limit == 128 << 20,
        "not changed"
    );
    let pause = agent::PauseContainerRequest {
        container_id: "limits".into(),
        ..Default::default()
    };
    host.agent.pause_container(call(), &pause).await?;
    let resume = agent::ResumeContainerRequest {
        container_id: "limits".into(),
        ..Default::default()
    };
    host.agent.resume_container(call(), &resume).await?;
    host.exec("limits", "alive", shell("exit 0")).await?;
    check!(host.wait("limits", "alive").await? == 0, "still frozen");
    host.remove("limits").await
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
    check!(log == "done\n", "{log}");
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
