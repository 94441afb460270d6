//! Closing the kernel behind the agent: once its modules are loaded, nobody loads another,
//! starts another kernel, or reads this one's memory.

use std::{fs, io};

use super::error::BootError;

/// Switches of `/proc/sys`, with what they are set to (`Documentation/admin-guide/sysctl`
/// of Linux). Most of them cannot be turned back.
const SWITCHES: [(&str, &str); 9] = [
    // No other kernel, no module.
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/modules_disabled", "1"),
    // The host reaches the emergency keys over the serial line.
    ("kernel/sysrq", "0"),
    // What the kernel says of itself is not for workloads.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    // A kernel that has found itself broken does not go on.
    ("kernel/panic_on_oops", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("vm/unprivileged_userfaultfd", "0"),
];

/// Makes them, and sees that they are made. One that this kernel lacks guards nothing in it.
pub(super) fn close() -> Result<(), BootError> {
    SWITCHES.iter().try_for_each(|(name, value)| {
        set(name, value).map_err(|source| BootError::Switch { name, source })
    })
}

fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{name}");
    let written = fs::write(&path, value);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == value => Ok(()),
        Ok(_) => written.and(Err(io::ErrorKind::InvalidData.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
