//! What a container's process is started as, and what comes back from it.

use anyhow::{Result, ensure};
use k8s_cri::v1::{LinuxContainerResources, Mount};
use tests_harness::{ContainerRequest, Pod, TestImages};

use crate::Stage;

/// Exit code and both streams come back.
pub fn a_pod_runs_to_completion_and_its_exit_code_is_reported(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let exit = pod.complete(ContainerRequest::shell("echo out; echo err >&2; exit 7"))?;
    ensure!(exit.code == 7, "exit code {}", exit.code);
    ensure!(exit.stdout == "out\n" && exit.stderr == "err\n", "{exit:?}");
    // Without standard input it has ended already.
    let exit = pod.complete(ContainerRequest::busybox(&["cat"]))?;
    ensure!(exit.code == 0 && exit.reason == "Completed", "{exit:?}");
    pod.remove()
}

/// What the pod says wins over the image.
pub fn arguments_environment_user_and_directory_are_the_pods(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let exit = pod.complete(ContainerRequest {
        arguments: vec!["two words".into(), "$HOME".into()],
        environment: vec![("FROM_POD".into(), "a b=c".into())],
        user: Some(4242),
        directory: "/tmp".into(),
        ..ContainerRequest::shell(
            "id -u; pwd; echo \"$FROM_POD\"; for a; do echo \"<$a>\"; done; echo $0",
        )
    })?;
    ensure!(exit.code == 0, "{exit:?}");
    // `sh -c script NAME ARGUMENT`: the first argument names the script.
    ensure!(
        exit.stdout == "4242\n/tmp\na b=c\n<$HOME>\ntwo words\n",
        "{exit:?}"
    );
    pod.remove()
}

/// Command, environment, user and directory of the image are used.
pub fn what_the_pod_leaves_open_comes_from_the_image(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let image = TestImages::CONFIGURED.reference();
    let exit = pod.complete(ContainerRequest::of_image(&image))?;
    ensure!(exit.stdout == "from-image\n", "{exit:?}");
    let exit = pod.complete(ContainerRequest {
        command: vec!["/bin/sh".into(), "-c".into()],
        arguments: vec![
            "id -u; id -g; pwd; echo $FROM_IMAGE; cat /etc/from-the-second-layer; ls /etc".into(),
        ],
        ..ContainerRequest::of_image(&image)
    })?;
    ensure!(
        exit.stdout
            .starts_with("1000\n1000\n/home/tester\nyes\nhere\n"),
        "{exit:?}"
    );
    ensure!(
        !exit.stdout.contains("only-in-the-first-layer"),
        "a whiteout is ignored: {exit:?}"
    );
    a_number_is_the_images_user(&pod, &image)?;
    pod.remove()
}

/// A number has the group that the image gives it, and every group that the image adds.
fn a_number_is_the_images_user(pod: &Pod<'_>, image: &str) -> Result<()> {
    let look = |user| ContainerRequest {
        command: vec!["/bin/sh".into(), "-c".into()],
        arguments: vec!["id -u; id -G; echo $HOME".into()],
        user,
        ..ContainerRequest::of_image(image)
    };
    let exit = pod.complete(look(Some(1000)))?;
    ensure!(exit.stdout == "1000\n1000 2000\n/home/tester\n", "{exit:?}");
    let exit = pod.complete(look(Some(4242)))?;
    ensure!(exit.stdout == "4242\n0\n/\n", "{exit:?}");
    Ok(())
}

/// What kubelet asks for beside a program: the last message in its file, a system call filter,
/// limits in the kernel's words, a debug container that sees its target.
pub fn a_container_has_what_kubelet_asks_for(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let message = "/run/bed/termination-log";
    stage.bed().node().write(message, "")?;
    let path = "/dev/termination-log";
    let script = "grep Seccomp_filters /proc/self/status; cat /sys/fs/cgroup/pids.max; \
        head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log; \
        printf 'the end' >> /dev/termination-log";
    let exit = pod.complete(ContainerRequest {
        annotations: [("io.kubernetes.container.terminationMessagePath", path)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        mounts: vec![Mount {
            container_path: path.into(),
            host_path: message.into(),
            ..Mount::default()
        }],
        resources: LinuxContainerResources {
            unified: [("pids.max".to_owned(), "32".to_owned())].into(),
            ..LinuxContainerResources::default()
        },
        seccomp: true,
        ..ContainerRequest::shell(script)
    })?;
    ensure!(exit.code == 0, "{exit:?}");
    let filters = if stage.has_vms() { 2 } else { 1 };
    ensure!(
        exit.stdout == format!("Seccomp_filters:\t{filters}\n32\n"),
        "{exit:?}"
    );
    let written = stage.bed().node().read(message)?;
    ensure!(written.ends_with("xxthe end"), "{} bytes", written.len());
    ensure!(
        written.len() == 4096 || !stage.has_vms(),
        "{} bytes",
        written.len()
    );
    let target = pod.start(ContainerRequest::busybox(&["sleep", "4321"]))?;
    let debugger = ContainerRequest {
        target: Some(target.id().to_owned()),
        ..ContainerRequest::shell("ps | grep -c 'sleep 432[1]'")
    };
    let exit = pod.complete(debugger)?;
    ensure!(exit.stdout == "1\n", "{exit:?}");
    pod.remove()
}

/// A root that cannot be written, with a `/dev/shm` that can.
pub fn a_read_only_root_refuses_writes(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let script = "touch /file && echo written; echo x > /dev/shm/file && cat /dev/shm/file";
    let exit = pod.complete(ContainerRequest {
        read_only_root: true,
        ..ContainerRequest::shell(script)
    })?;
    ensure!(exit.stdout == "x\n", "{exit:?}");
    ensure!(exit.stderr.contains("Read-only file system"), "{exit:?}");
    let exit = pod.complete(ContainerRequest::shell(script))?;
    ensure!(exit.stdout == "written\nx\n", "{exit:?}");
    pod.remove()
}

/// One network, one host name, one IPC namespace with its shared memory; own processes and mounts.
pub fn containers_of_a_pod_share_network_and_ipc_but_not_processes(
    stage: &'static Stage,
) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let serve = "echo shared > /dev/shm/note; echo hello > /tmp/page; httpd -p 127.0.0.1:7777 -h /tmp; echo up; sleep 1000";
    let first = pod.start(ContainerRequest::shell(serve))?;
    let second = pod.start(ContainerRequest::busybox(&["sleep", "1000"]))?;
    for (kind, shared) in [
        ("net", true),
        ("ipc", true),
        ("uts", true),
        ("pid", false),
        ("mnt", false),
    ] {
        let read = format!("readlink /proc/self/ns/{kind}");
        let same = first.shell(&read)? == second.shell(&read)?;
        ensure!(
            same == shared,
            "the {kind} namespace of two containers: same is {same}"
        );
    }
    ensure!(second.shell("cat /dev/shm/note")? == "shared\n");
    first.wait_for_output("up")?;
    let heard = second.shell("wget -q -O - http://127.0.0.1:7777/page")?;
    ensure!(heard == "hello\n", "{heard:?}");
    ensure!(
        !second.shell("ps")?.contains("7777"),
        "processes of another container are seen"
    );
    pod.remove()
}

/// containerd's log has everything, in order.
pub fn logs_hold_both_streams_long_lines_and_the_last_words(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let pod = stage.pod()?;
    let script = "for i in $(seq 1 500); do echo line $i; done; \
        head -c 40000 /dev/zero | tr '\\0' x; echo; echo problem >&2; printf 'last words'";
    let exit = pod.complete(ContainerRequest::shell(script))?;
    let lines: Vec<_> = exit.stdout.lines().collect();
    ensure!(
        lines.first() == Some(&"line 1") && lines.get(499) == Some(&"line 500"),
        "{} lines",
        lines.len()
    );
    ensure!(
        lines.get(500).is_some_and(|line| line.len() == 40_000),
        "a long line is cut"
    );
    ensure!(exit.stdout.ends_with("last words"), "the last line is lost");
    ensure!(exit.stderr == "problem\n", "{}", exit.stderr);
    pod.remove()
}
