//! What a container may use of the guest.

use agent_protocol::rpc::oci;

use crate::error::RequestError;

/// What a container may use; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory.
    pub memory: Memory,
    /// Processor time.
    pub cpu: Cpu,
    /// The most processes.
    pub pids: Option<i64>,
}

/// Limits of memory in bytes; -1 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The most it gets.
    pub limit: Option<i64>,
    /// What it keeps when memory is short.
    pub reservation: Option<i64>,
}

/// Limits of processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Weight against others, in the units of cgroup version 1.
    pub shares: Option<u64>,
    /// Microseconds a period; -1 is no limit.
    pub quota: Option<i64>,
    /// Length of a period in microseconds.
    pub period: Option<u64>,
}

impl Limits {
    pub(crate) fn parse(resources: &oci::LinuxResources) -> Result<Self, RequestError> {
        let signed = |field, value: i64| match value {
            0 => Ok(None),
            -1 | 1.. => Ok(Some(value)),
            _ => Err(RequestError::Invalid(field)),
        };
        let unsigned = |value: u64| (value != 0).then_some(value);
        let memory = resources.Memory.get_or_default();
        let cpu = resources.CPU.get_or_default();
        if cpu.Period > 1_000_000 {
            return Err(RequestError::Invalid("cpu period"));
        }
        Ok(Self {
            memory: Memory {
                limit: signed("memory limit", memory.Limit)?,
                reservation: signed("memory reservation", memory.Reservation)?,
            },
            cpu: Cpu {
                shares: unsigned(cpu.Shares).map(|shares| shares.min(262_144)),
                quota: signed("cpu quota", cpu.Quota)?,
                period: unsigned(cpu.Period),
            },
            pids: signed("pids limit", resources.Pids.get_or_default().Limit)?,
        })
    }
}
