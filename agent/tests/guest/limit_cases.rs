//! What holds a process back, ends it, or is counted of it.

use agent_protocol::rpc::{agent, oci};
use protobuf::MessageField;

use crate::{
    cases::check,
    host::{Container, Host, Outcome, call, shell},
};

pub(crate) async fn filters_and_capabilities_hold(host: &Host) -> Outcome {
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
                grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status";
    let mut container = Container::new("filter", &format!("{look}; sleep 1000"));
    container.process.Capabilities = MessageField::some(capabilities);
    let mut request = container.request(&host.image);
    let spec = request.OCI.mut_or_insert_default();
    spec.Linux.mut_or_insert_default().Seccomp = MessageField::some(no_mkdir);
    host.agent.create_container(call(), &request).await?;
    host.start("filter").await?;
    host.exec("filter", "look", shell(look)).await?;
    // The floor is the first filter, the profile the second; neither costs the process more.
    let expected = "CapEff:\t0000000000000021\nNoNewPrivs:\t0\nSeccomp:\t2\n";
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
    let mut plain = shell(look);
    plain.User = MessageField::some(oci::User {
        UID: 1000,
        ..Default::default()
    });
    host.exec("filter", "user", plain).await?;
    let exec = String::from_utf8(host.stdout("filter", "user").await?)?;
    let expected = "CapEff:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    check!(exec == expected, "exec of a user: {exec}");
    host.remove("filter").await
}

pub(crate) async fn processes_can_be_shared(host: &Host) -> Outcome {
    let container = Container::new("same-ns", "ps | grep -c '/pause$'; sleep 1000 &");
    let mut request = container.request(&host.image);
    request.sandbox_pidns = true;
    host.agent.create_container(call(), &request).await?;
    host.start("same-ns").await?;
    let out = host.stdout("same-ns", "").await?;
    check!(out == b"1\n", "{:?}", String::from_utf8_lossy(&out));
    check!(host.wait("same-ns", "").await? == 0, "failed");
    host.remove("same-ns").await?;
    processes_of_another_container_are_seen(host).await
}

/// As a debug container sees its target's; and none of a container that has ended.
async fn processes_of_another_container_are_seen(host: &Host) -> Outcome {
    host.run(Container::new("target", "exec sleep 4321"))
        .await?;
    let debugger = || {
        let container =
            Container::new("debug", "ps | grep -c 'sleep 432[1]'; ps | grep -c /pause$");
        let mut request = container.request(&host.image);
        let linux = request
            .OCI
            .mut_or_insert_default()
            .Linux
            .mut_or_insert_default();
        linux.Namespaces = vec![oci::LinuxNamespace {
            Type: "pid".into(),
            Path: "/run/kata-containers/target/ns/pid".into(),
            ..Default::default()
        }];
        request
    };
    host.agent.create_container(call(), &debugger()).await?;
    host.start("debug").await?;
    let out = host.stdout("debug", "").await?;
    check!(out == b"1\n0\n", "{:?}", String::from_utf8_lossy(&out));
    host.remove("debug").await?;
    host.signal("target", 9).await?;
    host.wait("target", "").await?;
    let refused = host.agent.create_container(call(), &debugger()).await;
    let text = refused.err().ok_or("saw an ended one")?.to_string();
    check!(text.contains("has ended"), "{text}");
    host.remove("target").await
}

pub(crate) async fn signals_reach_and_kill(host: &Host) -> Outcome {
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
    for (id, script) in [
        ("no-handler", "sleep 1000 & sleep 1000"),
        ("ignores", "trap '' TERM; sleep 1000 & sleep 1000"),
    ] {
        host.run(Container::new(id, script)).await?;
        host.signal(id, 15).await?;
        host.exec(id, "alive", shell("sleep 0.3; kill -0 1; exit 6"))
            .await?;
        check!(host.wait(id, "alive").await? == 6, "{id} ended by SIGTERM");
        host.signal(id, 9).await?;
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

pub(crate) async fn lack_of_memory_is_told(host: &Host) -> Outcome {
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

pub(crate) async fn limits_and_statistics_are_the_kernels(host: &Host) -> Outcome {
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
