//! `kata-cc-snapshotter`: serves containerd on a Unix socket until told to stop.
//!
//! Exit codes: 0 stopped by SIGTERM or SIGINT, 1 could not start or serve, 2 wrong usage.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net, net::UnixDatagram},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use shim_snapshotter::{
    service::Snapshotter, store::Store, wire::snapshots_server::SnapshotsServer,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// Requests take milliseconds; one that takes longer is not worth waiting for.
const DRAIN: Duration = Duration::from_secs(5);

/// containerd proxy snapshotter for containers whose images are pulled in their VMs.
///
/// Messages go to standard error; KATA_CC_LOG sets what is written (error, warn,
/// info, debug).
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Socket to serve on, `address` in containerd's proxy_plugins table.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/kata-cc/snapshotter.sock"
    )]
    address: PathBuf,
    /// Directory for the records of running containers, kept over restarts.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/kata-cc/snapshotter"
    )]
    root: PathBuf,
    /// containerd's content store, for the names of images' users.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/containerd/io.containerd.content.v1.content"
    )]
    content: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("KATA_CC_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(args: &Args) -> anyhow::Result<()> {
    let store = Store::open(&args.root, &args.content)?;
    let listener = listen(&args.address)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server = tonic::transport::Server::builder()
        .add_service(SnapshotsServer::new(Snapshotter::new(store)))
        .serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        });
    let mut server = tokio::spawn(server);

    tracing::info!(address = %args.address.display(), root = %args.root.display(), "serving");
    tell_service_manager();
    tokio::select! {
        served = &mut server => served?.context("cannot serve")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(());
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!("stopping with connections open");
    }
    fs::remove_file(&args.address).ok();
    tracing::info!("stopped");
    Ok(())
}

/// Binds the socket, taking the place of one that nobody serves any more.
fn listen(address: &Path) -> anyhow::Result<UnixListener> {
    if net::UnixStream::connect(address).is_ok() {
        bail!("{} is served by another process", address.display());
    }
    let bind = || -> io::Result<UnixListener> {
        if let Some(parent) = address.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(address) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(address)?;
        fs::set_permissions(address, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().with_context(|| format!("cannot listen on {}", address.display()))
}

/// Says READY to systemd (sd_notify(3)), so that containerd can be ordered after us.
fn tell_service_manager() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager that the socket is ready");
    }
}
