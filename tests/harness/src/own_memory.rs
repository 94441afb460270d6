//! What a VM takes of its node beside the guest's memory.

/// The most MiB that the overhead of the shipped RuntimeClass counts for it, the shim included.
pub const OWN_MIB: f64 = 64.0;

/// MiB in a process's `smaps` (proc(5)) that are neither the guest's memory nor what emulation
/// keeps of translated programs, shared pages in parts.
#[must_use]
pub fn own_mib(smaps: &str) -> f64 {
    let (mut kib, mut counts) = (0.0, true);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Pss:"), Some(amount)) if counts => kib += amount.parse().unwrap_or(0.0),
            (Some(range), Some(permissions)) if range.contains('-') && !range.ends_with(':') => {
                let name = words.nth(3).unwrap_or_default();
                let translated = permissions.contains('x') && !name.starts_with('/');
                let buffer = translated || name.contains("tcg-jit");
                counts = !buffer && !name.contains("memory-backend");
            }
            _ => {}
        }
    }
    kib / 1024.0
}

#[cfg(test)]
mod tests {
    use super::own_mib;

    #[test]
    fn the_guests_memory_and_translated_programs_do_not_count() {
        let map =
            |head: &str, kib: u32| format!("{head}\nRss: {kib} kB\nPss: {kib} kB\nVmFlags: rd\n");
        let smaps = [
            map(
                "7f00-7f01 rw-s 0 00:01 5 /memfd:memory-backend-memfd (deleted)",
                100_000,
            ),
            map("7f02-7f03 rwxp 0 00:00 0", 50_000),
            map("7f02-7f03 rwxs 0 00:01 6 /memfd:tcg-jit (deleted)", 50_000),
            map("5500-5501 r-xp 0 08:01 7 /usr/bin/qemu-system-x86_64", 1024),
            map("7f04-7f05 rw-p 0 00:00 0", 1024),
            map("5600-5601 rw-p 0 00:00 0 [heap]", 2048),
        ];
        assert!((own_mib(&smaps.concat()) - 4.0).abs() < 0.001);
    }
}
