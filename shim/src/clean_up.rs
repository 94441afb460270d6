//! `delete`: what is left when a shim has died.
//!
//! containerd calls this for every bundle of a shim whose connection broke. All that
//! the pod had on the host hangs on the VM, which nobody can use without its shim, so
//! the first call for any of the pod's containers removes everything, by the
//! record on disk, and later calls find nothing. A shim that lives is killed only when
//! the call is for its own sandbox: containerd has given that one up.

use std::{fs, io, io::Write, path::Path, time::Duration};

use agent_protocol::id::{ContainerId, SandboxId};
use anyhow::{Context, Result};
use containerd_shim_protos::{
    api::DeleteResponse,
    protobuf::{Message, well_known_types::timestamp::Timestamp},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shim_oci::{Membership, Spec};

use crate::{
    bootstrap::{bundle, socket_path},
    cgroup,
    cli::Arguments,
    network,
    process::KILLED_EXIT,
    record::{ProcessMark, Record, StateDir},
    scratch, users,
};

const DEATH_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Cleans up after the shim of a container and prints how the container ended.
pub(crate) fn delete(arguments: &Arguments) -> Result<()> {
    let id = ContainerId::parse(&arguments.id)
        .with_context(|| format!("container id {:?} is invalid", arguments.id))?;
    let bundle = bundle(arguments)?;
    let sandbox = sandbox_of(&id, &bundle)?;
    let pid = clean_up(arguments, &id, &sandbox, &bundle)?;
    let response = DeleteResponse {
        pid,
        exit_status: KILLED_EXIT,
        exited_at: Some(Timestamp::now()).into(),
        ..DeleteResponse::default()
    };
    let bytes = response
        .write_to_bytes()
        .context("cannot encode the answer")?;
    io::stdout()
        .write_all(&bytes)
        .context("cannot print the answer")
}

/// A bundle that is half gone is one of a sandbox, or of nothing that has any state.
fn sandbox_of(id: &ContainerId, bundle: &Path) -> Result<SandboxId> {
    if let Ok(spec) = Spec::load(bundle)
        && let Ok(membership) = Membership::of(id, &spec)
    {
        return Ok(membership.sandbox);
    }
    SandboxId::parse(id.as_str()).with_context(|| format!("sandbox id {id} is invalid"))
}

fn clean_up(
    arguments: &Arguments,
    id: &ContainerId,
    sandbox: &SandboxId,
    bundle: &Path,
) -> Result<u32> {
    let state = StateDir::of(sandbox);
    let record = Record::load(&state)?;
    let owns = id.as_str() == sandbox.as_str();
    let shim = record
        .as_ref()
        .and_then(|record| record.shim)
        .or_else(|| owns.then(|| shim_of(bundle)).flatten())
        .filter(|mark| mark.is_alive());
    if let Some(mark) = shim {
        if !owns {
            return Ok(0);
        }
        end(mark)?;
    }
    let pid = shim.map_or(0, |mark| u32::try_from(mark.pid).unwrap_or(0));
    remove_vm(&state)?;
    users::give_back(sandbox, &state)?;
    if let Some(record) = record {
        remove_network(&record)?;
        cgroup::remove(&record.cgroups);
        if let Some(disk) = &record.scratch_disk {
            scratch::remove(disk).with_context(|| format!("cannot remove {}", disk.display()))?;
        }
    }
    let socket = socket_path(&arguments.address, &arguments.namespace, sandbox);
    for path in [socket, state.path().to_owned()] {
        remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(pid)
}

/// The shim of a sandbox that died before it wrote a record.
fn shim_of(bundle: &Path) -> Option<ProcessMark> {
    let pid = fs::read_to_string(bundle.join("shim.pid")).ok()?;
    let pid: i32 = pid.trim().parse().ok()?;
    let mark = ProcessMark::of(pid)?;
    // The number may have passed to another process meanwhile.
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    (program == std::env::current_exe().ok()?).then_some(mark)
}

fn end(mark: ProcessMark) -> Result<()> {
    let killed = kill(Pid::from_raw(mark.pid), Signal::SIGKILL);
    if mark.is_alive() {
        killed.with_context(|| format!("cannot kill shim {}", mark.pid))?;
    }
    let polls = DEATH_DEADLINE.as_millis() / POLL.as_millis();
    for _ in 0..polls {
        if !mark.is_alive() {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    anyhow::bail!("shim {} survived SIGKILL", mark.pid)
}

fn remove_vm(state: &StateDir) -> Result<()> {
    shim_hypervisor::clean_up(&state.vm()).context("cannot end the VM of a dead shim")
}

fn remove_network(record: &Record) -> Result<()> {
    let Some(netns) = record.netns.clone() else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(network::detach(netns, record.links.clone()));
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
