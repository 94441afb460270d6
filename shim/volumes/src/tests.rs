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
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use shim_agent_client::AgentClient;
use tokio::net::UnixStream;
use ttrpc::{
    r#async::TtrpcContext,
    asynchronous::{Server, transport::Listener},
};

use crate::{CopyPlan, Mounts, Place, copy};

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
    }
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
