//! Requests about whole containers.

use std::{path::Path, time::Duration};

use agent_protocol::{
    id::ContainerId,
    rpc::{agent, oci},
};
use policy_engine::{Asked, AskedContainer, AskedProcesses};

use crate::{
    capabilities::Processes,
    error::{RequestError, Unsupported},
    limits::Limits,
    parse::{Parse, at_most, container_id, process_id, rule},
    paths,
    spec::ContainerSpec,
    storage::{self, ImagePull, Storage, VolumeStorage},
};

const STORAGES_MAX: usize = 64;
/// What lies beside the containers' directories below the state root.
const RESERVED_IDS: [&str; 3] = ["image", "sandbox", "shared"];

/// A container to create.
#[derive(Debug)]
pub struct CreateContainer {
    /// Its id.
    pub container: ContainerId,
    /// Where its root file system comes from.
    pub image: ImagePull,
    /// What it runs and how.
    pub spec: ContainerSpec,
    /// Where its volumes come from.
    pub volumes: Vec<VolumeStorage>,
    /// Whose processes it sees.
    pub processes: ProcessNamespace,
}

/// Whose processes a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessNamespace {
    /// Its own only.
    Own,
    /// Those of the pod, in the namespace of the pause container.
    Pod,
    /// Those of another container, as a debug container does.
    Of(ContainerId),
}

impl ProcessNamespace {
    /// Kata's flag for the pod's; another container's is the path of a namespace in the spec.
    fn parse(of_pod: bool, linux: &oci::Linux) -> Result<Self, RequestError> {
        let mut namespaces = linux.Namespaces.iter();
        let path = namespaces.find(|one| one.Type == "pid" && !one.Path.is_empty());
        let Some(path) = path.map(|one| one.Path.as_str()) else {
            return Ok(if of_pod { Self::Pod } else { Self::Own });
        };
        let id = Path::new(path).strip_prefix(paths::STATE_ROOT).ok();
        let id = id.and_then(|rest| rest.to_str()?.strip_suffix("/ns/pid"));
        let id = id.and_then(|id| ContainerId::parse(id).ok());
        match id {
            Some(id) if !of_pod => Ok(Self::Of(id)),
            _ => Err(RequestError::Invalid("process namespace")),
        }
    }

    /// Whether it sees processes that are not its own.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        *self != Self::Own
    }
}

/// New limits of a container.
#[derive(Debug)]
pub struct UpdateContainer {
    /// The container.
    pub container: ContainerId,
    /// What it may use from now on.
    pub limits: Limits,
}

/// A container to remove.
#[derive(Debug)]
pub struct RemoveContainer {
    /// The container.
    pub container: ContainerId,
    /// How long its end may take; the agent has its own limit as well.
    pub timeout: Option<Duration>,
}

impl Parse for CreateContainer {
    type Message = agent::CreateContainerRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let container = container_id(&message.container_id)?;
        process_id(&container, &message.exec_id)?;
        if RESERVED_IDS.contains(&container.as_str()) {
            return Err(Unsupported::ReservedId(container).into());
        }
        if let Some(device) = message.devices.first() {
            let path = device.container_path.chars().take(256).collect();
            return Err(Unsupported::Device(path).into());
        }
        if !message.shared_mounts.is_empty() {
            return Err(Unsupported::SharedMounts.into());
        }
        if (message.stdin_port, message.stdout_port, message.stderr_port) != (0, 0, 0) {
            return Err(Unsupported::StdioPorts.into());
        }
        let (image, volumes) = root_and_volumes(&container, message.storages)?;
        let oci = message
            .OCI
            .into_option()
            .ok_or(RequestError::Missing("OCI spec"))?;
        let processes = ProcessNamespace::parse(message.sandbox_pidns, oci.Linux.get_or_default())?;
        let (spec, volumes) = match &image {
            // The guest makes the pause container itself: of what the host says about it,
            // only settings of the pod count.
            ImagePull::Pause => (ContainerSpec::pause(&container, oci)?, Vec::new()),
            ImagePull::Reference(_) => {
                let seen = if processes.is_shared() {
                    Processes::Shared
                } else {
                    Processes::Own
                };
                (ContainerSpec::parse(&container, oci, seen)?, volumes)
            }
        };
        Ok(Self {
            container,
            image,
            spec,
            volumes,
            processes,
        })
    }
}

/// A container has one image, and any volumes.
fn root_and_volumes(
    container: &ContainerId,
    storages: Vec<agent::Storage>,
) -> Result<(ImagePull, Vec<VolumeStorage>), RequestError> {
    at_most("storages", storages.len(), STORAGES_MAX)?;
    let mut image = None;
    let mut volumes = Vec::new();
    for storage in storages {
        match storage::parse(container, storage)? {
            Storage::Volume(volume) => volumes.push(volume),
            Storage::Image(pull) => {
                if image.replace(pull).is_some() {
                    return Err(RequestError::Invalid("second image_guest_pull storage"));
                }
            }
        }
    }
    Ok((image.ok_or(Unsupported::NoImage)?, volumes))
}

impl CreateContainer {
    /// What the policy judges of it before its image is known.
    fn judged(&self) -> AskedContainer<'_> {
        let ContainerSpec {
            sysctls, pod, name, ..
        } = &self.spec;
        AskedContainer {
            id: self.container.as_str(),
            name,
            pod_name: &pod.name,
            namespace: &pod.namespace,
            uid: &pod.uid,
            image: match &self.image {
                ImagePull::Pause => None,
                ImagePull::Reference(image) => Some(image),
            },
            sysctls: sysctls
                .iter()
                .map(|one| (one.key.as_str(), one.value.as_str()))
                .collect(),
            volumes: self.volumes.iter().map(VolumeStorage::judged).collect(),
            processes: match &self.processes {
                ProcessNamespace::Own => AskedProcesses::Own,
                ProcessNamespace::Pod => AskedProcesses::Pod,
                ProcessNamespace::Of(id) => AskedProcesses::Of(id.as_str()),
            },
        }
    }
}

impl Parse for UpdateContainer {
    type Message = agent::UpdateContainerRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        Ok(Self {
            container: container_id(&message.container_id)?,
            limits: Limits::parse(message.resources.get_or_default())?,
        })
    }
}

impl Parse for RemoveContainer {
    type Message = agent::RemoveContainerRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let seconds = u64::from(message.timeout);
        Ok(Self {
            container: container_id(&message.container_id)?,
            timeout: (seconds != 0).then(|| Duration::from_secs(seconds)),
        })
    }
}

/// A request that names a container and nothing else.
pub trait ContainerRequest {
    /// The container.
    fn container(&self) -> &ContainerId;
}

macro_rules! container_requests {
    ($($(#[$doc:meta])* $name:ident($message:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            /// The container.
            pub container: ContainerId,
        }

        impl ContainerRequest for $name {
            fn container(&self) -> &ContainerId {
                &self.container
            }
        }

        impl Parse for $name {
            type Message = $message;

            fn parse(message: Self::Message) -> Result<Self, RequestError> {
                Ok(Self { container: container_id(&message.container_id)? })
            }
        }
    )*};
}

container_requests! {
    /// A created container whose process may run.
    StartContainer(agent::StartContainerRequest);
    /// A container whose use of resources is asked for.
    StatsContainer(agent::StatsContainerRequest);
    /// A container to freeze.
    PauseContainer(agent::PauseContainerRequest);
    /// A frozen container to thaw.
    ResumeContainer(agent::ResumeContainerRequest);
}

rule! {
    CreateContainer => "CreateContainerRequest", |asked| Asked::Container(Box::new(asked.judged()));
    StartContainer => "StartContainerRequest", |asked| Asked::Start(asked.container.as_str());
    RemoveContainer => "RemoveContainerRequest", |asked| Asked::Remove(asked.container.as_str());
    UpdateContainer => "UpdateContainerRequest", |asked| Asked::Of(asked.container.as_str());
    StatsContainer => "StatsContainerRequest", |asked| Asked::Of(asked.container.as_str());
    PauseContainer => "PauseContainerRequest", |asked| Asked::Of(asked.container.as_str());
    ResumeContainer => "ResumeContainerRequest", |asked| Asked::Of(asked.container.as_str());
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;

    use super::*;

    fn message(id: &str) -> agent::CreateContainerRequest {
        agent::CreateContainerRequest {
            container_id: id.into(),
            storages: vec![agent::Storage {
                driver: "image_guest_pull".into(),
                source: "r.example/a:1".into(),
                mount_point: format!("/run/kata-containers/{id}/rootfs"),
                ..Default::default()
            }],
            OCI: MessageField::some(oci::Spec {
                Process: MessageField::some(oci::Process {
                    Args: vec!["sh".into()],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_container_does_not_take_a_directory_of_the_pod() {
        assert!(CreateContainer::parse(message("c1")).is_ok());
        for path in [paths::SHARED_ROOT, paths::SANDBOX_ROOT, paths::IMAGE_STORE] {
            let below = Path::new(path).strip_prefix(paths::STATE_ROOT).unwrap();
            let name = below.iter().next().unwrap().to_str().unwrap();
            assert!(CreateContainer::parse(message(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_container_has_one_image_and_no_devices() {
        let none = agent::CreateContainerRequest {
            storages: vec![],
            ..message("c1")
        };
        let mut two = message("c1");
        two.storages.extend(two.storages.clone());
        let device = agent::CreateContainerRequest {
            devices: vec![agent::Device::default()],
            ..message("c1")
        };
        for bad in [none, two, device] {
            assert!(CreateContainer::parse(bad).is_err());
        }
    }

    #[test]
    fn another_containers_processes_are_named_by_its_id_and_nothing_else() {
        let seen = |path: &str, of_pod| {
            let mut message = message("c1");
            message.sandbox_pidns = of_pod;
            let spec = message.OCI.mut_or_insert_default();
            spec.Linux.mut_or_insert_default().Namespaces = vec![oci::LinuxNamespace {
                Type: "pid".into(),
                Path: path.into(),
                ..Default::default()
            }];
            CreateContainer::parse(message).map(|request| request.processes)
        };
        assert_eq!(seen("", false).unwrap(), ProcessNamespace::Own);
        assert_eq!(seen("", true).unwrap(), ProcessNamespace::Pod);
        let target = ContainerId::parse("target").unwrap();
        let path = "/run/kata-containers/target/ns/pid";
        assert_eq!(seen(path, false).unwrap(), ProcessNamespace::Of(target));
        assert!(seen(path, true).is_err());
        for path in [
            "/proc/1/ns/pid",
            "/run/kata-containers/../ns/pid",
            "/run/kata-containers/a/b/ns/pid",
            "/run/kata-containers/target/ns/net",
        ] {
            assert!(seen(path, false).is_err(), "{path}");
        }
    }

    #[test]
    fn limits_have_no_negative_values_but_minus_one() {
        let with = |limit| oci::LinuxResources {
            Memory: MessageField::some(oci::LinuxMemory {
                Limit: limit,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(Limits::parse(&with(0)).unwrap().memory.limit, None);
        assert_eq!(Limits::parse(&with(-1)).unwrap().memory.limit, Some(-1));
        assert!(Limits::parse(&with(-2)).is_err());
    }
}
