//! What a pod asks for that no VM can give, or that would silently be something else in one.
//!
//! It is refused by name before anything is made for the pod: kubelet tries again for as long as
//! the pod exists, and each time must cost nothing.

use serde_json::Value;
use shim_configuration::{Config, Internetworking};
use shim_oci::{Linux, Mount, Resources, Spec};
use thiserror::Error;

/// Why a pod or container can never run.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Impossible {
    /// The spec has no network of its own.
    #[error(
        "the pod uses the host's network, which a VM cannot: remove hostNetwork, or set internetworking_model = \"none\" in [runtime]"
    )]
    HostNetwork,
    /// Another namespace of the node.
    #[error("the pod uses the node's {what}, which a VM cannot: remove {field}")]
    HostNamespace {
        /// What is shared.
        what: &'static str,
        /// The field of the pod that says so.
        field: &'static str,
    },
    /// A user namespace.
    #[error(
        "user namespaces are not supported in the guest: set hostUsers to true or leave it out"
    )]
    UserNamespace,
    /// A profile of a security module that the guest does not have.
    #[error(
        "AppArmor profile {0:?} cannot be applied in a VM: remove appArmorProfile, or set its type to RuntimeDefault or Unconfined"
    )]
    AppArmor(String),
    /// Mounts that are made in the container would have to appear on the node.
    #[error(
        "mount of {0:?} has the propagation Bidirectional, and what is mounted in a VM does not appear on the node: remove mountPropagation"
    )]
    Propagation(String),
    /// A limit that the guest cannot set.
    #[error("limit {0} cannot be set in the guest: remove it")]
    Limit(String),
    /// A limit whose value means nothing.
    #[error("limit {key} is {value:?}: expected a number, or max")]
    LimitValue {
        /// The limit.
        key: String,
        /// Its value.
        value: String,
    },
    /// A part of a system call filter that does not reach the guest.
    #[error("the seccomp profile cannot be applied: {0} has no meaning in the guest")]
    Seccomp(&'static str),
}

/// containerd's and CRI-O's own profiles protect the node's kernel, which the pod does not use.
const DEFAULT_PROFILES: [&str; 4] = [
    "",
    "unconfined",
    "cri-containerd.apparmor.d",
    "crio-default",
];
/// What a profile's default is without a number (libseccomp).
const EPERM: u32 = 1;
const NAME_CHARS_MAX: usize = 128;

/// Refuses a pod that needs the node's own namespaces.
///
/// # Errors
///
/// [`Impossible`] names the field of the pod.
pub(crate) fn pod(spec: &Spec, config: &Config) -> Result<(), Impossible> {
    let namespaces = spec.linux.as_ref().map(|linux| &linux.namespaces);
    if namespaces.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let connected = config.runtime.internetworking_model != Internetworking::None;
    if connected && spec.namespace("network").is_none() {
        return Err(Impossible::HostNetwork);
    }
    for (kind, what, field) in [
        ("ipc", "IPC namespace", "hostIPC"),
        ("pid", "processes", "hostPID"),
    ] {
        if spec.namespace(kind).is_none() {
            return Err(Impossible::HostNamespace { what, field });
        }
    }
    Ok(())
}

/// Refuses what a container cannot have in a VM, and settles its limits.
///
/// # Errors
///
/// [`Impossible`] names what is asked for.
pub(crate) fn container(spec: &mut Spec) -> Result<(), Impossible> {
    if spec.namespace("user").is_some() {
        return Err(Impossible::UserNamespace);
    }
    let profile = spec
        .process
        .as_ref()
        .map(|process| &process.apparmor_profile);
    if let Some(profile) = profile.filter(|name| !DEFAULT_PROFILES.contains(&name.as_str())) {
        return Err(Impossible::AppArmor(shortened(profile)));
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| is_bidirectional(mount)) {
        return Err(Impossible::Propagation(shortened(&mount.destination)));
    }
    let Some(linux) = &mut spec.linux else {
        return Ok(());
    };
    seccomp(linux)?;
    if linux.intel_rdt.is_some() {
        return Err(Impossible::Limit("intelRdt".into()));
    }
    linux.resources.as_mut().map_or(Ok(()), limits)
}

fn shortened(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

fn is_bidirectional(mount: &Mount) -> bool {
    let mut options = mount.options.iter();
    options.any(|option| matches!(option.as_str(), "shared" | "rshared"))
}

fn seccomp(linux: &Linux) -> Result<(), Impossible> {
    let Some(filter) = &linux.seccomp else {
        return Ok(());
    };
    if !filter.listener_path.is_empty() {
        return Err(Impossible::Seccomp("listenerPath"));
    }
    match filter.default_errno_ret {
        None | Some(EPERM) => Ok(()),
        Some(_) => Err(Impossible::Seccomp("defaultErrnoRet other than 1")),
    }
}

/// Turns limits in the kernel's own words into those that the guest is told, and refuses limits
/// that it cannot set. Numbers of the node's processors and memory are the node's business: the
/// VM lies in the pod's cgroup there.
///
/// # Errors
///
/// [`Impossible::Limit`] names the limit.
pub(crate) fn limits(resources: &mut Resources) -> Result<(), Impossible> {
    for (key, value) in std::mem::take(&mut resources.unified) {
        unified(resources, &key, &value)?;
    }
    let memory = resources.memory.clone().unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    let asked = |given: &Option<Value>| given.as_ref().is_some_and(|value| !is_nothing(value));
    let refused = [
        (memory.kernel > 0, "memory.kernel"),
        (memory.kernel_tcp > 0, "memory.kernelTCP"),
        (memory.disable_oom_killer, "memory.disableOOMKiller"),
        (
            cpu.realtime_runtime != 0 || cpu.realtime_period != 0,
            "cpu.realtimeRuntime",
        ),
        (cpu.burst != 0, "cpu.burst"),
        (cpu.idle.is_some_and(|idle| idle != 0), "cpu.idle"),
        (asked(&resources.block_io), "blockIO"),
        (asked(&resources.network), "network"),
        (asked(&resources.rdma), "rdma"),
    ];
    if let Some((_, name)) = refused.iter().find(|(refused, _)| *refused) {
        return Err(Impossible::Limit((*name).to_owned()));
    }
    // kubelet sends a limit of 0 for each size of page that the node has.
    match resources.hugepage_limits.iter().find(|one| one.limit > 0) {
        Some(pages) => {
            let size = shortened(&pages.page_size);
            Err(Impossible::Limit(format!("hugepages-{size}")))
        }
        None => Ok(()),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// One line of a cgroup's own interface.
fn unified(resources: &mut Resources, key: &str, value: &str) -> Result<(), Impossible> {
    let wrong = || Impossible::LimitValue {
        key: shortened(key),
        value: shortened(value),
    };
    let number = |text: &str| match text {
        "max" => Some(-1),
        text => text.parse().ok().filter(|number| *number > 0),
    };
    let whole = || number(value).ok_or_else(wrong);
    match key {
        "pids.max" => resources.pids.get_or_insert_default().limit = whole()?,
        "memory.max" => resources.memory.get_or_insert_default().limit = whole()?,
        "memory.low" => resources.memory.get_or_insert_default().reservation = whole()?,
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
            let cpu = resources.cpu.get_or_insert_default();
            cpu.quota = number(quota).ok_or_else(wrong)?;
            cpu.period = period.parse().map_err(|_| wrong())?;
        }
        // What a container out of memory is anyway: killed as a whole (kubelet sends it).
        "memory.oom.group" if value == "1" => {}
        // The guest has no swap, so nothing is swapped.
        "memory.swap.max" => {}
        _ => return Err(Impossible::Limit(shortened(key))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: &Value) -> Spec {
        serde_json::from_value(json.clone()).unwrap()
    }

    fn namespaces(kinds: &[&str]) -> Value {
        let all: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        json!({"linux": {"namespaces": all}})
    }

    #[test]
    fn the_nodes_own_namespaces_are_refused_by_the_pods_field() {
        let config = Config::default();
        let own = namespaces(&["mount", "network", "ipc", "pid", "uts"]);
        assert_eq!(pod(&spec(&own), &config), Ok(()));
        for (kinds, field) in [
            (["mount", "ipc", "pid"], "hostNetwork"),
            (["mount", "network", "pid"], "hostIPC"),
            (["mount", "network", "ipc"], "hostPID"),
        ] {
            let error = pod(&spec(&namespaces(&kinds)), &config).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn what_a_container_cannot_have_is_refused_by_name() {
        for (json, name) in [
            (namespaces(&["user"]), "hostUsers"),
            (
                json!({"process": {"apparmorProfile": "my-profile"}}),
                "my-profile",
            ),
            (
                json!({"mounts": [{"destination": "/data", "options": ["rbind", "rshared"]}]}),
                "/data",
            ),
            (json!({"linux": {"intelRdt": {"closID": "x"}}}), "intelRdt"),
            (
                json!({"linux": {"seccomp": {"listenerPath": "/run/x"}}}),
                "listenerPath",
            ),
            (
                json!({"linux": {"seccomp": {"defaultErrnoRet": 38}}}),
                "defaultErrnoRet",
            ),
        ] {
            let error = container(&mut spec(&json)).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        for json in [
            namespaces(&["mount"]),
            json!({"process": {"apparmorProfile": "cri-containerd.apparmor.d"}}),
            json!({"mounts": [{"destination": "/data", "options": ["rbind", "rprivate"]}]}),
            json!({"linux": {"seccomp": {"defaultErrnoRet": 1}}}),
        ] {
            assert_eq!(container(&mut spec(&json)), Ok(()), "{json}");
        }
    }

    fn settled(json: Value) -> Result<Resources, Impossible> {
        let mut resources: Resources = serde_json::from_value(json).unwrap();
        limits(&mut resources).map(|()| resources)
    }

    #[test]
    fn limits_in_the_kernels_words_are_those_that_the_guest_is_told() {
        let set = settled(json!({"unified": {
            "pids.max": "32", "memory.max": "1048576", "memory.low": "max",
            "cpu.max": "max 50000", "memory.oom.group": "1", "memory.swap.max": "0",
        }}));
        let set = set.unwrap();
        assert_eq!(set.pids.unwrap().limit, 32);
        let (memory, cpu) = (set.memory.unwrap(), set.cpu.unwrap());
        assert_eq!((memory.limit, memory.reservation), (1 << 20, -1));
        assert_eq!((cpu.quota, cpu.period), (-1, 50_000));
    }

    #[test]
    fn a_limit_that_the_guest_cannot_set_is_refused_by_name() {
        for (json, name) in [
            (json!({"unified": {"memory.high": "1"}}), "memory.high"),
            (
                json!({"unified": {"memory.oom.group": "0"}}),
                "memory.oom.group",
            ),
            (json!({"unified": {"pids.max": "0"}}), "pids.max"),
            (json!({"unified": {"cpu.max": "1 x"}}), "cpu.max"),
            (json!({"memory": {"kernel": 1}}), "memory.kernel"),
            (json!({"memory": {"kernelTCP": 1}}), "memory.kernelTCP"),
            (
                json!({"memory": {"disableOOMKiller": true}}),
                "disableOOMKiller",
            ),
            (json!({"cpu": {"realtimePeriod": 1}}), "realtime"),
            (json!({"cpu": {"burst": 1}}), "cpu.burst"),
            (json!({"cpu": {"idle": 1}}), "cpu.idle"),
            (json!({"blockIO": {"weight": 10}}), "blockIO"),
            (json!({"network": {"classID": 1}}), "network"),
            (json!({"rdma": {"x": {"hcaHandles": 1}}}), "rdma"),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}]}),
                "hugepages-2MB",
            ),
        ] {
            let error = settled(json).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_kubelet_sends_for_every_container_is_taken() {
        let plain = json!({
            "cpu": {"period": 100_000, "shares": 2, "cpus": "0-3", "mems": "0"},
            "devices": [{"access": "rwm", "allow": false}],
            "memory": {"limit": 67_108_864, "swap": 67_108_864},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "blockIO": {},
        });
        settled(plain).unwrap();
    }
}
