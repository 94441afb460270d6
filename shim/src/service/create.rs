//! Making a container, and for a pod's first one the pod.

use std::{path::PathBuf, sync::Arc};

use agent_protocol::{
    id::ContainerId,
    rpc::agent::{CreateContainerRequest, Storage},
};
use containerd_shim_protos::{
    api::Mount, events::task::TaskCreate, protobuf::well_known_types::any::Any,
};
use shim_agent_client::GuestProcess;
use shim_configuration::{Config, Source, TaskOptions};
use shim_oci::{self as oci, Membership, Role, Spec};
use shim_volumes::{
    self as volumes, VolumePlan,
    guest_pull::{self, RootfsMount},
};

use super::Service;
use crate::{
    container::{Container, Creation},
    events::task_io,
    logging,
    process::Process,
    record::{ProcessMark, Record},
    sandbox::{Pod, Resources, Sandbox, boot},
    spec::{Trim, guest_spec, shares_pid_namespace},
    status::TaskError,
    stdio::Stdio,
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
    /// Read for the container that brings the pod up.
    config: Option<Config>,
}

impl Service {
    /// Makes a container; answers with the hypervisor's process id.
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
        let spec = Spec::load(&bundle).map_err(|error| TaskError::invalid(&error))?;
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
        Ok(Parsed {
            id,
            bundle,
            rootfs: request.rootfs,
            stdio: request.stdio,
            spec,
            role: membership.role,
            config,
        })
    }

    async fn make(
        self: &Arc<Self>,
        mut parsed: Parsed,
        creation: &Creation,
    ) -> Result<u32, TaskError> {
        let id = parsed.id.to_string();
        let made = self.make_or_undo(&mut parsed, creation).await;
        match made {
            Ok((sandbox, container)) => {
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
                    pid: sandbox.pid(),
                    ..TaskCreate::default()
                });
                self.containers.made(container);
                Ok(sandbox.pid())
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
    ) -> Result<(Arc<Sandbox>, Container), TaskError> {
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
                return Ok((sandbox, container));
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
    Ok(Container::new(
        id.to_owned(),
        parsed.role,
        parsed.bundle.display().to_string(),
        Arc::new(init),
        plan,
    ))
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
    };
    CreateContainerRequest {
        container_id: parsed.id.to_string(),
        exec_id: parsed.id.to_string(),
        storages,
        OCI: Some(guest_spec(&parsed.spec, trim)).into(),
        sandbox_pidns: shares_pid_namespace(&parsed.spec),
        ..CreateContainerRequest::default()
    }
}
