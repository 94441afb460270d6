//! The policy that is made of a recorded pod's YAML expects of each container what the guest makes
//! of the bundle that containerd gave to the shim: field by field, for both recorded releases.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "sources of other crates, of which only a part is used; a test may unwrap"
)]

#[path = "../../../policy/generator/tests/support/mod.rs"]
mod images;
mod recorded;

use std::{collections::BTreeSet, fs, path::Path};

use agent_requests::{CreateContainer, Parse};
use agent_workload::{Described, pod_facts};
use images::{Layout, choices, strict};
use policy_engine::{
    OfImage,
    document::{Container, Document, Origin, Seccomp, Variable},
    workload::Part,
};
use policy_generator::{Problems, Text, generate};
use recorded::{bundle, request};
use serde_json::{Value, json};

/// What a policy can be made of, and what is recorded of it.
const PODS: [(&str, &[&str]); 13] = [
    ("configuration", &["main"]),
    ("emptydirs", &["main", "second"]),
    ("life", &["main", "sidecar"]),
    ("namespaces", &["one", "two"]),
    ("plain", &["main"]),
    ("pod-resources", &["one", "two"]),
    ("ports", &["main"]),
    ("privileged", &["main"]),
    ("resources", &["main", "burst"]),
    ("stdin", &["terminal", "waits"]),
    ("user-only", &["numeric", "non-root"]),
    ("users", &["strict", "loose"]),
    ("host-paths", &["one", "two"]),
];

/// Lines of `host-paths` with what no confidential pod can have.
const IMPOSSIBLE: [&str; 2] = ["{name: device", "{name: socket"];

/// Every field of a container's normal form.
const FIELDS: [(Part, &str); 13] = [
    (Part::Process, "process.args"),
    (Part::Process, "process.cwd"),
    (Part::Process, "process.terminal"),
    (Part::Environment, "process.env"),
    (Part::Rights, "process.user.uid"),
    (Part::Rights, "process.user.gid"),
    (Part::Rights, "process.user.additionalGids"),
    (Part::Rights, "process.capabilities"),
    (Part::Rights, "process.noNewPrivileges"),
    (Part::Rights, "linux.maskedPaths"),
    (Part::Rights, "linux.readonlyPaths"),
    (Part::Mounts, "root.readonly"),
    (Part::Mounts, "mounts"),
];

fn recorded(pod: &str) -> Text {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recordings/pods/{pod}.yaml"));
    Text {
        name: format!("{pod}.yaml"),
        text: fs::read_to_string(path).unwrap(),
    }
}

fn made(layout: &Layout, text: Text) -> Result<Document, Problems> {
    let made = generate(vec![text], vec![], &strict(), &layout.images(), &choices())?;
    Ok(made.policies.into_iter().next().unwrap().document)
}

/// The same pod without what no confidential pod can have, which the shim refuses.
fn possible(pod: &str) -> Text {
    let mut text = recorded(pod);
    let lines = text
        .text
        .lines()
        .filter(|line| !IMPOSSIBLE.iter().any(|word| line.contains(word)));
    text.text = lines.collect::<Vec<_>>().join("\n");
    text
}

/// Puts what the pod was in the end in the place of what nobody knew before.
fn settle(container: &mut Container, environment: &[String]) {
    for (name, variable) in &mut container.env {
        let entry = environment
            .iter()
            .find_map(|one| one.strip_prefix(&format!("{name}=")));
        let value = entry
            .unwrap_or_else(|| panic!("{name} is not in the bundle"))
            .to_owned();
        match variable {
            Variable::From(Origin::Number) => {
                assert!(value.bytes().all(|b| b.is_ascii_digit()), "{name}={value}");
                *variable = Variable::Is(value);
            }
            Variable::From(Origin::Digest(salted)) => {
                let (salt, digest) = salted.split_once(':').unwrap();
                let mut bytes = hex::decode(salt).unwrap();
                bytes.extend(value.as_bytes());
                assert_eq!(
                    agent_evidence::Sha256Digest::of(&[&bytes]).to_string(),
                    digest,
                    "{name}"
                );
                *variable = Variable::Is(value);
            }
            // Natively, only the UID can play an address's part.
            Variable::From(Origin::Field(field)) if field == "status.podIP" => {
                *field = "metadata.uid".to_owned();
            }
            _ => {}
        }
    }
}

/// A bundle as the guest sees it: with a home, and an address that it knows.
fn in_guest(pod: &str, text: &str) -> (String, Vec<String>) {
    let mut json: Value = serde_json::from_str(text).unwrap();
    let uid = json["annotations"]["io.kubernetes.cri.sandbox-uid"].clone();
    let variables = json["process"]["env"].as_array_mut().unwrap();
    for variable in variables.iter_mut() {
        if variable.as_str().unwrap().starts_with("IP=") {
            *variable = json!(format!("IP={}", uid.as_str().unwrap()));
        }
    }
    variables.push(json!("HOME=/root"));
    let environment = variables.iter().map(|one| one.as_str().unwrap().to_owned());
    let environment = environment.collect();
    // containerd is told to give privileged pods no devices (`privileged_without_host_devices`).
    json["linux"]["devices"] = json!([]);
    let mounts = json["mounts"].as_array_mut().unwrap();
    for mount in mounts.iter_mut() {
        if let Some(part) = part(pod, mount["source"].as_str().unwrap()) {
            mount["source"] = json!(part);
        }
    }
    let gone = ["/device", "/socket"];
    mounts.retain(|mount| !gone.contains(&mount["destination"].as_str().unwrap()));
    (json.to_string(), environment)
}

/// The part of a volume that the kubelet mounted for a `subPath`, by the listing of the pod.
fn part(pod: &str, source: &str) -> Option<String> {
    let (_, place) = source.split_once("/volume-subpaths/")?;
    let listing =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recordings/volumes/{pod}.txt"));
    let listing = fs::read_to_string(listing).unwrap();
    listing.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (root, point) = (words.next()?, words.next()?);
        let is_it = point.ends_with(&format!("/volume-subpaths/{place}"));
        is_it.then(|| root.to_owned())
    })
}

/// What the guest makes of a bundle: with volumes in its memory, and a file for the container's
/// last message.
fn described(text: &str, container: &Container, document: &Document) -> Described {
    let (request, volumes) = request(text);
    let id = request.container_id.clone();
    let parsed = CreateContainer::parse(request).unwrap().spec;
    let mut complete = parsed.spec;
    complete.set_process(Some(parsed.process.process));
    let in_memory = |name: &str| document.pod.volumes.get(name).is_some_and(|one| one.memory);
    let message = container
        .termination_path
        .as_deref()
        .unwrap_or("/dev/termination-log");
    for mount in complete.mounts_mut().iter_mut().flatten() {
        let source = mount
            .source()
            .clone()
            .unwrap_or_default()
            .display()
            .to_string();
        if mount.destination() == Path::new(message) {
            let own = format!("/run/kata-containers/{id}/termination-log");
            mount.set_source(Some(own.into()));
            let options = ["bind", "rprivate", "rw", "nosuid", "nodev", "noexec"];
            mount.set_options(Some(options.map(str::to_owned).into()));
        } else if let Some((_, name)) = source.split_once("/rootfs/local/")
            && in_memory(name.split('/').next().unwrap())
        {
            let own = format!("/run/kata-containers/sandbox/ephemeral/{name}");
            mount.set_source(Some(own.into()));
        }
    }
    let facts = pod_facts(&parsed.pod);
    agent_workload::workload(&complete, &parsed.sysctls, &volumes, &facts).unwrap()
}

fn compare(release: &str, pod: &str, name: &str, document: &Document) -> bool {
    let Some(text) = bundle(release, pod, &format!("{name}.json")) else {
        return false;
    };
    let (text, environment) = in_guest(pod, &text);
    let mut containers = document.containers.iter();
    let mut container = containers.find(|one| one.name == name).unwrap().clone();
    settle(&mut container, &environment);
    let described = described(&text, &container, document);
    let image = OfImage {
        home: Some("/root".to_owned()),
        groups: BTreeSet::new(),
    };
    let expected = container.expected(&document.pod, &image);
    assert!(
        expected.open.is_empty(),
        "{pod}/{name}: {:?} open",
        expected.open
    );
    for (part, field) in FIELDS {
        let (wanted, found) = (
            expected.workload.field(part, field),
            described.workload.field(part, field),
        );
        if field == "process.capabilities" && container.rights.privileged {
            // containerd gives those that it has itself, which depends on the node.
            assert!(
                is_part(found.unwrap(), wanted.unwrap()),
                "{release} {pod}/{name}: {field}"
            );
            continue;
        }
        assert_eq!(wanted, found, "{release} {pod}/{name}: {field}");
    }
    let filter = |workload: &policy_engine::workload::Workload| {
        workload.field(Part::Rights, "linux.seccomp").is_some()
    };
    // The guest's own profile takes the place of the node's.
    let is_default = container.rights.seccomp == Seccomp::RuntimeDefault;
    assert_eq!(filter(&described.workload), is_default, "{pod}/{name}");
    assert_eq!(filter(&expected.workload), is_default, "{pod}/{name}");
    if !is_default && !container.rights.privileged {
        for part in [Part::Process, Part::Environment, Part::Rights, Part::Mounts] {
            let digests = (
                expected.workload.digest(part),
                described.workload.digest(part),
            );
            assert_eq!(digests.0, digests.1, "{release} {pod}/{name}: {part:?}");
        }
    }
    true
}

/// Whether each set is a part of the other one's.
fn is_part(sets: &Value, of: &Value) -> bool {
    let all = sets.as_object().unwrap().iter();
    let mut all = all.flat_map(|(set, names)| {
        let names = names.as_array().unwrap().iter();
        names
            .map(|name| of[set].as_array().unwrap().contains(name))
            .collect::<Vec<_>>()
    });
    all.all(|there| there)
}

#[test]
fn a_policy_expects_what_containerd_1_7_and_2_1_ask_for() {
    let layout = Layout::make();
    let mut compared = 0;
    for (pod, containers) in PODS {
        let document =
            made(&layout, possible(pod)).unwrap_or_else(|error| panic!("{pod}: {error}"));
        for release in ["1.7", "2.1"] {
            for name in containers {
                compared += usize::from(compare(release, pod, name, &document));
            }
        }
    }
    // 1.7 has no strict groups, so `users` is recorded once.
    assert_eq!(compared, 42);
}

#[test]
fn probes_and_hooks_are_the_commands_that_the_kubelet_ran() {
    let layout = Layout::make();
    let document = made(&layout, recorded("life")).unwrap();
    let calls = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/calls/life.jsonl");
    let mut ran = BTreeSet::new();
    for line in fs::read_to_string(calls).unwrap().lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        if call["method"] == "ExecSync" {
            let words = call["request"]["cmd"].as_array().unwrap().iter();
            ran.insert(
                words
                    .map(|w| w.as_str().unwrap().to_owned())
                    .collect::<Vec<_>>(),
            );
        }
    }
    let allowed = document.containers.iter().flat_map(|one| one.exec.clone());
    let allowed: BTreeSet<_> = allowed.collect();
    assert!(!ran.is_empty());
    for words in &ran {
        assert!(
            allowed.contains(words),
            "{words:?} was run and is not allowed"
        );
    }
}

#[test]
fn what_the_shim_refuses_gets_no_policy() {
    let layout = Layout::make();
    for (pod, fields) in [
        (
            "host-namespaces",
            &["hostNetwork", "hostPID", "hostIPC"][..],
        ),
        (
            "host-paths",
            &["spec.volumes[2].hostPath", "spec.volumes[3].hostPath"],
        ),
        ("image-volume", &["spec.volumes[0].image"]),
    ] {
        let problems = made(&layout, recorded(pod)).unwrap_err().to_string();
        for field in fields {
            assert!(problems.contains(field), "{pod}: {field} in {problems}");
        }
    }
}
