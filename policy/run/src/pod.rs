//! The part of a Pod, ConfigMap and Secret (Kubernetes API v1) that `run` understands.
//!
//! Types of our own rather than a crate of the whole API: every field is here because
//! it is used, because it is refused, or because it is known and has no meaning
//! without a cluster ([`Known`]). Anything else is a spelling mistake and an error.

use std::collections::BTreeMap;

use policy_generator::Quantity;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// Names and values.
pub(crate) type Map = BTreeMap<String, String>;

/// A field that Kubernetes knows and `run` does nothing with: only whether it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known(pub(crate) bool);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// Declares a struct of optional fields and those that are only [`Known`].
macro_rules! fields {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[$field_meta:meta])* $field:ident : $kind:ty, )* }
        known { $( $known:ident, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub(crate) struct $name {
            $( $(#[$field_meta])* pub(crate) $field: $kind, )*
            $( pub(crate) $known: Known, )*
        }

        impl $name {
            /// The fields that are there and have no effect, as they are spelled here.
            #[allow(dead_code, unused_mut, reason = "not every type has such fields")]
            pub(crate) fn without_effect(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $( if self.$known.0 { names.push(stringify!($known)); } )*
                names
            }
        }
    };
}

fields! {
    /// `Pod`.
    Pod {
        api_version: String,
        kind: String,
        metadata: Metadata,
        spec: PodSpec,
    }
    known { status, }
}

fields! {
    /// `ObjectMeta`.
    Metadata {
        name: String,
        namespace: Option<String>,
        labels: Map,
        annotations: Map,
    }
    known {
        creation_timestamp, deletion_grace_period_seconds, deletion_timestamp, finalizers,
        generate_name, generation, managed_fields, owner_references, resource_version,
        self_link, uid,
    }
}

fields! {
    /// `PodSpec`.
    PodSpec {
        active_deadline_seconds: Option<u64>,
        containers: Vec<Container>,
        dns_config: Option<DnsConfig>,
        dns_policy: Option<DnsPolicy>,
        #[serde(rename = "hostIPC")]
        host_ipc: bool,
        host_network: bool,
        #[serde(rename = "hostPID")]
        host_pid: bool,
        hostname: Option<String>,
        image_pull_secrets: Vec<NameRef>,
        init_containers: Vec<Container>,
        restart_policy: Option<RestartPolicy>,
        runtime_class_name: Option<String>,
        security_context: PodSecurity,
        share_process_namespace: bool,
        termination_grace_period_seconds: Option<u32>,
        volumes: Vec<Volume>,
    }
    known {
        affinity, automount_service_account_token, enable_service_links, ephemeral_containers,
        host_aliases, host_users, node_name, node_selector, os, overhead,
        preemption_policy, priority, priority_class_name, readiness_gates, resource_claims,
        resources, scheduler_name, scheduling_gates, service_account, service_account_name,
        set_hostname_as_fqdn, subdomain, tolerations, topology_spread_constraints,
    }
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

/// Where name servers come from; without a cluster there is only the node's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum DnsPolicy {
    #[default]
    ClusterFirst,
    ClusterFirstWithHostNet,
    Default,
    None,
}

fields! {
    /// `PodDNSConfig`.
    DnsConfig {
        nameservers: Vec<String>,
        searches: Vec<String>,
        options: Vec<DnsOption>,
    }
    known {}
}

fields! {
    /// `PodDNSConfigOption`.
    DnsOption {
        name: String,
        value: Option<String>,
    }
    known {}
}

fields! {
    /// `PodSecurityContext`.
    PodSecurity {
        fs_group: Option<u32>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        run_as_user: Option<i64>,
        seccomp_profile: Option<Profile>,
        supplemental_groups: Vec<i64>,
        sysctls: Vec<Sysctl>,
    }
    known {
        app_armor_profile, fs_group_change_policy, se_linux_change_policy, se_linux_options,
        supplemental_groups_policy, windows_options,
    }
}

fields! {
    /// `Sysctl`.
    Sysctl { name: String, value: String, }
    known {}
}

fields! {
    /// `SeccompProfile`.
    Profile { r#type: ProfileType, localhost_profile: Option<String>, }
    known {}
}

/// Where a seccomp profile comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum ProfileType {
    RuntimeDefault,
    Localhost,
    #[default]
    Unconfined,
}

fields! {
    /// `Container`.
    Container {
        args: Vec<String>,
        command: Vec<String>,
        env: Vec<EnvVar>,
        env_from: Vec<EnvFrom>,
        image: String,
        image_pull_policy: Option<PullPolicy>,
        name: String,
        ports: Vec<Port>,
        resources: Resources,
        restart_policy: Option<RestartPolicy>,
        security_context: Security,
        stdin: bool,
        stdin_once: bool,
        termination_message_path: Option<String>,
        tty: bool,
        volume_mounts: Vec<VolumeMount>,
        working_dir: String,
    }
    known {
        lifecycle, liveness_probe, readiness_probe, resize_policy, startup_probe,
        termination_message_policy, volume_devices,
    }
}

/// When an image is asked from its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

fields! {
    /// `ContainerPort`.
    Port {
        container_port: u16,
        #[serde(rename = "hostIP")]
        host_ip: String,
        host_port: u16,
        protocol: Protocol,
    }
    known { name, }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

fields! {
    /// `EnvVar`.
    EnvVar { name: String, value: Option<String>, value_from: Option<EnvSource>, }
    known {}
}

fields! {
    /// `EnvVarSource`.
    EnvSource {
        config_map_key_ref: Option<KeyRef>,
        field_ref: Option<FieldRef>,
        resource_field_ref: Option<ResourceRef>,
        secret_key_ref: Option<KeyRef>,
    }
    known {}
}

fields! {
    /// `ConfigMapKeySelector` and `SecretKeySelector`.
    KeyRef { key: String, name: String, optional: bool, }
    known {}
}

fields! {
    /// `ObjectFieldSelector`.
    FieldRef { field_path: String, }
    known { api_version, }
}

fields! {
    /// `ResourceFieldSelector`.
    ResourceRef { container_name: Option<String>, resource: String, divisor: Option<Quantity>, }
    known {}
}

fields! {
    /// `EnvFromSource`.
    EnvFrom { config_map_ref: Option<NameRef>, prefix: String, secret_ref: Option<NameRef>, }
    known {}
}

fields! {
    /// `ConfigMapEnvSource`, `SecretEnvSource` and `LocalObjectReference`.
    NameRef { name: String, optional: bool, }
    known {}
}

fields! {
    /// `ResourceRequirements`.
    Resources {
        limits: BTreeMap<String, Quantity>,
        requests: BTreeMap<String, Quantity>,
    }
    known { claims, }
}

fields! {
    /// `SecurityContext`.
    Security {
        allow_privilege_escalation: Option<bool>,
        capabilities: Capabilities,
        privileged: bool,
        read_only_root_filesystem: bool,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        run_as_user: Option<i64>,
        seccomp_profile: Option<Profile>,
    }
    known { app_armor_profile, proc_mount, se_linux_options, windows_options, }
}

fields! {
    /// `Capabilities`.
    Capabilities { add: Vec<String>, drop: Vec<String>, }
    known {}
}

fields! {
    /// `VolumeMount`.
    VolumeMount {
        mount_path: String,
        mount_propagation: Option<Propagation>,
        name: String,
        read_only: bool,
        sub_path: String,
        sub_path_expr: String,
    }
    known { recursive_read_only, }
}

/// Whether mounts made on one side show on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

fields! {
    /// `Volume`: those that have a source without a cluster, and names of common others.
    Volume {
        config_map: Option<ConfigMapVolume>,
        #[serde(rename = "downwardAPI")]
        downward_api: Option<DownwardVolume>,
        empty_dir: Option<EmptyDir>,
        host_path: Option<HostPath>,
        name: String,
        projected: Option<ProjectedVolume>,
        secret: Option<SecretVolume>,
    }
    known { csi, ephemeral, fc, image, iscsi, nfs, persistent_volume_claim, }
}

fields! {
    /// `ConfigMapVolumeSource` and `ConfigMapProjection`.
    ConfigMapVolume {
        default_mode: Option<u32>,
        items: Vec<KeyToPath>,
        name: String,
        optional: bool,
    }
    known {}
}

fields! {
    /// `SecretVolumeSource`, and `SecretProjection` with its other spelling of the name.
    SecretVolume {
        default_mode: Option<u32>,
        items: Vec<KeyToPath>,
        optional: bool,
        #[serde(alias = "name")]
        secret_name: String,
    }
    known {}
}

fields! {
    /// `KeyToPath`.
    KeyToPath { key: String, mode: Option<u32>, path: String, }
    known {}
}

fields! {
    /// `DownwardAPIVolumeSource` and `DownwardAPIProjection`.
    DownwardVolume { default_mode: Option<u32>, items: Vec<DownwardFile>, }
    known {}
}

fields! {
    /// `DownwardAPIVolumeFile`.
    DownwardFile {
        field_ref: Option<FieldRef>,
        mode: Option<u32>,
        path: String,
        resource_field_ref: Option<ResourceRef>,
    }
    known {}
}

fields! {
    /// `ProjectedVolumeSource`.
    ProjectedVolume { default_mode: Option<u32>, sources: Vec<Projection>, }
    known {}
}

fields! {
    /// `VolumeProjection`.
    Projection {
        config_map: Option<ConfigMapVolume>,
        #[serde(rename = "downwardAPI")]
        downward_api: Option<DownwardVolume>,
        secret: Option<SecretVolume>,
    }
    known { cluster_trust_bundle, service_account_token, }
}

fields! {
    /// `EmptyDirVolumeSource`.
    EmptyDir { medium: String, size_limit: Option<Quantity>, }
    known {}
}

fields! {
    /// `HostPathVolumeSource`.
    HostPath { path: String, r#type: HostPathType, }
    known {}
}

/// What has to be at a host path, or is made there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum HostPathType {
    #[default]
    #[serde(rename = "")]
    Unchecked,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

fields! {
    /// `ConfigMap`.
    ConfigMap { api_version: String, kind: String, metadata: Metadata, data: Map, binary_data: Map, }
    known { immutable, }
}

fields! {
    /// `Secret`.
    Secret { api_version: String, kind: String, metadata: Metadata, data: Map, string_data: Map, }
    known { immutable, r#type, }
}
