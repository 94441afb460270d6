//! A container's cgroup numbers in containerd's terms.
//!
//! The guest has cgroup v2 only, so containerd gets `io.containerd.cgroups.v2.Metrics`
//! whatever the host has. The agent's message has v1's shape: CPU times in
//! nanoseconds and the raw `memory.stat` map; this module turns them back.

use std::collections::HashMap;

use agent_protocol::rpc::agent::{BlkioStats, CgroupStats, StatsContainerResponse};
use containerd_shim_protos::{
    cgroups_v2::metrics::{
        CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryStat, Metrics, NetworkStat, PidsStat,
    },
    protobuf::{self, Message, MessageFull, well_known_types::any::Any},
};

/// Packs the guest's answer for containerd.
///
/// # Errors
///
/// An error of the encoder if the message cannot be encoded.
pub(crate) fn metrics(response: &StatsContainerResponse) -> protobuf::Result<Any> {
    let cgroup = response.cgroup_stats.clone().unwrap_or_default();
    let metrics = Metrics {
        pids: Some(pids(&cgroup)).into(),
        cpu: Some(cpu(&cgroup)).into(),
        memory: Some(memory(&cgroup)).into(),
        io: Some(io(&cgroup.blkio_stats)).into(),
        hugetlb: hugetlb(&cgroup),
        network: response.network_stats.iter().map(network).collect(),
        ..Metrics::default()
    };
    Ok(Any {
        type_url: Metrics::descriptor().full_name().to_owned(),
        value: metrics.write_to_bytes()?,
        ..Any::default()
    })
}

fn pids(cgroup: &CgroupStats) -> PidsStat {
    PidsStat {
        current: cgroup.pids_stats.current,
        limit: cgroup.pids_stats.limit,
        ..PidsStat::default()
    }
}

fn cpu(cgroup: &CgroupStats) -> CPUStat {
    let usage = &cgroup.cpu_stats.cpu_usage;
    let throttling = &cgroup.cpu_stats.throttling_data;
    CPUStat {
        usage_usec: usage.total_usage / 1000,
        user_usec: usage.usage_in_usermode / 1000,
        system_usec: usage.usage_in_kernelmode / 1000,
        nr_periods: throttling.periods,
        nr_throttled: throttling.throttled_periods,
        throttled_usec: throttling.throttled_time / 1000,
        ..CPUStat::default()
    }
}

fn memory(cgroup: &CgroupStats) -> MemoryStat {
    let memory = &cgroup.memory_stats;
    let raw: &HashMap<String, u64> = &memory.stats;
    let stat = |key: &str| raw.get(key).copied().unwrap_or(0);
    MemoryStat {
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        max_usage: memory.usage.max_usage,
        swap_usage: memory.swap_usage.usage,
        swap_limit: memory.swap_usage.limit,
        swap_max_usage: memory.swap_usage.max_usage,
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
        workingset_refault: stat("workingset_refault_file") + stat("workingset_refault_anon"),
        workingset_activate: stat("workingset_activate_file") + stat("workingset_activate_anon"),
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

fn io(blkio: &BlkioStats) -> IOStat {
    let mut devices: HashMap<(u64, u64), IOEntry> = HashMap::new();
    let bytes = blkio
        .io_service_bytes_recursive
        .iter()
        .map(|entry| (entry, true));
    let operations = blkio
        .io_serviced_recursive
        .iter()
        .map(|entry| (entry, false));
    for (entry, is_bytes) in bytes.chain(operations) {
        let device = devices
            .entry((entry.major, entry.minor))
            .or_insert_with(|| IOEntry {
                major: entry.major,
                minor: entry.minor,
                ..IOEntry::default()
            });
        match (entry.op.to_ascii_lowercase().as_str(), is_bytes) {
            ("read" | "rbytes", true) => device.rbytes = entry.value,
            ("write" | "wbytes", true) => device.wbytes = entry.value,
            ("read" | "rios", false) => device.rios = entry.value,
            ("write" | "wios", false) => device.wios = entry.value,
            _ => {}
        }
    }
    let mut usage: Vec<IOEntry> = devices.into_values().collect();
    usage.sort_by_key(|entry| (entry.major, entry.minor));
    IOStat {
        usage,
        ..IOStat::default()
    }
}

fn hugetlb(cgroup: &CgroupStats) -> Vec<HugeTlbStat> {
    let mut sizes: Vec<_> = cgroup.hugetlb_stats.iter().collect();
    sizes.sort_by_key(|(size, _)| size.as_str());
    sizes
        .into_iter()
        .map(|(size, stats)| HugeTlbStat {
            current: stats.usage,
            max: stats.max_usage,
            failcnt: stats.failcnt,
            pagesize: size.clone(),
            ..HugeTlbStat::default()
        })
        .collect()
}

fn network(stats: &agent_protocol::rpc::agent::NetworkStats) -> NetworkStat {
    NetworkStat {
        name: stats.name.clone(),
        rx_bytes: stats.rx_bytes,
        rx_packets: stats.rx_packets,
        rx_errors: stats.rx_errors,
        rx_dropped: stats.rx_dropped,
        tx_bytes: stats.tx_bytes,
        tx_packets: stats.tx_packets,
        tx_errors: stats.tx_errors,
        tx_dropped: stats.tx_dropped,
        ..NetworkStat::default()
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::rpc::agent::BlkioStatsEntry;

    use super::*;

    fn unpack(response: &StatsContainerResponse) -> Metrics {
        let any = metrics(response).unwrap();
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
}
