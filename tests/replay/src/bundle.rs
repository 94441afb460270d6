//! An OCI spec in normal form: without what is chance, or the node's and not the kubelet's.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{image, recording};

/// The recorded bundles of a pod, by container, in normal form.
///
/// # Errors
/// When a file cannot be read, or is no spec.
pub fn recorded(release: &str, pod: &str) -> Result<Vec<(String, Value)>> {
    let directory = recording::directory()
        .join("bundles")
        .join(release)
        .join(pod);
    let mut all = Vec::new();
    // No bundle of `ends` and `restarts` was there long enough.
    for entry in std::fs::read_dir(&directory).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_stem().context("a bundle has a name")?;
        let spec = serde_json::from_slice(&std::fs::read(&path)?)?;
        all.push((name.to_string_lossy().into_owned(), normal(&spec)));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}

/// Brings a spec into normal form.
#[must_use]
pub fn normal(spec: &Value) -> Value {
    let annotation = |name: &str| {
        let value = &spec["annotations"][format!("io.kubernetes.cri.{name}")];
        value.as_str().unwrap_or_default().to_owned()
    };
    let group = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    let mut words = vec![
        (annotation("sandbox-id"), "SANDBOX".to_owned()),
        (annotation("sandbox-uid"), "UID".to_owned()),
        // The last part of the path is the container's id.
        (
            group.rsplit('/').next().unwrap_or_default().to_owned(),
            "CONTAINER".to_owned(),
        ),
        ("/run/bed/pods".to_owned(), "/var/log/pods".to_owned()),
    ];
    let images = image::names().into_iter();
    words.extend(images.zip(image::RECORDED.map(str::to_owned)));
    words.retain(|(word, _)| !word.is_empty());
    let mut spec = replaced(spec.clone(), &words);
    if annotation("container-type") == "sandbox" {
        without_image(&mut spec);
    }
    without_node(&mut spec, &annotation("sandbox-name"));
    spec
}

fn replaced(value: Value, words: &[(String, String)]) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text, words)),
        Value::Array(values) => {
            let values = values.into_iter();
            values.map(|value| replaced(value, words)).collect()
        }
        Value::Object(members) => {
            let members = members.into_iter();
            members
                .map(|(name, value)| (name, replaced(value, words)))
                .collect()
        }
        other => other,
    }
}

/// Each with what stands before chance, and what ends it.
const CHANCE: [(&str, char); 6] = [
    ("/proc/", '/'),
    ("/netns/cni-", '/'),
    ("/kube-api-access-", '/'),
    ("/image-volumes/SANDBOX/", '/'),
    ("/containers/main/", '/'),
    ("IP=", '\n'),
];

fn plain(text: &str, words: &[(String, String)]) -> String {
    let mut text = text.to_owned();
    for (word, name) in words {
        text = text.replace(word, name);
    }
    for (before, end) in CHANCE {
        // A namespace of a process; other paths below `/proc` are no chance.
        let is_other = before == "/proc/" && !text.contains("/ns/");
        let Some((start, rest)) = text.split_once(before).filter(|_| !is_other) else {
            continue;
        };
        let rest = rest.split_once(end).map_or("", |(_, rest)| rest);
        text = format!("{start}{before}N{end}{rest}");
    }
    text
}

/// The bed's pause image is another than the recorded one.
fn without_image(spec: &mut Value) {
    for part in ["args", "user", "env"] {
        spec["process"][part] = Value::Null;
    }
    spec["annotations"]["io.kubernetes.cri.podsandbox.image-name"] = Value::Null;
}

/// The node's name and devices, and the order of variables, which the kubelet does not keep.
fn without_node(spec: &mut Value, pod: &str) {
    spec["linux"]["devices"] = Value::Null;
    if let Some(variables) = spec["process"]["env"].as_array_mut() {
        if pod == "host-namespaces" {
            variables.retain(|one| !one.as_str().unwrap_or_default().starts_with("HOSTNAME="));
        }
        variables.sort_by_key(Value::to_string);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(uid: &str, pid: &str, variables: &[&str]) -> Value {
        json!({
            "annotations": {
                "io.kubernetes.cri.sandbox-id": "s1",
                "io.kubernetes.cri.sandbox-uid": uid,
                "io.kubernetes.cri.container-type": "container",
            },
            "process": {"env": variables},
            "linux": {
                "cgroupsPath": format!("/kubepods/pod{uid}/c1"),
                "namespaces": [{"path": format!("/proc/{pid}/ns/net")}],
                "maskedPaths": ["/proc/kcore"],
            },
        })
    }

    #[test]
    fn what_is_chance_does_not_count_and_the_rest_does() {
        let one = normal(&spec("u1", "17", &["A=1", "IP=10.88.0.3"]));
        assert_eq!(one, normal(&spec("u2", "1800", &["IP=10.88.0.4", "A=1"])));
        assert_ne!(one, normal(&spec("u1", "17", &["A=2", "IP=10.88.0.3"])));
        assert_eq!(one["linux"]["maskedPaths"], json!(["/proc/kcore"]));
        assert_eq!(one["linux"]["cgroupsPath"], "/kubepods/podUID/CONTAINER");
    }

    #[test]
    fn recorded_bundles_are_specs() {
        assert_eq!(recorded("2.1", "life").unwrap().len(), 4);
        assert!(recorded("2.1", "ends").unwrap().is_empty());
    }
}
