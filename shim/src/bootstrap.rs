//! `start`: one shim for each pod.
//!
//! For a pod's first container the socket is bound here, and a server is started with
//! it as its standard input (so that nobody can connect before it exists, and no
//! descriptor number has to be agreed on); a pod's further containers get the address
//! of the shim that is there. The answer is the plain address, which every containerd
//! understands as Task API version 2; a containerd that sends its bootstrap document
//! on standard input gets the JSON document, which selects version 3.

use std::{
    fs, io,
    io::{IsTerminal, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agent_protocol::id::{ContainerId, SandboxId};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use shim_oci::{Membership, Role, Spec};

use crate::cli::Arguments;

const SOCKETS: &str = "/run/containerd/s";
/// The most bytes of containerd's bootstrap document.
const PARAMS_BYTES_MAX: u64 = 1 << 20;

/// Where a pod's shim listens.
pub(crate) fn socket_path(address: &str, namespace: &str, sandbox: &SandboxId) -> PathBuf {
    let name = Sha256::digest(format!("{address}/{namespace}/{sandbox}"));
    let digits: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(SOCKETS).join(digits)
}

/// The bundle that a call is about.
pub(crate) fn bundle(arguments: &Arguments) -> Result<PathBuf> {
    match &arguments.bundle {
        Some(path) => Ok(path.clone()),
        None => std::env::current_dir().context("cannot find the bundle: no working directory"),
    }
}

/// Starts or finds the shim and prints its address.
pub(crate) fn start(arguments: &Arguments) -> Result<()> {
    let id = ContainerId::parse(&arguments.id)
        .with_context(|| format!("container id {:?} is invalid", arguments.id))?;
    let bundle = bundle(arguments)?;
    let spec = Spec::load(&bundle)?;
    let membership = Membership::of(&id, &spec)?;
    let socket = socket_path(
        &arguments.address,
        &arguments.namespace,
        &membership.sandbox,
    );
    let serves = UnixStream::connect(&socket).is_ok();
    if !serves {
        if membership.role == Role::Container {
            bail!(
                "sandbox {} of container {id} has no running shim: remove the pod and create it anew",
                membership.sandbox
            );
        }
        let pid = spawn(arguments, &membership.sandbox, &socket, &bundle)?;
        fs::write(bundle.join("shim.pid"), pid.to_string()).context("cannot write shim.pid")?;
    }
    let address = format!("unix://{}", socket.display());
    fs::write(bundle.join("address"), &address).context("cannot write the file address")?;
    let answer = answer(&address, read_params(io::stdin()));
    let mut stdout = io::stdout();
    stdout
        .write_all(answer.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot print the shim's address")
}

fn spawn(arguments: &Arguments, sandbox: &SandboxId, socket: &Path, bundle: &Path) -> Result<u32> {
    fs::create_dir_all(SOCKETS).with_context(|| format!("cannot make {SOCKETS}"))?;
    // Nobody answered there, so what lies there is a dead shim's.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", socket.display()))?;
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command
        .args(["-namespace", &arguments.namespace])
        .args(["-address", &arguments.address])
        .args(["-id", sandbox.as_str()])
        .args(arguments.debug.then_some("-debug"))
        .arg("serve")
        .current_dir(bundle)
        // Memory of many short-lived threads is otherwise kept apart and never reused.
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => Ok(child.id()),
        Err(error) => {
            let _ = fs::remove_file(socket);
            Err(error).context("cannot start the shim's server")
        }
    }
}

/// What is read of containerd's bootstrap document
/// (`containerd.runtime.bootstrap.v1.BootstrapParams` as JSON).
#[derive(Deserialize)]
struct BootstrapParams {
    #[serde(rename = "containerdVersion", alias = "containerd_version")]
    containerd_version: String,
}

fn read_params(stdin: io::Stdin) -> Vec<u8> {
    let mut params = Vec::new();
    if !stdin.is_terminal() {
        // Older versions send other things or nothing; that is no fault.
        let _ = stdin.lock().take(PARAMS_BYTES_MAX).read_to_end(&mut params);
    }
    params
}

fn answer(address: &str, params: Vec<u8>) -> String {
    let asked = agent_protocol::documents::parse_json::<BootstrapParams>(&params);
    match asked {
        Ok(params) if !params.containerd_version.is_empty() => {
            format!(r#"{{"version":3,"address":"{address}","protocol":"ttrpc"}}"#)
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_a_socket_of_its_own() {
        let id = |text| SandboxId::parse(text).unwrap();
        let one = socket_path("/run/c.sock", "k8s.io", &id("s1"));
        assert!(one.starts_with(SOCKETS));
        assert_eq!(one.file_name().unwrap().len(), 64);
        assert_eq!(one, socket_path("/run/c.sock", "k8s.io", &id("s1")));
        assert_ne!(one, socket_path("/run/c.sock", "k8s.io", &id("s2")));
        assert_ne!(one, socket_path("/run/c.sock", "other", &id("s1")));
        assert_ne!(one, socket_path("/run/d.sock", "k8s.io", &id("s1")));
    }

    #[test]
    fn the_document_is_for_those_who_sent_theirs() {
        let plain = "unix:///s";
        for params in ["", "{}", "\n\u{12}x", r#"{"containerdVersion":""}"#] {
            assert_eq!(answer(plain, params.into()), plain, "{params:?}");
        }
        for params in [
            r#"{"instanceId":"a","containerdVersion":"v2.4.0"}"#,
            r#"{"containerd_version":"v2.4.0"}"#,
        ] {
            let answer: serde_json::Value =
                serde_json::from_str(&answer(plain, params.into())).unwrap();
            assert_eq!(answer["version"], 3);
            assert_eq!(answer["address"], plain);
            assert_eq!(answer["protocol"], "ttrpc");
        }
    }
}
