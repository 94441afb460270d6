//! The part of a Pod, ConfigMap and Secret (Kubernetes API v1) that `run` understands.
//!
//! Types of our own rather than a crate of the whole API: every field is here because
//! it is used, because it is refused, or because it is known and has no meaning
//! without a cluster ([`Known`]). Anything else is a spelling mistake and an error.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, Visitor},
};

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
        host_aliases, host_users, image_pull_secrets, node_name, node_selector, os, overhead,
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
        tty: bool,
        volume_mounts: Vec<VolumeMount>,
        working_dir: String,
    }
    known {
        lifecycle, liveness_probe, readiness_probe, resize_policy, startup_probe,
        termination_message_path, termination_message_policy, volume_devices,
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
    /// `ConfigMapEnvSource` and `SecretEnvSource`.
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

/// An amount, as Kubernetes writes it: `100m`, `128Mi`, `1.5`, `2e3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity {
    milli: u128,
}

impl Quantity {
    /// One.
    pub(crate) const ONE: Self = Self { milli: 1000 };

    /// Reads an amount that is not negative and less than 2^63.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number_end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.len() > 9 {
            return None;
        }
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        // Up, as Kubernetes rounds what is smaller than its unit.
        let milli = digits.checked_mul(milli_per(suffix)?)?.div_ceil(scale);
        let most = u128::from(u64::MAX >> 1).checked_mul(1000)?;
        (milli <= most).then_some(Self { milli })
    }

    /// In thousandths, rounded up.
    pub(crate) fn milli(self) -> i64 {
        i64::try_from(self.milli).unwrap_or(i64::MAX)
    }

    /// In units, rounded up.
    pub(crate) fn units(self) -> i64 {
        i64::try_from(self.milli.div_ceil(1000)).unwrap_or(i64::MAX)
    }

    /// How often the divisor fits, rounded up; a divisor of zero counts as one.
    pub(crate) fn divided_by(self, divisor: Self) -> u128 {
        self.milli.div_ceil(divisor.milli.max(1))
    }
}

/// Thousandths in one unit of a suffix (Kubernetes API, "Quantity").
fn milli_per(suffix: &str) -> Option<u128> {
    let ten = |power: u32| 10_u128.checked_pow(power);
    let two = |power: u32| 1_u128.checked_shl(power).map(|n| n * 1000);
    match suffix {
        "m" => Some(1),
        "" => ten(3),
        "k" => ten(6),
        "M" => ten(9),
        "G" => ten(12),
        "T" => ten(15),
        "P" => ten(18),
        "E" => ten(21),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            ten(exponent.parse::<u32>().ok().filter(|e| *e <= 18)? + 3)
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity such as 500m, 2 or 128Mi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        Quantity::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases: [(&str, Option<(i64, i64)>); 17] = [
            ("1", Some((1000, 1))),
            ("100m", Some((100, 1))),
            ("1.5", Some((1500, 2))),
            (".5", Some((500, 1))),
            ("0", Some((0, 0))),
            ("0.0001", Some((1, 1))),
            ("2k", Some((2_000_000, 2000))),
            ("128Mi", Some((134_217_728_000, 134_217_728))),
            ("1.5Gi", Some((1_610_612_736_000, 1_610_612_736))),
            ("2e3", Some((2_000_000, 2000))),
            ("1E", Some((i64::MAX, 1_000_000_000_000_000_000))),
            ("8Ei", None),
            ("-1", None),
            ("", None),
            ("Mi", None),
            ("1 Mi", None),
            ("1Kb", None),
        ];
        for (text, expected) in cases {
            let read = Quantity::parse(text).map(|q| (q.milli(), q.units()));
            assert_eq!(read, expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_round_trip(number in 0_u64..=u64::MAX >> 1) {
            let units = Quantity::parse(&number.to_string()).map(Quantity::units);
            proptest::prop_assert_eq!(units, i64::try_from(number).ok());
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Quantity::parse(&text);
        }
    }
}
