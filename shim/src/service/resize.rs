//! Changing what a container may use, within the VM's fixed size.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shim_configuration::Room;
use shim_oci::Resources;
use thiserror::Error;

use super::Service;
use crate::{container::Container, refuse, spec, status::TaskError};

const MIB: u64 = 1 << 20;

/// Why a container's new limits are not set.
#[derive(Debug, Error, PartialEq, Eq)]
enum Infeasible {
    #[error(
        "the resize is infeasible: the memory limits of the pod's containers would come to {asked} MiB, and its VM was made for {room} MiB; its size is fixed at its start"
    )]
    Memory { asked: u64, room: u64 },
    #[error(
        "the resize is infeasible: a container would have more than the {room} CPUs of the pod's VM, whose size is fixed at its start"
    )]
    Cpu { room: u32 },
}

impl Service {
    /// Sets new limits of a container in the guest.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if the VM has no room for them, or the guest refuses them.
    pub(crate) async fn update(&self, id: &str, mut resources: Resources) -> Result<(), TaskError> {
        let container = self.find(id)?;
        let sandbox = self.sandbox()?;
        refuse::limits(&mut resources).map_err(|error| TaskError::invalid(&error))?;
        let others = self.containers.all();
        let others = others
            .iter()
            .filter(|other| other.id != id && other.init.ended().is_none());
        let taken = others.map(|other| memory(&limits_of(other))).sum();
        fits(sandbox.room, taken, &limits_of(&container), &resources)
            .map_err(|error| TaskError::invalid(&error))?;
        let told = spec::resources(&resources);
        sandbox.agent.update(id, told).await?;
        let mut limits = lock(&container.limits);
        // What is not named stays as it is.
        limits.memory = resources.memory.or(limits.memory.take());
        limits.cpu = resources.cpu.or(limits.cpu.take());
        Ok(())
    }
}

fn lock(limits: &Mutex<Resources>) -> MutexGuard<'_, Resources> {
    limits.lock().unwrap_or_else(PoisonError::into_inner)
}

fn limits_of(container: &Container) -> Resources {
    lock(&container.limits).clone()
}

/// Bytes; 0 without a limit.
fn memory(resources: &Resources) -> u64 {
    let limit = resources.memory.as_ref().map_or(0, |memory| memory.limit);
    u64::try_from(limit).unwrap_or(0)
}

/// The limit on processor time, as its quota and period; none without one.
fn time(resources: &Resources) -> Option<(u128, u128)> {
    let cpu = resources.cpu.as_ref()?;
    let quota = u128::try_from(cpu.quota).ok().filter(|quota| *quota > 0)?;
    Some((quota, cpu.period.max(1).into()))
}

/// What is not raised always fits.
fn fits(room: Room, taken: u64, before: &Resources, after: &Resources) -> Result<(), Infeasible> {
    let asked = taken.saturating_add(memory(after));
    if memory(after) > memory(before) && asked > room.memory {
        return Err(Infeasible::Memory {
            asked: asked.div_ceil(MIB),
            room: room.memory / MIB,
        });
    }
    let vcpus = u128::from(room.vcpus.get());
    let exceeds = |(quota, period): (u128, u128)| quota > period.saturating_mul(vcpus);
    if time(after).is_some_and(exceeds) && !time(before).is_some_and(exceeds) {
        return Err(Infeasible::Cpu {
            room: room.vcpus.get(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::json;

    use super::*;

    fn limits(mib: u64, quota: i64) -> Resources {
        let json = json!({
            "memory": {"limit": mib * MIB},
            "cpu": {"quota": quota, "period": 100_000},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_fits_the_vm_is_done_and_what_does_not_is_called_infeasible() {
        let room = Room {
            vcpus: NonZeroU32::MIN,
            memory: 128 * MIB,
        };
        let none = Resources::default();
        for (taken, before, after, infeasible) in [
            (0, &limits(64, 10_000), &limits(128, 20_000), None),
            (
                64,
                &limits(64, 10_000),
                &limits(65, 10_000),
                Some("129 MiB"),
            ),
            (
                0,
                &limits(64, 10_000),
                &limits(256, 10_000),
                Some("256 MiB"),
            ),
            (64, &limits(128, 10_000), &limits(96, 10_000), None),
            (0, &none, &limits(128, 100_000), None),
            (0, &limits(64, 10_000), &limits(64, 100_001), Some("1 CPUs")),
            (0, &limits(64, 200_000), &limits(64, 150_000), None),
            (0, &limits(64, 10_000), &none, None),
        ] {
            let answer = fits(room, taken * MIB, before, after);
            let text = answer.err().map(|error| error.to_string());
            match (text, infeasible) {
                (None, None) => {}
                (Some(text), Some(part)) => {
                    assert!(text.contains("infeasible") && text.contains(part), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
