//! A container's cgroup numbers in containerd's terms.
//!
//! The guest has cgroup v2 only, so containerd gets `io.containerd.cgroups.v2.Metrics`
//! whatever the host has. The agent's message has v1's shape; this module turns it back. The
//! numbers are the guest's and may be any: sums of them stop at the largest number.

use containerd_shim_protos::{
    cgroups_v2::metrics::{
        CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryStat, Metrics, NetworkStat, PidsStat,
    },
    protobuf::{self, Message, MessageFull, well_known_types::any::Any},
};
use shim_agent_client::{Cpu, Device, HugePages, Interface, Stats};

/// Nanoseconds of a microsecond.
const MICROSECOND: u64 = 1000;

/// Packs the guest's numbers for containerd.
///
/// # Errors
///
/// An error of the encoder if the message cannot be encoded.
pub(crate) fn metrics(stats: &Stats) -> protobuf::Result<Any> {
    let metrics = Metrics {
        pids: Some(pids(stats.pids)).into(),
        cpu: Some(cpu(&stats.cpu)).into(),
        memory: Some(memory(stats)).into(),
        io: Some(io(&stats.devices)).into(),
        hugetlb: stats.huge_pages.iter().map(huge_pages).collect(),
        network: stats.interfaces.iter().map(network).collect(),
        ..Metrics::default()
    };
    Ok(Any {
        type_url: Metrics::descriptor().full_name().to_owned(),
        value: metrics.write_to_bytes()?,
        ..Any::default()
    })
}

fn pids((current, limit): (u64, u64)) -> PidsStat {
    PidsStat {
        current,
        limit,
        ..PidsStat::default()
    }
}

fn cpu(cpu: &Cpu) -> CPUStat {
    CPUStat {
        usage_usec: cpu.total_ns / MICROSECOND,
        user_usec: cpu.user_ns / MICROSECOND,
        system_usec: cpu.kernel_ns / MICROSECOND,
        nr_periods: cpu.periods,
        nr_throttled: cpu.throttled_periods,
        throttled_usec: cpu.throttled_ns / MICROSECOND,
        ..CPUStat::default()
    }
}

fn memory(stats: &Stats) -> MemoryStat {
    let stat = |key| stats.memory_stat(key);
    let sum = |one, other| stat(one).saturating_add(stat(other));
    MemoryStat {
        usage: stats.memory.usage,
        usage_limit: stats.memory.limit,
        max_usage: stats.memory.max_usage,
        swap_usage: stats.swap.usage,
        swap_limit: stats.swap.limit,
        swap_max_usage: stats.swap.max_usage,
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: sum("workingset_refault_file", "workingset_refault_anon"),
        workingset_activate: sum("workingset_activate_file", "workingset_activate_anon"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        ..MemoryStat::default()
    }
}

fn io(devices: &[Device]) -> IOStat {
    let usage = devices.iter().map(|device| IOEntry {
        major: device.major,
        minor: device.minor,
        rbytes: device.read_bytes,
        wbytes: device.written_bytes,
        rios: device.reads,
        wios: device.writes,
        ..IOEntry::default()
    });
    IOStat {
        usage: usage.collect(),
        ..IOStat::default()
    }
}

fn huge_pages(pages: &HugePages) -> HugeTlbStat {
    HugeTlbStat {
        current: pages.usage,
        max: pages.max_usage,
        failcnt: pages.failures,
        pagesize: pages.page_size.clone(),
        ..HugeTlbStat::default()
    }
}

fn network(interface: &Interface) -> NetworkStat {
    let [rx_bytes, rx_packets, rx_errors, rx_dropped] = interface.received;
    let [tx_bytes, tx_packets, tx_errors, tx_dropped] = interface.sent;
    NetworkStat {
        name: interface.name.clone(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..NetworkStat::default()
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::rpc::agent::{BlkioStatsEntry, StatsContainerResponse};
    use shim_agent_client::MEMORY_KEYS;

    use super::*;

    fn unpack(response: &StatsContainerResponse) -> Metrics {
        let any = metrics(&Stats::parse(response).unwrap()).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        Metrics::parse_from_bytes(&any.value).unwrap()
    }

    #[test]
    fn units_and_keys_are_those_of_cgroup_v2() {
        let mut response = StatsContainerResponse::default();
        let cgroup = response.cgroup_stats.mut_or_insert_default();
        let cpu = cgroup.cpu_stats.mut_or_insert_default();
        cpu.cpu_usage.mut_or_insert_default().total_usage = 5_000_000;
        let memory = cgroup.memory_stats.mut_or_insert_default();
        memory.usage.mut_or_insert_default().usage = 4096;
        memory.usage.mut_or_insert_default().limit = 8192;
        memory.stats.insert("inactive_file".into(), 7);
        cgroup.pids_stats.mut_or_insert_default().current = 3;
        let blkio = cgroup.blkio_stats.mut_or_insert_default();
        for (op, value) in [("Read", 10), ("Write", 20)] {
            blkio.io_service_bytes_recursive.push(BlkioStatsEntry {
                major: 254,
                op: op.into(),
                value,
                ..BlkioStatsEntry::default()
            });
        }

        let metrics = unpack(&response);
        assert_eq!(metrics.cpu.usage_usec, 5000);
        assert_eq!(metrics.memory.usage, 4096);
        assert_eq!(metrics.memory.usage_limit, 8192);
        assert_eq!(metrics.memory.inactive_file, 7);
        assert_eq!(metrics.pids.current, 3);
        assert_eq!(metrics.io.usage.len(), 1);
        assert_eq!(metrics.io.usage[0].rbytes, 10);
        assert_eq!(metrics.io.usage[0].wbytes, 20);
    }

    #[test]
    fn an_empty_answer_is_all_zero() {
        let metrics = unpack(&StatsContainerResponse::default());
        assert_eq!(metrics.cpu.usage_usec, 0);
        assert_eq!(metrics.memory.usage, 0);
    }

    #[test]
    fn sums_stop_at_the_largest_number() {
        let mut response = StatsContainerResponse::default();
        let cgroup = response.cgroup_stats.mut_or_insert_default();
        let memory = cgroup.memory_stats.mut_or_insert_default();
        for key in MEMORY_KEYS {
            memory.stats.insert(key.to_owned(), u64::MAX);
        }
        let cpu = cgroup.cpu_stats.mut_or_insert_default();
        cpu.cpu_usage.mut_or_insert_default().total_usage = u64::MAX;
        let metrics = unpack(&response);
        assert_eq!(metrics.memory.workingset_refault, u64::MAX);
        assert_eq!(metrics.memory.workingset_activate, u64::MAX);
        assert_eq!(metrics.cpu.usage_usec, u64::MAX / 1000);
    }
}
