//! The program as containerd calls it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    api::{DeleteResponse, ShutdownRequest, StateRequest, StateResponse},
    protobuf::Message,
    types::introspection::RuntimeInfo,
};
use ttrpc::{Code, asynchronous::Client, context::with_duration, proto::Request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_containerd-shim-kata-cc-v2");
const SINGLE: &str = r#"{"ociVersion":"1.1.0"}"#;
const MEMBER: &str = r#"{"ociVersion":"1.1.0","annotations":{
    "io.kubernetes.cri.container-type":"container",
    "io.kubernetes.cri.sandbox-id":"no-such-sandbox"}}"#;

fn bundle(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

fn call(bundle: &Path, id: &str, action: &str, input: &str) -> Output {
    // The socket's name depends on the address: a test has its own.
    let address = bundle.join("containerd.sock");
    let mut child = Command::new(PROGRAM)
        .args(["-namespace", "test", "-id", id, "-address"])
        .arg(address)
        .arg(action)
        .current_dir(bundle)
        .env_remove("TTRPC_ADDRESS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn has_sockets_folder() -> bool {
    let made = fs::create_dir_all("/run/containerd/s").is_ok();
    if !made {
        eprintln!("skipped: /run/containerd/s cannot be made");
    }
    made
}

#[test]
fn information_is_printed_for_containerd_and_people() {
    let info = Command::new(PROGRAM).arg("-info").output().unwrap();
    let info = RuntimeInfo::parse_from_bytes(&info.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.kata-cc.v2");
    let version = Command::new(PROGRAM).arg("-v").output().unwrap();
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_has_its_own_exit_code() {
    let output = Command::new(PROGRAM).args(["-what", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("-what"));
}

#[test]
fn deleting_what_never_was_is_fine_and_reports_a_kill() {
    let bundle = bundle(SINGLE);
    let output = call(bundle.path(), "never-was", "delete", "");
    assert!(output.status.success(), "{output:?}");
    let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(response.exit_status, 137);
    assert!(response.exited_at.is_some());
}

#[test]
fn a_container_without_its_pods_shim_is_refused_in_one_sentence() {
    let bundle = bundle(MEMBER);
    let output = call(bundle.path(), "member", "start", "");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no-such-sandbox"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

async fn state(client: &Client, service: &str) -> Code {
    let request = Request {
        service: service.into(),
        method: "State".into(),
        payload: StateRequest::default().write_to_bytes().unwrap(),
        timeout_nano: 5_000_000_000,
        ..Request::default()
    };
    match client.request(request).await {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        Err(error) => panic!("{error}"),
        Ok(response) => panic!("{:?}", StateResponse::parse_from_bytes(&response.payload)),
    }
}

#[tokio::test]
async fn a_started_shim_serves_both_versions_until_it_is_shut_down() {
    if !has_sockets_folder() {
        return;
    }
    let bundle = bundle(SINGLE);
    let output = call(bundle.path(), "started", "start", "");
    assert!(output.status.success(), "{output:?}");
    let address = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        fs::read_to_string(bundle.path().join("address")).unwrap(),
        address
    );
    assert!(bundle.path().join("shim.pid").exists());

    let again = call(
        bundle.path(),
        "started",
        "start",
        r#"{"containerdVersion":"v2.4.0"}"#,
    );
    let document = String::from_utf8(again.stdout).unwrap();
    assert!(
        document.contains(r#""version":3"#) && document.contains(&address),
        "{document}"
    );

    let client = Client::connect(&address).await.unwrap();
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        assert_eq!(state(&client, service).await, Code::NOT_FOUND, "{service}");
    }
    let task = containerd_shim_protos::shim_async::TaskClient::new(client);
    let deadline = Duration::from_secs(10);
    // The connection may close before the answer is out.
    let _ = task
        .shutdown(with_duration(deadline), &ShutdownRequest::default())
        .await;
    let socket = address.strip_prefix("unix://").unwrap();
    let gone = async {
        while Path::new(socket).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(deadline, gone).await.unwrap();
}

#[test]
fn a_killed_shim_is_replaced_and_its_socket_removed() {
    if !has_sockets_folder() {
        return;
    }
    let bundle = bundle(SINGLE);
    let first = call(bundle.path(), "killed", "start", "");
    assert!(first.status.success(), "{first:?}");
    let pid = |bundle: &Path| -> i32 {
        let text = fs::read_to_string(bundle.join("shim.pid")).unwrap();
        text.parse().unwrap()
    };
    let old = pid(bundle.path());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(old),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let dead = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    // A first thread is a zombie before the others are gone; the last of them closes the socket.
    let address = String::from_utf8(first.stdout.clone()).unwrap();
    let socket = Path::new(address.strip_prefix("unix://").unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !dead(old) || UnixStream::connect(socket).is_ok() {
        assert!(Instant::now() < deadline, "the killed shim still serves");
        std::thread::yield_now();
    }
    let second = call(bundle.path(), "killed", "start", "");
    assert_eq!(first.stdout, second.stdout);
    let new = pid(bundle.path());
    assert_ne!(old, new);

    let deleted = call(bundle.path(), "killed", "delete", "");
    assert!(deleted.status.success(), "{deleted:?}");
    assert!(dead(new));
    assert!(!socket.exists());
}
