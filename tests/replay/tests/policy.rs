//! Policy documents over recorded requests: what a kubelet and two releases of containerd ask is
//! allowed by a document that says what the pod is, and each change of it is denied.
//!
//! The document of a container is written from what containerd 1.7 made of it where that release
//! ran it, and judges what 2.1 made, so that nothing of a release is in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "sources of other crates, of which only a part is used; a test may unwrap"
)]

mod recorded;

use std::collections::BTreeSet;

use agent_protocol::{
    path::GuestPath,
    rpc::{
        agent::{CreateContainerRequest, CreateSandboxRequest, Storage},
        oci,
    },
};
use agent_requests::{CreateContainer, CreateSandbox, Parse};
use agent_workload::{pod_facts, workload};
use policy_engine::{
    Denied, Engine, Finished, OfImage,
    document::{
        Container, Document, Mount, Origin, Pod, PodName, Rights, Seccomp, User, Variable, Volume,
    },
    rules_digest_hex,
};
use recorded::{SHARE, bundle, containers, request};
use serde_json::{Value, json};

const HOME: &str = "/root";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// What every container has at these places.
const USUAL: [&str; 11] = [
    "/proc",
    "/dev",
    "/dev/pts",
    "/dev/mqueue",
    "/sys",
    "/sys/fs/cgroup",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/shm",
    "/dev/termination-log",
];

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values.map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn annotation(bundle: &Value, name: &str) -> String {
    let value = &bundle["annotations"][format!("io.kubernetes.cri.{name}")];
    value.as_str().unwrap_or_default().to_owned()
}

/// The document of a bundle's pod, as far as its one container goes.
fn document(text: &str) -> Document {
    let bundle: Value = serde_json::from_str(text).unwrap();
    let mut pod = Pod {
        namespace: Some(annotation(&bundle, "sandbox-namespace")),
        name: Some(PodName::Is(annotation(&bundle, "sandbox-name"))),
        share_processes: is_shared(&bundle),
        ..Pod::default()
    };
    let container = container(&bundle, &mut pod);
    Document {
        rules: [rules_digest_hex()].into(),
        pod,
        containers: vec![container],
        ..Document::default()
    }
}

fn is_shared(bundle: &Value) -> bool {
    let namespaces = bundle["linux"]["namespaces"].as_array().unwrap();
    namespaces
        .iter()
        .any(|one| one["type"] == "pid" && one["path"].is_string())
}

fn container(bundle: &Value, pod: &mut Pod) -> Container {
    let process = &bundle["process"];
    let image = annotation(bundle, "image-name");
    let image = image
        .rsplit_once(':')
        .map_or(image.as_str(), |(name, _)| name);
    let held: BTreeSet<String> = strings(&process["capabilities"]["bounding"])
        .into_iter()
        .collect();
    let usual: BTreeSet<String> = policy_engine::DEFAULT_CAPABILITIES
        .map(str::to_owned)
        .into();
    let privileged = held.len() > 35;
    let gid = u32::try_from(process["user"]["gid"].as_u64().unwrap()).unwrap();
    let groups = process["user"]["additionalGids"].as_array().unwrap();
    let groups = groups
        .iter()
        .map(|one| u32::try_from(one.as_u64().unwrap()).unwrap());
    Container {
        name: annotation(bundle, "container-name"),
        image: format!("{image}@{DIGEST}"),
        args: strings(&process["args"]),
        cwd: process["cwd"].as_str().map(str::to_owned),
        terminal: process["terminal"].as_bool().unwrap_or_default(),
        env: strings(&process["env"])
            .iter()
            .filter_map(|one| variable(one))
            .collect(),
        user: User {
            uid: u32::try_from(process["user"]["uid"].as_u64().unwrap()).unwrap(),
            gid,
            groups: groups.filter(|one| *one != gid).collect(),
            strict: false,
        },
        rights: Rights {
            privileged,
            capabilities: (!privileged && held != usual).then_some(held),
            no_new_privileges: process["noNewPrivileges"].as_bool().unwrap_or_default(),
            seccomp: if bundle["linux"]["seccomp"].is_object() {
                Seccomp::RuntimeDefault
            } else {
                Seccomp::Unconfined
            },
            unmasked: false,
        },
        read_only_root: bundle["root"]["readonly"].as_bool().unwrap_or_default(),
        mounts: mounts(bundle, pod),
        ..Container::default()
    }
}

/// A variable of the pod's; its host name, its services and its address are Kubernetes'.
fn variable(entry: &str) -> Option<(String, Variable)> {
    let (name, value) = entry.split_once('=').unwrap();
    if name == "HOSTNAME" || name.starts_with("KUBERNETES_") {
        return None;
    }
    let value = match name {
        // The address of the recorded pod is none of the machine's that runs this test, and the
        // limit is the recording node's memory.
        "IP" => Variable::From(Origin::Any),
        "LIMIT" => Variable::From(Origin::Number),
        _ => Variable::Is(value.to_owned()),
    };
    Some((name.to_owned(), value))
}

fn mounts(bundle: &Value, pod: &mut Pod) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for mount in bundle["mounts"].as_array().unwrap() {
        let at = mount["destination"].as_str().unwrap().to_owned();
        let source = mount["source"].as_str().unwrap();
        let empty = source.split_once("/kubernetes.io~empty-dir/");
        if empty.is_none() && USUAL.contains(&at.as_str()) {
            continue;
        }
        let volume = empty.map(|(_, name)| name.to_owned());
        for name in volume.iter() {
            pod.volumes.insert(name.clone(), Volume::default());
        }
        let options = strings(&mount["options"]);
        mounts.push(Mount {
            at,
            volume,
            propagation: options.iter().find(|one| *one == "rslave").cloned(),
            read_only: options.iter().any(|one| one == "ro" || one == "rro"),
            ..Mount::default()
        });
    }
    mounts
}

/// Storages for the volumes, as the shim asks for them.
fn with_storages(
    mut request: CreateContainerRequest,
    volumes: &[GuestPath],
) -> CreateContainerRequest {
    let mut seen = BTreeSet::new();
    for volume in volumes {
        if seen.insert(volume.to_string()) {
            request.storages.push(Storage {
                driver: "local".to_owned(),
                source: "local".to_owned(),
                fstype: "local".to_owned(),
                mount_point: volume.to_string(),
                ..Storage::default()
            });
        }
    }
    request
}

/// An engine whose pod is set up and has its pause container.
fn engine(document: &Document, hostname: &str) -> Engine {
    let engine = Engine::of_document(document.text().as_bytes()).unwrap();
    let sandbox = CreateSandboxRequest {
        hostname: hostname.to_owned(),
        ..CreateSandboxRequest::default()
    };
    let permit = engine
        .judge(CreateSandbox::parse(sandbox).unwrap())
        .unwrap();
    let _ = permit.into_parts().1.commit();
    engine
}

/// Both judgements of a container: of its request, and of what the guest makes of it.
fn judge(
    document: &Document,
    hostname: &str,
    asked: (CreateContainerRequest, Vec<GuestPath>),
) -> Result<(), Denied> {
    let (request, volumes) = asked;
    let engine = engine(document, hostname);
    let parsed = CreateContainer::parse(request).unwrap();
    let (request, claim) = engine.judge(parsed)?.into_parts();
    let spec = request.spec;
    let user = spec.process.asked_user();
    let mut process = spec.process.process;
    let mut environment = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|one| one.starts_with("HOME=")) {
        environment.push(format!("HOME={HOME}"));
    }
    process.set_env(Some(environment.clone()));
    let mut complete = spec.spec;
    complete.set_process(Some(process));
    let namespaces = ["mount", "cgroup", "pid", "ipc", "uts"].map(|kind| {
        let shared =
            matches!(kind, "ipc" | "uts") || kind == "pid" && request.processes.is_shared();
        match shared {
            true => json!({ "type": kind, "path": "/run/ns" }),
            false => json!({ "type": kind }),
        }
    });
    let linux = complete.linux_mut().as_mut().unwrap();
    linux.set_namespaces(serde_json::from_value(json!(namespaces)).unwrap());
    let (declared, container) = claim.declared().unwrap();
    if let Some(filter) = container.filter(&declared.pod) {
        linux.set_seccomp(serde_json::from_value(filter).unwrap());
    }
    let facts = pod_facts(&spec.pod);
    let described = workload(&complete, &spec.sysctls, &volumes, &facts).unwrap();
    claim.judge_process(Finished {
        workload: &described.workload,
        environment: &environment,
        facts: &facts,
        image: &OfImage {
            home: Some(HOME.to_owned()),
            groups: BTreeSet::new(),
        },
        user: &user,
    })
}

type Asked = (CreateContainerRequest, Vec<GuestPath>);

/// Each recorded container that the guest can have: its name, its document, and its request.
fn cases() -> Vec<(String, Document, String, Asked)> {
    let mut cases = Vec::new();
    for release in ["1.7", "2.1"] {
        for (pod, name) in containers() {
            let Some(text) = bundle(release, pod, &name) else {
                continue;
            };
            // The memory that a pod shares with its node is refused by the shim.
            if pod == "host-namespaces" {
                continue;
            }
            let (asked, volumes) = request(&text);
            let asked = with_storages(asked, &volumes);
            if CreateContainer::parse(asked.clone()).is_err() {
                continue;
            }
            let written_from = bundle("1.7", pod, &name).unwrap_or_else(|| text.clone());
            let mut document = document(&written_from);
            // The recordings are of two pods.
            let json: Value = serde_json::from_str(&text).unwrap();
            document.pod.name = Some(PodName::Is(annotation(&json, "sandbox-name")));
            let hostname = strings(&json["process"]["env"]);
            let hostname = hostname
                .iter()
                .find_map(|one| one.strip_prefix("HOSTNAME="));
            let hostname = hostname.unwrap_or_default().to_owned();
            cases.push((
                format!("{release} {pod}/{name}"),
                document,
                hostname,
                (asked, volumes),
            ));
        }
    }
    cases
}

#[test]
fn what_a_kubelet_asks_is_allowed_from_either_release() {
    let cases = cases();
    assert!(cases.len() >= 30, "only {} containers", cases.len());
    for (name, document, hostname, asked) in cases {
        let judged = judge(&document, &hostname, asked);
        assert!(judged.is_ok(), "{name}: {}", judged.unwrap_err());
    }
}

type Change = fn(&mut CreateContainerRequest);

fn spec(request: &mut CreateContainerRequest) -> &mut oci::Spec {
    request.OCI.as_mut().unwrap()
}

fn process(request: &mut CreateContainerRequest) -> &mut oci::Process {
    spec(request).Process.as_mut().unwrap()
}

fn linux(request: &mut CreateContainerRequest) -> &mut oci::Linux {
    spec(request).Linux.mut_or_insert_default()
}

fn annotate(request: &mut CreateContainerRequest, name: &str, value: &str) {
    let key = format!("io.kubernetes.cri.{name}");
    spec(request).Annotations.insert(key, value.to_owned());
}

/// A host's copy of a file, mounted.
fn mount(at: &str) -> oci::Mount {
    oci::Mount {
        destination: at.to_owned(),
        source: format!("{SHARE}/x-0123456789abcdef-x"),
        type_: "bind".to_owned(),
        options: vec!["rbind".to_owned()],
        ..oci::Mount::default()
    }
}

/// Each thing that a host can change, with the denial of it.
const CHANGES: [(&str, &str, Change); 33] = [
    ("ARGUMENTS", "/args/0", |one| {
        process(one).Args[0] = "/bin/evil".to_owned()
    }),
    ("ARGUMENTS", "/args/", |one| {
        process(one).Args.push("--evil".to_owned())
    }),
    ("WORKING_DIRECTORY", "", |one| {
        process(one).Cwd = "/evil".to_owned()
    }),
    ("TERMINAL", "", |one| process(one).Terminal ^= true),
    ("ENV_NOT_DECLARED", "/env/LD_PRELOAD", |one| {
        process(one).Env.push("LD_PRELOAD=/evil".to_owned())
    }),
    ("ENV_NOT_DECLARED", "/env/EVIL_SERVICE_HOST", |one| {
        process(one)
            .Env
            .push("EVIL_SERVICE_HOST=10.0.0.1".to_owned())
    }),
    // Of two the last one counts, and is what the program would find.
    ("ENV_VALUE", "/env/PATH", |one| {
        process(one).Env.push("PATH=/evil".to_owned())
    }),
    ("ENV_VALUE", "/env/PATH", |one| {
        process(one).Env[0] = "PATH=/evil".to_owned()
    }),
    ("ENV_VALUE", "/env/HOSTNAME", |one| {
        let entries = process(one).Env.iter_mut();
        entries
            .filter(|one| one.starts_with("HOSTNAME="))
            .for_each(|one| one.push('x'));
    }),
    ("ENV_VALUE", "/env/HOME", |one| {
        process(one).Env.push("HOME=/evil".to_owned())
    }),
    ("USER", "/user/uid", |one| {
        process(one).User.mut_or_insert_default().UID += 1
    }),
    ("USER", "/user/gid", |one| {
        process(one).User.mut_or_insert_default().GID += 1
    }),
    ("GROUPS", "/user/groups", |one| {
        process(one)
            .User
            .mut_or_insert_default()
            .AdditionalGids
            .push(4242)
    }),
    ("CAPABILITIES", "", |one| {
        let sets = process(one).Capabilities.mut_or_insert_default();
        sets.Bounding.retain(|one| one != "CAP_NET_BIND_SERVICE");
    }),
    ("CAPABILITIES", "", |one| {
        let sets = process(one).Capabilities.mut_or_insert_default();
        sets.Ambient.push("CAP_KILL".to_owned());
    }),
    ("NO_NEW_PRIVILEGES", "", |one| {
        process(one).NoNewPrivileges ^= true
    }),
    ("RLIMITS", "", |one| {
        process(one).Rlimits.push(oci::POSIXRlimit {
            Type: "RLIMIT_CORE".to_owned(),
            Hard: 1,
            Soft: 1,
            ..oci::POSIXRlimit::default()
        });
    }),
    ("READ_ONLY_ROOT", "", |one| {
        spec(one).Root.mut_or_insert_default().Readonly ^= true
    }),
    ("MOUNT_NOT_DECLARED", "/mounts/~1usr~1bin", |one| {
        spec(one).Mounts.push(mount("/usr/bin"))
    }),
    ("MOUNT_MISSING", "/mounts/~1etc~1hosts", |one| {
        spec(one)
            .Mounts
            .retain(|one| one.destination != "/etc/hosts")
    }),
    ("MOUNT_SOURCE", "/mounts/~1sys", |one| {
        let mounts = spec(one).Mounts.iter_mut();
        mounts
            .filter(|one| one.destination == "/sys")
            .for_each(|one| *one = mount("/sys"));
    }),
    ("MOUNT_OPTIONS", "/mounts/~1proc", |one| {
        spec(one).Mounts[0].options.push("ro".to_owned())
    }),
    ("MOUNT_OPTIONS", "/mounts/~1etc~1hosts", |one| {
        let mounts = spec(one).Mounts.iter_mut();
        mounts
            .filter(|one| one.destination == "/etc/hosts")
            .for_each(|one| one.options.push("noexec".to_owned()));
    }),
    ("MOUNT_ORDER", "", |one| spec(one).Mounts.swap(0, 1)),
    ("MOUNT_ORDER", "", |one| {
        spec(one).Mounts.push(mount("/etc/hosts"))
    }),
    ("IMAGE_NAME", "", |one| {
        one.storages[0].source = "evil.example/busybox:1".to_owned()
    }),
    ("CONTAINER_NOT_DECLARED", "", |one| {
        annotate(one, "container-name", "evil")
    }),
    ("POD_NAME", "/name", |one| {
        annotate(one, "sandbox-name", "evil")
    }),
    ("POD_NAME", "/namespace", |one| {
        annotate(one, "sandbox-namespace", "evil")
    }),
    ("SYSCTL", "/pod/sysctls/net.core.somaxconn", |one| {
        linux(one)
            .Sysctl
            .insert("net.core.somaxconn".to_owned(), "1".to_owned());
    }),
    ("VOLUME", "/pod/volumes/evil", |one| {
        one.storages.push(Storage {
            driver: "local".to_owned(),
            mount_point: format!("{SHARE}/s/rootfs/local/evil"),
            ..Storage::default()
        });
    }),
    ("PROCESS_NAMESPACE", "", |one| one.sandbox_pidns ^= true),
    ("SECCOMP", "", |one| {
        linux(one).Seccomp = Some(oci::LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ALLOW".to_owned(),
            ..oci::LinuxSeccomp::default()
        })
        .into();
    }),
];

#[test]
fn each_change_of_what_the_owner_decides_is_denied_by_its_code() {
    let mut denied = 0;
    for (name, document, hostname, asked) in cases() {
        for (code, pointer, change) in CHANGES {
            let mut changed = asked.clone();
            change(&mut changed.0);
            // A privileged container may have fewer capabilities.
            let privileged = document.containers[0].rights.privileged;
            // The guest's own profile takes the place of any other.
            let own = document.containers[0].rights.seccomp == Seccomp::RuntimeDefault;
            let skipped = code == "SECCOMP" && own || code == "CAPABILITIES" && privileged;
            if skipped || CreateContainer::parse(changed.0.clone()).is_err() {
                continue;
            }
            let told = judge(&document, &hostname, changed);
            let told = told.expect_err(&format!("{name}: {code} is allowed"));
            assert_eq!(told.finding.code.name(), code, "{name}: {told}");
            let pointers = told.finding.pointers.join(" ");
            assert!(pointers.contains(pointer), "{name}: {told}");
            denied += 1;
        }
    }
    assert!(denied >= 900, "only {denied} changes were judged");
}

#[test]
fn what_only_the_node_decides_does_not_matter() {
    let changes: [Change; 6] = [
        |one| spec(one).Version = "1.3.0".to_owned(),
        |one| linux(one).CgroupsPath = "/other".to_owned(),
        |one| process(one).OOMScoreAdj = 1,
        |one| {
            let resources = linux(one).Resources.mut_or_insert_default();
            resources.Memory.mut_or_insert_default().Limit = 1 << 30;
        },
        |one| annotate(one, "sandbox-log-directory", "/var/log/other"),
        |one| linux(one).MaskedPaths.push("/proc/more".to_owned()),
    ];
    for (name, document, hostname, asked) in cases() {
        for change in changes {
            let mut changed = asked.clone();
            change(&mut changed.0);
            let judged = judge(&document, &hostname, changed);
            assert!(judged.is_ok(), "{name}: {}", judged.unwrap_err());
        }
    }
}

#[test]
fn the_owner_knows_the_digests_that_the_guest_will_log() {
    use policy_engine::workload::Part;
    let text = bundle("2.1", "plain", "main.json").unwrap();
    let mut document = document(&text);
    document.containers[0].env.remove("IP");
    document.containers[0].env.remove("LIMIT");
    let (mut asked, volumes) = request(&text);
    process(&mut asked)
        .Env
        .retain(|one| !one.starts_with("IP=") && !one.starts_with("LIMIT="));
    let spec = CreateContainer::parse(asked).unwrap().spec;
    let mut process = spec.process.process;
    let mut environment = process.env().clone().unwrap();
    environment.push(format!("HOME={HOME}"));
    process.set_env(Some(environment));
    let mut complete = spec.spec;
    complete.set_process(Some(process));
    let found = workload(&complete, &[], &volumes, &pod_facts(&spec.pod)).unwrap();
    let image = OfImage {
        home: Some(HOME.to_owned()),
        groups: BTreeSet::new(),
    };
    let expected = document.containers[0].expected(&document.pod, &image);
    assert!(expected.open.is_empty());
    for part in [Part::Process, Part::Environment, Part::Rights] {
        let (expected, found) = (&expected.workload, &found.workload);
        assert_eq!(
            expected.digest(part),
            found.digest(part),
            "{expected:#?}\n{found:#?}"
        );
    }
}
