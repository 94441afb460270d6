//! The floor below every filter of system calls: what no container may ask the guest's
//! kernel for, whatever its own profile allows.
//!
//! It is loaded by the helper that makes the container's processes, before anything of the
//! container runs, so first processes and execs inherit it alike; a container's own profile
//! comes on top, and the kernel obeys the stricter of the two. Programs may still gain
//! privileges by `exec`: the helper is privileged, so the filter needs no promise not to.

use libcontainer::{
    oci_spec::runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
        LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
    seccomp::initialize_seccomp,
};
use nix::libc;

/// Calls that change or look into the one kernel that all containers share: other kernels
/// and modules, programs in the kernel and their maps, status, key rings (which belong to
/// a user, not to a container), faults handled for other processes.
pub(crate) const REFUSED: [&str; 12] = [
    "add_key",
    "bpf",
    "create_module",
    "delete_module",
    "finit_module",
    "init_module",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "perf_event_open",
    "request_key",
    "userfaultfd",
];

/// Loads the floor for this process and all that it starts; `vsock` says whether they may
/// open sockets of that family.
///
/// # Errors
///
/// When the kernel does not take the filter, in the library's words.
pub(crate) fn load(vsock: bool) -> Result<(), String> {
    let filter = filter(vsock).map_err(|error| error.to_string())?;
    initialize_seccomp(&filter)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn filter(vsock: bool) -> Result<LinuxSeccomp, libcontainer::oci_spec::OciSpecError> {
    // Where the processor runs programs of other word sizes, these are held to it too.
    let architectures: &[Arch] = if cfg!(target_arch = "x86_64") {
        &[Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else {
        &[]
    };
    let mut rules = vec![refused(REFUSED.map(str::to_owned).into())?];
    if !vsock {
        rules.push(no_vsock()?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures(architectures.to_vec())
        .syscalls(rules)
        .build()
}

fn refused(names: Vec<String>) -> Result<LinuxSyscall, libcontainer::oci_spec::OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(libc::EPERM as u32)
        .build()
}

/// The agent's own way to the host, which is no workload's.
fn no_vsock() -> Result<LinuxSyscall, libcontainer::oci_spec::OciSpecError> {
    let family = LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(libc::AF_VSOCK as u64)
        .op(LinuxSeccompOperator::ScmpCmpEq)
        .build()?;
    LinuxSyscallBuilder::default()
        .names(["socket".to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(libc::EAFNOSUPPORT as u32)
        .args([family])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(vsock: bool) -> Vec<String> {
        let filter = filter(vsock).unwrap();
        assert_eq!(filter.default_action(), LinuxSeccompAction::ScmpActAllow);
        let rules = filter.syscalls().iter().flatten();
        rules.flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn the_floor_can_be_built_and_allows_what_it_does_not_name() {
        assert_eq!(names(false).len(), REFUSED.len() + 1);
    }

    #[test]
    fn vsock_that_is_granted_opens_nothing_else() {
        assert_eq!(names(true), REFUSED);
    }

    #[test]
    fn refused_calls_fail_under_the_floor_and_others_do_not() {
        use rustix::net::{AddressFamily, SocketType, socket};

        // A filter is the thread's own and ends with it.
        let under_the_floor = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            load(false).unwrap();
            let vsock = AddressFamily::from_raw(libc::AF_VSOCK as u16);
            let refused = socket(vsock, SocketType::STREAM, None).unwrap_err();
            let allowed = socket(AddressFamily::UNIX, SocketType::STREAM, None);
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            (refused, allowed.is_ok(), status)
        });
        let (refused, allowed, status) = under_the_floor.join().unwrap();
        assert_eq!(refused, rustix::io::Errno::AFNOSUPPORT);
        assert!(allowed);
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
}
