//! The service against a scripted agent.
//!
//! The VM is replaced by the two ends of a socket pair; the agent behind it does what a
//! test wants where a real one cannot be made to (being slow, dying at a given
//! moment). That the shim and the real agent understand each other is shown by the
//! end-to-end tests.

mod script;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use agent_protocol::id::SandboxId;
use containerd_shim_protos::{api::Status, protobuf::well_known_types::any::Any};
use shim_oci as oci;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::watch,
    time::timeout,
};

use self::script::{Machines, Script};
use super::{CreateRequest, Service};
use crate::{
    events::{Events, tests::Recorded},
    record::StateDir,
    status::TaskError,
    stdio::Stdio,
};

const OUTPUT_BYTES: usize = 3 << 20;

struct Bench {
    folder: tempfile::TempDir,
    service: Arc<Service>,
    script: Arc<Script>,
    dead: watch::Sender<bool>,
    events: Recorded,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::create_dir(&image).unwrap();
        fs::write(image.join("vmlinuz"), "k").unwrap();
        fs::write(image.join("initrd.img"), "i").unwrap();
        let manifest = r#"{"schema":1,"cmdline":"","files":{
            "vmlinuz":{"bytes":1},"initrd.img":{"bytes":1}}}"#;
        fs::write(image.join("manifest.json"), manifest).unwrap();
        let script = Arc::new(Script::default());
        let dead = watch::Sender::new(false);
        let machines = Machines {
            script: Arc::clone(&script),
            dead: dead.clone(),
        };
        let (queue, events) = Events::recorded();
        let service = Service::new(
            SandboxId::parse("pod").unwrap(),
            None,
            StateDir::at(&folder.path().join("state")),
            queue,
            Box::new(machines),
        );
        Self {
            folder,
            service: Arc::new(service),
            script,
            dead,
            events,
        }
    }

    fn options(&self) -> Any {
        let image = self.folder.path().join("image");
        let scratch = self.folder.path().join("scratch");
        let body = format!(
            "[hypervisor.qemu]\nguest_image = {image:?}\n\
             scratch_disk_directory = {scratch:?}\n[runtime]\n\
             internetworking_model = \"none\"\nsandbox_cgroup_only = false\n\
             experimental = [\"force_guest_pull\"]\n"
        );
        let mut value = vec![0x1a];
        let mut length = body.len();
        while length > 0x7f {
            value.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        value.push(u8::try_from(length).unwrap());
        value.extend(body.as_bytes());
        Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value,
            ..Any::default()
        }
    }

    fn request(&self, id: &str, stdio: Stdio) -> CreateRequest {
        self.annotated(id, stdio, "")
    }

    /// A request whose spec has further annotations, written as JSON after a comma.
    fn annotated(&self, id: &str, stdio: Stdio, annotations: &str) -> CreateRequest {
        let bundle = self.folder.path().join(id);
        fs::create_dir_all(&bundle).unwrap();
        let kind = if id == "pod" { "sandbox" } else { "container" };
        let spec = format!(
            r#"{{"ociVersion":"1.1.0","annotations":{{
                "io.kubernetes.cri.container-type":"{kind}",
                "io.kubernetes.cri.sandbox-id":"pod",
                "io.kubernetes.cri.image-name":"reg/{id}"{annotations}}}}}"#
        );
        fs::write(bundle.join("config.json"), spec).unwrap();
        CreateRequest {
            id: id.into(),
            bundle: bundle.display().to_string(),
            rootfs: Vec::new(),
            stdio,
            options: Some(self.options()),
        }
    }

    async fn create(&self, id: &str) -> Result<u32, TaskError> {
        self.service.create(self.request(id, silent())).await
    }

    fn state_exists(&self) -> bool {
        let state = self.folder.path().join("state").exists();
        let users = fs::read_dir(self.folder.path().join(".users"));
        let users = users.into_iter().flatten().flatten();
        let links = users.filter(|user| user.path().is_symlink()).count();
        assert_eq!(links, if state { 2 } else { 0 }, "so do the users");
        let disk = self.folder.path().join("scratch/pod.img").exists();
        assert_eq!(state, disk, "the disk lives as long as the state");
        state
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }
}

fn silent() -> Stdio {
    stdio("", Path::new(""))
}

fn stdio(stdin: &str, stdout: &Path) -> Stdio {
    Stdio {
        stdin: stdin.into(),
        stdout: stdout.display().to_string(),
        stderr: String::new(),
        terminal: false,
    }
}

fn sleep() -> oci::Process {
    oci::Process {
        args: vec!["sleep".into(), "1".into()],
        ..oci::Process::default()
    }
}

#[tokio::test]
async fn a_pod_lives_and_leaves_nothing() {
    let mut bench = Bench::new();
    let of_pod = bench.create("pod").await.unwrap();
    assert!(bench.state_exists());
    bench.service.start("pod", "").await.unwrap();
    let of_app = bench.create("app").await.unwrap();
    assert_ne!(of_pod, of_app, "each task has a number of its own");
    let app = bench.service.find("app").unwrap();
    assert_eq!(app.init.status(), Status::CREATED);
    assert_eq!(bench.service.start("app", "").await.unwrap(), of_app);
    assert_eq!(app.init.status(), Status::RUNNING);
    assert!(bench.service.delete("app", "").await.is_err());
    bench.service.kill("app", "", 15).await.unwrap();
    assert_eq!(app.init.wait().await.status, 3);
    bench.service.kill("app", "", 9).await.unwrap();
    let (pid, exit) = bench.service.delete("app", "").await.unwrap();
    assert_eq!((pid, exit.status), (of_app, 3));
    assert!(matches!(
        bench.service.find("app"),
        Err(TaskError::NotFound { .. })
    ));
    bench.service.find("pod").unwrap().init.wait().await;
    bench.service.delete("pod", "").await.unwrap();
    assert!(!bench.state_exists());
    bench.service.shut_down(false).await;
    bench.service.ended.notified().await;
    let mut topics = bench.events.topics();
    topics.retain(|topic| !topic.ends_with("exit"));
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/create",
            "/tasks/start",
            "/tasks/delete",
            "/tasks/delete"
        ]
    );
}

#[tokio::test]
async fn a_slow_container_delays_no_other_and_can_be_given_up() {
    let bench = Bench::new();
    bench.create("pod").await.unwrap();
    let slow = {
        let service = Arc::clone(&bench.service);
        let request = bench.request("slow", silent());
        tokio::spawn(async move { service.create(request).await })
    };
    while !bench.script.calls().contains(&"Create slow".to_owned()) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        bench.create("slow").await,
        Err(TaskError::AlreadyExists { .. })
    ));
    bench.create("app").await.unwrap();
    bench.service.start("app", "").await.unwrap();
    assert!(matches!(
        bench.service.delete("slow", "").await,
        Err(TaskError::NotFound { .. })
    ));
    assert!(slow.await.unwrap().is_err());
    assert!(bench.script.calls().contains(&"Remove slow".to_owned()));
}

#[tokio::test]
async fn a_refused_container_leaves_the_pod_and_says_why() {
    let bench = Bench::new();
    bench.create("pod").await.unwrap();
    let error = bench.create("refused").await.unwrap_err();
    assert!(error.to_string().contains("not by this policy"), "{error}");
    assert!(bench.service.find("refused").is_err());
    assert!(bench.service.find("pod").is_ok());
}

#[tokio::test]
async fn a_pod_that_would_weaken_its_node_or_guest_is_not_started() {
    let bench = Bench::new();
    for (name, why) in [
        ("runtime.sandbox_cgroup_only", "the pod's limits"),
        ("runtime.disable_guest_seccomp", "take a confinement off"),
        ("hypervisor.rootless", "take a confinement off"),
        (
            "runtime.create_container_timeout",
            "not allowed on this node",
        ),
        ("runtime.made_up", "no such annotation"),
    ] {
        let annotation = format!(r#","io.katacontainers.config.{name}":"0""#);
        let request = bench.annotated("pod", silent(), &annotation);
        let error = bench.service.create(request).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(why), "{error}");
        assert!(!bench.state_exists());
    }
    assert!(bench.create("pod").await.is_ok());
}

#[tokio::test]
async fn a_pod_that_can_never_run_costs_nothing_however_often_it_is_tried() {
    let bench = Bench::new();
    for (linux, why) in [
        (
            r#"{"namespaces":[{"type":"pid"},{"type":"network"}]}"#,
            "hostIPC",
        ),
        (
            r#"{"namespaces":[{"type":"ipc"},{"type":"network"}]}"#,
            "hostPID",
        ),
        (
            r#"{"namespaces":[{"type":"ipc"},{"type":"pid"},{"type":"user"}]}"#,
            "hostUsers",
        ),
        (
            r#"{"resources":{"unified":{"memory.high":"1"}}}"#,
            "memory.high",
        ),
    ] {
        let request = bench.request("pod", silent());
        let file = Path::new(&request.bundle).join("config.json");
        let spec = fs::read_to_string(&file).unwrap();
        let spec = spec.strip_suffix('}').unwrap();
        fs::write(&file, format!(r#"{spec},"linux":{linux}}}"#)).unwrap();
        let error = bench.service.create(request).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!bench.state_exists());
        assert_eq!(bench.script.calls(), Vec::<String>::new());
    }
    assert!(bench.create("pod").await.is_ok());
}

#[tokio::test]
async fn a_container_sees_the_processes_of_the_one_that_its_number_names() {
    let bench = Bench::new();
    let of_pod = bench.create("pod").await.unwrap();
    let of_app = bench.create("app").await.unwrap();
    let processes = |path: &str| {
        let json = format!(r#"{{"linux":{{"namespaces":[{{"type":"pid","path":"{path}"}}]}}}}"#);
        bench
            .service
            .processes_for(&serde_json::from_str(&json).unwrap())
    };
    use super::create::Processes;
    assert!(matches!(processes(""), Ok(Processes::Own)));
    let path = |number: u32| format!("/proc/{number}/ns/pid");
    assert!(matches!(processes(&path(of_pod)), Ok(Processes::OfPod)));
    let target = processes(&path(of_app));
    assert!(matches!(target, Ok(Processes::OfContainer(id)) if id == "app"));
    assert!(processes(&path(std::process::id())).is_err());
    bench.service.kill("app", "", 9).await.unwrap();
    assert!(processes(&path(of_app)).is_err(), "it has ended");
}

#[tokio::test]
async fn a_dead_vm_ends_everything_once() {
    let mut bench = Bench::new();
    bench.create("pod").await.unwrap();
    bench.service.start("pod", "").await.unwrap();
    bench.create("app").await.unwrap();
    bench.service.start("app", "").await.unwrap();
    bench.service.exec("app", "e1", silent(), sleep()).unwrap();
    bench.service.start("app", "e1").await.unwrap();
    bench.dead.send_replace(true);
    let app = bench.service.find("app").unwrap();
    assert_eq!(app.init.wait().await.status, 255);
    assert_eq!(app.process("e1").unwrap().wait().await.status, 255);
    bench.service.find("pod").unwrap().init.wait().await;
    let exits = bench
        .events
        .topics()
        .iter()
        .filter(|t| t.ends_with("exit"))
        .count();
    assert_eq!(exits, 3);
    bench.service.kill("app", "", 9).await.unwrap();
    bench.service.delete("app", "").await.unwrap();
    bench.service.delete("pod", "").await.unwrap();
    assert!(!bench.state_exists());
}

#[tokio::test]
async fn a_guest_s_claims_of_want_are_of_its_own_containers_and_few() {
    let mut bench = Bench::new();
    let foreign = ["stranger", "", "app\n", "../app"];
    let claims = foreign.into_iter().chain(["app"; 10_000]).rev();
    *bench.script.starving.lock().unwrap() = claims.map(str::to_owned).collect();
    bench.create("pod").await.unwrap();
    bench.create("app").await.unwrap();
    bench.script.complains.send_replace(true);
    let patience = Duration::from_millis(500);
    let mut told = 0;
    while let Ok(id) = timeout(patience, bench.events.out_of_memory()).await {
        assert_eq!(id, "app");
        told += 1;
        assert!(told <= 32, "the guest is believed too often");
    }
    assert!(told > 0);
}

#[tokio::test]
async fn output_arrives_before_the_end_is_told() {
    let bench = Bench::new();
    bench
        .script
        .output_left
        .store(OUTPUT_BYTES, Ordering::SeqCst);
    let path = bench.fifo("out");
    let mut reader = pipe::OpenOptions::new().open_receiver(&path).unwrap();
    bench.create("pod").await.unwrap();
    let request = bench.request("app", stdio("", &path));
    bench.service.create(request).await.unwrap();
    bench.service.start("app", "").await.unwrap();
    bench.script.ended.send_replace(true);
    let app = bench.service.find("app").unwrap();
    let mut read = 0;
    let mut buffer = vec![0; 1 << 16];
    while read < OUTPUT_BYTES {
        assert!(app.init.ended().is_none());
        read += reader.read(&mut buffer).await.unwrap();
    }
    assert_eq!(app.init.wait().await.status, 3);
    assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
}

#[tokio::test]
async fn input_is_passed_on_and_closed_when_asked() {
    let bench = Bench::new();
    let path = bench.fifo("in");
    bench.create("pod").await.unwrap();
    let stdin = path.display().to_string();
    let request = bench.request("app", stdio(&stdin, Path::new("")));
    bench.service.create(request).await.unwrap();
    bench.service.start("app", "").await.unwrap();
    let app = bench.service.find("app").unwrap();
    let mut writer = pipe::OpenOptions::new().open_sender(&path).unwrap();
    writer.write_all(b"hello").await.unwrap();
    drop(writer);
    app.init.close_stdin();
    assert_eq!(app.init.wait().await.status, 3);
    assert_eq!(*bench.script.input.lock().unwrap(), b"hello");
    assert!(bench.script.calls().contains(&"CloseStdin".to_owned()));
}

#[tokio::test]
async fn a_process_without_input_is_told_so_and_one_with_a_terminal_is_not() {
    for (terminal, told) in [(false, 2), (true, 0)] {
        let bench = Bench::new();
        bench.create("pod").await.unwrap();
        let stdio = || Stdio {
            terminal,
            ..silent()
        };
        let request = bench.request("app", stdio());
        bench.service.create(request).await.unwrap();
        bench.service.start("app", "").await.unwrap();
        bench.service.exec("app", "e1", stdio(), sleep()).unwrap();
        bench.service.start("app", "e1").await.unwrap();
        let closed = || {
            let calls = bench.script.calls();
            calls.iter().filter(|call| *call == "CloseStdin").count()
        };
        while closed() < told {
            tokio::task::yield_now().await;
        }
        bench.service.kill("app", "", 9).await.unwrap();
        bench.service.find("app").unwrap().init.wait().await;
        assert_eq!(closed(), told);
    }
}

#[tokio::test]
async fn execs_follow_their_container() {
    let bench = Bench::new();
    bench.create("pod").await.unwrap();
    bench.create("app").await.unwrap();
    assert!(bench.service.exec("app", "e1", silent(), sleep()).is_err());
    bench.service.start("app", "").await.unwrap();
    assert!(
        bench
            .service
            .exec("app", "../x", silent(), sleep())
            .is_err()
    );
    bench.service.exec("app", "e1", silent(), sleep()).unwrap();
    assert!(bench.service.exec("app", "e1", silent(), sleep()).is_err());
    bench.service.start("app", "e1").await.unwrap();
    assert!(bench.service.start("app", "e1").await.is_err());
    assert!(bench.script.calls().contains(&"Exec sleep 1".to_owned()));
    assert!(bench.service.delete("app", "e1").await.is_err());
    bench.service.kill("app", "e1", 9).await.unwrap();
    let exec = bench.service.find("app").unwrap().process("e1").unwrap();
    exec.wait().await;
    bench.service.delete("app", "e1").await.unwrap();
    assert!(bench.service.find("app").unwrap().process("e1").is_err());
}

#[tokio::test]
async fn a_created_container_can_be_killed() {
    let bench = Bench::new();
    bench.create("pod").await.unwrap();
    bench.create("app").await.unwrap();
    assert!(bench.service.kill("app", "", 1).await.is_err());
    bench.service.kill("app", "", 9).await.unwrap();
    let app = bench.service.find("app").unwrap();
    assert_eq!(app.init.wait().await.status, 137);
    assert!(bench.service.start("app", "").await.is_err());
    bench.service.delete("app", "").await.unwrap();
}

#[tokio::test]
async fn a_pod_that_cannot_boot_leaves_nothing() {
    let bench = Bench::new();
    fs::remove_file(bench.folder.path().join("image/initrd.img")).unwrap();
    let error = bench.create("pod").await.unwrap_err().to_string();
    assert!(
        error.contains("initrd.img") && error.contains("guest_image"),
        "{error}"
    );
    assert!(!bench.state_exists());
    assert!(matches!(
        bench.create("app").await,
        Err(TaskError::NotFound { .. })
    ));
    bench.service.shut_down(false).await;
    bench.service.ended.notified().await;
}
