//! A container's numbers, as the guest gives them.
//!
//! The agent's message has the shape of cgroup v1: CPU times in nanoseconds, and the raw
//! `memory.stat` map. What is in lists and maps is bounded by what a guest can have, and names
//! by what such names look like; numbers may be any.

use std::collections::BTreeMap;

use agent_protocol::rpc::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, MemoryData, NetworkStats, StatsContainerResponse,
};

use crate::AnswerError;

/// The most disks.
pub const DEVICES_MAX: usize = 64;
/// The most sizes of huge pages; no architecture of Linux has more.
pub const PAGE_SIZES_MAX: usize = 8;
/// The most network interfaces.
pub const INTERFACES_MAX: usize = 64;
/// Rows about a disk, over all disks.
const ROWS_MAX: usize = DEVICES_MAX * 8;
/// Longest name of a network interface, `IFNAMSIZ` without the final zero (netdevice(7)).
const INTERFACE_NAME_MAX: usize = 15;
/// Longest size of a page, such as `16GB`.
const PAGE_SIZE_MAX: usize = 8;

/// The keys of `memory.stat` that are taken (cgroup-v2 documentation, "memory.stat").
pub const MEMORY_KEYS: [&str; 37] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate_anon",
    "workingset_activate_file",
    "workingset_nodereclaim",
    "workingset_refault_anon",
    "workingset_refault_file",
    "workingset_restore_anon",
    "workingset_restore_file",
    "zswap",
    "zswapped",
];

/// A container's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processes, and how many there may be.
    pub pids: (u64, u64),
    /// Processor times.
    pub cpu: Cpu,
    /// Memory without swap.
    pub memory: Level,
    /// Memory with swap.
    pub swap: Level,
    memory_stat: BTreeMap<&'static str, u64>,
    /// Disks by number, each once.
    pub devices: Vec<Device>,
    /// Huge pages by size, each once.
    pub huge_pages: Vec<HugePages>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
}

/// Processor times, in nanoseconds, and periods of the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of cgroups")]
pub struct Cpu {
    pub total_ns: u64,
    pub user_ns: u64,
    pub kernel_ns: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// How much there is, was at most, and may be, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of cgroups")]
pub struct Level {
    pub usage: u64,
    pub max_usage: u64,
    pub limit: u64,
}

/// What was read from and written to a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of cgroups")]
pub struct Device {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of cgroups")]
pub struct HugePages {
    pub page_size: String,
    pub usage: u64,
    pub max_usage: u64,
    pub failures: u64,
}

/// A network interface: bytes, packets, errors and drops, received and sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment above says it")]
pub struct Interface {
    pub name: String,
    pub received: [u64; 4],
    pub sent: [u64; 4],
}

impl Stats {
    /// Reads the guest's answer.
    ///
    /// # Errors
    ///
    /// [`AnswerError`] when a list is longer, or a name other, than a guest can have.
    pub fn parse(answer: &StatsContainerResponse) -> Result<Self, AnswerError> {
        let cgroup = answer.cgroup_stats.get_or_default();
        let interfaces = answer.network_stats.iter();
        bounded("interfaces", answer.network_stats.len(), INTERFACES_MAX)?;
        Ok(Self {
            pids: (cgroup.pids_stats.current, cgroup.pids_stats.limit),
            cpu: cpu(cgroup),
            memory: level(&cgroup.memory_stats.usage),
            swap: level(&cgroup.memory_stats.swap_usage),
            memory_stat: memory_stat(cgroup),
            devices: devices(&cgroup.blkio_stats)?,
            huge_pages: huge_pages(cgroup)?,
            interfaces: interfaces.map(interface).collect::<Result<_, _>>()?,
        })
    }

    /// A number of `memory.stat`; 0 if the guest did not give it.
    #[must_use]
    pub fn memory_stat(&self, key: &'static str) -> u64 {
        debug_assert!(MEMORY_KEYS.contains(&key), "{key}");
        self.memory_stat.get(key).copied().unwrap_or(0)
    }
}

fn bounded(what: &'static str, count: usize, max: usize) -> Result<(), AnswerError> {
    if count > max {
        return Err(AnswerError::TooMany { what, max });
    }
    Ok(())
}

fn cpu(cgroup: &CgroupStats) -> Cpu {
    let usage = &cgroup.cpu_stats.cpu_usage;
    let throttling = &cgroup.cpu_stats.throttling_data;
    Cpu {
        total_ns: usage.total_usage,
        user_ns: usage.usage_in_usermode,
        kernel_ns: usage.usage_in_kernelmode,
        periods: throttling.periods,
        throttled_periods: throttling.throttled_periods,
        throttled_ns: throttling.throttled_time,
    }
}

fn level(data: &MemoryData) -> Level {
    Level {
        usage: data.usage,
        max_usage: data.max_usage,
        limit: data.limit,
    }
}

fn memory_stat(cgroup: &CgroupStats) -> BTreeMap<&'static str, u64> {
    let given = &cgroup.memory_stats.stats;
    let known = MEMORY_KEYS.iter();
    known
        .filter_map(|key| given.get(*key).map(|value| (*key, *value)))
        .collect()
}

fn devices(blkio: &BlkioStats) -> Result<Vec<Device>, AnswerError> {
    let mut devices: BTreeMap<(u64, u64), Device> = BTreeMap::new();
    let tables = [
        &blkio.io_service_bytes_recursive,
        &blkio.io_serviced_recursive,
    ];
    for (rows, counts_bytes) in tables.into_iter().zip([true, false]) {
        bounded("rows about disks", rows.len(), ROWS_MAX)?;
        for row in rows {
            let device = devices.entry((row.major, row.minor)).or_default();
            add(device, row, counts_bytes);
        }
    }
    bounded("disks", devices.len(), DEVICES_MAX)?;
    let numbered = devices.into_iter().map(|((major, minor), device)| Device {
        major,
        minor,
        ..device
    });
    Ok(numbered.collect())
}

fn add(device: &mut Device, row: &BlkioStatsEntry, counts_bytes: bool) {
    let is = |names: [&str; 2]| names.iter().any(|name| row.op.eq_ignore_ascii_case(name));
    if counts_bytes && is(["read", "rbytes"]) {
        device.read_bytes = row.value;
    } else if counts_bytes && is(["write", "wbytes"]) {
        device.written_bytes = row.value;
    } else if !counts_bytes && is(["read", "rios"]) {
        device.reads = row.value;
    } else if !counts_bytes && is(["write", "wios"]) {
        device.writes = row.value;
    }
}

fn huge_pages(cgroup: &CgroupStats) -> Result<Vec<HugePages>, AnswerError> {
    let sizes: BTreeMap<_, _> = cgroup.hugetlb_stats.iter().collect();
    bounded("sizes of huge pages", sizes.len(), PAGE_SIZES_MAX)?;
    let parsed = sizes.into_iter().map(|(size, stats)| {
        let digits = ["KB", "MB", "GB"].into_iter();
        let digits = digits.filter_map(|unit| size.strip_suffix(unit)).next();
        let plain = digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        if !plain || size.len() > PAGE_SIZE_MAX {
            return Err(AnswerError::Name { what: "page size" });
        }
        Ok(HugePages {
            page_size: size.clone(),
            usage: stats.usage,
            max_usage: stats.max_usage,
            failures: stats.failcnt,
        })
    });
    parsed.collect()
}

fn interface(stats: &NetworkStats) -> Result<Interface, AnswerError> {
    let name = &stats.name;
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX || !name.bytes().all(plain) {
        return Err(AnswerError::Name { what: "interface" });
    }
    Ok(Interface {
        name: name.clone(),
        received: [
            stats.rx_bytes,
            stats.rx_packets,
            stats.rx_errors,
            stats.rx_dropped,
        ],
        sent: [
            stats.tx_bytes,
            stats.tx_packets,
            stats.tx_errors,
            stats.tx_dropped,
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl Fn(&mut StatsContainerResponse)) -> Result<Stats, AnswerError> {
        let mut answer = StatsContainerResponse::default();
        change(&mut answer);
        Stats::parse(&answer)
    }

    fn row(major: u64, op: &str, value: u64) -> BlkioStatsEntry {
        BlkioStatsEntry {
            major,
            op: op.to_owned(),
            value,
            ..Default::default()
        }
    }

    fn with_rows(rows: Vec<BlkioStatsEntry>) -> Result<Stats, AnswerError> {
        parsed(|answer| {
            let cgroup = answer.cgroup_stats.mut_or_insert_default();
            let blkio = cgroup.blkio_stats.mut_or_insert_default();
            blkio.io_service_bytes_recursive.clone_from(&rows);
            blkio.io_serviced_recursive.clone_from(&rows);
        })
    }

    #[test]
    fn rows_about_disks_are_gathered_by_disk() {
        let rows = vec![
            row(254, "Read", 1),
            row(7, "wbytes", 2),
            row(254, "rios", 3),
        ];
        let devices = with_rows(rows).unwrap().devices;
        assert_eq!(devices.len(), 2);
        assert_eq!((devices[0].major, devices[0].written_bytes), (7, 2));
        assert_eq!(devices[0].writes, 0);
        assert_eq!((devices[1].read_bytes, devices[1].reads), (1, 3));
    }

    #[test]
    fn lists_are_as_long_as_a_guest_can_have_them() {
        let rows = |count| (0..count).map(|major| row(major, "read", 1)).collect();
        assert!(with_rows(rows(64)).is_ok());
        let too_many = Err(AnswerError::TooMany {
            what: "disks",
            max: DEVICES_MAX,
        });
        assert_eq!(with_rows(rows(65)), too_many);
        assert!(with_rows(rows(100_000)).is_err());
        assert!(with_rows(vec![row(1, "read", 1); 100_000]).is_err());

        let interfaces = |count| {
            parsed(|answer| {
                let one = NetworkStats {
                    name: "eth0".into(),
                    ..Default::default()
                };
                answer.network_stats = vec![one; count];
            })
        };
        assert!(interfaces(INTERFACES_MAX).is_ok());
        assert!(interfaces(INTERFACES_MAX + 1).is_err());
    }

    #[test]
    fn names_are_those_that_such_things_have() {
        let interface = |name: &str| {
            parsed(|answer| {
                answer.network_stats.push(NetworkStats {
                    name: name.to_owned(),
                    ..Default::default()
                });
            })
        };
        for name in ["lo", "eth0", "veth12345678901", "br-1.2@x"] {
            assert!(interface(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a/b", "a\n", "é", "sixteen-letters-"] {
            assert!(interface(name).is_err(), "{name:?}");
        }
        let page = |sizes: &[&str]| {
            parsed(|answer| {
                let cgroup = answer.cgroup_stats.mut_or_insert_default();
                for size in sizes {
                    let stats = Default::default();
                    cgroup.hugetlb_stats.insert((*size).to_owned(), stats);
                }
            })
        };
        assert_eq!(page(&["1GB", "2MB", "64KB"]).unwrap().huge_pages.len(), 3);
        for size in ["", "MB", "2M", "2 MB", "-2MB", "2MB\n", "1234567MB"] {
            assert!(page(&[size]).is_err(), "{size:?}");
        }
        let many = [
            "1KB", "2KB", "4KB", "8KB", "1MB", "2MB", "4MB", "8MB", "1GB",
        ];
        assert!(page(&many).is_err());
        assert!(page(&many[..8]).is_ok());
    }

    #[test]
    fn of_memory_only_known_numbers_are_kept() {
        let stats = parsed(|answer| {
            let cgroup = answer.cgroup_stats.mut_or_insert_default();
            let memory = cgroup.memory_stats.mut_or_insert_default();
            for key in MEMORY_KEYS {
                memory.stats.insert(key.to_owned(), u64::MAX);
            }
            for number in 0..1000 {
                memory.stats.insert(format!("made_up_{number}"), 1);
            }
        })
        .unwrap();
        assert_eq!(stats.memory_stat.len(), MEMORY_KEYS.len());
        assert_eq!(stats.memory_stat("anon"), u64::MAX);
    }
}
