//! Making a container: volumes, root file system, spec, stopped process. What
//! fails half-way is taken down again.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use agent_protocol::{id::ContainerId, path::GuestPath};
use agent_requests::{
    ContainerSpec, CreateContainer, ImagePull, ProcessNamespace, ProcessSpec, StartContainer,
    VolumeStorage, paths,
};
use agent_workload::{pod_facts, workload};
use oci_spec::runtime::{Capability, Process as SpecProcess, Spec};
use policy_engine::{Claim, OfImage, Permit};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::{
    cgroup::Cgroup,
    covers,
    create_error::CreateError,
    devices::{self, Device},
    granted,
    inside::Inside,
    job::{self, Job},
    judged::Judge,
    memory::resident_kib,
    parts::Parts,
    pinned::{PinError, Pinned},
    pod_pause::path_of,
    process::Process,
    pull_events::PullEvents,
    root::Root,
    spec::{complete_spec, executable_of, settle, write_spec},
    stdio::Output,
    sysctls,
    table::{CONTAINERS_MAX, Container, Containers, lock},
    termination,
    user::{self, UserError},
    wiring::{Wiring, WiringError},
};

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
        let grants = Arc::clone(permit.grants());
        let (request, claim) = permit.into_parts();
        let mut reservation = self.reserve(&request.container)?;
        let id = request.container.clone();
        let mut parts = Parts::default();
        let judge = Judge {
            grants: &grants,
            claim: &claim,
        };
        match self.build(request, judge, &mut parts).await {
            Ok(mut container) => {
                container.parts = parts.into();
                container.place = claim.commit();
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
        judge: Judge<'_>,
        parts: &mut Parts,
    ) -> Result<Container, CreateError> {
        let Judge { grants, claim } = judge;
        let id = request.container;
        let bundle = make_bundle(&id)?;
        let pause = match request.image {
            ImagePull::Pause => Some(self.pause.reserve()?),
            ImagePull::Reference(_) => None,
        };
        // The container library opens the namespace in a process of its own.
        let (join, _held) = self.joined(&request.processes, pause.is_some())?;
        self.take_volumes(request.volumes, parts).await?;
        let sysctls = request.spec.sysctls;
        if pause.is_some() || !sysctls.is_empty() {
            let asked = sysctls.clone();
            blocking(move || sysctls::set(&asked)).await??;
        }
        let image = judge.image(request.image);
        self.make_root(&id, image, &bundle, parts).await?;
        let ContainerSpec {
            mut spec,
            mut process,
            limits,
            termination_path,
            pod,
            ..
        } = request.spec;
        let facts = pod_facts(&pod);
        let user = process.asked_user();
        judge.take_filter(&mut spec)?;
        let termination = make_termination(&id, &bundle, &mut spec, termination_path)?;
        let (prepared, image, covered) =
            look_inside(&bundle, &spec, &parts.storages, process.clone()).await?;
        let mut marks =
            granted::marks(grants, &prepared, covered).map_err(CreateError::NotGranted)?;
        process.process = prepared;
        let debugs = matches!(request.processes, ProcessNamespace::Of(_));
        marks.extend(debugs.then(|| granted::SEES_PROCESSES.to_owned()));
        complete_spec(&mut spec, process.process.clone(), join);
        let described = workload(&spec, &sysctls, &parts.storages, &facts)?;
        judge.process(&described, &process.process, (&facts, &image, &user))?;
        let manifest = parts.root.as_ref().and_then(Root::manifest);
        let digests = settle(&self.log, (&id, manifest), described, marks)?;
        let pinned = self.pin(&id, &mut spec, (&parts.storages, claim))?;
        // Before there is a process in it.
        let cgroup = make_cgroup(&id, &process.process)?;
        let init = self.make_process(&id, &bundle, &spec, grants.vsock).await?;
        drop(pinned);
        let is_pause = pause.is_some();
        if let Some(pause) = pause {
            pause.holds(init.pid)?;
        }
        if let (Some(size), init) = (process.terminal_size, &init) {
            init.set_size(size);
        }
        if limits.memory.limit.is_some() && cgroup.kill_together().is_err() {
            warn!(container.id = %id, "container will not be killed as a whole when out of memory");
        }
        Ok(Container {
            cgroup,
            init: Arc::new(init),
            execs: Default::default(),
            digests,
            facts,
            defaults: process,
            shared_processes: request.processes.is_shared(),
            is_pause,
            vsock: grants.vsock,
            termination,
            started: false.into(),
            age: self.serial().into(),
            parts: Default::default(),
            place: Default::default(),
            id,
        })
    }

    /// The process namespace that a container joins, if any; another container's is held open
    /// until it has.
    fn joined(
        &self,
        seen: &ProcessNamespace,
        is_pause: bool,
    ) -> Result<(Option<PathBuf>, Option<fs::File>), CreateError> {
        if let ProcessNamespace::Of(target) = seen {
            let held = self.find(target)?.processes()?;
            return Ok((Some(path_of(&held)), Some(held)));
        }
        let of_pod = *seen == ProcessNamespace::Pod && !is_pause;
        Ok((self.pause.processes_for(of_pod)?, None))
    }

    async fn take_volumes(
        &self,
        volumes: Vec<VolumeStorage>,
        parts: &mut Parts,
    ) -> Result<(), CreateError> {
        for volume in volumes {
            let taken = match volume {
                VolumeStorage::Ephemeral(storage) => self.storages.take_ephemeral(storage)?,
                VolumeStorage::Local(storage) => {
                    // The disk that it lies on may not be ready yet.
                    let storages = Arc::clone(&self.storages);
                    blocking(move || storages.take_local(storage)).await??
                }
            };
            parts.storages.push(taken);
        }
        Ok(())
    }

    /// Begins to pull the images that the policy names, before containers of them are asked for.
    pub fn pull_ahead(&self, images: Vec<String>) {
        Arc::clone(&self.images).pull_ahead(images);
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

    /// Holds the sources of the mounts still, measures what the host put there, and hands the
    /// spec to the container library.
    fn pin(
        &self,
        id: &ContainerId,
        spec: &mut Spec,
        (volumes, claim): (&[GuestPath], &Claim),
    ) -> Result<Pinned, CreateError> {
        let bundle = paths::bundle(id);
        let mut refused = None;
        let pinned = Pinned::all(&bundle, spec, &self.storages, |mount, opened| {
            match mount.source() {
                Some(source) if covers::is_copied(mount, volumes) => {
                    let files = (source.as_path(), opened);
                    let given = self.host_files.give(&self.log, files, mount.destination());
                    let at = mount.destination().to_string_lossy();
                    let judged = claim.judge_files(&at, &given?.to_string());
                    judged.map_err(|denied| {
                        refused = Some(denied);
                        io::ErrorKind::PermissionDenied.into()
                    })
                }
                _ => Ok(()),
            }
        });
        let pinned = match refused {
            Some(denied) => return Err(CreateError::Denied(denied)),
            None => pinned.map_err(not_pinned)?,
        };
        write_spec(&bundle, spec).map_err(|source| CreateError::Prepare {
            what: "the spec",
            container: id.clone(),
            source,
        })?;
        Ok(pinned)
    }

    async fn make_process(
        &self,
        id: &ContainerId,
        bundle: &Path,
        spec: &Spec,
        vsock: bool,
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
            vsock,
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
        let (request, claim) = permit.into_parts();
        let container = self.find(&request.container)?;
        if container.started.swap(true, Ordering::Relaxed) {
            return Err(CreateError::Started(container.id.clone()));
        }
        if !container.is_pause {
            self.watch(Arc::clone(&container));
            tokio::spawn(let_go(Arc::clone(&container), self.output_patience));
        }
        let job = Job::Start {
            id: container.id.to_string(),
        };
        let expecting = self.reaper.expecting();
        let mut started = job::run(&self.reaper, &expecting, &job, None)
            .await
            .map(drop);
        if started.is_ok() {
            started = container.init.runs().await;
        }
        started.map_err(|source| {
            container.started.store(false, Ordering::Relaxed);
            CreateError::Job {
                action: "start",
                container: container.id.clone(),
                executable: executable_of(Some(&container.defaults.process)),
                source,
            }
        })?;
        let _ = claim.commit();
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
            let status = init.exit.wait().await;
            container.place.ended(status == 0);
            if container.shared_processes {
                let _ = cgroup.kill();
            }
        });
    }
}

async fn let_go(container: Arc<Container>, patience: Duration) {
    let say = |output, bytes| {
        let output = match output {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        };
        warn!(container.id = %container.id, what = output, bytes, "output dropped that the host did not read");
    };
    container.init.let_go_when_unread(patience, say).await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CreateError> {
    spawn_blocking(work).await.map_err(CreateError::Worker)
}

fn make_termination(
    id: &ContainerId,
    bundle: &Path,
    spec: &mut Spec,
    path: Option<GuestPath>,
) -> Result<Option<PathBuf>, CreateError> {
    let Some(path) = path else { return Ok(None) };
    termination::make(bundle, spec, &path).map_err(|source| CreateError::Prepare {
        what: "the termination message",
        container: id.clone(),
        source,
    })
}

/// The container's cgroup, in which only its devices can be opened.
fn make_cgroup(id: &ContainerId, process: &SpecProcess) -> Result<Cgroup, CreateError> {
    let cgroup = Cgroup::of(id);
    let made = cgroup.make();
    made.and_then(|()| devices::allow_only(&cgroup, devices_of(process)))
        .map_err(|source| CreateError::Prepare {
            what: "the list of devices",
            container: id.clone(),
            source,
        })?;
    Ok(cgroup)
}

/// What administrates the pod's network may make tunnels in it.
fn devices_of(process: &SpecProcess) -> &'static [Device] {
    let bounding = process.capabilities().as_ref();
    let bounding = bounding.and_then(|sets| sets.bounding().as_ref());
    if bounding.is_some_and(|set| set.contains(&Capability::NetAdmin)) {
        &devices::ALLOWED_WITH_TUN
    } else {
        &devices::ALLOWED
    }
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

fn not_pinned(error: PinError) -> CreateError {
    CreateError::Source {
        destination: error.destination,
        source: error.source,
    }
}

/// Looks into the image: who the user is, and what of it files of the host would cover.
async fn look_inside(
    bundle: &Path,
    spec: &Spec,
    volumes: &[GuestPath],
    asked: ProcessSpec,
) -> Result<(SpecProcess, OfImage, Vec<PathBuf>), CreateError> {
    let (root, spec, volumes) = (bundle.join("rootfs"), spec.clone(), volumes.to_owned());
    blocking(move || {
        let inside = open_inside(&root)?;
        let covered = covers::covered(&inside, &spec, &volumes);
        prepare_inside(&inside, asked).map(|(prepared, image)| (prepared, image, covered))
    })
    .await?
}

fn open_inside(root: &Path) -> Result<Inside, CreateError> {
    Inside::open(root).map_err(|source| {
        CreateError::User(UserError::Read {
            file: "root directory",
            source,
        })
    })
}

/// Makes the working directory, as other runtimes do, and finds out who the user is.
fn prepare_inside(
    inside: &Inside,
    asked: ProcessSpec,
) -> Result<(SpecProcess, OfImage), CreateError> {
    let mut process = asked.process;
    if inside.make_directories(process.cwd()).is_err() {
        // The library reports it with the path if the process really cannot start there.
        warn!("working directory not made");
    }
    let image = user::settle(inside, &asked.user_name, &mut process)?;
    Ok((process, image))
}
