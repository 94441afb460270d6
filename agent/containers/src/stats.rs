//! What a container uses, read from its cgroup in the kernel's own units and told
//! in those of the protocol: nanoseconds, bytes, operations. The network is the pod's, so each
//! container's numbers of it are the same.

use std::{collections::HashMap, fs, io};

use agent_protocol::rpc::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats,
    NetworkStats, PidsStats, StatsContainerResponse, ThrottlingData,
};
use protobuf::MessageField;

use crate::cgroup::Cgroup;

/// A container may make interfaces by the thousand.
const INTERFACES_MAX: usize = 64;

/// Reads a container's statistics; a controller that is off reads as zeros.
///
/// # Errors
///
/// When the cgroup is gone.
pub(super) fn read(cgroup: &Cgroup) -> io::Result<StatsContainerResponse> {
    let cpu = cpu(&table(&cgroup.read("cpu.stat")?));
    let file = |name: &str| cgroup.read(name).unwrap_or_default();
    let stats = CgroupStats {
        cpu_stats: MessageField::some(cpu),
        memory_stats: MessageField::some(memory(&file)),
        pids_stats: MessageField::some(PidsStats {
            current: number(&file("pids.current")),
            limit: limit(&file("pids.max")),
            ..Default::default()
        }),
        blkio_stats: MessageField::some(block_io(&file("io.stat"))),
        ..Default::default()
    };
    let network = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    Ok(StatsContainerResponse {
        cgroup_stats: MessageField::some(stats),
        network_stats: interfaces(&network),
        ..Default::default()
    })
}

fn cpu(stat: &HashMap<String, u64>) -> CpuStats {
    let nanoseconds = |key: &str| {
        stat.get(key)
            .copied()
            .unwrap_or_default()
            .saturating_mul(1000)
    };
    let count = |key: &str| stat.get(key).copied().unwrap_or_default();
    CpuStats {
        cpu_usage: MessageField::some(CpuUsage {
            total_usage: nanoseconds("usage_usec"),
            usage_in_kernelmode: nanoseconds("system_usec"),
            usage_in_usermode: nanoseconds("user_usec"),
            ..Default::default()
        }),
        throttling_data: MessageField::some(ThrottlingData {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory(file: &impl Fn(&str) -> String) -> MemoryStats {
    let data = |prefix: &str, fail: &str| MemoryData {
        usage: number(&file(&format!("{prefix}.current"))),
        max_usage: number(&file(&format!("{prefix}.peak"))),
        failcnt: table(&file(&format!("{prefix}.events")))
            .get(fail)
            .copied()
            .unwrap_or_default(),
        limit: limit(&file(&format!("{prefix}.max"))),
        ..Default::default()
    };
    let stats = table(&file("memory.stat"));
    MemoryStats {
        cache: stats.get("file").copied().unwrap_or_default(),
        usage: MessageField::some(data("memory", "max")),
        swap_usage: MessageField::some(data("memory.swap", "max")),
        use_hierarchy: true,
        stats,
        ..Default::default()
    }
}

/// `io.stat` has one line a device: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn block_io(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((major, minor)) = device else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.io_service_bytes_recursive, "read"),
                "wbytes" => (&mut stats.io_service_bytes_recursive, "write"),
                "rios" => (&mut stats.io_serviced_recursive, "read"),
                "wios" => (&mut stats.io_serviced_recursive, "write"),
                _ => continue,
            };
            list.push(BlkioStatsEntry {
                major: number(major),
                minor: number(minor),
                op: op.into(),
                value: number(value),
                ..Default::default()
            });
        }
    }
    stats
}

/// `/proc/net/dev` has two lines of headings, then one an interface: `eth0: 1 2 3 …`, eight
/// numbers received and eight sent, beginning with bytes, packets, errors and drops.
fn interfaces(text: &str) -> Vec<NetworkStats> {
    let lines = text.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let name = name.trim();
        let mut numbers = numbers.split_whitespace().map(number);
        let mut next = || numbers.next();
        let (rx_bytes, rx_packets, rx_errors, rx_dropped) = (next()?, next()?, next()?, next()?);
        numbers.nth(3)?;
        let mut next = || numbers.next();
        let (tx_bytes, tx_packets, tx_errors, tx_dropped) = (next()?, next()?, next()?, next()?);
        (name != "lo").then(|| NetworkStats {
            name: name.to_owned(),
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..Default::default()
        })
    });
    lines.take(INTERFACES_MAX).collect()
}

/// Lines of a key and a number.
fn table(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// A limit, where `max` is none and told as the largest number.
fn limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_told_in_nanoseconds() {
        let stat = table("usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_throttled 2\n");
        let cpu = cpu(&stat);
        assert_eq!(cpu.cpu_usage.total_usage, 1_500_000);
        assert_eq!(cpu.cpu_usage.usage_in_usermode, 1_000_000);
        assert_eq!(cpu.throttling_data.throttled_periods, 2);
    }

    #[test]
    fn the_pods_interfaces_are_told_and_loopback_is_not() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    \
            lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
            eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n odd: 1 2\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        let NetworkStats {
            name,
            rx_bytes,
            rx_dropped,
            tx_bytes,
            tx_dropped,
            ..
        } = &found[0];
        assert_eq!(name, "eth0");
        assert_eq!(
            [*rx_bytes, *rx_dropped, *tx_bytes, *tx_dropped],
            [10, 4, 50, 8]
        );
    }

    #[test]
    fn memory_without_limit_has_the_largest_one() {
        let file = |name: &str| {
            match name {
                "memory.current" => "4096\n",
                "memory.max" => "max\n",
                "memory.events" => "low 0\nmax 7\noom 1\n",
                "memory.stat" => "anon 1024\nfile 2048\n",
                _ => "",
            }
            .to_owned()
        };
        let memory = memory(&file);
        assert_eq!((memory.usage.usage, memory.usage.limit), (4096, u64::MAX));
        assert_eq!((memory.usage.failcnt, memory.cache), (7, 2048));
        assert_eq!(memory.stats.get("anon"), Some(&1024));
    }

    #[test]
    fn odd_lines_of_io_stat_are_passed_over() {
        let stats = block_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\nrubbish\n253:1 \n");
        assert_eq!(stats.io_service_bytes_recursive.len(), 2);
        assert_eq!(
            stats.io_serviced_recursive.first().map(|entry| entry.value),
            Some(3)
        );
    }
}
