//! The last steps before a workload's program runs, in place of the container library's.
//!
//! The library filters a container's first process only, hands a file that the kernel does not
//! know to a shell, and tells nobody when the kernel refuses a program. Here every process gets
//! its container's filter while it still has the privilege that the kernel asks for, so it needs
//! no promise to gain none; then its capabilities; and what the kernel says of the program
//! goes to the agent.

use std::{
    env,
    ffi::CString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use libcontainer::{
    capabilities::drop_privileges,
    oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Process, Spec},
    seccomp::initialize_seccomp,
    syscall::syscall::create_syscall,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use nix::{errno::Errno, unistd::execv};
use rustix::fs::{Access, access};

use crate::verdict;

/// Runs a workload's program.
#[derive(Clone)]
pub(super) struct Program {
    verdict: Option<Arc<OwnedFd>>,
    confinement: Confinement,
}

/// What the library does not do for a further process.
#[derive(Clone, Default)]
pub(super) struct Confinement {
    filter: Option<LinuxSeccomp>,
    /// Kept back from the library, so that the filter can be loaded.
    capabilities: Option<LinuxCapabilities>,
}

impl Confinement {
    /// What a further process of the container with this spec needs. Takes its capabilities, unless
    /// it gains none anyway.
    pub(super) fn of(container: &Spec, process: &mut Process) -> Self {
        let linux = container.linux().as_ref();
        let Some(filter) = linux.and_then(|linux| linux.seccomp().clone()) else {
            return Self::default();
        };
        let mut capabilities = None;
        if process.no_new_privileges() != Some(true) {
            capabilities.clone_from(process.capabilities());
            process.set_capabilities(None);
        }
        Self {
            filter: Some(filter),
            capabilities,
        }
    }

    fn put_on(&self) -> Result<(), ExecutorError> {
        let refused = |error: Box<dyn std::error::Error + Send + Sync>| error;
        if let Some(filter) = &self.filter {
            initialize_seccomp(filter).map_err(|error| refused(error.into()))?;
        }
        if let Some(capabilities) = &self.capabilities {
            drop_privileges(capabilities, create_syscall().as_ref())
                .map_err(|error| refused(error.into()))?;
        }
        Ok(())
    }
}

impl Program {
    pub(super) fn new(verdict: Option<OwnedFd>, confinement: Confinement) -> Self {
        Self {
            verdict: verdict.map(Arc::new),
            confinement,
        }
    }

    fn tell(&self, errno: Errno) {
        if let Some(verdict) = &self.verdict {
            verdict::tell(verdict, errno);
        }
    }
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let arguments = arguments(spec)?;
        if let Err(error) = self.confinement.put_on() {
            self.tell(Errno::EPERM);
            return Err(error);
        }
        let errno = run(&arguments);
        self.tell(errno);
        Err(ExecutorError::Other(format!("cannot run it: {errno}")))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        let variables = process.and_then(|process| process.env().as_ref());
        let path = variables
            .into_iter()
            .flatten()
            .find_map(|entry| entry.strip_prefix("PATH="));
        let name = process
            .and_then(|process| process.args().as_ref()?.first())
            .map_or("", String::as_str);
        find(name, path).map_err(|why| {
            ExecutorValidationError::ArgValidationError(format!("executable '{name}' {why}"))
        })
    }
}

fn arguments(spec: &Spec) -> Result<Vec<CString>, ExecutorError> {
    let arguments = spec.process().as_ref();
    let arguments = arguments.and_then(|process| process.args().as_ref());
    let arguments = arguments.into_iter().flatten();
    arguments
        .map(|argument| CString::new(argument.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| ExecutorError::InvalidArg)
}

/// Where a program of this name may be, as exec(3) looks for it.
fn candidates(name: &str, path: &str) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![name.into()];
    }
    path.split(':')
        .map(|folder| Path::new(folder).join(name))
        .collect()
}

/// Says in the library's words, which [`crate::helper`] knows, why there is no such program.
fn find(name: &str, path: Option<&str>) -> Result<(), &'static str> {
    let path = match path {
        None if !name.contains('/') => return Err("PATH environment variable is not set"),
        path => path.unwrap_or_default(),
    };
    let mut why = "not found in $PATH";
    for candidate in candidates(name, path) {
        match candidate.metadata() {
            Ok(found) if found.is_file() && access(&candidate, Access::EXEC_OK).is_ok() => {
                return Ok(());
            }
            Ok(_) => why = "does not have correct permissions",
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                why = "does not have correct permissions";
            }
            Err(_) => {}
        }
    }
    Err(why)
}

/// Becomes the program, or says why the kernel refuses it. What is no program of this machine
/// is not handed to a shell, which execvp(3) would do.
fn run(arguments: &[CString]) -> Errno {
    let Some(name) = arguments.first() else {
        return Errno::EINVAL;
    };
    let path = env::var("PATH").unwrap_or_default();
    let mut why = Errno::ENOENT;
    for candidate in candidates(&name.to_string_lossy(), &path) {
        let Ok(candidate) = CString::new(candidate.as_os_str().as_encoded_bytes()) else {
            continue;
        };
        match execv(&candidate, arguments) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => why = Errno::EACCES,
            Err(errno) => return errno,
            Ok(never) => match never {},
        }
    }
    why
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_program_is_found_as_its_user_may_run_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, mode| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (own, plain) = (at("own", 0o700), at("plain", 0o644));
        let path = format!("/nowhere:{}", folder.path().display());
        let path = Some(path.as_str());
        assert_eq!(find("own", path), Ok(()));
        assert_eq!(find(&own, None), Ok(()));
        let denied = Err("does not have correct permissions");
        assert_eq!(find("plain", path), denied);
        assert_eq!(find(&plain, path), denied);
        assert_eq!(find(folder.path().to_str().unwrap(), path), denied);
        assert_eq!(find("other", path), Err("not found in $PATH"));
        assert_eq!(find("/other", path), Err("not found in $PATH"));
        assert!(find("own", None).unwrap_err().contains("PATH"));
    }

    #[test]
    fn a_filter_keeps_the_capabilities_back_until_it_is_loaded() {
        let filtered = r#"{"ociVersion":"1.2.0","linux":{"seccomp":{
            "defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}}}"#;
        let filtered: Spec = serde_json::from_str(filtered).unwrap();
        let plain: Spec = serde_json::from_str(r#"{"ociVersion":"1.2.0","linux":{}}"#).unwrap();
        for (container, promises, kept_back) in [
            (&filtered, None, true),
            (&filtered, Some(false), true),
            (&filtered, Some(true), false),
            (&plain, None, false),
        ] {
            let mut process = Process::default();
            process.set_no_new_privileges(promises);
            let asked = process.capabilities().clone();
            assert!(asked.is_some());
            let confinement = Confinement::of(container, &mut process);
            assert_eq!(process.capabilities().is_none(), kept_back);
            assert_eq!(confinement.capabilities.is_some(), kept_back);
        }
    }
}
