//! What containerd is asked for a pod and for a container, in the form of the recordings.

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use policy_generator::Quantity;
use serde_json::{Map, Value, json};

use super::{
    environment::{Known, environment, list, words},
    objects::Objects,
    place::{directory, volume_of},
};

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Where a container leaves its last words unless it says otherwise.
const TERMINATION: &str = "/dev/termination-log";

/// The `PodSandboxConfig`.
#[must_use]
pub fn sandbox_config(objects: &Objects, logs: &str) -> Value {
    let (metadata, spec) = (&objects.pod["metadata"], &objects.pod["spec"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, namespace, uid) = (
        text(&metadata["name"]),
        text(&metadata["namespace"]),
        text(&metadata["uid"]),
    );
    let hostname = spec["hostname"].as_str().unwrap_or(&name);
    let mut labels = metadata["labels"].as_object().cloned().unwrap_or_default();
    labels.extend(pod_labels(metadata));
    let mut annotations = metadata["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    annotations.insert("kubernetes.io/config.source".to_owned(), json!("api"));
    let security = &spec["securityContext"];
    let mut context = common_security(spec);
    context.insert("seccomp".to_owned(), json!({}));
    number(&mut context, "run_as_user", &security["runAsUser"]);
    number(&mut context, "run_as_group", &security["runAsGroup"]);
    if list(&spec["containers"]).any(is_privileged) {
        context.insert("privileged".to_owned(), json!(true));
    }
    let mut linux = json!({
        "cgroup_parent": format!("/kubepods/besteffort/pod{uid}"),
        "security_context": context,
        "resources": {"cpu_period": "100000", "cpu_shares": "2"},
    });
    let sysctls: Map<_, _> = list(&security["sysctls"])
        .map(|one| (text(&one["name"]), one["value"].clone()))
        .collect();
    if !sysctls.is_empty() {
        linux["sysctls"] = Value::Object(sysctls);
    }
    json!({
        "metadata": {"name": name, "uid": uid, "namespace": namespace},
        "hostname": hostname.get(..63).unwrap_or(hostname).trim_end_matches('-'),
        "log_directory": format!("{logs}/{namespace}_{name}_{uid}"),
        "dns_config": dns(spec, &namespace),
        "labels": labels,
        "annotations": annotations,
        "linux": linux,
    })
}

/// The cluster's servers, unless the pod names its own.
fn dns(spec: &Value, namespace: &str) -> Value {
    if spec["dnsPolicy"] != "None" {
        let search = format!("{namespace}.svc.cluster.local");
        return json!({"servers": ["10.96.0.10"],
            "searches": [search, "svc.cluster.local", "cluster.local"], "options": ["ndots:5"]});
    }
    let own = &spec["dnsConfig"];
    let options = list(&own["options"]).map(|option| {
        let name = option["name"].as_str().unwrap_or_default();
        match option["value"].as_str() {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        }
    });
    json!({"servers": own["nameservers"], "searches": own["searches"],
        "options": options.collect::<Vec<_>>()})
}

fn is_privileged(container: &Value) -> bool {
    container["securityContext"]["privileged"] == json!(true)
}

fn pod_labels(metadata: &Value) -> Map<String, Value> {
    let names = ["name", "namespace", "uid"];
    let label = |name: &str| (format!("io.kubernetes.pod.{name}"), metadata[name].clone());
    names.into_iter().map(label).collect()
}

/// The `ContainerConfig`; `image` is its id, and `image_user` the user that it says.
///
/// # Errors
/// When a variable refers to what is not there.
pub fn container_config(
    objects: &Objects,
    container: &Value,
    known: &Known,
    (image, image_user): (&str, &str),
) -> Result<Value> {
    let name = container["name"]
        .as_str()
        .context("a container has a name")?;
    let environment = environment(objects, container, known)?;
    let termination = container["terminationMessagePath"]
        .as_str()
        .unwrap_or(TERMINATION);
    let mut labels = pod_labels(&objects.pod["metadata"]);
    labels.insert("io.kubernetes.container.name".to_owned(), json!(name));
    let envs = environment.iter().map(|(key, value)| match value.as_str() {
        "" => json!({"key": key}),
        value => json!({"key": key, "value": BASE64_STANDARD.encode(value)}),
    });
    let mut config = json!({
        "metadata": {"name": name},
        "image": {"image": image, "user_specified_image": container["image"]},
        "envs": envs.collect::<Vec<_>>(),
        "mounts": mounts(objects, container, (name, termination)),
        "labels": labels,
        "annotations": {
            "io.kubernetes.container.restartCount": "0",
            "io.kubernetes.container.terminationMessagePath": termination,
            "io.kubernetes.container.terminationMessagePolicy": "File",
        },
        "log_path": format!("{name}/0.log"),
        "linux": {
            "resources": resources(container),
            "security_context": security(objects, container, image_user),
        },
    });
    for (field, words) in [
        ("command", words(&container["command"], &environment)),
        ("args", words(&container["args"], &environment)),
    ] {
        if !words.is_empty() {
            config[field] = json!(words);
        }
    }
    for (field, from) in [
        ("working_dir", "workingDir"),
        ("stdin", "stdin"),
        ("stdin_once", "stdinOnce"),
        ("tty", "tty"),
    ] {
        if !container[from].is_null() {
            config[field] = container[from].clone();
        }
    }
    Ok(config)
}

fn mounts(objects: &Objects, container: &Value, (name, termination): (&str, &str)) -> Vec<Value> {
    let directory = directory(&objects.pod);
    let mut all = Vec::new();
    for (number, mount) in list(&container["volumeMounts"]).enumerate() {
        let volume = volume_of(&objects.pod, mount);
        let has_part = mount["subPath"].is_string() || mount["subPathExpr"].is_string();
        let host_path = match has_part {
            true => format!(
                "{directory}/volume-subpaths/{}/{name}/{number}",
                volume.name
            ),
            false => volume.path,
        };
        let mut made = json!({"container_path": mount["mountPath"], "host_path": host_path});
        if volume.read_only || mount["readOnly"] == json!(true) {
            made["readonly"] = json!(true);
        }
        if mount["mountPropagation"] == "HostToContainer" {
            made["propagation"] = json!("PROPAGATION_HOST_TO_CONTAINER");
        }
        all.push(made);
    }
    let hosts = format!("{directory}/etc-hosts");
    all.push(json!({"container_path": "/etc/hosts", "host_path": hosts}));
    let words = format!("{directory}/containers/{name}/127f3fbf");
    all.push(json!({"container_path": termination, "host_path": words}));
    all
}

fn resources(container: &Value) -> Value {
    let mut all = json!({"cpu_period": "100000", "cpu_shares": "2", "oom_score_adj": "1000"});
    let limits = &container["resources"]["limits"];
    let amount = |name: &str| Quantity::parse(limits[name].as_str()?);
    if let Some(memory) = amount("memory") {
        all["memory_limit_in_bytes"] = json!(memory.units().to_string());
    }
    if let Some(processors) = amount("cpu") {
        all["cpu_quota"] = json!((processors.milli() * 100).to_string());
    }
    all
}

/// What a pod and its containers have alike.
fn common_security(spec: &Value) -> Map<String, Value> {
    let security = &spec["securityContext"];
    let mut namespaces = json!({"userns_options": {"mode": "NODE"}});
    if spec["shareProcessNamespace"] != json!(true) {
        namespaces["pid"] = json!("CONTAINER");
    }
    let mut context = Map::new();
    context.insert("namespace_options".to_owned(), namespaces);
    let group = security["fsGroup"].as_u64();
    let groups = list(&security["supplementalGroups"]).filter_map(Value::as_u64);
    let groups: Vec<_> = group
        .into_iter()
        .chain(groups)
        .map(|one| one.to_string())
        .collect();
    if !groups.is_empty() {
        context.insert("supplemental_groups".to_owned(), json!(groups));
    }
    if security["supplementalGroupsPolicy"] == "Strict" {
        context.insert("supplemental_groups_policy".to_owned(), json!("Strict"));
    }
    context
}

fn number(context: &mut Map<String, Value>, name: &str, value: &Value) {
    if let Some(number) = value.as_u64() {
        let value = match number {
            0 => json!({}),
            other => json!({"value": other.to_string()}),
        };
        context.insert(name.to_owned(), value);
    }
}

fn security(objects: &Objects, container: &Value, image_user: &str) -> Map<String, Value> {
    let spec = &objects.pod["spec"];
    let (own, pod) = (&container["securityContext"], &spec["securityContext"]);
    let either = |name: &str| match own[name].is_null() {
        true => pod[name].clone(),
        false => own[name].clone(),
    };
    let mut context = common_security(spec);
    let user = image_user.split(':').next().unwrap_or_default();
    match (either("runAsUser"), user.parse::<u64>()) {
        (Value::Null, Err(_)) if !user.is_empty() => {
            context.insert("run_as_username".to_owned(), json!(user));
        }
        (Value::Null, found) => number(&mut context, "run_as_user", &json!(found.unwrap_or(0))),
        (user, _) => number(&mut context, "run_as_user", &user),
    }
    number(&mut context, "run_as_group", &either("runAsGroup"));
    let mut capabilities = Map::new();
    for (field, from) in [("add_capabilities", "add"), ("drop_capabilities", "drop")] {
        if own["capabilities"][from].is_array() {
            capabilities.insert(field.to_owned(), own["capabilities"][from].clone());
        }
    }
    if !capabilities.is_empty() {
        context.insert("capabilities".to_owned(), Value::Object(capabilities));
    }
    for (field, is_so) in [
        ("privileged", is_privileged(container)),
        (
            "readonly_rootfs",
            own["readOnlyRootFilesystem"] == json!(true),
        ),
        (
            "no_new_privs",
            own["allowPrivilegeEscalation"] == json!(false),
        ),
    ] {
        if is_so {
            context.insert(field.to_owned(), json!(true));
        }
    }
    context.insert("masked_paths".to_owned(), json!(MASKED));
    context.insert("readonly_paths".to_owned(), json!(READ_ONLY));
    let seccomp = match either("seccompProfile")["type"].as_str() {
        Some("RuntimeDefault") => json!({}),
        _ => json!({"profile_type": "Unconfined"}),
    };
    context.insert("seccomp".to_owned(), seccomp);
    context
}
