//! The messages of CRI that a kubelet sends, as far as the recordings have them.
//!
//! Numbers are those of `pkg/apis/runtime/v1/api.proto` of `k8s.io/cri-api` 0.36. A table
//! instead of generated types, because the recordings have a field that the crate for CRI
//! does not know yet (`Mount.image_sub_path`), and because a field that the table lacks is
//! refused: nothing that a kubelet said is left out unseen.

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
}

/// What a field holds; a list in a recording repeats it.
#[derive(Debug)]
pub(crate) enum Kind {
    Text,
    /// Bytes on the wire, base64 in a recording.
    Base64,
    Flag,
    /// A varint; a number or its digits in a recording.
    Number,
    /// A varint; its name in a recording.
    Choice(&'static [&'static str]),
    Message(Message),
    /// Text to text.
    Map,
}

/// The fields of a message.
pub(crate) type Message = &'static [Field];

const fn field(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind }
}

use Kind::{Base64, Choice, Flag, Map, Message as Of, Number, Text};

/// The request of a method, if a kubelet sends it about a pod.
pub(crate) fn request(method: &str) -> Option<Message> {
    Some(match method {
        "RunPodSandbox" => RUN_POD_SANDBOX,
        "PullImage" => PULL_IMAGE,
        "CreateContainer" => CREATE_CONTAINER,
        "StartContainer" | "RemoveContainer" => CONTAINER,
        "StopContainer" => STOP_CONTAINER,
        "StopPodSandbox" | "RemovePodSandbox" | "PortForward" => SANDBOX,
        "ExecSync" => EXEC_SYNC,
        "Exec" => EXEC,
        "Attach" => ATTACH,
        "UpdateContainerResources" => UPDATE,
        _ => return None,
    })
}

const RUN_POD_SANDBOX: Message = &[
    field("config", 1, Of(POD)),
    field("runtime_handler", 2, Text),
];
const PULL_IMAGE: Message = &[
    field("image", 1, Of(IMAGE)),
    field("sandbox_config", 3, Of(POD)),
];
const CREATE_CONTAINER: Message = &[
    field("pod_sandbox_id", 1, Text),
    field("config", 2, Of(CONTAINER_CONFIG)),
    field("sandbox_config", 3, Of(POD)),
];
const CONTAINER: Message = &[field("container_id", 1, Text)];
const SANDBOX: Message = &[field("pod_sandbox_id", 1, Text)];
const STOP_CONTAINER: Message = &[field("container_id", 1, Text), field("timeout", 2, Number)];
const EXEC_SYNC: Message = &[
    field("container_id", 1, Text),
    field("cmd", 2, Text),
    field("timeout", 3, Number),
];
const EXEC: Message = &[
    field("container_id", 1, Text),
    field("cmd", 2, Text),
    field("tty", 3, Flag),
    field("stdin", 4, Flag),
    field("stdout", 5, Flag),
    field("stderr", 6, Flag),
];
const ATTACH: Message = &[
    field("container_id", 1, Text),
    field("stdin", 2, Flag),
    field("tty", 3, Flag),
    field("stdout", 4, Flag),
    field("stderr", 5, Flag),
];
const UPDATE: Message = &[
    field("container_id", 1, Text),
    field("linux", 2, Of(RESOURCES)),
];

const POD: Message = &[
    field("metadata", 1, Of(POD_METADATA)),
    field("hostname", 2, Text),
    field("log_directory", 3, Text),
    field("dns_config", 4, Of(DNS)),
    field("port_mappings", 5, Of(PORT)),
    field("labels", 6, Map),
    field("annotations", 7, Map),
    field("linux", 8, Of(POD_LINUX)),
];
const POD_METADATA: Message = &[
    field("name", 1, Text),
    field("uid", 2, Text),
    field("namespace", 3, Text),
    field("attempt", 4, Number),
];
const DNS: Message = &[
    field("servers", 1, Text),
    field("searches", 2, Text),
    field("options", 3, Text),
];
const PORT: Message = &[
    field("protocol", 1, Choice(&["TCP", "UDP", "SCTP"])),
    field("container_port", 2, Number),
    field("host_port", 3, Number),
    field("host_ip", 4, Text),
];
const POD_LINUX: Message = &[
    field("cgroup_parent", 1, Text),
    field("security_context", 2, Of(POD_SECURITY)),
    field("sysctls", 3, Map),
    field("overhead", 4, Of(RESOURCES)),
    field("resources", 5, Of(RESOURCES)),
];
const POD_SECURITY: Message = &[
    field("namespace_options", 1, Of(NAMESPACES)),
    field("run_as_user", 3, Of(NUMBER)),
    field("readonly_rootfs", 4, Flag),
    field("supplemental_groups", 5, Number),
    field("privileged", 6, Flag),
    field("run_as_group", 8, Of(NUMBER)),
    field("seccomp", 9, Of(PROFILE)),
    field("apparmor", 10, Of(PROFILE)),
    field("supplemental_groups_policy", 11, GROUPS),
];
const GROUPS: Kind = Choice(&["Merge", "Strict"]);
const NUMBER: Message = &[field("value", 1, Number)];
const PROFILE: Message = &[
    field(
        "profile_type",
        1,
        Choice(&["RuntimeDefault", "Unconfined", "Localhost"]),
    ),
    field("localhost_ref", 2, Text),
];
const NAMESPACE: Kind = Choice(&["POD", "CONTAINER", "NODE", "TARGET"]);
const NAMESPACES: Message = &[
    field("network", 1, NAMESPACE),
    field("pid", 2, NAMESPACE),
    field("ipc", 3, NAMESPACE),
    field("target_id", 4, Text),
    field("userns_options", 5, Of(&[field("mode", 1, NAMESPACE)])),
];
const CONTAINER_CONFIG: Message = &[
    field("metadata", 1, Of(CONTAINER_METADATA)),
    field("image", 2, Of(IMAGE)),
    field("command", 3, Text),
    field("args", 4, Text),
    field("working_dir", 5, Text),
    field("envs", 6, Of(VARIABLE)),
    field("mounts", 7, Of(MOUNT)),
    field("labels", 9, Map),
    field("annotations", 10, Map),
    field("log_path", 11, Text),
    field("stdin", 12, Flag),
    field("stdin_once", 13, Flag),
    field("tty", 14, Flag),
    field("linux", 15, Of(CONTAINER_LINUX)),
];
const CONTAINER_METADATA: Message = &[field("name", 1, Text), field("attempt", 2, Number)];
const IMAGE: Message = &[
    field("image", 1, Text),
    field("annotations", 2, Map),
    field("user_specified_image", 18, Text),
    field("runtime_handler", 19, Text),
];
const VARIABLE: Message = &[field("key", 1, Text), field("value", 2, Base64)];
const MOUNT: Message = &[
    field("container_path", 1, Text),
    field("host_path", 2, Text),
    field("readonly", 3, Flag),
    field(
        "propagation",
        5,
        Choice(&[
            "PROPAGATION_PRIVATE",
            "PROPAGATION_HOST_TO_CONTAINER",
            "PROPAGATION_BIDIRECTIONAL",
        ]),
    ),
    field("recursive_read_only", 8, Flag),
    field("image", 9, Of(IMAGE)),
    field("image_sub_path", 10, Text),
];
const CONTAINER_LINUX: Message = &[
    field("resources", 1, Of(RESOURCES)),
    field("security_context", 2, Of(CONTAINER_SECURITY)),
];
const RESOURCES: Message = &[
    field("cpu_period", 1, Number),
    field("cpu_quota", 2, Number),
    field("cpu_shares", 3, Number),
    field("memory_limit_in_bytes", 4, Number),
    field("oom_score_adj", 5, Number),
    field("hugepage_limits", 8, Of(HUGEPAGES)),
    field("unified", 9, Map),
    field("memory_swap_limit_in_bytes", 10, Number),
];
const HUGEPAGES: Message = &[field("page_size", 1, Text), field("limit", 2, Number)];
const CONTAINER_SECURITY: Message = &[
    field("capabilities", 1, Of(CAPABILITIES)),
    field("privileged", 2, Flag),
    field("namespace_options", 3, Of(NAMESPACES)),
    field("run_as_user", 5, Of(NUMBER)),
    field("run_as_username", 6, Text),
    field("readonly_rootfs", 7, Flag),
    field("supplemental_groups", 8, Number),
    field("no_new_privs", 11, Flag),
    field("run_as_group", 12, Of(NUMBER)),
    field("masked_paths", 13, Text),
    field("readonly_paths", 14, Text),
    field("seccomp", 15, Of(PROFILE)),
    field("apparmor", 16, Of(PROFILE)),
    field("supplemental_groups_policy", 17, GROUPS),
];
const CAPABILITIES: Message = &[
    field("add_capabilities", 1, Text),
    field("drop_capabilities", 2, Text),
    field("add_ambient_capabilities", 3, Text),
];
