//! Work inside a network namespace.
//!
//! A namespace belongs to a thread, so each piece of work gets a thread of its own,
//! with a small async runtime for netlink, that ends with the work. No thread that
//! has changed its namespace ever goes back to a pool.

use std::{fs::File, future::Future, io, path::PathBuf, thread, time::Duration};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::NetworkError;

const DEADLINE: Duration = Duration::from_secs(30);
const STACK_BYTES: usize = 256 << 10;

/// Runs `job` in the namespace at `path`.
///
/// # Errors
///
/// The job's own, or [`NetworkError::Enter`], or [`NetworkError::Deadline`].
pub(super) async fn run<T, J, F>(path: PathBuf, job: J) -> Result<T, NetworkError>
where
    T: Send + 'static,
    J: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<T, NetworkError>>,
{
    let enter = |path: PathBuf| {
        move |source: io::Error| NetworkError::Enter {
            path: path.clone(),
            source,
        }
    };
    let failed = enter(path.clone());
    let (sender, receiver) = oneshot::channel();
    let namespace = path.clone();
    thread::Builder::new()
        .name("netns".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || drop(sender.send(inside(namespace, job))))
        .map_err(&failed)?;
    match tokio::time::timeout(DEADLINE, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(failed(io::Error::other("the thread died"))),
        Err(_) => Err(NetworkError::Deadline {
            path,
            seconds: DEADLINE.as_secs(),
        }),
    }
}

fn inside<T, J, F>(path: PathBuf, job: J) -> Result<T, NetworkError>
where
    J: FnOnce() -> F,
    F: Future<Output = Result<T, NetworkError>>,
{
    let entered = File::open(&path)
        .and_then(|namespace| setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
        .and_then(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
        });
    let runtime = entered.map_err(|source| NetworkError::Enter { path, source })?;
    runtime.block_on(async { job().await })
}
