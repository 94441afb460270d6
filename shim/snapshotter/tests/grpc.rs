//! The real binary, spoken to as containerd's metadata store speaks to it.

#![expect(clippy::unwrap_used, reason = "a failure anywhere here is the test's")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shim_snapshotter::wire::{
    CleanupRequest, CommitRequest, Empty, FieldMask, Info, KeyRequest, Kind, ListRequest, Mount,
    PrepareRequest, UpdateRequest, UsageResponse, snapshots_client::SnapshotsClient,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

const BASE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const TOP: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
const REF: &str = "containerd.io/snapshot.ref";

/// A directory with the state, the socket and the process that uses them.
struct Bed {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bed {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut bed = Self {
            directory,
            daemon: None,
        };
        bed.spawn();
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kata-cc-snapshotter"));
        command
            .arg("--address")
            .arg(self.path("socket"))
            .arg("--root")
            .arg(self.path("root"));
        command
    }

    /// Starts the process and waits until it says that it serves.
    fn spawn(&mut self) {
        let notify = self.path("notify");
        fs::remove_file(&notify).ok();
        let ready = UnixDatagram::bind(&notify).unwrap();
        ready
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", &notify);
        self.daemon = Some(command.spawn().unwrap());
        let mut message = [0; 16];
        let length = ready.recv(&mut message).expect("no READY in 30 s");
        assert_eq!(&message[..length], b"READY=1");
    }

    fn stop(&mut self, signal: Signal) -> Option<i32> {
        let mut child = self.daemon.take()?;
        let pid = i32::try_from(child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        child.wait().unwrap().code()
    }

    async fn client(&self) -> Client {
        let uri = format!("unix://{}", self.path("socket").display());
        let endpoint = Endpoint::from_shared(uri)
            .unwrap()
            .timeout(Duration::from_secs(30));
        Client(SnapshotsClient::new(endpoint.connect().await.unwrap()))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop(Signal::SIGKILL);
    }
}

/// The calls, without the envelopes.
struct Client(SnapshotsClient<Channel>);

impl Client {
    async fn prepare(
        &mut self,
        key: &str,
        parent: &str,
        target: Option<&str>,
    ) -> Result<Vec<Mount>, Status> {
        let request = prepare_request(key, parent, target);
        Ok(self.0.prepare(request).await?.into_inner().mounts)
    }

    async fn view(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = prepare_request(key, parent, None);
        Ok(self.0.view(request).await?.into_inner().mounts)
    }

    async fn stat(&mut self, key: &str) -> Result<Info, Status> {
        let response = self.0.stat(key_request(key)).await?.into_inner();
        Ok(response.info.unwrap())
    }

    async fn mounts(&mut self, key: &str) -> Result<Vec<Mount>, Status> {
        Ok(self.0.mounts(key_request(key)).await?.into_inner().mounts)
    }

    async fn remove(&mut self, key: &str) -> Result<Empty, Status> {
        Ok(self.0.remove(key_request(key)).await?.into_inner())
    }

    async fn usage(&mut self, key: &str) -> Result<UsageResponse, Status> {
        Ok(self.0.usage(key_request(key)).await?.into_inner())
    }

    async fn commit(&mut self, name: &str, key: &str) -> Result<Empty, Status> {
        let request = CommitRequest {
            name: name.to_owned(),
            key: key.to_owned(),
            ..CommitRequest::default()
        };
        Ok(self.0.commit(request).await?.into_inner())
    }

    async fn list(&mut self, filters: &[String]) -> Result<Vec<Info>, Status> {
        let request = ListRequest {
            filters: filters.to_vec(),
            ..ListRequest::default()
        };
        let mut stream = self.0.list(request).await?.into_inner();
        let mut found = Vec::new();
        while let Some(batch) = stream.message().await? {
            found.extend(batch.info);
        }
        Ok(found)
    }

    /// What containerd does for each layer of an image that it pulls.
    async fn layer(&mut self, number: u32, parent: &str, chain: &str) -> Info {
        let key = format!("k8s.io/{number}/extract-{number}-AbC_ {chain}");
        let refused = self.prepare(&key, parent, Some(chain)).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);

        let found = self.list(&[lookup(chain, parent)]).await.unwrap();
        assert_eq!(found.len(), 1);
        let info = found.into_iter().next().unwrap();
        assert_eq!(
            (info.kind(), info.parent.as_str()),
            (Kind::Committed, parent)
        );
        assert_eq!(info.labels[REF], chain);
        assert_eq!(self.stat(&info.name).await.unwrap().kind(), Kind::Committed);
        info
    }
}

fn key_request(key: &str) -> KeyRequest {
    KeyRequest {
        snapshotter: "kata-cc".to_owned(),
        key: key.to_owned(),
    }
}

fn prepare_request(key: &str, parent: &str, target: Option<&str>) -> PrepareRequest {
    let labels = target.map(|chain| (REF.to_owned(), chain.to_owned()));
    PrepareRequest {
        snapshotter: "kata-cc".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels: labels.into_iter().collect(),
    }
}

fn lookup(chain: &str, parent: &str) -> String {
    format!("labels.\"{REF}\"=={chain},parent==\"{parent}\"")
}

fn is_guest_pull(mounts: &[Mount]) -> bool {
    mounts.len() == 1
        && mounts[0]
            .options
            .iter()
            .any(|o| o.starts_with("io.katacontainers.volume="))
}

#[tokio::test]
async fn a_pull_and_a_container_never_need_a_layer() {
    let bed = Bed::start();
    let mut client = bed.client().await;
    let base = client.layer(1, "", BASE).await;
    let top = client.layer(2, &base.name, TOP).await;

    let key = "k8s.io/3/0123abcd";
    let mounts = client.prepare(key, &top.name, None).await.unwrap();
    assert!(is_guest_pull(&mounts), "{mounts:?}");
    assert_eq!(client.mounts(key).await.unwrap(), mounts);
    let info = client.stat(key).await.unwrap();
    assert_eq!((info.kind(), info.parent), (Kind::Active, top.name.clone()));
    let nothing = UsageResponse { size: 0, inodes: 0 };
    assert_eq!(client.usage(key).await.unwrap(), nothing);
    assert_eq!(client.usage(&top.name).await.unwrap(), nothing);

    let listed = client.list(&[]).await.unwrap();
    assert_eq!(listed.len(), 2, "the container and what it stands on");
    let blocked = client.remove(&top.name).await.unwrap_err();
    assert_eq!(blocked.code(), Code::FailedPrecondition);
    client.remove(key).await.unwrap();
    client.remove(&top.name).await.unwrap();
    assert!(client.list(&[]).await.unwrap().is_empty());
    let gone = client.mounts(key).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

// The client's connection has to be served while this waits for the process to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wiped_directory_changes_nothing_for_images() {
    let mut bed = Bed::start();
    let mut client = bed.client().await;
    client.layer(1, "", BASE).await;
    client.layer(2, BASE, TOP).await;
    assert_eq!(bed.stop(Signal::SIGTERM), Some(0));
    fs::remove_dir_all(bed.path("root")).unwrap();
    bed.spawn();

    let mut client = bed.client().await;
    for name in [BASE.to_owned(), TOP.to_owned(), format!("k8s.io/2/{TOP}")] {
        assert_eq!(client.stat(&name).await.unwrap().kind(), Kind::Committed);
    }
    client.layer(2, BASE, TOP).await;
    let mounts = client.prepare("k8s.io/9/c", TOP, None).await.unwrap();
    assert!(is_guest_pull(&mounts));
}

#[tokio::test]
async fn a_killed_process_comes_back_with_its_containers() {
    let mut bed = Bed::start();
    let mut client = bed.client().await;
    let mounts = client.prepare("k8s.io/3/c", TOP, None).await.unwrap();
    let before = client.list(&[]).await.unwrap();
    bed.stop(Signal::SIGKILL);
    bed.spawn();

    let mut client = bed.client().await;
    assert_eq!(client.mounts("k8s.io/3/c").await.unwrap(), mounts);
    assert_eq!(client.list(&[]).await.unwrap(), before);
}

#[tokio::test]
async fn an_image_of_another_snapshotter_is_unpacked_and_discarded() {
    let bed = Bed::start();
    let mut client = bed.client().await;
    let key = format!("k8s.io/4/extract-9-x {BASE}");
    let mounts = client.prepare(&key, "", None).await.unwrap();
    let scratch = Path::new(&mounts[0].source).to_owned();
    fs::write(scratch.join("layer"), b"bytes").unwrap();

    let name = format!("k8s.io/5/{BASE}");
    client.commit(&name, &key).await.unwrap();
    assert!(!scratch.exists());
    assert_eq!(client.stat(&name).await.unwrap().kind(), Kind::Committed);
    let above = client.prepare("k8s.io/6/c", &name, None).await.unwrap();
    assert!(is_guest_pull(&above));
    client.0.cleanup(CleanupRequest::default()).await.unwrap();
}

#[tokio::test]
async fn labels_of_a_container_can_be_updated() {
    let bed = Bed::start();
    let mut client = bed.client().await;
    client.view("k8s.io/3/v", TOP).await.unwrap();
    let request = |path: &str| UpdateRequest {
        info: Some(Info {
            name: "k8s.io/3/v".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
            ..Info::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..UpdateRequest::default()
    };
    let updated = client.0.update(request("labels.a")).await.unwrap();
    let info = updated.into_inner().info.unwrap();
    assert_eq!((info.kind(), info.labels["a"].as_str()), (Kind::View, "1"));
    let refused = client.0.update(request("parent")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn bad_requests_get_the_code_that_containerd_expects() {
    let bed = Bed::start();
    let mut client = bed.client().await;
    client.prepare("k8s.io/3/c", TOP, None).await.unwrap();
    let volume = "k8s.io/7//run/containerd/image-volumes/s/i";
    let cases = [
        (
            client.prepare("k8s.io/3/c", TOP, None).await.err(),
            Code::AlreadyExists,
        ),
        (
            client.prepare("k8s.io/4/d", "k8s.io/3/c", None).await.err(),
            Code::InvalidArgument,
        ),
        (
            client.prepare("k8s.io/4/d", "", Some("latest")).await.err(),
            Code::InvalidArgument,
        ),
        (
            client.prepare(volume, TOP, None).await.err(),
            Code::FailedPrecondition,
        ),
        (
            client.view(volume, TOP).await.err(),
            Code::FailedPrecondition,
        ),
        (client.stat("k8s.io/4/none").await.err(), Code::NotFound),
        (client.usage("k8s.io/4/none").await.err(), Code::NotFound),
        (client.remove("k8s.io/4/none").await.err(), Code::NotFound),
        (
            client.commit(TOP, "k8s.io/4/none").await.err(),
            Code::NotFound,
        ),
        (
            client.commit(TOP, "k8s.io/3/c").await.err(),
            Code::FailedPrecondition,
        ),
        (
            client.list(&["kind==active".to_owned()]).await.err(),
            Code::InvalidArgument,
        ),
        (
            client.0.update(UpdateRequest::default()).await.err(),
            Code::InvalidArgument,
        ),
    ];
    for (number, (error, code)) in cases.into_iter().enumerate() {
        assert_eq!(error.unwrap().code(), code, "case {number}");
    }
}

/// containerd mounts a container's snapshot on the node to look up users.
#[tokio::test]
async fn the_mount_works_on_the_node_and_shows_users_and_nothing_else() {
    let bed = Bed::start();
    let mut client = bed.client().await;
    let mounts = client.prepare("k8s.io/3/c", TOP, None).await.unwrap();
    let source = mounts[0].source.clone();
    let data = mounts[0].options[2].clone();
    let target = bed.path("target");
    fs::create_dir(&target).unwrap();

    let seen = std::thread::spawn(move || {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            return None;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&*source), &target, Some("bind"), bind, Some(&*data)).unwrap();
        let names = |directory: &Path| {
            let entries = fs::read_dir(directory).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let found = (names(&target), names(&target.join("etc")));
        umount(&target).unwrap();
        Some(found)
    });
    match seen.join().unwrap() {
        Some((root, etc)) => assert_eq!(
            (root.join(" "), etc.join(" ")),
            ("etc".into(), "group passwd".into())
        ),
        None => eprintln!("skipped: this user cannot make a mount namespace"),
    }
}

fn run_second(bed: &Bed, address: &str, root: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kata-cc-snapshotter"))
        .arg("--address")
        .arg(bed.path(address))
        .arg("--root")
        .arg(bed.path(root))
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

#[test]
fn a_second_process_is_refused_with_one_sentence() {
    let bed = Bed::start();
    for (address, root, expected) in [
        ("other", "root", "is in use by another kata-cc-snapshotter"),
        ("socket", "other", "is served by another process"),
    ] {
        let output = run_second(&bed, address, root);
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}
