//! The kubelet that drives pods which were not recorded asks containerd for what a real one asked:
//! for each recorded pod, field by field.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tests_replay::{Known, Objects, PODS, container_config, sandbox_config};

/// Recorded pods that are left out: they have what no confidential pod can have, or an image as a
/// volume.
const LEFT_OUT: [&str; 4] = ["host-namespaces", "host-paths", "image-volume", "ports"];
const SANDBOX: [&str; 4] = ["metadata", "hostname", "dns_config", "labels"];
const CONTAINER: [&str; 7] = [
    "command",
    "args",
    "working_dir",
    "stdin",
    "tty",
    "log_path",
    "labels",
];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("recordings")
        .join(name);
    fs::read_to_string(path).unwrap()
}

fn calls(pod: &str) -> Vec<Value> {
    let text = read(&format!("calls/{pod}.jsonl"));
    let calls = text.lines().map(|line| serde_json::from_str(line).unwrap());
    calls.collect()
}

fn environment(config: &Value) -> BTreeMap<String, String> {
    let variables = config["envs"].as_array().into_iter().flatten();
    let variable = |one: &Value| {
        let value = BASE64_STANDARD.decode(one["value"].as_str().unwrap_or_default());
        let value = String::from_utf8(value.unwrap()).unwrap();
        (one["key"].as_str().unwrap().to_owned(), value)
    };
    variables.map(variable).collect()
}

/// Destinations and sources of the mounts, without what is chance in a source's name.
fn mounts(config: &Value) -> Vec<Value> {
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let mount = |one: &Value| {
        let mut one = one.clone();
        let source = one["host_path"].as_str().unwrap_or_default();
        let source = match (
            source.contains("/containers/"),
            source.split_once("kube-api-access-"),
        ) {
            (true, _) => source.rsplit_once('/').unwrap().0.to_owned(),
            (_, Some((before, _))) => before.to_owned(),
            _ => source.to_owned(),
        };
        one["host_path"] = json!(source);
        one
    };
    mounts.map(mount).collect()
}

fn known(recorded: &BTreeMap<String, String>) -> Known {
    let of = |name: &str| recorded.get(name).cloned().unwrap_or_default();
    Known {
        node: of("NODE"),
        host_address: of("HOST_IP"),
        address: of("IP"),
        memory: of("LIMIT").parse().unwrap_or(0),
        has_service: false,
    }
}

fn compare(pod: &str, wrong: &mut Vec<String>) -> usize {
    let calls = calls(pod);
    let recorded = &calls[0]["request"]["config"];
    let uid = recorded["metadata"]["uid"].as_str().unwrap();
    let objects = Objects::read(&read(&format!("pods/{pod}.yaml")), uid).unwrap();
    let mut differs = |what: String, recorded: &Value, here: &Value| {
        if recorded != here {
            wrong.push(format!("{pod}/{what}: recorded {recorded}, here {here}"));
        }
    };
    let sandbox = sandbox_config(&objects, "/var/log/pods");
    for field in SANDBOX {
        differs(
            format!("sandbox.{field}"),
            &recorded[field],
            &sandbox[field],
        );
    }
    for field in ["security_context", "sysctls"] {
        let (recorded, here) = (&recorded["linux"][field], &sandbox["linux"][field]);
        differs(format!("sandbox.{field}"), recorded, here);
    }
    let lists = ["initContainers", "containers"].map(|list| objects.pod["spec"][list].clone());
    let containers: Vec<_> = lists.iter().filter_map(Value::as_array).flatten().collect();
    let mut compared = 0;
    for call in calls
        .iter()
        .filter(|call| call["method"] == "CreateContainer")
    {
        let recorded = &call["request"]["config"];
        let name = &recorded["metadata"]["name"];
        let Some(container) = containers.iter().find(|one| one["name"] == *name) else {
            // One that was added while the pod ran.
            continue;
        };
        if recorded["metadata"]["attempt"].is_string() || recorded["metadata"]["attempt"].is_u64() {
            continue;
        }
        let variables = environment(recorded);
        let here = container_config(&objects, container, &known(&variables), ("", "")).unwrap();
        for field in CONTAINER {
            differs(format!("{name}.{field}"), &recorded[field], &here[field]);
        }
        differs(
            format!("{name}.envs"),
            &json!(variables),
            &json!(environment(&here)),
        );
        differs(
            format!("{name}.mounts"),
            &json!(mounts(recorded)),
            &json!(mounts(&here)),
        );
        let field = "security_context";
        differs(
            format!("{name}.{field}"),
            &recorded["linux"][field],
            &here["linux"][field],
        );
        compared += 1;
    }
    compared
}

#[test]
fn what_containerd_is_asked_is_what_a_kubelet_asked() {
    let mut wrong = Vec::new();
    let recorded = PODS.iter().filter(|pod| !LEFT_OUT.contains(pod));
    let compared: usize = recorded.map(|pod| compare(pod, &mut wrong)).sum();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 20, "only {compared} containers were compared");
}
