//! How big a pod's VM is.
//!
//! A VM has its size from the start. Each resource is decided by itself: a pod that
//! limits it gets its limit plus the configured overhead, a pod that does not gets
//! the default. Kata's Rust shim gives a pod that limits only its CPU no memory
//! beyond the overhead, too little to boot in; a limit on one resource says nothing
//! about the other.

use std::num::NonZeroU32;

use shim_oci::{Role, Spec};
use thiserror::Error;

use crate::Qemu;

/// A pod's limits, where it has them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// CFS quota and period, both positive.
    cpu: Option<(u64, u64)>,
    /// Bytes, positive.
    memory: Option<u64>,
}

/// The size of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: NonZeroU32,
    /// Memory in MiB, even.
    pub memory_mib: NonZeroU32,
}

/// Why no size could be found.
#[derive(Debug, Error, PartialEq)]
pub enum SizingError {
    /// A CRI resource annotation is not a number.
    #[error("annotation {key} is {value:?}: expected a whole number")]
    NotANumber {
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The result is no memory at all, or more than any machine has.
    #[error("the pod's memory comes to {mib} MiB: set default_memory and overhead_memory, or the pod's limit, so that it is from 1 to {max}", max = MEMORY_MIB_MAX)]
    Memory {
        /// The result.
        mib: u64,
    },
    /// The CPU limit is not a usable number.
    #[error(
        "the pod's CPUs come to {vcpus}: correct default_vcpus, overhead_vcpus or the pod's limit"
    )]
    Cpu {
        /// The result.
        vcpus: f64,
    },
}

/// More memory than any host has, and still a `u32`: 1 PiB.
const MEMORY_MIB_MAX: u64 = 1 << 30;
/// More CPUs than QEMU's `q35` takes.
const VCPUS_MAX: f64 = 4096.0;
const MIB: u64 = 1 << 20;

/// The most MiB that QEMU, the shim and the vsock device of a pod take on the node beside the
/// guest's memory. Emulation takes more.
pub const VM_OWN_MIB: u32 = 64;

const QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";

impl Limits {
    /// Reads a sandbox's CRI annotations, or a single container's own resources.
    ///
    /// # Errors
    ///
    /// [`SizingError::NotANumber`] names the annotation.
    pub fn of(role: Role, spec: &Spec) -> Result<Self, SizingError> {
        if role == Role::Single {
            return Ok(Self::own(spec));
        }
        let quota = number(spec, QUOTA)?;
        let period = number(spec, PERIOD)?;
        let memory = number(spec, MEMORY)?;
        Ok(Self::from_parts(quota, period, memory))
    }

    fn own(spec: &Spec) -> Self {
        let resources = spec
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.as_ref());
        let cpu = resources.and_then(|resources| resources.cpu.as_ref());
        let memory = resources.and_then(|resources| resources.memory.as_ref());
        Self::from_parts(
            cpu.map_or(0, |cpu| cpu.quota),
            cpu.and_then(|cpu| i64::try_from(cpu.period).ok())
                .unwrap_or(0),
            memory.map_or(0, |memory| memory.limit),
        )
    }

    fn from_parts(quota: i64, period: i64, memory: i64) -> Self {
        let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        Self {
            cpu: positive(quota).zip(positive(period)),
            memory: positive(memory),
        }
    }
}

fn number(spec: &Spec, key: &'static str) -> Result<i64, SizingError> {
    let Some(value) = spec.annotation(key) else {
        return Ok(0);
    };
    value.parse().map_err(|_| SizingError::NotANumber {
        key,
        value: value.to_owned(),
    })
}

impl Size {
    /// The size of a pod with these limits on a host with that many CPUs.
    ///
    /// # Errors
    ///
    /// [`SizingError`] when the configuration yields no usable number.
    pub fn of(limits: Limits, qemu: &Qemu, host_cpus: NonZeroU32) -> Result<Self, SizingError> {
        Ok(Self {
            vcpus: vcpus(limits, qemu, host_cpus)?,
            memory_mib: memory(limits, qemu)?,
        })
    }
}

/// What the containers of a pod may use of its VM together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Whole CPUs.
    pub vcpus: NonZeroU32,
    /// Bytes of memory.
    pub memory: u64,
}

impl Size {
    /// What is left of a VM of this size, made for these limits, for the pod's containers.
    pub fn room(self, limits: Limits, qemu: &Qemu) -> Room {
        let whole = u64::from(self.memory_mib.get());
        let left = whole.saturating_sub(qemu.overhead_memory.into());
        Room {
            vcpus: self.vcpus,
            memory: limits.memory.unwrap_or(left.saturating_mul(MIB)),
        }
    }
}

fn vcpus(limits: Limits, qemu: &Qemu, host_cpus: NonZeroU32) -> Result<NonZeroU32, SizingError> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "rounded up to whole CPUs anyway"
    )]
    let wanted = match limits.cpu {
        Some((quota, period)) => f64::from(qemu.overhead_vcpus) + quota as f64 / period as f64,
        None if qemu.default_vcpus < 0.0 => return Ok(host_cpus),
        None => f64::from(qemu.default_vcpus),
    };
    // An overhead of 0.2 is not exact in binary; a hair must not cost a CPU.
    let whole = (wanted - 1e-6).ceil().max(1.0);
    if !whole.is_finite() || whole > VCPUS_MAX {
        return Err(SizingError::Cpu { vcpus: wanted });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 1 to VCPUS_MAX"
    )]
    let whole = NonZeroU32::new(whole as u32).unwrap_or(NonZeroU32::MIN);
    // More vCPUs than the host has CPUs would only wait for each other.
    Ok(whole.min(host_cpus))
}

fn memory(limits: Limits, qemu: &Qemu) -> Result<NonZeroU32, SizingError> {
    let mib = match limits.memory {
        Some(bytes) => bytes
            .div_ceil(MIB)
            .saturating_add(qemu.overhead_memory.into()),
        None => qemu.default_memory.into(),
    };
    let even = mib.saturating_add(mib % 2);
    let fits = u32::try_from(even).ok().filter(|_| even <= MEMORY_MIB_MAX);
    fits.and_then(NonZeroU32::new)
        .ok_or(SizingError::Memory { mib })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn qemu() -> Qemu {
        Qemu {
            default_vcpus: 2.0,
            default_memory: 512,
            overhead_vcpus: 0.2,
            overhead_memory: 100,
            ..Qemu::default()
        }
    }

    fn host(cpus: u32) -> NonZeroU32 {
        NonZeroU32::new(cpus).unwrap()
    }

    #[test]
    fn the_shipped_runtime_class_counts_what_a_vm_costs() {
        let class = include_str!("../../../hack/node/runtimeclass.yaml");
        let shipped = Qemu::default();
        let memory = shipped.overhead_memory + VM_OWN_MIB;
        assert!(
            class.contains(&format!("    memory: {memory}Mi\n")),
            "{memory}"
        );
        let cpu = (shipped.overhead_vcpus * 1000.0).round();
        assert!(class.contains(&format!("    cpu: {cpu}m\n")), "{cpu}");
        let configuration = include_str!("../../../hack/node/configuration.toml");
        assert!(
            !configuration.contains("\noverhead_"),
            "the shipped file changes neither"
        );
    }

    #[test]
    fn containers_have_the_room_that_they_limited_or_all_but_the_overhead() {
        let room = |memory| {
            let limits = Limits::from_parts(0, 0, memory);
            let size = Size::of(limits, &qemu(), host(64)).unwrap();
            size.room(limits, &qemu()).memory
        };
        assert_eq!(room(64 << 20), 64 << 20);
        assert_eq!(room(0), (512 - 100) << 20);
    }

    fn size(quota: i64, period: i64, memory: i64) -> (u32, u32) {
        let limits = Limits::from_parts(quota, period, memory);
        let size = Size::of(limits, &qemu(), host(64)).unwrap();
        (size.vcpus.get(), size.memory_mib.get())
    }

    #[test]
    fn each_resource_is_sized_by_itself() {
        let mib = 1 << 20;
        for (quota, period, memory, expected) in [
            // no limit: the defaults
            (0, 0, 0, (2, 512)),
            // both
            (100_000, 100_000, 200 * mib, (2, 300)),
            // only CPU: memory stays the default
            (300_000, 100_000, 0, (4, 512)),
            // only memory: CPUs stay the default
            (0, 100_000, 64 * mib, (2, 164)),
            // unset in the ways CRI spells it
            (-1, 100_000, 0, (2, 512)),
            (100_000, 0, -1, (2, 512)),
            // a fraction still gets one
            (10_000, 100_000, 0, (1, 512)),
            // 0.8 + 0.2 is one CPU, not two
            (80_000, 100_000, 0, (1, 512)),
            // memory: up to MiB, then up to even
            (0, 0, 1, (2, 102)),
            (0, 0, 2 * mib + 1, (2, 104)),
        ] {
            assert_eq!(
                size(quota, period, memory),
                expected,
                "{quota}/{period} {memory}"
            );
        }
    }

    #[test]
    fn the_host_bounds_the_cpus() {
        let limits = Limits::from_parts(800_000, 100_000, 0);
        assert_eq!(Size::of(limits, &qemu(), host(4)).unwrap().vcpus, host(4));
        let all = Qemu {
            default_vcpus: -1.0,
            ..qemu()
        };
        let size = Size::of(Limits::default(), &all, host(7)).unwrap();
        assert_eq!(size.vcpus, host(7));
    }

    #[test]
    fn no_memory_and_too_much_are_errors() {
        let none = Qemu {
            default_memory: 0,
            ..qemu()
        };
        assert_eq!(
            Size::of(Limits::default(), &none, host(1)),
            Err(SizingError::Memory { mib: 0 })
        );
        let limits = Limits::from_parts(0, 0, i64::MAX);
        assert!(matches!(
            Size::of(limits, &qemu(), host(1)),
            Err(SizingError::Memory { .. })
        ));
    }

    #[test]
    fn a_sandbox_reads_annotations_and_a_single_container_its_own_limits() {
        let mut spec = Spec::default();
        spec.annotations
            .insert(MEMORY.into(), (64 << 20).to_string());
        let found = Limits::of(Role::Sandbox, &spec).unwrap();
        assert_eq!(found, Limits::from_parts(0, 0, 64 << 20));
        assert_eq!(Limits::of(Role::Single, &spec).unwrap(), Limits::default());

        spec.annotations.insert(QUOTA.into(), "many".into());
        assert!(matches!(
            Limits::of(Role::Sandbox, &spec),
            Err(SizingError::NotANumber { key: QUOTA, .. })
        ));
    }

    proptest! {
        #[test]
        fn any_limits_give_a_size_or_an_error(quota: i64, period: i64, memory: i64) {
            let limits = Limits::from_parts(quota, period, memory);
            if let Ok(size) = Size::of(limits, &qemu(), host(8)) {
                prop_assert!(size.vcpus <= host(8));
                prop_assert_eq!(size.memory_mib.get() % 2, 0);
            }
        }
    }
}
