//! A container that runs nothing, for tests of what surrounds containers.

use std::sync::Arc;

use agent_evidence::{Sha256Digest, log::ContainerDigests};
use agent_protocol::id::{ContainerId, ExecId};
use agent_requests::ProcessSpec;
use policy_engine::environment::PodFacts;

use crate::{
    cgroup::Cgroup,
    process::Process,
    stdio::Stdio,
    table::{Container, Containers, lock},
    verdict::Verdict,
};

/// No process of Linux has this number.
const NOBODY: i32 = i32::MAX;

impl Containers {
    /// Puts a container into the table, with a further process, without asking the kernel
    /// for anything but pipes. For tests of other crates.
    ///
    /// # Panics
    ///
    /// When there are no pipes.
    #[doc(hidden)]
    pub fn insert_idle(&self, id: &ContainerId, exec: &ExecId) {
        let process = || {
            let owner = (
                nix::unistd::getuid().as_raw(),
                nix::unistd::getgid().as_raw(),
            );
            #[expect(clippy::expect_used, reason = "only tests call this")]
            let (stdio, _) = Stdio::pipes(owner, None).expect("pipes can be made");
            let exit = self.reaper.claim(&self.reaper.expecting(), NOBODY);
            #[expect(clippy::expect_used, reason = "only tests call this")]
            let (verdict, _) = Verdict::pair().expect("pipes can be made");
            Arc::new(Process::new(NOBODY, exit, stdio, verdict))
        };
        let container = Container {
            id: id.clone(),
            cgroup: Cgroup::of(id),
            init: process(),
            execs: [(exec.clone(), Some(process()))]
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>()
                .into(),
            digests: ContainerDigests {
                process: Sha256Digest::ZERO,
                environment: Sha256Digest::ZERO,
                mounts: Sha256Digest::ZERO,
                rights: Sha256Digest::ZERO,
                settings: Sha256Digest::ZERO,
            },
            place: Default::default(),
            facts: PodFacts::default(),
            defaults: ProcessSpec {
                process: oci_spec::runtime::Process::default(),
                user_name: String::new(),
                terminal_size: None,
            },
            shared_processes: false,
            is_pause: false,
            vsock: false,
            termination: None,
            started: true.into(),
            age: self.serial().into(),
            parts: Default::default(),
        };
        lock(&self.table).insert(id.clone(), Some(Arc::new(container)));
    }
}
