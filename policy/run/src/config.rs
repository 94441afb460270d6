//! Pod → CRI: the configurations that the kubelet would send (CRI v1, `api.proto`).
//!
//! Pure: volumes are made and addresses known before. The values are the kubelet's,
//! because the policy of the guest is written against them.

use std::{collections::HashMap, path::Path};

use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, SecurityProfile,
    security_profile::ProfileType as CriProfileType,
};

use crate::{
    RunError,
    environment::expand_all,
    kubelet_files::{KubeletFiles, TERMINATION_LOG},
    pod::{Container, DnsPolicy, Map, Pod, Profile, ProfileType, Propagation, Protocol},
    resources::{container_resources, pod_resources},
    volumes::{Place, Volumes},
};

const HOSTS: &str = "/etc/hosts";
/// containerd's name for the runtime handler that an image is pulled for.
const HANDLER_ANNOTATION: &str = "io.containerd.cri.runtime-handler";

/// What the kubelet hides from a container that is not privileged.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What the kubelet makes read-only for a container that is not privileged.
const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What is known about the pod before its sandbox runs.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) uid: &'a str,
    pub(crate) handler: &'a str,
    /// Where the pod's own files are made.
    pub(crate) files: &'a Path,
    pub(crate) log_directory: &'a Path,
    /// The node's own name servers, for a pod that only adds to them.
    pub(crate) node_dns: DnsConfig,
}

/// What is known about a container when it is made.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) environment: Vec<KeyValue>,
    pub(crate) volumes: &'a Volumes,
    pub(crate) files: KubeletFiles,
}

impl Setting<'_> {
    /// The sandbox.
    pub(crate) fn sandbox(&self) -> PodSandboxConfig {
        let metadata = &self.pod.metadata;
        let mut labels = metadata.labels.clone();
        labels.extend(self.labels());
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: metadata.name.clone(),
                uid: self.uid.to_owned(),
                namespace: self.namespace().to_owned(),
                attempt: 0,
            }),
            hostname: self.hostname(),
            log_directory: self.log_directory.to_string_lossy().into_owned(),
            dns_config: self.dns(),
            port_mappings: self.containers().flat_map(ports).collect(),
            labels: labels.into_iter().collect(),
            annotations: self.annotations(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(self.sandbox_security()),
                sysctls: self.sysctls().into_iter().collect(),
                resources: Some(pod_resources(self.pod)),
                ..LinuxPodSandboxConfig::default()
            }),
            windows: None,
        }
    }

    /// The image of a container, with the handler that decides who stores it.
    pub(crate) fn image(&self, container: &Container) -> ImageSpec {
        ImageSpec {
            image: container.image.clone(),
            user_specified_image: container.image.clone(),
            runtime_handler: self.handler.to_owned(),
            ..ImageSpec::default()
        }
    }

    /// One container.
    pub(crate) fn container(&self, making: Making<'_>) -> ContainerConfig {
        let container = making.container;
        let mut labels = self.labels();
        let name = container.name.clone();
        labels.insert("io.kubernetes.container.name".to_owned(), name.clone());
        let annotations = [
            ("restartCount", making.attempt.to_string()),
            ("terminationMessagePath", last_words(container).to_owned()),
            ("terminationMessagePolicy", "File".to_owned()),
        ]
        .map(|(key, value)| (format!("io.kubernetes.container.{key}"), value));
        let mut mounts = mounts(container, making.volumes);
        mounts.extend(kubelet_mounts(container, &making.files));
        ContainerConfig {
            log_path: log_path(&name, making.attempt),
            metadata: Some(ContainerMetadata {
                name,
                attempt: making.attempt,
            }),
            image: Some(self.image(container)),
            command: expand_all(&container.command, &making.environment),
            args: expand_all(&container.args, &making.environment),
            working_dir: container.working_dir.clone(),
            envs: making.environment,
            mounts,
            labels: labels.into_iter().collect(),
            annotations: annotations.into(),
            stdin: container.stdin,
            stdin_once: container.stdin_once,
            tty: container.tty,
            linux: Some(LinuxContainerConfig {
                resources: Some(container_resources(&container.resources)),
                security_context: Some(self.security(container)),
            }),
            ..ContainerConfig::default()
        }
    }

    /// Writes the container's own files where a kubelet has them, below the pod's directory: by
    /// that a runtime knows them.
    ///
    /// # Errors
    ///
    /// [`RunError::KubeletFiles`] when they cannot be written.
    pub(crate) fn kubelet_files(
        &self,
        container: &Container,
        addresses: &[String],
    ) -> Result<KubeletFiles, RunError> {
        let of_pod = self.files.join("pods").join(self.uid);
        let name = &container.name;
        KubeletFiles::write(&of_pod, name, &self.hostname(), addresses).map_err(|source| {
            RunError::KubeletFiles {
                container: name.clone(),
                source,
            }
        })
    }

    fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pod.spec.containers.iter()
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn labels(&self) -> Map {
        [
            ("io.kubernetes.pod.name", self.pod.metadata.name.as_str()),
            ("io.kubernetes.pod.namespace", self.namespace()),
            ("io.kubernetes.pod.uid", self.uid),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The pod's own, and the handler: containerd takes from it which snapshotter an image
    /// is pulled for, the pause image included, and hands it to nobody.
    fn annotations(&self) -> HashMap<String, String> {
        let handler = (HANDLER_ANNOTATION.to_owned(), self.handler.to_owned());
        let own = self.pod.metadata.annotations.clone();
        own.into_iter().chain([handler]).collect()
    }

    /// A host name has 63 characters at most, and does not end between words.
    fn hostname(&self) -> String {
        let spec = &self.pod.spec;
        let name = spec.hostname.as_ref().unwrap_or(&self.pod.metadata.name);
        let cut: String = name.chars().take(63).collect();
        cut.trim_end_matches(['-', '.']).to_owned()
    }

    /// `None` lets containerd copy the node's file.
    fn dns(&self) -> Option<DnsConfig> {
        let spec = &self.pod.spec;
        let alone = spec.dns_policy == Some(DnsPolicy::None);
        let mut dns = if alone {
            DnsConfig::default()
        } else {
            spec.dns_config.as_ref()?;
            self.node_dns.clone()
        };
        let own = spec.dns_config.clone().unwrap_or_default();
        dns.servers.extend(own.nameservers);
        dns.searches.extend(own.searches);
        dns.options
            .extend(own.options.into_iter().map(|o| match o.value {
                Some(value) => format!("{}:{value}", o.name),
                None => o.name,
            }));
        Some(dns)
    }

    fn sysctls(&self) -> Map {
        let sysctls = &self.pod.spec.security_context.sysctls;
        let pair = |s: &crate::pod::Sysctl| (s.name.clone(), s.value.clone());
        sysctls.iter().map(pair).collect()
    }

    fn namespaces(&self) -> NamespaceOption {
        let pid = if self.pod.spec.share_process_namespace {
            NamespaceMode::Pod
        } else {
            NamespaceMode::Container
        };
        NamespaceOption {
            network: NamespaceMode::Pod.into(),
            pid: pid.into(),
            ipc: NamespaceMode::Pod.into(),
            ..NamespaceOption::default()
        }
    }

    fn groups(&self) -> Vec<i64> {
        let security = &self.pod.spec.security_context;
        let own = security.supplemental_groups.iter().copied();
        own.chain(security.fs_group.map(i64::from)).collect()
    }

    fn sandbox_security(&self) -> LinuxSandboxSecurityContext {
        let security = &self.pod.spec.security_context;
        LinuxSandboxSecurityContext {
            namespace_options: Some(self.namespaces()),
            run_as_user: id(security.run_as_user),
            run_as_group: id(security
                .run_as_group
                .filter(|_| security.run_as_user.is_some())),
            supplemental_groups: self.groups(),
            privileged: self.containers().any(|c| c.security_context.privileged),
            seccomp: Some(SecurityProfile {
                profile_type: CriProfileType::RuntimeDefault.into(),
                ..SecurityProfile::default()
            }),
            ..LinuxSandboxSecurityContext::default()
        }
    }

    fn security(&self, container: &Container) -> LinuxContainerSecurityContext {
        let pod = &self.pod.spec.security_context;
        let own = &container.security_context;
        let profile = own
            .seccomp_profile
            .as_ref()
            .or(pod.seccomp_profile.as_ref());
        let paths = |paths: &[&str]| match own.privileged {
            true => Vec::new(),
            false => paths.iter().map(|p| (*p).to_owned()).collect(),
        };
        LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: own.capabilities.add.clone(),
                drop_capabilities: own.capabilities.drop.clone(),
                ..Capability::default()
            }),
            privileged: own.privileged,
            namespace_options: Some(self.namespaces()),
            run_as_user: id(own.run_as_user.or(pod.run_as_user)),
            run_as_group: id(own.run_as_group.or(pod.run_as_group)),
            readonly_rootfs: own.read_only_root_filesystem,
            supplemental_groups: self.groups(),
            no_new_privs: own.allow_privilege_escalation == Some(false),
            masked_paths: paths(&MASKED_PATHS),
            readonly_paths: paths(&READ_ONLY_PATHS),
            seccomp: Some(seccomp(profile)),
            ..LinuxContainerSecurityContext::default()
        }
    }
}

/// Where containerd writes a container's log, below the log directory.
pub(crate) fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn mounts(container: &Container, volumes: &Volumes) -> Vec<Mount> {
    let mount = |wanted: &crate::pod::VolumeMount| {
        let Place { path, read_only } = volumes.place(&wanted.name)?.clone();
        let below = path.join(&wanted.sub_path);
        // A file of a ConfigMap is a link; what is mounted is what it leads to.
        let host_path = if wanted.sub_path.is_empty() {
            path
        } else {
            below.canonicalize().unwrap_or(below)
        };
        let propagation = match wanted.mount_propagation.unwrap_or_default() {
            Propagation::None => MountPropagation::PropagationPrivate,
            Propagation::HostToContainer => MountPropagation::PropagationHostToContainer,
            Propagation::Bidirectional => MountPropagation::PropagationBidirectional,
        };
        Some(Mount {
            container_path: wanted.mount_path.clone(),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: wanted.read_only || read_only,
            propagation: propagation.into(),
            ..Mount::default()
        })
    };
    container.volume_mounts.iter().filter_map(mount).collect()
}

fn last_words(container: &Container) -> &str {
    let path = container.termination_message_path.as_deref();
    path.unwrap_or(TERMINATION_LOG)
}

/// They follow the pod's own; who mounts something at `/etc/hosts` has that.
fn kubelet_mounts(container: &Container, files: &KubeletFiles) -> Vec<Mount> {
    let mount = |at: &str, path: &Path| Mount {
        container_path: at.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        ..Mount::default()
    };
    let mut own = container.volume_mounts.iter();
    let hosts = (!own.any(|own| own.mount_path == HOSTS)).then(|| mount(HOSTS, &files.hosts));
    let last = mount(last_words(container), &files.termination);
    hosts.into_iter().chain([last]).collect()
}

fn ports(container: &Container) -> Vec<PortMapping> {
    let mapping = |port: &crate::pod::Port| PortMapping {
        protocol: match port.protocol {
            Protocol::Tcp => k8s_cri::v1::Protocol::Tcp.into(),
            Protocol::Udp => k8s_cri::v1::Protocol::Udp.into(),
            Protocol::Sctp => k8s_cri::v1::Protocol::Sctp.into(),
        },
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.clone(),
    };
    container.ports.iter().map(mapping).collect()
}

fn seccomp(profile: Option<&Profile>) -> SecurityProfile {
    let Some(profile) = profile else {
        return SecurityProfile {
            profile_type: CriProfileType::Unconfined.into(),
            ..SecurityProfile::default()
        };
    };
    let kind = match profile.r#type {
        ProfileType::RuntimeDefault => CriProfileType::RuntimeDefault,
        ProfileType::Localhost => CriProfileType::Localhost,
        ProfileType::Unconfined => CriProfileType::Unconfined,
    };
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

fn id(value: Option<i64>) -> Option<Int64Value> {
    value.map(|value| Int64Value { value })
}

#[cfg(test)]
mod tests;
