//! The workload digests of the recorded pods (`docs/workload-digest.md`): the same from either
//! release of containerd, and for each replica.
//!
//! A bundle goes the way of a real one: through the shim's own transformation, the guest's own
//! parser, and the guest's own normal form.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "sources of other crates, of which only a part is used; a test may unwrap"
)]

mod recorded;

use agent_evidence::log::ContainerDigests;
use agent_requests::{CreateContainer, Parse};
use agent_workload::pod_facts;
use recorded::{bundle, containers, request};
use serde_json::Value;

/// The digests of what the guest makes of a bundle; `None` where either side refuses it.
fn digests(text: &str) -> Option<(ContainerDigests, Vec<String>)> {
    let (request, volumes) = request(text);
    let parsed = CreateContainer::parse(request);
    let parsed = parsed
        .inspect_err(|error| println!("refused: {error}"))
        .ok()?
        .spec;
    let mut complete = parsed.spec;
    complete.set_process(Some(parsed.process.process));
    let facts = pod_facts(&parsed.pod);
    let told = agent_workload::workload(&complete, &parsed.sysctls, &volumes, &facts).unwrap();
    Some((told.digests, told.chosen))
}

/// The text of another replica: another name, UID, address, ids, token and services.
fn replica(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap();
    let annotation = |name: &str| {
        let value = &json["annotations"][format!("io.kubernetes.cri.{name}")];
        value.as_str().unwrap().to_owned()
    };
    let group = json["linux"]["cgroupsPath"].as_str().unwrap();
    let id = group.rsplit('/').next().unwrap();
    let name = annotation("sandbox-name");
    let mut text = text.to_owned();
    for (from, to) in [
        (annotation("sandbox-id").as_str(), "a".repeat(64).as_str()),
        (id, "b".repeat(64).as_str()),
        (
            annotation("sandbox-uid").as_str(),
            "0e91a9b2-6f0a-4d4e-9c55-000000000001",
        ),
        (
            format!("sandbox-name\": \"{name}\"").as_str(),
            "sandbox-name\": \"other-1\"",
        ),
        (format!("HOSTNAME={name}").as_str(), "HOSTNAME=other-1"),
        (format!("NAME={name}").as_str(), "NAME=other-1"),
        (format!("POD={name}").as_str(), "POD=other-1"),
        ("10.96.0.1", "10.97.0.9"),
        ("kube-api-access-", "kube-api-access-x"),
    ] {
        text = text.replace(from, to);
    }
    text
}

/// An address that the guest has is told as such; natively only the UID can play that part.
fn address_known(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap();
    let uid = json["annotations"]["io.kubernetes.cri.sandbox-uid"]
        .as_str()
        .unwrap();
    let environment = json["process"]["env"].as_array().into_iter().flatten();
    let address = environment
        .filter_map(Value::as_str)
        .find_map(|one| one.strip_prefix("IP="));
    match address {
        Some(address) => text.replace(&format!("IP={address}"), &format!("IP={uid}")),
        None => text.to_owned(),
    }
}

/// Which of the parts differ.
fn differing(one: &ContainerDigests, other: &ContainerDigests) -> Vec<&'static str> {
    let parts = [
        ("process", one.process == other.process),
        ("environment", one.environment == other.environment),
        ("mounts", one.mounts == other.mounts),
        ("rights", one.rights == other.rights),
        ("settings", one.settings == other.settings),
    ];
    let differing = parts.into_iter().filter(|(_, same)| !same);
    differing.map(|(part, _)| part).collect()
}

#[test]
fn containerd_1_7_and_2_1_give_a_pod_the_same_digests() {
    let mut compared = 0;
    for (pod, container) in containers() {
        let (Some(old), Some(new)) = (
            bundle("1.7", pod, &container),
            bundle("2.1", pod, &container),
        ) else {
            // 1.7 has no Strict groups and no image volumes.
            assert!(matches!(pod, "users" | "image-volume"), "{pod}/{container}");
            continue;
        };
        let (old, new) = (digests(&address_known(&old)), digests(&address_known(&new)));
        let (Some((old, _)), Some((new, _))) = (&old, &new) else {
            assert_eq!(
                old.is_some(),
                new.is_some(),
                "{pod}/{container}: refused from one only"
            );
            continue;
        };
        let found = differing(old, new);
        assert!(found.is_empty(), "{pod}/{container}: {found:?}");
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} containers were compared");
}

#[test]
fn every_replica_of_a_pod_has_the_same_digests() {
    for release in ["1.7", "2.1"] {
        for (pod, container) in containers() {
            let Some(text) = bundle(release, pod, &container) else {
                continue;
            };
            let text = address_known(&text);
            let (one, other) = (digests(&text), digests(&replica(&text)));
            let (Some((one, chosen)), Some((other, others))) = (one, other) else {
                continue;
            };
            let found = differing(&one, &other);
            assert!(found.is_empty(), "{release} {pod}/{container}: {found:?}");
            // What differs is told beside the digests.
            assert!(chosen.is_empty() || chosen != others, "{pod}/{container}");
        }
    }
}

#[test]
fn what_the_owner_decides_has_other_digests() {
    let text = bundle("2.1", "plain", "main.json").unwrap();
    let (one, _) = digests(&text).unwrap();
    for (from, to, part) in [
        ("echo hello world", "echo hello there", "process"),
        ("GREETING=world", "GREETING=there", "environment"),
        ("\"CAP_KILL\"", "\"CAP_SYS_PTRACE\"", "rights"),
        ("\"/dev/termination-log\"", "\"/dev/other-log\"", "mounts"),
    ] {
        assert!(text.contains(from), "{from}");
        let (other, _) = digests(&text.replace(from, to)).unwrap();
        assert_eq!(differing(&one, &other), [part], "{from}");
    }
}
