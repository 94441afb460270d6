//! Every annotation that this runtime knows, and those that it will not.

use std::collections::BTreeMap;

use super::{Annotation, AnnotationError};
use crate::Config;

type Set = fn(&Annotation<'_>, &mut Config) -> Result<(), AnnotationError>;

/// An annotation that a node may enable.
pub(super) struct Known {
    /// Table and key, as they follow the common prefix.
    pub(super) name: &'static str,
    /// Takes the value over into the pod's configuration.
    pub(super) set: Set,
}

impl Known {
    /// What `enable_annotations` must match: Kata lists the hypervisor's keys without their
    /// table.
    pub(super) fn enabled_as(&self) -> &'static str {
        self.name.strip_prefix("hypervisor.").unwrap_or(self.name)
    }
}

/// In the order of the page `docs/configuration.md`, which a test compares.
pub(super) const KNOWN: &[Known] = &[
    known("hypervisor.cc_init_data", initdata),
    known("agent.policy", policy),
    known("runtime.emptydir_size_limits", volume_limits),
    known("hypervisor.default_vcpus", vcpus),
    known("hypervisor.default_memory", memory),
    known("hypervisor.scratch_disk_mib", scratch_disk),
    known("runtime.create_container_timeout", creation_deadline),
    known("runtime.experimental", experimental),
    known("runtime.experimental_force_guest_pull", guest_pull),
];

const MEASURED: &str = "what boots is the node's installed guest image, unchanged and measured";
const PROGRAMS: &str = "a pod does not choose what runs as a part of the node";
const LIMITS: &str = "it would take the VM out of the pod's limits";
const CONFINED: &str = "it would take a confinement off the VM or the guest";
const SHARED: &str = "nothing of the host is shared with the guest";
const NETWORK: &str = "a pod's network is its own namespace, and all of it";
const DEBUGGING: &str = "release guests hold no debugging aids, and logs are the node's";

/// What no pod can set, whatever the node enables, and why.
pub(super) const NEVER: &[(&str, &str)] = &[
    ("hypervisor.kernel", MEASURED),
    ("hypervisor.kernel_params", MEASURED),
    ("hypervisor.kernel_verity_params", MEASURED),
    ("hypervisor.initrd", MEASURED),
    ("hypervisor.image", MEASURED),
    ("hypervisor.firmware", MEASURED),
    ("hypervisor.guest_hook_path", MEASURED),
    ("hypervisor.machine_type", MEASURED),
    ("agent.kernel_modules", MEASURED),
    ("hypervisor.path", PROGRAMS),
    ("hypervisor.jailer_path", PROGRAMS),
    ("hypervisor.virtio_fs_daemon", PROGRAMS),
    ("hypervisor.virtio_fs_extra_args", PROGRAMS),
    ("hypervisor.vhost_user_vsock_device", PROGRAMS),
    ("runtime.sandbox_cgroup_only", LIMITS),
    ("hypervisor.disable_seccomp", CONFINED),
    ("hypervisor.seccomp_sandbox", CONFINED),
    ("hypervisor.disable_selinux", CONFINED),
    ("hypervisor.disable_guest_selinux", CONFINED),
    ("hypervisor.rootless", CONFINED),
    ("runtime.disable_guest_seccomp", CONFINED),
    ("runtime.guest_selinux_label", CONFINED),
    ("hypervisor.entropy_source", SHARED),
    ("hypervisor.shared_fs", SHARED),
    ("hypervisor.file_mem_backend", SHARED),
    ("hypervisor.vhost_user_store_path", SHARED),
    ("runtime.sandbox_bind_mounts", SHARED),
    ("runtime.vfio_mode", SHARED),
    ("runtime.disable_new_netns", NETWORK),
    ("runtime.internetworking_model", NETWORK),
    ("hypervisor.enable_debug", DEBUGGING),
    ("runtime.enable_debug", DEBUGGING),
    ("runtime.enable_pprof", DEBUGGING),
    ("agent.enable_debug", DEBUGGING),
    ("agent.enable_tracing", DEBUGGING),
    ("agent.debug_console_enabled", DEBUGGING),
];

const fn known(name: &'static str, set: Set) -> Known {
    Known { name, set }
}

fn initdata(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    annotation.value.clone_into(&mut config.qemu_mut().initdata);
    Ok(())
}

fn policy(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    config.policy = Some(annotation.value.to_owned());
    Ok(())
}

fn vcpus(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    let expected = "a positive number of CPUs";
    let vcpus: f32 = annotation.parse(expected)?;
    if !(vcpus.is_finite() && vcpus > 0.0) {
        return Err(annotation.bad(expected));
    }
    config.qemu_mut().default_vcpus = vcpus;
    Ok(())
}

fn memory(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    let expected = "a positive number of MiB";
    let memory: u32 = annotation.parse(expected)?;
    if memory == 0 {
        return Err(annotation.bad(expected));
    }
    config.qemu_mut().default_memory = memory;
    Ok(())
}

fn scratch_disk(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    config.qemu_mut().scratch_disk_mib = annotation.parse("a number of MiB, or 0")?;
    Ok(())
}

fn creation_deadline(
    annotation: &Annotation<'_>,
    config: &mut Config,
) -> Result<(), AnnotationError> {
    let seconds: u32 = annotation.parse("a number of seconds")?;
    config.set_create_container_timeout(seconds.into());
    Ok(())
}

fn experimental(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    if annotation.value != "force_guest_pull" {
        return Err(annotation.bad("force_guest_pull"));
    }
    config.runtime.experimental_force_guest_pull = true;
    Ok(())
}

fn guest_pull(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    config.runtime.experimental_force_guest_pull = annotation.parse("true or false")?;
    Ok(())
}

fn volume_limits(annotation: &Annotation<'_>, config: &mut Config) -> Result<(), AnnotationError> {
    let limits = sizes(annotation.value);
    let expected = "volume=bytes,…, with Ki, Mi, Gi or Ti after the number if need be";
    config.runtime.empty_dir_limits = limits.ok_or_else(|| annotation.bad(expected))?;
    Ok(())
}

/// Sizes of volumes: `cache=1Gi,logs=500000`.
fn sizes(text: &str) -> Option<BTreeMap<String, u64>> {
    const UNITS: [(&str, u32); 5] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("", 0)];
    let mut limits = BTreeMap::new();
    for entry in text.split(',') {
        let (name, size) = entry.trim().split_once('=')?;
        let unit = |(suffix, shift)| {
            size.strip_suffix(suffix)
                .map(|digits: &str| (digits, shift))
        };
        let (digits, shift) = UNITS.into_iter().find_map(unit)?;
        let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        let known = limits.insert(name.to_owned(), bytes).is_some();
        if known || name.is_empty() || bytes == 0 {
            return None;
        }
    }
    Some(limits)
}
