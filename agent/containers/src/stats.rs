//! What a container uses, read from its cgroup in the kernel's own units and told
//! in those of the protocol: nanoseconds, bytes, operations.

use std::{collections::HashMap, io};

use agent_protocol::rpc::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats,
    PidsStats, StatsContainerResponse, ThrottlingData,
};
use protobuf::MessageField;

use crate::cgroup::Cgroup;

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
    Ok(StatsContainerResponse {
        cgroup_stats: MessageField::some(stats),
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
