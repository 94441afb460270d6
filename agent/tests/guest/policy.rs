//! A guest whose initdata hold a policy document: it runs the container that the document says,
//! and denies each change of it by its code. A denied request leaves no trace: the right one comes
//! after all the wrong ones.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use agent_protocol::{
    initdata::{Algorithm, disk::frame, packed::pack, write},
    rpc::{
        agent::{self, CreateContainerRequest},
        oci,
    },
};
use serde_json::json;
use ttrpc::Code;

use crate::{
    cases::{check, code_of, sandbox_is_created_once, set_up_network},
    host::{Container, Host, Outcome, call, mount, runtime, shell},
    registry::Registry,
    relay::Relay,
    tools::Tools,
    vm::{Devices, Vm},
};

const TIME_MAX: Duration = Duration::from_secs(240);
const AHEAD_MAX: Duration = Duration::from_secs(100);
const SHARED: &str = "/run/kata-containers/shared/containers";
const SCRIPT: &str = "echo $GREETING; read line";
/// Files that the node copies for a container, by where it has them.
const FILES: [&str; 4] = [
    "/etc/hosts",
    "/dev/termination-log",
    "/etc/hostname",
    "/etc/resolv.conf",
];

/// What images are pulled through: `early` ends before a container is asked for, `late` begins
/// only then.
struct Relays {
    early: Option<Relay>,
    late: u16,
    registry: u16,
    /// By the digests of their manifests.
    main: String,
    side: String,
}

impl Relays {
    fn start(registry: &Registry) -> Self {
        let early = Relay::start(0, registry.port());
        let late = Relay::start(0, registry.port()).port();
        Self {
            main: registry.pinned_at("busybox", early.port()),
            side: registry.pinned_at("small", late),
            early: Some(early),
            late,
            registry: registry.port(),
        }
    }
}

fn document(image: &str, side: &str) -> String {
    let document = json!({
        "rules": [policy_engine::rules_digest_hex()],
        "version": 3,
        "pod": { "name": { "starts_with": "web" }, "namespace": "default" },
        "containers": [{
            "name": "main", "image": image, "args": ["sh", "-c", SCRIPT],
            "env": { "PATH": "/bin", "GREETING": "hello" },
            "rights": { "capabilities": [], "unmasked": true },
            "exec": [["sh", "-c", "echo ready"]],
            "logs": true, "stdin": true,
        }, {
            "name": "side", "image": side, "args": ["sh", "-c", "true"],
            "env": { "PATH": "/bin" },
            "rights": { "capabilities": [], "unmasked": true },
        }],
    });
    document.to_string()
}

fn source(id: &str, at: &str) -> String {
    let name = at.rsplit('/').next().unwrap_or_default();
    format!("{SHARED}/{id}-0123456789abcdef-{name}")
}

/// What a node asks for the container of the document.
fn request(id: &str, image: &str) -> CreateContainerRequest {
    let mut process = shell(SCRIPT);
    process.Env.push("GREETING=hello".to_owned());
    request_of("main", id, image, process)
}

fn request_of(
    name: &str,
    id: &str,
    image: &str,
    mut process: oci::Process,
) -> CreateContainerRequest {
    process.Env.push("HOSTNAME=the-pod".to_owned());
    let container = Container {
        process,
        ..Container::new(id, "")
    };
    let mut request = container.request(image);
    let spec = request.OCI.mut_or_insert_default();
    for (key, value) in [
        ("container-name", name),
        ("sandbox-name", "web-1"),
        ("sandbox-namespace", "default"),
    ] {
        let key = format!("io.kubernetes.cri.{key}");
        spec.Annotations.insert(key, value.to_owned());
    }
    // The memory for sharing comes after the files.
    let memory = spec.Mounts.pop();
    let files = FILES.map(|at| mount(at, "bind", &source(id, at), &["rbind", "rprivate", "rw"]));
    spec.Mounts.extend(files);
    spec.Mounts.extend(memory);
    request
}

async fn copy(host: &Host, path: String) -> Result<(), ttrpc::Error> {
    let file = agent::CopyFileRequest {
        path,
        file_size: 1,
        file_mode: 0o100_644,
        uid: -1,
        gid: -1,
        data: b"x".into(),
        ..Default::default()
    };
    host.agent.copy_file(call(), &file).await.map(drop)
}

fn denied<T: std::fmt::Debug>(answer: Result<T, ttrpc::Error>, code: &str) -> Outcome {
    let told = code_of(answer).ok_or_else(|| format!("{code}: allowed"))?;
    check!(told.0 == Code::PERMISSION_DENIED, "{code}: {told:?}");
    check!(told.1.contains("is blocked by policy"), "{code}: {told:?}");
    check!(told.1.contains(code), "{code}: {told:?}");
    check!(
        told.1.len() <= 1024 && !told.1.contains("hello"),
        "{told:?}"
    );
    Ok(())
}

type Change = fn(&mut CreateContainerRequest);

fn process(request: &mut CreateContainerRequest) -> &mut oci::Process {
    let spec = request.OCI.mut_or_insert_default();
    spec.Process.mut_or_insert_default()
}

const CHANGES: [(&str, Change); 6] = [
    ("ARGUMENTS", |one| process(one).Args.push("x".to_owned())),
    ("ENV_NOT_DECLARED", |one| {
        process(one).Env.push("LD_PRELOAD=/x".to_owned())
    }),
    ("ENV_VALUE", |one| {
        process(one).Env.push("HOME=/x".to_owned())
    }),
    ("MOUNT_NOT_DECLARED", |one| {
        let spec = one.OCI.mut_or_insert_default();
        spec.Mounts.push(mount("/bin", "tmpfs", "tmpfs", &[]));
    }),
    ("IMAGE_NAME", |one| {
        one.storages[0].source = "10.0.2.2:1/evil:1".to_owned()
    }),
    ("CONTAINER_NOT_DECLARED", |one| {
        let spec = one.OCI.mut_or_insert_default();
        let key = "io.kubernetes.cri.container-name".to_owned();
        spec.Annotations.insert(key, "evil".to_owned());
    }),
];

/// The guest says of each image of the policy that it was pulled, or that it could not be.
async fn images_are_pulled_ahead(vm: &Vm, relays: &mut Relays) -> Outcome {
    let told = |console: &str| {
        console.contains("image pulled ahead") && console.contains("image not pulled ahead")
    };
    let started = Instant::now();
    while !told(&vm.console()) {
        check!(started.elapsed() < AHEAD_MAX, "no image was pulled ahead");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // From here on nobody can reach the registry for the first image.
    relays.early = None;
    Ok(())
}

async fn an_image_that_could_not_be_pulled_ahead_is_pulled_for_its_container(
    host: &Host,
    relays: &Relays,
) -> Outcome {
    let _late = Relay::start(relays.late, relays.registry);
    for at in FILES {
        copy(host, source("s1", at)).await?;
    }
    let side = request_of("side", "s1", &relays.side, shell("true"));
    host.agent.create_container(call(), &side).await?;
    host.start("s1").await?;
    check!(host.wait("s1", "").await? == 0, "not `true`");
    host.remove("s1").await
}

async fn play(host: &Host, vm: &Vm, relays: &mut Relays) -> Outcome {
    set_up_network(host).await?;
    check!(!vm.console().contains("pulled ahead"), "too early");
    sandbox_is_created_once_by_policy(host).await?;
    images_are_pulled_ahead(vm, relays).await?;
    for at in FILES {
        copy(host, source("c1", at)).await?;
    }
    denied(
        copy(host, source("c1", "/usr/bin/evil")).await,
        "COPY_TARGET",
    )?;
    denied(copy(host, format!("{SHARED}/evil")).await, "COPY_TARGET")?;
    for (code, change) in CHANGES {
        let mut wrong = request("c1", &host.image);
        change(&mut wrong);
        denied(host.agent.create_container(call(), &wrong).await, code)?;
        let before_the_image = matches!(code, "IMAGE_NAME" | "CONTAINER_NOT_DECLARED");
        for at in FILES.iter().filter(|_| !before_the_image) {
            // What was copied for it went with it.
            copy(host, source("c1", at)).await?;
        }
    }
    let right = request("c1", &host.image);
    host.agent.create_container(call(), &right).await?;
    let twice = request("c2", &host.image);
    let twice = host.agent.create_container(call(), &twice).await;
    denied(twice, "CONTAINER_RUNS_ALREADY")?;
    host.start("c1").await?;
    let exec = |script: &str| {
        let mut process = shell(script);
        process
            .Env
            .extend(["GREETING=hello".to_owned(), "HOSTNAME=the-pod".to_owned()]);
        agent::ExecProcessRequest {
            container_id: "c1".into(),
            exec_id: "e1".into(),
            process: Some(process).into(),
            ..Default::default()
        }
    };
    let shell = host
        .agent
        .exec_process(call(), &exec("cat /proc/1/environ"))
        .await;
    denied(shell, "EXEC_NOT_DECLARED")?;
    host.agent.exec_process(call(), &exec("echo ready")).await?;
    check!(host.stdout("c1", "e1").await? == b"ready\n", "not ready");
    let clock = agent::SetGuestDateTimeRequest::default();
    let clock = host.agent.set_guest_date_time(call(), &clock).await;
    denied(clock, "REQUEST_NOT_ALLOWED")?;
    let abort = agent::SignalProcessRequest {
        container_id: "c1".into(),
        signal: 6,
        ..Default::default()
    };
    denied(
        host.agent.signal_process(call(), &abort).await,
        "SIGNAL_NOT_DECLARED",
    )?;
    host.write("c1", "", b"\n").await?;
    check!(host.stdout("c1", "").await? == b"hello\n", "no greeting");
    host.remove("c1").await?;
    let again = request("c1", &host.image);
    denied(
        host.agent.create_container(call(), &again).await,
        "CONTAINER_ID_REUSED",
    )?;
    for at in FILES {
        copy(host, source("c3", at)).await?;
    }
    // It comes again though its registry cannot be reached.
    let restarted = request("c3", &host.image);
    host.agent.create_container(call(), &restarted).await?;
    an_image_that_could_not_be_pulled_ahead_is_pulled_for_its_container(host, relays).await
}

/// The pod is set up; a second time the policy denies it before the guest does.
async fn sandbox_is_created_once_by_policy(host: &Host) -> Outcome {
    match sandbox_is_created_once(host).await {
        Err(error) if error.to_string().contains("POD_STATE") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

pub(crate) fn judges_every_request(
    tools: &Tools,
    registry: &Registry,
    image: &Path,
    folder: &Path,
) {
    let folder = folder.join("policy");
    fs::create_dir(&folder).unwrap();
    let mut relays = Relays::start(registry);
    let text = document(&relays.main, &relays.side);
    let entries = BTreeMap::from([("pod-policy.json".to_owned(), text)]);
    let initdata = write(Algorithm::Sha256, &entries).unwrap();
    let disk = folder.join("disk");
    fs::write(&disk, frame(&pack(&initdata).unwrap()).unwrap()).unwrap();
    let devices = Devices {
        disks: &[disk],
        serial: "initdata",
        tpm: None,
    };
    let vm = Vm::boot(tools, &folder, image, &devices);
    let result = runtime().block_on(async {
        let playing = async {
            let image = relays.main.clone();
            let host = Host::connect(&vm, image, None).await;
            play(&host, &vm, &mut relays).await
        };
        let result = tokio::time::timeout(TIME_MAX, playing).await;
        result.unwrap_or_else(|_| Err("took too long".into()))
    });
    let console = vm.console();
    assert!(result.is_ok(), "{result:?}; console:\n{console}");
    assert!(console.contains("policy taken"), "{console}");
    assert!(!console.contains("hello"), "{console}");
}
