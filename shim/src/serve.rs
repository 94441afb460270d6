//! The shim's long-lived process.

use std::{
    fs, io,
    os::{fd::AsFd, unix::net::UnixListener},
    sync::Arc,
    time::Duration,
};

use agent_protocol::id::SandboxId;
use anyhow::{Context, Result};
use shim_hypervisor::Qemu;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::{Server, transport::Listener};

use crate::{
    bootstrap::socket_path, cli::Arguments, events::Events, logging, record::StateDir,
    service::Service, task_service,
};

const WORKERS: usize = 2;
const BLOCKING_THREADS_MAX: usize = 16;
const STACK_BYTES: usize = 1 << 20;
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Serves until the pod is gone.
pub(crate) fn serve(arguments: &Arguments) -> Result<()> {
    logging::start(arguments.debug);
    // Already the leader of a session only when somebody runs this by hand.
    let _ = nix::unistd::setsid();
    let listener = take_listener()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(run(arguments, listener));
    // Long polls of the guest may still wait; nothing depends on them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

/// The listening socket was handed over as standard input.
fn take_listener() -> Result<UnixListener> {
    let fd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot take the socket from standard input")?;
    let null = fs::File::open("/dev/null").context("cannot open /dev/null")?;
    nix::unistd::dup2_stdin(null).context("cannot replace standard input")?;
    Ok(UnixListener::from(fd))
}

async fn run(arguments: &Arguments, listener: UnixListener) -> Result<()> {
    let sandbox = SandboxId::parse(&arguments.id)
        .with_context(|| format!("sandbox id {:?} is invalid", arguments.id))?;
    let socket = socket_path(&arguments.address, &arguments.namespace, &sandbox);
    ignore_termination()?;
    let events = Events::start(arguments.namespace.clone());
    let state = StateDir::of(&sandbox);
    let service = Arc::new(Service::new(
        sandbox,
        Some(socket.clone()),
        state,
        events,
        Box::new(Qemu),
    ));
    let listener = Listener::try_from(listener).context("cannot use the socket")?;
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(task_service::services(&service));
    server.start().await.context("cannot serve")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "shim serves");
    service.ended().await;
    if let Err(error) = fs::remove_file(&socket) {
        tracing::debug!(%error, "socket not removed");
    }
    // The answer to the request that ended the shim must still go out.
    let _ = tokio::time::timeout(CLOSE_DEADLINE, server.shutdown()).await;
    tracing::info!("shim ends");
    Ok(())
}

/// A shim ends when its pod ends: init systems that send SIGTERM to a whole cgroup must
/// not take the pods of a restarting containerd with it.
fn ignore_termination() -> Result<()> {
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::pipe(),
    ] {
        let mut stream = signal(kind).context("cannot ignore a signal")?;
        tokio::spawn(async move { while stream.recv().await.is_some() {} });
    }
    Ok(())
}
