//! What the agent itself uses of the guest's memory.

/// Memory that the agent has in use, in KiB, code that is in memory included.
pub(crate) fn resident_kib() -> u64 {
    const PAGE_KIB: u64 = 4;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or_default().saturating_mul(PAGE_KIB)
}
