//! Every configuration key in one table, with what it may hold. Some of Kata's keys can
//! have only one value here; the table gives the reason.
//!
//! Checking works on the parsed text with positions, so each complaint names a
//! line. What passes is known to fit the types in [`crate::config`].

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What a key may hold.
#[derive(Debug, Clone, Copy)]
enum Value {
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
enum Fixed {
    Bool(bool),
    Zero,
    Text(&'static str),
    NoTexts,
}

const MEASURED: &str = "what boots is the installed guest image, unchanged and measured";
const STATIC: &str = "a measured VM has its size from the start: there is no hot-plug";
const SHARING: &str = "nothing of the host is shared with the guest";
const NO_DEBUG: &str = "release guests hold no debugging aids";

/// Table, key, value.
const KEYS: &[(&str, &str, Value)] = &[
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
    (
        "hypervisor.qemu",
        "rootless",
        Value::Only(Fixed::Bool(false), "not implemented yet"),
    ),
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

/// A complaint about one place of a file.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// Where, in bytes.
    pub(crate) span: Range<usize>,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

/// Checks a parsed file against the table.
pub(crate) fn check(root: &DeTable<'_>) -> Result<(), Complaint> {
    check_table("", root)
}

fn check_table(path: &str, table: &DeTable<'_>) -> Result<(), Complaint> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let complain = |message| Complaint {
            span: key.span(),
            message,
        };
        let child = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        let holds_tables = KEYS.iter().any(|(table, ..)| {
            *table == child
                || table
                    .strip_prefix(&child)
                    .is_some_and(|rest| rest.starts_with('.'))
        });
        match value.get_ref() {
            DeValue::Table(inner) if holds_tables => check_table(&child, inner)?,
            _ if holds_tables => return Err(complain(format!("{name} must be a table"))),
            _ => {
                let known = KEYS
                    .iter()
                    .find(|(table, key, _)| *table == path && *key == name);
                let Some((.., expected)) = known else {
                    return Err(complain(unknown(path, name)));
                };
                expected
                    .check(value)
                    .map_err(|wanted| complain(format!("{name} {wanted}")))?;
            }
        }
    }
    Ok(())
}

fn unknown(path: &str, name: &str) -> String {
    if path.is_empty() {
        return format!(
            "unknown table or key {name:?}: expected [hypervisor.qemu], [agent.kata] or [runtime]"
        );
    }
    match KEYS.iter().find(|(_, key, _)| *key == name) {
        Some((table, ..)) => format!("unknown key {name:?} in [{path}]: it belongs into [{table}]"),
        None => format!("unknown key {name:?} in [{path}]: remove it or correct its name"),
    }
}

impl Value {
    /// Whether the value fits; if not, the rest of a sentence that starts with the key.
    fn check(self, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let value = value.get_ref();
        let (fits, wanted) = match self {
            Self::Path => (
                value.as_str().is_some_and(|text| text.starts_with('/')),
                "must be an absolute path".to_owned(),
            ),
            Self::PathOrNone => (
                value
                    .as_str()
                    .is_some_and(|text| text.is_empty() || text.starts_with('/')),
                "must be an absolute path, or empty".to_owned(),
            ),
            Self::Text => (value.as_str().is_some(), "must be a string".to_owned()),
            Self::OneOf(choices) => (
                value.as_str().is_some_and(|text| choices.contains(&text)),
                format!("must be one of {choices:?}"),
            ),
            Self::Bool => (
                value.as_bool().is_some(),
                "must be true or false".to_owned(),
            ),
            Self::Count => (
                count(value).is_some(),
                format!("must be a whole number from 0 to {}", u32::MAX),
            ),
            Self::Number => (
                number(value).is_some_and(f64::is_finite),
                "must be a number".to_owned(),
            ),
            Self::Texts(choices) => (
                texts(value, choices),
                if choices.is_empty() {
                    "must be a list of strings".to_owned()
                } else {
                    format!("must be a list of {choices:?}")
                },
            ),
            Self::Only(fixed, why) => (fixed.is(value), format!("must be {fixed}: {why}")),
        };
        if fits { Ok(()) } else { Err(wanted) }
    }
}

fn count(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match (value.as_float(), value.as_integer()) {
        (Some(float), _) => float.as_str().parse().ok(),
        (None, Some(integer)) => integer.as_str().parse().ok(),
        (None, None) => None,
    }
}

fn texts(value: &DeValue<'_>, choices: &[&str]) -> bool {
    value.as_array().is_some_and(|items| {
        items.iter().all(|item| {
            let text = item.get_ref().as_str();
            text.is_some_and(|text| choices.is_empty() || choices.contains(&text))
        })
    })
}

impl Fixed {
    fn is(self, value: &DeValue<'_>) -> bool {
        match self {
            Self::Bool(only) => value.as_bool() == Some(only),
            Self::Zero => count(value) == Some(0),
            Self::Text(only) => value.as_str() == Some(only),
            Self::NoTexts => value.as_array().is_some_and(|items| items.is_empty()),
        }
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(only) => write!(f, "{only}"),
            Self::Zero => f.write_str("0"),
            Self::Text(only) => write!(f, "{only:?}"),
            Self::NoTexts => f.write_str("[]"),
        }
    }
}
