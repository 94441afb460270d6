//! Volumes that somebody changes while they are copied to an agent that notes what it gets.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use agent_protocol::rpc::{
    agent::CopyFileRequest,
    agent_ttrpc::{AgentService, create_agent_service},
    empty::Empty,
};
use async_trait::async_trait;
use futures::StreamExt;
use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use shim_agent_client::AgentClient;
use tokio::net::UnixStream;
use ttrpc::{
    r#async::TtrpcContext,
    asynchronous::{Server, transport::Listener},
};

use crate::{
    Copied, CopyPlan, Mounts, Place,
    copy::{BYTES_MAX, copy, copy_all},
};

const FOREIGN: &str = "of the host";
const OWN: &str = "of the volume";
const FILES: usize = 40;

/// What the guest was sent, as text.
#[derive(Clone, Default)]
pub(crate) struct Guest(Arc<Mutex<Vec<String>>>);

impl Guest {
    /// A guest, the client that reaches it, and what must live as long.
    pub(crate) async fn start() -> (Self, AgentClient, Server) {
        let guest = Self::default();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let streams = futures::stream::iter([Ok(theirs)]).chain(futures::stream::pending());
        let mut server = Server::new()
            .add_listener(Listener::new(streams))
            .register_service(create_agent_service(Arc::new(guest.clone())));
        server.start().await.unwrap();
        (guest, AgentClient::new(ours), server)
    }

    /// Everything sent since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[async_trait]
impl AgentService for Guest {
    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        let text = String::from_utf8_lossy(&request.data).into_owned();
        self.0.lock().unwrap().push(text);
        Ok(Empty::default())
    }
}

pub(crate) fn plan_of(volume: &Path) -> CopyPlan {
    CopyPlan {
        place: Place::open(volume, Mounts::Included).unwrap(),
        guest: "/g".into(),
        destination: "/d".into(),
        copied: None,
        only_directory: false,
    }
}

/// Runs something in a thread with mounts of its own, seen by no other test; says so if that
/// cannot be had.
pub(crate) fn with_own_mounts(work: impl FnOnce() + Send + 'static) {
    let worker = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("skipped: no mount namespace can be made here ({errno})");
            return;
        }
        mount_at(
            None,
            Path::new("/"),
            None,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None,
        );
        work();
    });
    worker.join().unwrap();
}

pub(crate) fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) {
    mount(source, target, kind, flags, options).unwrap();
}

pub(crate) fn exchange(one: &Path, other: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
}

fn tree(root: &Path, content: &str) {
    fs::create_dir_all(root.join("d")).unwrap();
    fs::write(root.join("f"), content).unwrap();
    for number in 0..FILES {
        fs::write(root.join(format!("d/{number}")), content).unwrap();
    }
}

/// Swaps the volume, a directory and a file in it for links out of it and back.
fn swap_until(stop: &AtomicBool, root: &Path) {
    let pairs: [(PathBuf, PathBuf); 3] = [
        (root.join("volume/d"), root.join("link_d")),
        (root.join("volume/d/7"), root.join("link_file")),
        (root.join("volume"), root.join("link_volume")),
    ];
    while !stop.load(Ordering::SeqCst) {
        for (inside, outside) in &pairs {
            exchange(inside, outside);
            exchange(inside, outside);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_swapped_for_links_at_any_moment_show_the_guest_nothing_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    tree(&root.join("volume"), OWN);
    tree(&root.join("secret"), FOREIGN);
    symlink(root.join("secret/d"), root.join("link_d")).unwrap();
    symlink(root.join("secret/f"), root.join("link_file")).unwrap();
    symlink(root.join("secret"), root.join("link_volume")).unwrap();
    let (guest, agent, _server) = Guest::start().await;
    let plan = plan_of(&root.join("volume"));
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, root) = (Arc::clone(&stop), root.clone());
        std::thread::spawn(move || swap_until(&stop, &root))
    };
    let (mut own, mut disturbed) = (0, 0);
    let end = Instant::now() + Duration::from_secs(10);
    for _ in 0..300 {
        if copy(&agent, &plan).await.is_err() {
            disturbed += 1;
        }
        let sent = guest.take();
        let foreign = sent.iter().filter(|text| text.contains(FOREIGN)).count();
        assert_eq!(foreign, 0, "the guest was sent a file of the host");
        own += sent.iter().filter(|text| *text == OWN).count();
        if Instant::now() > end {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    swapper.join().unwrap();
    eprintln!("{own} files arrived, {disturbed} copies met a change");
    copy(&agent, &plan).await.unwrap();
    let sent = guest.take();
    assert_eq!(sent.iter().filter(|text| *text == OWN).count(), FILES + 1);
    assert!(own > 0);
}

#[tokio::test]
async fn everything_is_looked_at_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    tree(&root.join("small"), OWN);
    let large = root.join("large");
    fs::File::create(&large)
        .unwrap()
        .set_len(BYTES_MAX + 1)
        .unwrap();
    let (guest, agent, _server) = Guest::start().await;
    let plans = [plan_of(&root.join("small")), plan_of(&large)];
    let error = copy_all(&agent, &plans).await.unwrap_err();
    assert!(error.to_string().contains("large"), "{error}");
    assert!(guest.take().is_empty());
    copy_all(&agent, &plans[..1]).await.unwrap();
    assert!(!guest.take().is_empty());
}

#[tokio::test]
async fn what_is_copied_for_the_pod_is_copied_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::write(root.join("f"), OWN).unwrap();
    let (guest, agent, _server) = Guest::start().await;
    let plan = [CopyPlan {
        copied: Some(Copied::default()),
        ..plan_of(&root)
    }];
    let both = tokio::join!(copy_all(&agent, &plan), copy_all(&agent, &plan));
    assert!(both.0.is_ok() && both.1.is_ok());
    copy_all(&agent, &plan).await.unwrap();
    let sent = guest.take();
    assert_eq!(sent.iter().filter(|text| *text == OWN).count(), 1);
    // A directory of it alone is sent without what is in it.
    let part = [CopyPlan {
        only_directory: true,
        ..plan_of(&root)
    }];
    copy_all(&agent, &part).await.unwrap();
    assert_eq!(guest.take(), [""]);
}
