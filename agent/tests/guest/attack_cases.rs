//! What a hostile host, or a hostile workload, tries in a guest; each must come to nothing.

use agent_protocol::rpc::{agent, oci};
use protobuf::MessageField;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ttrpc::Code;

use crate::{
    cases::{check, code_of},
    host::{Container, Host, Outcome, call, mount, shell},
};

/// Every capability that the host's kernel may know.
fn all_capabilities() -> oci::LinuxCapabilities {
    let names = include_str!("../../../docs/capabilities.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let all: Vec<String> = names.map(str::to_owned).collect();
    oci::LinuxCapabilities {
        Bounding: all.clone(),
        Effective: all.clone(),
        Inheritable: all.clone(),
        Permitted: all,
        ..Default::default()
    }
}

/// A container with all capabilities that there are for containers.
pub(crate) fn privileged<'a>(id: &'a str, script: &str) -> Container<'a> {
    let mut container = Container::new(id, script);
    container.process.Capabilities = MessageField::some(all_capabilities());
    container
}

/// The request for the pause container describes a program, capabilities and a mount of the
/// host's; none of it is in the container, and nothing else can be put there.
pub(crate) async fn the_host_does_not_describe_the_pause_container(host: &Host) -> Outcome {
    let shared = "/run/kata-containers/shared/containers/hostile";
    let file = agent::CopyFileRequest {
        path: shared.into(),
        file_size: 2,
        file_mode: 0o100_755,
        uid: -1,
        gid: -1,
        data: b"#!".into(),
        ..Default::default()
    };
    host.agent.copy_file(call(), &file).await?;
    let mut hostile = Container {
        pause: true,
        mounts: vec![mount("/pause", "bind", shared, &["rbind"])],
        ..privileged("sandbox1", "echo hostile; sleep 1000")
    };
    hostile.process.Env.push("HOSTILE=1".into());
    host.run(hostile).await?;
    let second = Container {
        pause: true,
        ..Container::new("sandbox2", "unused")
    };
    let second = second.request("");
    let answer = host.agent.create_container(call(), &second).await;
    let (code, text) = code_of(answer).ok_or("a second pause container was made")?;
    check!(code == Code::ALREADY_EXISTS, "{code:?} {text}");
    let exec = host.exec("sandbox1", "look", shell("id")).await;
    check!(exec.is_err(), "a process ran in the pause container");
    let script = "ps -o pid,args | grep -c ' /pause$'; tr '\\0' ' ' </proc/1/cmdline; echo; \
                  grep -E 'Uid|CapBnd|NoNewPrivs|Seccomp:' /proc/1/status; \
                  tr '\\0' '\\n' </proc/1/environ | grep -c HOSTILE; \
                  grep -c /pause /proc/1/mountinfo";
    let look = Container::new("look", script);
    let mut request = look.request(&host.image);
    request.sandbox_pidns = true;
    host.agent.create_container(call(), &request).await?;
    host.start("look").await?;
    let out = String::from_utf8(host.stdout("look", "").await?)?;
    host.wait("look", "").await?;
    host.remove("look").await?;
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected: [&[&str]; 6] = [
        &["1"],
        &["/pause"],
        &["Uid:", "65535", "65535", "65535", "65535"],
        &["CapBnd:", "0000000000000000"],
        &["NoNewPrivs:", "1"],
        &["Seccomp:", "2"],
    ];
    for line in expected {
        check!(lines.iter().any(|found| found == line), "{line:?} in {out}");
    }
    check!(!out.contains("hostile"), "{out}");
    Ok(())
}

/// A privileged container makes a node for every device that the guest's kernel knows, and
/// opens it.
pub(crate) async fn a_container_opens_no_device_of_the_guest(host: &Host) -> Outcome {
    let script = "for kind in block char; do for d in /sys/dev/$kind/*; do \
                  n=${d##*/}; rm -f /dev/n; \
                  mknod /dev/n ${kind%${kind#?}} ${n%:*} ${n#*:} || echo unmade $n; \
                  e=$( { : </dev/n; } 2>&1 ) ; \
                  case $e in *'not permitted'*) ;; *) echo open $n;; esac; \
                  done; done; \
                  mknod /null c 1 3; cat </null || echo nodev; \
                  mknod /dev/disk b 254 0; dd if=/dev/disk of=/dev/null count=1 || echo no disk";
    let (out, _) = host.finish(privileged("nodes", script)).await?;
    let allowed = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "10:200"];
    let opened: Vec<&str> = out
        .lines()
        .filter_map(|line| line.strip_prefix("open "))
        .collect();
    check!(opened.contains(&"1:3"), "not even null: {out}");
    check!(opened.iter().all(|node| allowed.contains(node)), "{out}");
    check!(!out.contains("unmade"), "{out}");
    check!(out.contains("nodev") && out.contains("no disk"), "{out}");
    Ok(())
}

/// Whatever capabilities, masks and filters the host names, the floor holds.
pub(crate) async fn no_request_opens_the_kernel(host: &Host) -> Outcome {
    let script = "grep CapBnd /proc/self/status; cat /proc/keys | wc -c; \
                  cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; \
                  echo b > /proc/sysrq-trigger; echo x > /proc/sys/kernel/core_pattern; \
                  cat /proc/sys/kernel/core_pattern; \
                  grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; \
                  for s in kexec_load_disabled modules_disabled sysrq dmesg_restrict \
                  panic_on_oops; do cat /proc/sys/kernel/$s || echo none; done";
    let container = privileged("floor", script);
    let mut request = container.request(&host.image);
    let linux = request
        .OCI
        .mut_or_insert_default()
        .Linux
        .mut_or_insert_default();
    linux.MaskedPaths.clear();
    linux.ReadonlyPaths.clear();
    host.agent.create_container(call(), &request).await?;
    host.start("floor").await?;
    let out = String::from_utf8(host.stdout("floor", "").await?)?;
    host.wait("floor", "").await?;
    host.remove("floor").await?;
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    let bounding = lines
        .first()
        .and_then(|line| line.split_whitespace().nth(1));
    let bounding = u64::from_str_radix(bounding.ok_or("no capabilities")?, 16)?;
    // SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME, MAC_*, SYSLOG, PERFMON, BPF, DAC_READ_SEARCH.
    for bit in [16, 17, 22, 25, 32, 33, 34, 38, 39, 2] {
        check!(bounding & (1 << bit) == 0, "capability {bit}: {out}");
    }
    check!(bounding & (1 << 21) != 0, "no SYS_ADMIN: {out}");
    check!(lines.get(1..4) == Some(&["0", "0", "0"][..]), "{out}");
    check!(
        !out.contains("x\n") && out.contains("NoNewPrivs:\t0"),
        "{out}"
    );
    check!(out.contains("Seccomp:\t2"), "no floor: {out}");
    // What the first three close is not in the kernel.
    let switches = ["none", "none", "none", "1", "1"];
    check!(lines.ends_with(&switches), "{out}");
    for name in ["CAP_SYS_MODULE", "CAP_SYS_TIME", "CAP_BPF"] {
        let mut by_name = Container::new("by-name", "true");
        by_name.process.Capabilities = MessageField::some(oci::LinuxCapabilities {
            Bounding: vec![name.into()],
            ..Default::default()
        });
        let by_name = by_name.request(&host.image);
        let answer = host.agent.create_container(call(), &by_name).await;
        let (code, text) = code_of(answer).ok_or("it was given")?;
        check!(code == Code::FAILED_PRECONDITION, "{code:?}");
        check!(text.contains(name), "{text}");
    }
    Ok(())
}

/// The host writes below its own root only: not into what is mounted there, and no program
/// that gives its user another identity.
pub(crate) async fn copied_files_reach_no_volume_and_have_no_set_id_bits(host: &Host) -> Outcome {
    let shared = "/run/kata-containers/shared/containers";
    let volume = format!("{shared}/sandbox1/rootfs/local/v");
    let script = "ls -A /v | wc -l; stat -c %a /program; cat /dev/termination-log; \
                  echo last words > /dev/termination-log";
    let copy = |path: String, mode| agent::CopyFileRequest {
        path,
        file_size: 1,
        file_mode: mode,
        uid: -1,
        gid: -1,
        data: b"x".into(),
        ..Default::default()
    };
    host.agent
        .copy_file(call(), &copy(format!("{shared}/program"), 0o106_755))
        .await?;
    host.agent
        .copy_file(call(), &copy(format!("{shared}/secret"), 0o100_644))
        .await?;
    let bind = |destination, source: &str| mount(destination, "bind", source, &["rbind"]);
    let container = Container {
        mounts: vec![
            bind("/v", &volume),
            bind("/program", &format!("{shared}/program")),
            bind("/dev/termination-log", &format!("{shared}/secret")),
        ],
        ..Container::new("copied", script)
    };
    let mut request = container.request(&host.image);
    request.storages.push(agent::Storage {
        driver: "local".into(),
        source: "local".into(),
        fstype: "local".into(),
        mount_point: volume.clone(),
        ..Default::default()
    });
    let annotations = &mut request.OCI.mut_or_insert_default().Annotations;
    annotations.insert(
        "io.kubernetes.container.terminationMessagePath".into(),
        "/dev/termination-log".into(),
    );
    host.agent.create_container(call(), &request).await?;
    let into = copy(format!("{volume}/planted"), 0o100_644);
    check!(
        host.agent.copy_file(call(), &into).await.is_err(),
        "the host wrote into a volume"
    );
    host.start("copied").await?;
    let out = String::from_utf8(host.stdout("copied", "").await?)?;
    check!(out == "0\n755\n", "{out}");
    host.wait("copied", "").await?;
    let message = agent::GetDiagnosticDataRequest {
        container_id: "copied".into(),
        log_type: "termination_log".into(),
        ..Default::default()
    };
    let told = host.agent.get_diagnostic_data(call(), &message).await?.data;
    check!(told == "last words\n", "{told}");
    host.remove("copied").await
}

/// Whoever comes second does not speak for the host.
pub(crate) async fn a_second_connection_is_refused(host: &Host) -> Outcome {
    let mut second = host.connect_again().await?;
    second.write_all(&[0; 10]).await?;
    let mut byte = [0];
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), second.read(&mut byte));
    let ended = read.await.map_err(|_| "the second connection stays open")?;
    check!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    Ok(())
}
