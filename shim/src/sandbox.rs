//! A pod's VM with everything on the host that belongs to it.
//!
//! [`boot`] makes the resources one by one, each written to the [`Record`] before it
//! is made, and [`Resources`] owns them: whatever fails or is cancelled in between,
//! [`Resources::release`] undoes what there is. A [`Sandbox`] is a VM whose agent
//! answered and took the pod's configuration.

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agent_protocol::{id::SandboxId, limits::AGENT_PORT, rpc::agent::CreateSandboxRequest};
use shim_agent_client::{AgentClient, AgentError};
use shim_configuration::{
    Accelerator, Config, Internetworking, Limits, Room, Size, SizingError, VM_OWN_MIB,
    annotations::{self, AnnotationError},
};
use shim_hypervisor::{Hypervisor, Nic, Vm, VmConfig};
use shim_oci::{Role, Spec};
use shim_volumes::{self as volumes, Mounts, Place, PodVolumes};
use thiserror::Error;

use crate::{
    cgroup::{CgroupError, PodCgroup},
    guest_image::{GuestImage, GuestImageError},
    initdata::{Delivery, DeliveryError},
    network::{self, GuestNetwork, NetworkError, PodNetwork},
    record::{Record, RecordError, StateDir},
    refuse::Impossible,
    scratch::{self, ScratchError},
    tee::{Protection, TeeError},
    timing::{Step, Timing},
    users::{self, UsersError},
};

/// How long the hypervisor may take to go by itself.
const STOP_GRACE: Duration = Duration::from_secs(2);
const DESTROY_DEADLINE: Duration = Duration::from_secs(3);
/// The most bytes of a resolv.conf.
const RESOLV_BYTES_MAX: u64 = 64 << 10;

/// Why a pod has no VM.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the variants carry the errors of the modules they name"
)]
pub(crate) enum BootError {
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    #[error(transparent)]
    Sizing(#[from] SizingError),
    #[error(transparent)]
    GuestImage(#[from] GuestImageError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error(transparent)]
    Tee(#[from] TeeError),
    #[error(transparent)]
    Users(#[from] UsersError),
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// The VM would be killed for lack of memory sooner or later.
    #[error(
        "the pod's VM takes {need} MiB, {guest} for the guest and {VM_OWN_MIB} for QEMU, and the pod's cgroup holds {limit} MiB: set overhead.podFixed.memory of the pod's RuntimeClass to {fixed}Mi, or sandbox_cgroup_only = false in [runtime]"
    )]
    PodLimit {
        need: u64,
        guest: u32,
        limit: u64,
        fixed: u32,
    },
    #[error("cannot start the VM")]
    Start(#[source] shim_hypervisor::StartError),
    #[error("the guest does not answer")]
    Connect(#[source] shim_hypervisor::ConnectError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A file that describes the pod cannot be read.
    #[error("cannot read {path} of the pod")]
    PodFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Everything on the host that a pod needs, as far as it is made.
pub(crate) struct Resources {
    state: StateDir,
    record: Record,
    cgroup: Option<PodCgroup>,
    network: Option<PodNetwork>,
    /// Who borrows users of the node.
    borrower: Option<SandboxId>,
    vm: Option<Arc<dyn Vm>>,
}

impl Resources {
    /// Holds no resource yet, only the record that names the shim.
    pub(crate) fn new(state: StateDir, record: Record) -> Self {
        Self {
            state,
            record,
            cgroup: None,
            network: None,
            borrower: None,
            vm: None,
        }
    }

    /// Ends the VM and removes all else, as far as it goes.
    pub(crate) async fn release(&mut self) {
        if let Some(vm) = self.vm.take()
            && let Err(error) = vm.stop(STOP_GRACE).await
        {
            tracing::error!(%error, "vm not stopped cleanly");
        }
        // A start that was cancelled half-way has left only its record.
        if let Err(error) = shim_hypervisor::clean_up(&self.state.vm()) {
            tracing::error!(%error, "vm not cleaned up");
        }
        if let Some(sandbox) = self.borrower.take()
            && let Err(error) = users::give_back(&sandbox, &self.state)
        {
            tracing::error!(%error, "users not given back");
        }
        if let Some(network) = self.network.take() {
            network.detach().await;
        } else if let Some(netns) = self.record.netns.take() {
            network::detach(netns, std::mem::take(&mut self.record.links)).await;
        }
        // It may wait for processes that are ending.
        if let Some(cgroup) = self.cgroup.take()
            && let Err(error) = tokio::task::spawn_blocking(move || cgroup.leave()).await
        {
            tracing::error!(%error, "cgroup not left");
        }
        if let Some(disk) = self.record.scratch_disk.take()
            && let Err(error) = scratch::remove(&disk)
        {
            tracing::error!(%error, disk = %disk.display(), "scratch disk not removed");
        }
        match fs::remove_dir_all(self.state.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "state directory not removed");
            }
            _ => {}
        }
    }
}

/// What [`boot`] needs to know.
pub(crate) struct Pod<'a> {
    /// The pod.
    pub(crate) id: &'a SandboxId,
    /// The part of the container that brings it up.
    pub(crate) role: Role,
    /// That container's spec.
    pub(crate) spec: &'a Spec,
    /// The node's configuration.
    pub(crate) config: Config,
    /// The clock.
    pub(crate) timing: Arc<Timing>,
}

/// A running pod.
pub(crate) struct Sandbox {
    id: SandboxId,
    /// The pod's agent.
    pub(crate) agent: AgentClient,
    /// The VM.
    pub(crate) vm: Arc<dyn Vm>,
    /// The pod's configuration.
    pub(crate) config: Config,
    /// What its containers may use of the VM together.
    pub(crate) room: Room,
    /// The clock.
    pub(crate) timing: Arc<Timing>,
    /// The pod's files.
    pub(crate) state: StateDir,
    /// Where its volumes are in the guest.
    pub(crate) volumes: Arc<PodVolumes>,
    resources: tokio::sync::Mutex<Resources>,
}

impl Sandbox {
    /// Takes over what [`boot`] made.
    pub(crate) fn new(booted: Booted, resources: Resources) -> Self {
        Self {
            id: booted.id,
            agent: booted.agent,
            vm: booted.vm,
            config: booted.config,
            room: booted.room,
            timing: booted.timing,
            state: resources.state.clone(),
            volumes: Arc::default(),
            resources: tokio::sync::Mutex::new(resources),
        }
    }

    /// The pod.
    pub(crate) fn id(&self) -> &SandboxId {
        &self.id
    }

    /// Process id of the hypervisor.
    pub(crate) fn pid(&self) -> u32 {
        self.vm.pid()
    }

    /// Ends the pod. Further calls find nothing to do.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.agent.destroy_sandbox(DESTROY_DEADLINE).await {
            tracing::debug!(%error, "guest not asked to end");
        }
        self.resources.lock().await.release().await;
    }
}

/// What [`boot`] hands back beside the resources.
pub(crate) struct Booted {
    id: SandboxId,
    agent: AgentClient,
    vm: Arc<dyn Vm>,
    config: Config,
    room: Room,
    timing: Arc<Timing>,
}

/// Brings a pod's VM up, up to the point where containers can be made.
///
/// # Errors
///
/// [`BootError`] names the step that failed; the caller releases the resources.
pub(crate) async fn boot(
    mut pod: Pod<'_>,
    hypervisor: &dyn Hypervisor,
    resources: &mut Resources,
) -> Result<Booted, BootError> {
    annotations::apply(pod.spec, &mut pod.config)?;
    let (size, room) = size(&pod)?;
    fits_limit(size, pod.config.qemu().overhead_memory, pod_limit(&pod)?)?;
    let image = GuestImage::open(&pod.config.qemu().guest_image)?;
    image.fit_for(pod.config.qemu())?;
    let delivery = Delivery::of(&pod.config)?;
    let protection = Protection::of(pod.config.qemu(), delivery.host_data())?;
    let dns = dns(pod.spec)?;

    resources.record.save(&resources.state)?;
    join_cgroup(&pod, resources)?;
    let (guest_network, nics) = attach_network(&pod, resources).await?;
    let mut config = vm_config(&pod, image, size, nics, resources.state.vm());
    resources.borrower = Some(pod.id.clone());
    config.users = users::lend(pod.config.qemu(), pod.id, &resources.state)?;
    let Resources { record, state, .. } = resources;
    let scratch_disk = scratch::lend(pod.config.qemu(), pod.id, record, state)?;
    config.disks.extend(scratch_disk);
    config.disks.extend(delivery.disk(&resources.state)?);
    protection.apply(&mut config);
    let vm = hypervisor.start(config).await.map_err(BootError::Start)?;
    let vm: Arc<dyn Vm> = Arc::from(vm);
    resources.vm = Some(Arc::clone(&vm));
    pod.timing.done(&resources.state, Step::VmStarted);

    let agent = connect(&*vm, &pod.config).await?;
    pod.timing.done(&resources.state, Step::AgentReady);
    if let Some(policy) = delivery.policy() {
        agent.set_policy(policy).await?;
    }
    if let Some(network) = guest_network {
        network.configure(&agent).await?;
    }
    let request = CreateSandboxRequest {
        hostname: pod.spec.hostname.clone(),
        dns,
        storages: vec![volumes::shm_storage()],
        sandbox_id: pod.id.to_string(),
        ..CreateSandboxRequest::default()
    };
    agent.create_sandbox(&request).await?;
    pod.timing.done(&resources.state, Step::SandboxReady);
    Ok(Booted {
        id: pod.id.clone(),
        agent,
        vm,
        config: pod.config,
        room,
        timing: pod.timing,
    })
}

fn size(pod: &Pod<'_>) -> Result<(Size, Room), BootError> {
    let limits = Limits::of(pod.role, pod.spec)?;
    let cpus = thread::available_parallelism()
        .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    let host = NonZeroU32::new(cpus).unwrap_or(NonZeroU32::MIN);
    let size = Size::of(limits, pod.config.qemu(), host)?;
    Ok((size, size.room(limits, pod.config.qemu())))
}

/// What the pod's cgroup may hold, if the VM is going to lie in it.
fn pod_limit(pod: &Pod<'_>) -> Result<Option<u64>, BootError> {
    match cgroup_path(pod) {
        Some(path) => Ok(PodCgroup::memory_limit(path)?),
        None => Ok(None),
    }
}

fn fits_limit(size: Size, overhead_mib: u32, limit: Option<u64>) -> Result<(), BootError> {
    let guest = size.memory_mib.get();
    let need = u64::from(guest).saturating_add(VM_OWN_MIB.into());
    match limit.map(|bytes| bytes >> 20) {
        Some(limit) if limit < need => Err(BootError::PodLimit {
            need,
            guest,
            limit,
            fixed: overhead_mib.saturating_add(VM_OWN_MIB),
        }),
        _ => Ok(()),
    }
}

/// Where the VM is to lie, if the configuration says so.
fn cgroup_path<'a>(pod: &Pod<'a>) -> Option<&'a str> {
    let linux = pod.spec.linux.as_ref();
    let path = linux.map(|linux| linux.cgroups_path.as_str());
    path.filter(|path| pod.config.runtime.sandbox_cgroup_only && !path.is_empty())
}

fn join_cgroup(pod: &Pod<'_>, resources: &mut Resources) -> Result<(), BootError> {
    let Some(path) = cgroup_path(pod) else {
        return Ok(());
    };
    let cgroup = PodCgroup::plan(path)?;
    resources.record.cgroups = cgroup.made().to_vec();
    resources.record.save(&resources.state)?;
    let joined = cgroup.join();
    resources.cgroup = Some(cgroup);
    Ok(joined?)
}

async fn attach_network(
    pod: &Pod<'_>,
    resources: &mut Resources,
) -> Result<(Option<GuestNetwork>, Vec<Nic>), BootError> {
    if pod.config.runtime.internetworking_model == Internetworking::None {
        return Ok((None, Vec::new()));
    }
    let netns: PathBuf = match pod.spec.namespace("network") {
        None => return Err(Impossible::HostNetwork.into()),
        // A new namespace has no links, and nobody will put any there.
        Some("") => return Ok((None, Vec::new())),
        Some(path) => path.into(),
    };
    let network = network::scan(netns.clone()).await?;
    resources.record.netns = Some(netns.clone());
    resources.record.links = network::planned(&network);
    resources.record.save(&resources.state)?;
    let (owner, nics) = PodNetwork::attach(netns, &network).await?;
    resources.network = Some(owner);
    Ok((Some(network), nics))
}

fn vm_config(
    pod: &Pod<'_>,
    image: GuestImage,
    size: Size,
    nics: Vec<Nic>,
    state_dir: PathBuf,
) -> VmConfig {
    let qemu = pod.config.qemu();
    let device = Some(qemu.vhost_user_vsock_device.clone());
    VmConfig {
        path: qemu.path.clone(),
        vcpus: size.vcpus,
        memory_mib: size.memory_mib,
        kernel: image.kernel,
        initrd: image.initrd,
        cmdline: image.cmdline,
        nics,
        vsock: shim_hypervisor::Vsock::Auto {
            device: device.filter(|path| path.exists()),
        },
        accelerator: match qemu.accelerator {
            Accelerator::Auto => shim_hypervisor::Accelerator::Auto,
            Accelerator::Kvm => shim_hypervisor::Accelerator::Kvm,
            Accelerator::Tcg => shim_hypervisor::Accelerator::Tcg,
        },
        vhost_net: !qemu.disable_vhost_net,
        entropy_source: Some("/dev/urandom".into()),
        ..VmConfig::new(pod.id.as_str(), state_dir)
    }
}

/// Connects until the agent answers. A stream that opened and stays silent is given up
/// after a while, for another: a guest that boots on a busy node loses some.
async fn connect(vm: &dyn Vm, config: &Config) -> Result<AgentClient, BootError> {
    let budget = Duration::from_millis(config.agent().reconnect_timeout_ms);
    let end = Instant::now() + budget;
    let mut patience = Duration::from_millis(config.agent().dial_timeout_ms);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let stream = vm.connect(AGENT_PORT, left).await;
        let client = AgentClient::new(stream.map_err(BootError::Connect)?);
        let left = end.saturating_duration_since(Instant::now());
        match client.check(patience.min(left)).await {
            Ok(()) => return Ok(client),
            Err(error) if left <= patience => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "agent does not answer yet"),
        }
        patience = patience.saturating_mul(2);
    }
}

/// The lines of the resolv.conf that the sandbox mounts.
fn dns(spec: &Spec) -> Result<Vec<String>, BootError> {
    let mounted = spec
        .mounts
        .iter()
        .find(|mount| mount.destination == "/etc/resolv.conf");
    let Some(mount) = mounted else {
        return Ok(Vec::new());
    };
    let path = Path::new(&mount.source);
    let read = path
        .canonicalize()
        .and_then(|path| Place::open(&path, Mounts::Refused))
        .and_then(|place| place.read(RESOLV_BYTES_MAX))
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let text = read.map_err(|source| BootError::PodFile {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_its_pods_cgroup_cannot_hold_is_refused_with_the_number_to_change() {
        let size = Size {
            vcpus: NonZeroU32::MIN,
            memory_mib: NonZeroU32::new(64 + 256).unwrap(),
        };
        for limit in [None, Some((64 + 320) << 20), Some(1 << 40)] {
            assert!(fits_limit(size, 256, limit).is_ok(), "{limit:?}");
        }
        let error = fits_limit(size, 256, Some(64 << 20))
            .unwrap_err()
            .to_string();
        for part in [
            "384 MiB",
            "holds 64 MiB",
            "320Mi",
            "sandbox_cgroup_only = false",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
