//! Making a container, and for a pod's first one the pod.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_protocol::{
    id::ContainerId,
    rpc::agent::{CreateContainerRequest, Storage},
};
use containerd_shim_protos::{
    api::Mount, events::task::TaskCreate, protobuf::well_known_types::any::Any,
};
use shim_agent_client::GuestProcess;
use shim_configuration::{Config, Internetworking, Source, TaskOptions};
use shim_oci::{self as oci, Membership, Role, Spec};
use shim_volumes::{
    self as volumes, VolumePlan,
    guest_pull::{self, RootfsMount},
};

use super::Service;
use crate::{
    container::{Container, Creation, Made},
    events::task_io,
    image_users::UserWords,
    logging,
    process::Process,
    record::{ProcessMark, Record},
    refuse,
    sandbox::{Pod, Resources, Sandbox, boot},
    spec::{Trim, guest_spec},
    status::TaskError,
    stdio::Stdio,
    task_pid::TaskPid,
    timing::{Step, Timing},
};

/// A request to make a container, still as containerd sent it.
pub(crate) struct CreateRequest {
    /// The container.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: String,
    /// What the snapshotter prepared.
    pub(crate) rootfs: Vec<Mount>,
    /// Its streams.
    pub(crate) stdio: Stdio,
    /// The runtime's options.
    pub(crate) options: Option<Any>,
}

/// A request that was read and makes sense so far.
struct Parsed {
    id: ContainerId,
    bundle: PathBuf,
    rootfs: Vec<Mount>,
    stdio: Stdio,
    spec: Spec,
    role: Role,
    users: UserWords,
    processes: Processes,
    /// Read for the container that brings the pod up.
    config: Option<Config>,
}

impl Service {
    /// Makes a container; answers with its number on the node.
    ///
    /// # Errors
    ///
    /// [`TaskError`] says what failed. Nothing is left of the container then, nor of the pod
    /// if this container was to bring it up.
    pub(crate) async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<u32, TaskError> {
        let parsed = self.parse(request)?;
        let creation = self.containers.reserve(parsed.id.as_str())?;
        let service = Arc::clone(self);
        let task = tokio::spawn(async move { service.make(parsed, &creation).await });
        task.await
            .unwrap_or_else(|error| Err(TaskError::failed(&error)))
    }

    fn parse(&self, request: CreateRequest) -> Result<Parsed, TaskError> {
        let id = ContainerId::parse(&request.id).map_err(|error| {
            TaskError::Invalid(format!("container id {:?} is invalid: {error}", request.id))
        })?;
        request
            .stdio
            .check()
            .map_err(|error| TaskError::invalid(&error))?;
        let bundle = PathBuf::from(request.bundle);
        let mut spec = Spec::load(&bundle).map_err(|error| TaskError::invalid(&error))?;
        let membership = Membership::of(&id, &spec).map_err(|error| TaskError::invalid(&error))?;
        if membership.sandbox != self.sandbox_id {
            return Err(TaskError::Invalid(format!(
                "container {id} is of sandbox {}, this shim serves sandbox {}",
                membership.sandbox, self.sandbox_id
            )));
        }
        let config = if membership.role.owns_sandbox() {
            let options = TaskOptions::decode(request.options.as_ref())
                .map_err(|error| TaskError::invalid(&error))?;
            let source = Source::choose(options).map_err(|error| TaskError::invalid(&error))?;
            let config = source.load().map_err(|error| TaskError::invalid(&error))?;
            if config.runtime.enable_debug || config.qemu().enable_debug {
                logging::more();
            }
            Some(config)
        } else {
            None
        };
        // Before anything is made: whoever asks in vain asks for ever.
        let possible = config
            .iter()
            .try_for_each(|config| refuse::pod(&spec, config));
        possible
            .and_then(|()| refuse::container(&mut spec))
            .map_err(|error| TaskError::invalid(&error))?;
        let users = match (membership.role, &mut spec.process) {
            // The guest makes the pause container itself.
            (Role::Sandbox, _) | (_, None) => UserWords::default(),
            (_, Some(process)) => UserWords::of(shown_root(&request.rootfs), &mut process.user)
                .map_err(|error| TaskError::invalid(&error))?,
        };
        Ok(Parsed {
            processes: self.processes_for(&spec)?,
            id,
            bundle,
            rootfs: request.rootfs,
            stdio: request.stdio,
            spec,
            role: membership.role,
            users,
            config,
        })
    }

    /// Whose processes a container is to see; containerd names a container by its task's number.
    pub(super) fn processes_for(&self, spec: &Spec) -> Result<Processes, TaskError> {
        let path = spec.namespace("pid").unwrap_or_default();
        if path.is_empty() {
            return Ok(Processes::Own);
        }
        let number = path.strip_prefix("/proc/");
        let number = number.and_then(|rest| rest.strip_suffix("/ns/pid"));
        let Some(number) = number else {
            // Another runtime's place for the pod's own.
            return Ok(Processes::OfPod);
        };
        let all = self.containers.all();
        let named = all
            .iter()
            .find(|other| other.pid.number().to_string() == number);
        match named {
            Some(other) if other.role.owns_sandbox() => Ok(Processes::OfPod),
            Some(other) if other.init.ended().is_none() => {
                Ok(Processes::OfContainer(other.id.clone()))
            }
            _ => Err(TaskError::Invalid(format!(
                "the container is to see the processes behind {path}, which is no running container of this pod"
            ))),
        }
    }

    async fn make(
        self: &Arc<Self>,
        mut parsed: Parsed,
        creation: &Creation,
    ) -> Result<u32, TaskError> {
        let id = parsed.id.to_string();
        let made = self.make_or_undo(&mut parsed, creation).await;
        match made {
            Ok(container) => {
                self.events.publish(&TaskCreate {
                    container_id: id,
                    bundle: container.bundle.clone(),
                    rootfs: parsed.rootfs,
                    io: Some(task_io(
                        &parsed.stdio.stdin,
                        &parsed.stdio.stdout,
                        &parsed.stdio.stderr,
                        parsed.stdio.terminal,
                    ))
                    .into(),
                    pid: container.pid.number(),
                    ..TaskCreate::default()
                });
                let pid = container.pid.number();
                self.containers.made(container);
                Ok(pid)
            }
            Err(error) => {
                tracing::error!(container.id = id, %error, "container not created");
                self.containers.remove(&id);
                Err(error)
            }
        }
    }

    async fn make_or_undo(
        self: &Arc<Self>,
        parsed: &mut Parsed,
        creation: &Creation,
    ) -> Result<Container, TaskError> {
        let sandbox = match parsed.config.take() {
            Some(config) => self.bring_up(parsed, config, creation).await?,
            None => self.sandbox()?,
        };
        let result = tokio::select! {
            result = make_container(&sandbox, parsed) => result,
            () = creation.cancelled() => Err(cancelled()),
        };
        let error = match result {
            Ok(container) => {
                if parsed.role.owns_sandbox() {
                    tokio::spawn(Arc::clone(self).watch(Arc::clone(&sandbox)));
                }
                return Ok(container);
            }
            Err(error) => explain(error, &sandbox).await,
        };
        if parsed.role.owns_sandbox() {
            self.stop_sandbox().await;
        } else if let Err(error) = sandbox.agent.remove_container(parsed.id.as_str()).await {
            tracing::debug!(%error, "nothing to remove in the guest");
        }
        Err(error)
    }

    async fn bring_up(
        &self,
        parsed: &Parsed,
        config: Config,
        creation: &Creation,
    ) -> Result<Arc<Sandbox>, TaskError> {
        let own = i32::try_from(std::process::id()).ok();
        let record = Record::new(own.and_then(ProcessMark::of), self.socket.clone());
        let mut resources = Resources::new(self.state.clone(), record);
        let pod = Pod {
            id: &self.sandbox_id,
            role: parsed.role,
            spec: &parsed.spec,
            config,
            timing: Arc::new(Timing::new()),
        };
        let result = tokio::select! {
            result = boot(pod, &*self.hypervisor, &mut resources) => {
                result.map_err(|error| TaskError::failed(&error))
            }
            () = creation.cancelled() => Err(cancelled()),
        };
        match result {
            Ok(booted) => {
                let sandbox = Arc::new(Sandbox::new(booted, resources));
                self.set_sandbox(Some(Arc::clone(&sandbox)));
                Ok(sandbox)
            }
            Err(error) => {
                resources.release().await;
                Err(error)
            }
        }
    }
}

/// Whose processes a container sees.
pub(super) enum Processes {
    Own,
    OfPod,
    OfContainer(String),
}

/// Where the snapshotter shows what it shows of an image.
fn shown_root(rootfs: &[Mount]) -> Option<&Path> {
    let bound = rootfs.iter().find(|mount| mount.type_ == "bind");
    let source = bound.map(|mount| Path::new(&mount.source));
    source.filter(|path| path.is_absolute())
}

fn cancelled() -> TaskError {
    TaskError::Failed("the container's creation was cancelled".to_owned())
}

/// Adds why the VM died to an error that came from its death.
async fn explain(error: TaskError, sandbox: &Sandbox) -> TaskError {
    let (TaskError::Agent(lost) | TaskError::Create { source: lost, .. }) = &error else {
        return error;
    };
    if lost.code() != ttrpc::Code::UNAVAILABLE {
        return error;
    }
    let soon = std::time::Duration::from_millis(500);
    match tokio::time::timeout(soon, sandbox.vm.exited()).await {
        Ok(exit) => TaskError::Failed(format!("{error}: {exit}")),
        Err(_) => error,
    }
}

async fn make_container(sandbox: &Sandbox, parsed: &mut Parsed) -> Result<Container, TaskError> {
    let id = parsed.id.as_str();
    sandbox.timing.done(&sandbox.state, Step::Create(id));
    let pid = take_pid(sandbox, parsed)?;
    let storage = image_storage(sandbox, parsed)?;
    let image = storage.source.clone();
    let mut plan = plan_volumes(sandbox, parsed).await?;
    volumes::copy_all(&sandbox.agent, &plan.copies)
        .await
        .map_err(|error| TaskError::failed(&error))?;
    let mounts = std::mem::take(&mut plan.mounts);
    let mut storages = vec![storage];
    storages.append(&mut plan.storages);
    let request = container_request(sandbox, parsed, mounts, storages);
    let deadline = sandbox.config.create_container_timeout();
    let created = sandbox.agent.create_container(&request, deadline).await;
    created.map_err(|source| TaskError::Create { image, source })?;
    sandbox.timing.done(&sandbox.state, Step::ImagePulled(id));
    let guest = GuestProcess {
        container: id.to_owned(),
        exec: String::new(),
    };
    let init = Process::new(guest, parsed.stdio.clone(), None);
    let limits = parsed.spec.linux.as_ref();
    let limits = limits.and_then(|linux| linux.resources.clone());
    let made = Made {
        id: id.to_owned(),
        role: parsed.role,
        bundle: parsed.bundle.display().to_string(),
        pid,
        users: std::mem::take(&mut parsed.users),
        limits: limits.unwrap_or_default(),
    };
    Ok(Container::new(made, Arc::new(init), plan))
}

/// A number for a task, for a pod's first one in the pod's network.
fn take_pid(sandbox: &Sandbox, parsed: &Parsed) -> Result<TaskPid, TaskError> {
    let connected = sandbox.config.runtime.internetworking_model != Internetworking::None;
    let netns = parsed
        .spec
        .namespace("network")
        .filter(|path| !path.is_empty());
    let netns = netns.filter(|_| connected && parsed.role.owns_sandbox());
    TaskPid::take(netns.map(Path::new)).map_err(|error| TaskError::failed(&error))
}

fn image_storage(sandbox: &Sandbox, parsed: &Parsed) -> Result<Storage, TaskError> {
    let rootfs: Vec<RootfsMount<'_>> = parsed
        .rootfs
        .iter()
        .map(|mount| RootfsMount {
            kind: &mount.type_,
            options: &mount.options,
        })
        .collect();
    let force = sandbox.config.force_guest_pull();
    guest_pull::storage(
        parsed.id.as_str(),
        parsed.role,
        &parsed.spec,
        &rootfs,
        force,
    )
    .map_err(|error| TaskError::invalid(&error))
}

/// Plans the volumes on a blocking thread, because one may lie on a file system that hangs.
async fn plan_volumes(sandbox: &Sandbox, parsed: &Parsed) -> Result<VolumePlan, TaskError> {
    let (id, pod, spec) = (parsed.id.clone(), sandbox.id().clone(), parsed.spec.clone());
    let limits = sandbox.config.runtime.empty_dir_limits.clone();
    let known = Arc::clone(&sandbox.volumes);
    let planning = tokio::task::spawn_blocking(move || {
        let owner = volumes::VolumeOwner {
            container: &id,
            sandbox: &pod,
            pod: &known,
            limits: &limits,
        };
        volumes::plan(owner, &spec)
    });
    match planning.await {
        Ok(plan) => plan.map_err(|error| TaskError::invalid(&error)),
        Err(error) => Err(TaskError::failed(&error)),
    }
}

fn container_request(
    sandbox: &Sandbox,
    parsed: &Parsed,
    mounts: Vec<oci::Mount>,
    storages: Vec<Storage>,
) -> CreateContainerRequest {
    let trim = Trim {
        id: parsed.id.as_str(),
        role: parsed.role,
        bundle: &parsed.bundle,
        mounts,
        drop_seccomp: sandbox.config.runtime.disable_guest_seccomp,
        processes_of: match &parsed.processes {
            Processes::OfContainer(id) => Some(id),
            Processes::Own | Processes::OfPod => None,
        },
    };
    CreateContainerRequest {
        container_id: parsed.id.to_string(),
        exec_id: parsed.id.to_string(),
        storages,
        OCI: Some(guest_spec(&parsed.spec, trim)).into(),
        sandbox_pidns: matches!(parsed.processes, Processes::OfPod),
        ..CreateContainerRequest::default()
    }
}
