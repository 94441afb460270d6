//! System call filters for further processes.
//!
//! The container library filters a container's first process only. Others get the
//! same filter here, in the last step before their program runs.

use libcontainer::{
    oci_spec::runtime::{LinuxSeccomp, Spec},
    seccomp::initialize_seccomp,
    workload::{Executor, ExecutorError, ExecutorValidationError, default::DefaultExecutor},
};

/// Runs a program under a filter.
#[derive(Clone)]
pub(super) struct Filtered(LinuxSeccomp);

/// What runs a further process of the container with this spec, if not the
/// library's own way.
pub(super) fn executor(container: &Spec) -> Option<Filtered> {
    let linux = container.linux().as_ref()?;
    linux.seccomp().clone().map(Filtered)
}

impl Executor for Filtered {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // Only a privileged process may take on a filter that a program with more
        // privileges would inherit; here privileges are dropped already. So the
        // program can gain none, which its container's first process might.
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| ExecutorError::Execution(error.into()))?;
        initialize_seccomp(&self.0).map_err(|error| ExecutorError::Execution(error.into()))?;
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}
