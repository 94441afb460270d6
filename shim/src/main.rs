//! The containerd shim: starts the pod's VM on the node and forwards requests to the
//! guest.
//!
//! containerd runs one process of `containerd-shim-kata-cc-v2` for each pod and speaks
//! its Task API to it; the shim starts a VM from the installed guest image and turns
//! each request into calls to the agent inside. It runs on a node that the workload
//! does not trust, so it holds no secret and decides nothing that matters to
//! the workload: the agent does. What it owes is to the node: it leaves nothing
//! behind, wherever it is killed, and it answers every request with a result or one
//! sentence.
//!
//! Where to start: [`bootstrap`] (how the process comes to be), [`task_service`] and
//! [`service`] (what it does for a request), [`sandbox`] (what a pod needs on the
//! host), [`clean_up`] (how all of that goes away).
//!
//! Exit codes: 0 done, 1 failed (one sentence on stderr), 2 wrong command line.

mod bootstrap;
mod cgroup;
mod clean_up;
mod cli;
mod container;
mod events;
mod guest_image;
mod image_users;
mod info;
mod initdata;
mod logging;
mod network;
mod process;
mod record;
mod refuse;
mod sandbox;
mod scratch;
mod serve;
mod service;
mod spec;
mod stats;
mod status;
mod stdio;
mod task_pid;
mod task_service;
mod tee;
mod timing;
mod users;

use std::process::ExitCode;

use crate::{
    cli::{Action, Arguments},
    status::chain,
};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("containerd-shim-kata-cc-v2: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match arguments.action {
        Action::Start => bootstrap::start(&arguments),
        Action::Delete => clean_up::delete(&arguments),
        Action::Serve => serve::serve(&arguments),
        Action::Info => info::print(),
        Action::Version => {
            println!("containerd-shim-kata-cc-v2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let sentence = chain(error.as_ref());
            tracing::error!(error = sentence, "shim failed");
            eprintln!("containerd-shim-kata-cc-v2: {sentence}");
            ExitCode::FAILURE
        }
    }
}
