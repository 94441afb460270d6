//! Files of the kernel's that containers do not see, or cannot write, whatever the host
//! asks for.

/// What reaches into the kernel itself: its memory, its emergency commands, keys, firmware.
const MASKED_ALWAYS: [&str; 4] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/sysrq-trigger",
    "/sys/firmware",
];

/// What Kubernetes masks for containers that are not privileged, by way of containerd.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
];

/// What Kubernetes makes read-only for them.
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// Where the kernel takes the name of a program that it runs itself, as root and outside of
/// any container.
const READ_ONLY_ALWAYS: [&str; 3] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/sys/kernel/uevent_helper",
];

/// Whether a container may administrate the system it sees (`CAP_SYS_ADMIN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Administrates {
    /// It may.
    Yes,
    /// It may not.
    No,
}

/// The paths to mask: what was asked for and the floor, sorted.
#[must_use]
pub fn masked(asked: Vec<String>, administrates: Administrates) -> Vec<String> {
    with_floor(asked, &MASKED_ALWAYS, &MASKED, administrates)
}

/// The paths to make read-only: what was asked for and the floor, sorted.
#[must_use]
pub fn read_only(asked: Vec<String>, administrates: Administrates) -> Vec<String> {
    with_floor(asked, &READ_ONLY_ALWAYS, &READ_ONLY, administrates)
}

fn with_floor(
    mut paths: Vec<String>,
    always: &[&str],
    usual: &[&str],
    administrates: Administrates,
) -> Vec<String> {
    let usual = match administrates {
        Administrates::Yes => &[][..],
        Administrates::No => usual,
    };
    paths.extend([always, usual].concat().into_iter().map(str::to_owned));
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_opens_what_is_masked_for_all() {
        for administrates in [Administrates::Yes, Administrates::No] {
            let masked = masked(Vec::new(), administrates);
            let read_only = read_only(Vec::new(), administrates);
            for path in MASKED_ALWAYS {
                assert!(masked.iter().any(|one| one == path), "{path}");
            }
            for path in READ_ONLY_ALWAYS {
                assert!(read_only.iter().any(|one| one == path), "{path}");
            }
        }
    }

    #[test]
    fn only_a_container_that_administrates_may_open_the_rest() {
        assert!(masked(Vec::new(), Administrates::No).contains(&"/proc/acpi".to_owned()));
        assert!(!masked(Vec::new(), Administrates::Yes).contains(&"/proc/acpi".to_owned()));
        assert!(read_only(Vec::new(), Administrates::No).contains(&"/proc/sys".to_owned()));
        assert!(!read_only(Vec::new(), Administrates::Yes).contains(&"/proc/sys".to_owned()));
    }

    #[test]
    fn what_was_asked_for_is_kept_once() {
        let asked = vec!["/x".to_owned(), "/proc/keys".to_owned()];
        let masked = masked(asked, Administrates::Yes);
        assert_eq!(
            masked.iter().filter(|path| *path == "/proc/keys").count(),
            1
        );
        assert!(masked.contains(&"/x".to_owned()));
    }
}
