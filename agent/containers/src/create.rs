//! Making a container: volumes, root file system, spec, stopped process. What
//! fails half-way is taken down again.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use agent_measured::NoteError;
use agent_protocol::{id::ContainerId, path::GuestPath};
use agent_requests::{
    ContainerSpec, ContainerStorage, CreateContainer, ImagePull, StartContainer, paths,
};
use oci_spec::runtime::{Process as SpecProcess, Spec};
use policy_engine::Permit;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::{
    cgroup::Cgroup,
    inside::{Inside, UserError, resolve_user},
    job::{self, Job, JobError},
    memory::resident_kib,
    parts::Parts,
    process::Process,
    pull_events::PullEvents,
    root::{Root, RootError},
    spec::{SettleError, complete_spec, executable_of, settle_spec},
    table::{CONTAINERS_MAX, Container, Containers, LookupError, lock},
    volumes::StorageError,
    wiring::{Wiring, WiringError},
};

/// Why a container cannot be made or started.
#[derive(Debug, Error)]
pub enum CreateError {
    /// It is there already.
    #[error("container {0} is there already")]
    Exists(ContainerId),
    /// The pod has too many containers.
    #[error("the pod has {CONTAINERS_MAX} containers already")]
    TooMany,
    /// There is no such container to start.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It was started before.
    #[error("container {0} was started before")]
    Started(ContainerId),
    /// A volume cannot be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its root file system cannot be had.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its user cannot be found.
    #[error(transparent)]
    User(#[from] UserError),
    /// A setting of the pod's network cannot be made.
    #[error("sysctl {key:?} cannot be set")]
    Sysctl {
        /// The setting.
        key: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or stream of the guest cannot be made.
    #[error("cannot make {what} of container {container}")]
    Prepare {
        /// What.
        what: &'static str,
        /// For whom.
        container: ContainerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be measured.
    #[error("the container cannot be measured")]
    Log(#[from] NoteError),
    /// The process cannot be made.
    #[error("cannot {action} container {container}")]
    Job {
        /// What was tried.
        action: &'static str,
        /// With which container.
        container: ContainerId,
        /// The program that it was to run.
        executable: String,
        /// Why.
        #[source]
        source: JobError,
    },
    /// A worker of the agent failed.
    #[error("a worker thread of the agent failed")]
    Worker(#[source] tokio::task::JoinError),
}

/// A place in the table; given back unless a container takes it.
struct Reservation<'a> {
    containers: &'a Containers,
    id: ContainerId,
    taken: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.taken {
            lock(&self.containers.table).remove(&self.id);
        }
    }
}

impl Containers {
    fn reserve(&self, id: &ContainerId) -> Result<Reservation<'_>, CreateError> {
        let mut table = lock(&self.table);
        if table.contains_key(id) {
            return Err(CreateError::Exists(id.clone()));
        }
        if table.len() >= CONTAINERS_MAX {
            return Err(CreateError::TooMany);
        }
        table.insert(id.clone(), None);
        Ok(Reservation {
            containers: self,
            id: id.clone(),
            taken: false,
        })
    }

    /// Makes a container whose process waits to be started.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; nothing of the container is left then.
    pub async fn create(&self, permit: Permit<CreateContainer>) -> Result<(), CreateError> {
        let request = permit.into_request();
        let mut reservation = self.reserve(&request.container)?;
        let id = request.container.clone();
        let mut parts = Parts::default();
        match self.build(request, &mut parts).await {
            Ok(mut container) => {
                container.parts = parts.into();
                lock(&self.first_pid).get_or_insert(container.init.pid);
                lock(&self.table).insert(id.clone(), Some(Arc::new(container)));
                reservation.taken = true;
                info!(container.id = %id, "container created");
                Ok(())
            }
            Err(error) => {
                self.discard(&id, parts).await;
                Err(error)
            }
        }
    }

    async fn build(
        &self,
        request: CreateContainer,
        parts: &mut Parts,
    ) -> Result<Container, CreateError> {
        let id = request.container;
        let bundle = make_bundle(&id)?;
        let mut image = ImagePull::Pause;
        for storage in request.storages {
            match storage {
                ContainerStorage::Image(pull) => image = pull,
                ContainerStorage::Ephemeral(storage) => {
                    parts.storages.push(self.storages.take_ephemeral(storage)?);
                }
                ContainerStorage::Local(storage) => {
                    // The disk that it lies on may not be ready yet.
                    let storages = Arc::clone(&self.storages);
                    let taken = blocking(move || storages.take_local(storage)).await?;
                    parts.storages.push(taken?);
                }
            }
        }
        set_network_sysctls(&request.spec.network_sysctl)?;
        let pause = image == ImagePull::Pause;
        self.make_root(&id, image, &bundle, parts).await?;
        let ContainerSpec {
            mut spec,
            mut process,
            limits,
            termination_path,
            ..
        } = request.spec;
        if pause {
            process.process.set_args(Some(vec!["/pause".to_owned()]));
        }
        let termination = termination_path.map(|path| termination_source(&spec, &path));
        let cwd = process.process.cwd().clone();
        let user_name = process.user_name.clone();
        process.process = {
            let prepared = process.process.clone();
            let root = bundle.join("rootfs");
            blocking(move || prepare_inside(&root, &cwd, &user_name, prepared)).await??
        };
        complete_spec(
            &mut spec,
            process.process.clone(),
            self.join(request.shared_processes),
        );
        let image = parts.root.as_ref().and_then(Root::manifest);
        settle_spec(&self.log, &id, image, &spec).map_err(|error| match error {
            SettleError::Log(error) => CreateError::Log(error),
            SettleError::Write(source) => CreateError::Prepare {
                what: "the spec",
                container: id.clone(),
                source,
            },
        })?;
        let init = self.make_process(&id, &bundle, &spec).await?;
        if let (Some(size), init) = (process.terminal_size, &init) {
            init.set_size(size);
        }
        let cgroup = Cgroup::of(&id);
        if limits.memory.limit.is_some() && cgroup.kill_together().is_err() {
            warn!(container.id = %id, "container will not be killed as a whole when out of memory");
        }
        Ok(Container {
            cgroup,
            init: Arc::new(init),
            execs: Default::default(),
            defaults: process,
            shared_processes: request.shared_processes,
            pause,
            termination,
            started: false.into(),
            age: self.serial().into(),
            parts: Default::default(),
            id,
        })
    }

    async fn make_root(
        &self,
        id: &ContainerId,
        image: ImagePull,
        bundle: &Path,
        parts: &mut Parts,
    ) -> Result<(), CreateError> {
        let (images, log) = (Arc::clone(&self.images), Arc::clone(&self.log));
        let bundle = bundle.to_owned();
        let pull = PullEvents::start(id, &image);
        let root = blocking(move || Root::make(&images, &log, &image, &bundle)).await?;
        if let Some(pull) = pull {
            pull.end(root.is_ok());
        }
        parts.root = Some(root?);
        Ok(())
    }

    /// The process whose namespace a container shares.
    fn join(&self, shared_processes: bool) -> Option<i32> {
        shared_processes.then(|| *lock(&self.first_pid)).flatten()
    }

    async fn make_process(
        &self,
        id: &ContainerId,
        bundle: &Path,
        spec: &Spec,
    ) -> Result<Process, CreateError> {
        let prepare = |source| CreateError::Prepare {
            what: "the streams",
            container: id.clone(),
            source,
        };
        let (owner, terminal) = spec.process().as_ref().map_or(((0, 0), false), |process| {
            let user = process.user();
            (
                (user.uid(), user.gid()),
                process.terminal().unwrap_or(false),
            )
        });
        let wiring = Wiring::make(self, owner, terminal).map_err(prepare)?;
        let job = Job::Create {
            id: id.to_string(),
            bundle: bundle.to_owned(),
            console: wiring.console_path(),
        };
        wiring.run(self, &job).await.map_err(|error| match error {
            WiringError::Job(source) => CreateError::Job {
                action: "create",
                container: id.clone(),
                executable: executable_of(spec.process().as_ref()),
                source,
            },
            WiringError::Stream(source) => prepare(source),
        })
    }

    /// Lets a created container's process run.
    ///
    /// # Errors
    ///
    /// When there is no such container or it was started before.
    pub async fn start(
        self: &Arc<Self>,
        permit: Permit<StartContainer>,
    ) -> Result<(), CreateError> {
        let container = self.find(&permit.into_request().container)?;
        if container.started.swap(true, Ordering::Relaxed) {
            return Err(CreateError::Started(container.id.clone()));
        }
        if !container.pause {
            self.watch(Arc::clone(&container));
        }
        let job = Job::Start {
            id: container.id.to_string(),
        };
        let expecting = self.reaper.expecting();
        let started = job::run(&self.reaper, &expecting, &job, None).await;
        started.map_err(|source| {
            container.started.store(false, Ordering::Relaxed);
            CreateError::Job {
                action: "start",
                container: container.id.clone(),
                executable: executable_of(Some(&container.defaults.process)),
                source,
            }
        })?;
        container.age.store(self.serial(), Ordering::Relaxed);
        let resident_kib = resident_kib();
        info!(container.id = %container.id, resident_kib, "container started");
        Ok(())
    }

    /// Reports lack of memory, and ends the other processes with the first one if
    /// the kernel does not do so by itself.
    fn watch(&self, container: Arc<Container>) {
        let oom = Arc::clone(&self.oom);
        tokio::spawn(async move {
            let Container {
                id, cgroup, init, ..
            } = &*container;
            if oom.watch(id, cgroup, &init.exit).await.is_err() {
                warn!(container.id = %id, "lack of memory of container is not watched");
            }
            init.exit.wait().await;
            if container.shared_processes {
                let _ = cgroup.kill();
            }
        });
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CreateError> {
    spawn_blocking(work).await.map_err(CreateError::Worker)
}

fn make_bundle(id: &ContainerId) -> Result<PathBuf, CreateError> {
    let bundle = paths::bundle(id);
    let made = fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(bundle.join("rootfs"));
    made.map_err(|source| CreateError::Prepare {
        what: "the directory",
        container: id.clone(),
        source,
    })?;
    Ok(bundle)
}

fn set_network_sysctls(settings: &[(String, String)]) -> Result<(), CreateError> {
    for (key, value) in settings {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let open = fs::OpenOptions::new().write(true).open(path);
        open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|source| CreateError::Sysctl {
                key: key.clone(),
                source,
            })?;
    }
    Ok(())
}

/// Makes the working directory, as other runtimes do, and turns the user's name
/// into numbers.
fn prepare_inside(
    root: &Path,
    cwd: &Path,
    user_name: &str,
    mut process: SpecProcess,
) -> Result<SpecProcess, CreateError> {
    let read = |source| {
        CreateError::User(UserError::Read {
            file: "root directory",
            source,
        })
    };
    let inside = Inside::open(root).map_err(read)?;
    if inside.make_directories(cwd).is_err() {
        // The library reports it with the path if the process really cannot start there.
        warn!("working directory not made");
    }
    if !user_name.is_empty() {
        resolve_user(&inside, user_name, &mut process)?;
    }
    Ok(process)
}

/// The file that holds a container's last message: one that the host mounted, or
/// one in the container's own root.
fn termination_source(spec: &Spec, path: &GuestPath) -> PathBuf {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mount = mounts
        .iter()
        .rev()
        .find(|mount| mount.destination() == AsRef::<Path>::as_ref(path));
    let source = mount.and_then(|mount| mount.source().clone());
    source.unwrap_or_else(|| AsRef::<Path>::as_ref(path).to_owned())
}
