//! Every configuration key in one table, with what it may hold. Some of Kata's keys can
//! have only one value here; the table gives the reason.

/// What a key may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    /// An absolute path.
    Path,
    /// An absolute path, or nothing.
    PathOrNone,
    /// Any string.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// True or false.
    Bool,
    /// A number that is not negative and fits 32 bits.
    Count,
    /// Any finite number.
    Number,
    /// Strings; each of them one of these if any are given.
    Texts(&'static [&'static str]),
    /// A Kata key whose meaning is fixed here: the only value, and why.
    Only(Fixed, &'static str),
}

/// The value of a key that has only one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fixed {
    Bool(bool),
    Zero,
    Text(&'static str),
    NoTexts,
}

const MEASURED: &str = "what boots is the installed guest image, unchanged and measured";
const STATIC: &str = "a measured VM has its size from the start: there is no hot-plug";
const SHARING: &str = "nothing of the host is shared with the guest";
const NO_DEBUG: &str = "release guests hold no debugging aids";

/// The table, the key in it, and what the key may hold.
pub(crate) const KEYS: &[(&str, &str, Value)] = &[
    ("hypervisor.qemu", "path", Value::Path),
    ("hypervisor.qemu", "guest_image", Value::Path),
    ("hypervisor.qemu", "vhost_user_vsock_device", Value::Path),
    (
        "hypervisor.qemu",
        "tee",
        Value::OneOf(&["none", "snp", "simulated"]),
    ),
    (
        "hypervisor.qemu",
        "accelerator",
        Value::OneOf(&["auto", "kvm", "tcg"]),
    ),
    ("hypervisor.qemu", "default_vcpus", Value::Number),
    ("hypervisor.qemu", "default_memory", Value::Count),
    ("hypervisor.qemu", "overhead_vcpus", Value::Number),
    ("hypervisor.qemu", "overhead_memory", Value::Count),
    ("hypervisor.qemu", "scratch_disk_mib", Value::Count),
    ("hypervisor.qemu", "scratch_disk_directory", Value::Path),
    ("hypervisor.qemu", "enable_annotations", Value::Texts(&[])),
    ("hypervisor.qemu", "initdata", Value::Text),
    ("hypervisor.qemu", "allow_kernel_without_guard", Value::Bool),
    ("hypervisor.qemu", "firmware", Value::PathOrNone),
    ("hypervisor.qemu", "snp_guest_policy", Value::Count),
    ("hypervisor.qemu", "snp_id_block", Value::Text),
    ("hypervisor.qemu", "snp_id_auth", Value::Text),
    ("hypervisor.qemu", "disable_vhost_net", Value::Bool),
    ("hypervisor.qemu", "enable_debug", Value::Bool),
    (
        "hypervisor.qemu",
        "kernel",
        Value::Only(
            Fixed::Text(""),
            "set guest_image: its manifest names the kernel",
        ),
    ),
    (
        "hypervisor.qemu",
        "initrd",
        Value::Only(
            Fixed::Text(""),
            "set guest_image: its manifest names the initrd",
        ),
    ),
    (
        "hypervisor.qemu",
        "image",
        Value::Only(
            Fixed::Text(""),
            "set guest_image: the guest is kernel and initrd",
        ),
    ),
    (
        "hypervisor.qemu",
        "kernel_params",
        Value::Only(Fixed::Text(""), MEASURED),
    ),
    (
        "hypervisor.qemu",
        "kernel_verity_params",
        Value::Only(Fixed::Text(""), MEASURED),
    ),
    (
        "hypervisor.qemu",
        "firmware_volume",
        Value::Only(Fixed::Text(""), MEASURED),
    ),
    (
        "hypervisor.qemu",
        "machine_type",
        Value::Only(Fixed::Text("q35"), MEASURED),
    ),
    (
        "hypervisor.qemu",
        "machine_accelerators",
        Value::Only(Fixed::Text(""), MEASURED),
    ),
    (
        "hypervisor.qemu",
        "guest_hook_path",
        Value::Only(Fixed::Text(""), MEASURED),
    ),
    (
        "hypervisor.qemu",
        "confidential_guest",
        Value::Only(Fixed::Bool(false), "say which one with tee"),
    ),
    (
        "hypervisor.qemu",
        "sev_snp_guest",
        Value::Only(Fixed::Bool(false), "set tee = \"snp\""),
    ),
    (
        "hypervisor.qemu",
        "default_maxvcpus",
        Value::Only(Fixed::Zero, STATIC),
    ),
    (
        "hypervisor.qemu",
        "default_maxmemory",
        Value::Only(Fixed::Zero, STATIC),
    ),
    (
        "hypervisor.qemu",
        "memory_slots",
        Value::Only(Fixed::Zero, STATIC),
    ),
    (
        "hypervisor.qemu",
        "memory_offset",
        Value::Only(Fixed::Zero, STATIC),
    ),
    (
        "hypervisor.qemu",
        "enable_virtio_mem",
        Value::Only(Fixed::Bool(false), STATIC),
    ),
    (
        "hypervisor.qemu",
        "shared_fs",
        Value::Only(Fixed::Text("none"), SHARING),
    ),
    ("hypervisor.qemu", "rootless", Value::Bool),
    ("hypervisor.qemu", "rootless_first_user", Value::Count),
    ("hypervisor.qemu", "rootless_user_count", Value::Count),
    ("agent.kata", "dial_timeout_ms", Value::Count),
    ("agent.kata", "reconnect_timeout_ms", Value::Count),
    (
        "agent.kata",
        "health_check_request_timeout_ms",
        Value::Count,
    ),
    ("agent.kata", "create_container_timeout", Value::Count),
    (
        "agent.kata",
        "enable_debug",
        Value::Only(Fixed::Bool(false), NO_DEBUG),
    ),
    (
        "agent.kata",
        "debug_console_enabled",
        Value::Only(Fixed::Bool(false), NO_DEBUG),
    ),
    (
        "agent.kata",
        "enable_tracing",
        Value::Only(Fixed::Bool(false), NO_DEBUG),
    ),
    (
        "agent.kata",
        "kernel_modules",
        Value::Only(Fixed::NoTexts, MEASURED),
    ),
    (
        "agent.kata",
        "policy",
        Value::Only(
            Fixed::Text(""),
            "the policy is the workload owner's, not the node's",
        ),
    ),
    (
        "runtime",
        "name",
        Value::Only(Fixed::Text("virt_container"), "there is no other"),
    ),
    (
        "runtime",
        "hypervisor_name",
        Value::Only(Fixed::Text("qemu"), "there is no other yet"),
    ),
    (
        "runtime",
        "agent_name",
        Value::Only(Fixed::Text("kata"), "there is no other"),
    ),
    ("runtime", "enable_debug", Value::Bool),
    (
        "runtime",
        "internetworking_model",
        Value::OneOf(&["tcfilter", "none"]),
    ),
    ("runtime", "disable_guest_seccomp", Value::Bool),
    ("runtime", "sandbox_cgroup_only", Value::Bool),
    (
        "runtime",
        "static_sandbox_resource_mgmt",
        Value::Only(Fixed::Bool(true), STATIC),
    ),
    (
        "runtime",
        "disable_new_netns",
        Value::Only(Fixed::Bool(false), "a pod's network is its own namespace"),
    ),
    (
        "runtime",
        "emptydir_mode",
        Value::Only(
            Fixed::Text("shared-fs"),
            "an emptyDir is a directory in the guest",
        ),
    ),
    (
        "runtime",
        "sandbox_bind_mounts",
        Value::Only(Fixed::NoTexts, SHARING),
    ),
    (
        "runtime",
        "enable_tracing",
        Value::Only(Fixed::Bool(false), NO_DEBUG),
    ),
    (
        "runtime",
        "enable_pprof",
        Value::Only(Fixed::Bool(false), NO_DEBUG),
    ),
    (
        "runtime",
        "experimental",
        Value::Texts(&["force_guest_pull"]),
    ),
    ("runtime", "experimental_force_guest_pull", Value::Bool),
    ("runtime", "create_container_timeout", Value::Count),
];
