//! A pod as Kubernetes knows it (API v1, up to 1.36): every field, those that decide what runs with
//! their meaning, the others by name.
//!
//! Types of our own rather than a crate of the whole API: a field that is not here is a spelling
//! mistake, or newer than this list, and nobody can say what it would allow.

mod volumes;

use std::collections::BTreeMap;

pub(crate) use volumes::{ConfigMapVolume, HostPath, KeyToPath, Propagation, Volume, VolumeMount};

use crate::{
    quantity::Quantity,
    yaml::{
        Node,
        read::{FromYaml, Reader, fields, words},
    },
};

/// Names and values.
pub(crate) type Map = BTreeMap<String, String>;

/// Whether a field is there, whatever it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(pub(crate) bool);

impl FromYaml for Present {
    fn read(_: &Node, _: &mut Reader) -> Self {
        Self(true)
    }
}

impl FromYaml for Quantity {
    fn read(node: &Node, reader: &mut Reader) -> Self {
        let amount = node.text().and_then(Self::parse);
        amount.unwrap_or_else(|| {
            reader.complain(node, "must be an amount such as 500m, 2 or 128Mi");
            Self::default()
        })
    }
}

fields! {
    /// `ObjectMeta`.
    Metadata {
        "name" => name: String,
        "generateName" => generate_name: String,
        "namespace" => namespace: Option<String>,
        "labels" => labels: Map,
        "annotations" => annotations: Map,
    }
    known [
        "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
        "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
    ]
}

fields! {
    /// `PodTemplateSpec`, and `Pod` without its head.
    Template {
        "metadata" => metadata: Metadata,
        "spec" => spec: PodSpec,
    }
    known ["apiVersion", "kind", "status"]
}

fields! {
    /// `PodSpec`.
    PodSpec {
        "automountServiceAccountToken" => automount_token: Option<bool>,
        "containers" => containers: Vec<Container>,
        "enableServiceLinks" => enable_service_links: Option<bool>,
        "ephemeralContainers" => ephemeral_containers: Vec<Present>,
        "hostIPC" => host_ipc: bool,
        "hostNetwork" => host_network: bool,
        "hostPID" => host_pid: bool,
        "hostUsers" => host_users: Option<bool>,
        "initContainers" => init_containers: Vec<Container>,
        "runtimeClassName" => runtime_class_name: Option<String>,
        "securityContext" => security_context: PodSecurity,
        "serviceAccountName" => service_account_name: String,
        "shareProcessNamespace" => share_process_namespace: bool,
        "volumes" => volumes: Vec<Volume>,
    }
    known [
        "activeDeadlineSeconds", "affinity", "dnsConfig", "dnsPolicy", "evictionResponders",
        "hostAliases", "hostname", "hostnameOverride", "imagePullSecrets", "nodeName",
        "nodeSelector", "os", "overhead", "preemptionPolicy", "priority", "priorityClassName",
        "readinessGates", "resourceClaims", "resources", "restartPolicy", "schedulerName",
        "schedulingGates", "schedulingGroup", "serviceAccount", "setHostnameAsFQDN", "subdomain",
        "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
        "workloadRef",
    ]
}

words! {
    /// Which of an image's groups a user gets.
    GroupsPolicy {
        #[default]
        Merge = "Merge",
        Strict = "Strict",
    }
}

fields! {
    /// `PodSecurityContext`.
    PodSecurity {
        "fsGroup" => fs_group: Option<u32>,
        "runAsGroup" => run_as_group: Option<u32>,
        "runAsNonRoot" => run_as_non_root: Option<bool>,
        "runAsUser" => run_as_user: Option<u32>,
        "seccompProfile" => seccomp_profile: Option<Profile>,
        "supplementalGroups" => supplemental_groups: Vec<u32>,
        "supplementalGroupsPolicy" => groups_policy: GroupsPolicy,
        "sysctls" => sysctls: Vec<Sysctl>,
        "windowsOptions" => windows_options: Present,
    }
    known ["appArmorProfile", "fsGroupChangePolicy", "seLinuxChangePolicy", "seLinuxOptions"]
}

fields! {
    /// `Sysctl`.
    Sysctl {
        "name" => name: String,
        "value" => value: String,
    }
    known []
}

words! {
    /// Where a seccomp profile comes from.
    ProfileType {
        RuntimeDefault = "RuntimeDefault",
        Localhost = "Localhost",
        #[default]
        Unconfined = "Unconfined",
    }
}

fields! {
    /// `SeccompProfile`.
    Profile {
        "type" => kind: ProfileType,
    }
    known ["localhostProfile"]
}

words! {
    /// When an init container is started again: always, if it is a sidecar.
    ContainerRestart {
        #[default]
        Unsaid = "",
        Always = "Always",
        OnFailure = "OnFailure",
        Never = "Never",
    }
}

fields! {
    /// `Container`.
    Container {
        "args" => args: Vec<String>,
        "command" => command: Vec<String>,
        "env" => env: Vec<EnvVar>,
        "envFrom" => env_from: Vec<EnvFrom>,
        "image" => image: String,
        "lifecycle" => lifecycle: Lifecycle,
        "livenessProbe" => liveness_probe: Option<Probe>,
        "name" => name: String,
        "readinessProbe" => readiness_probe: Option<Probe>,
        "resources" => resources: Resources,
        "restartPolicy" => restart_policy: ContainerRestart,
        "securityContext" => security_context: Security,
        "startupProbe" => startup_probe: Option<Probe>,
        "stdin" => stdin: bool,
        "terminationMessagePath" => termination_path: Option<String>,
        "tty" => tty: bool,
        "volumeDevices" => volume_devices: Vec<Present>,
        "volumeMounts" => volume_mounts: Vec<VolumeMount>,
        "workingDir" => working_dir: String,
    }
    known [
        "imagePullPolicy", "ports", "resizePolicy", "restartPolicyRules", "stdinOnce",
        "terminationMessagePolicy",
    ]
}

fields! {
    /// `Lifecycle`.
    Lifecycle {
        "postStart" => post_start: Option<Hook>,
        "preStop" => pre_stop: Option<Hook>,
        "stopSignal" => stop_signal: Option<String>,
    }
    known []
}

fields! {
    /// `LifecycleHandler`.
    Hook {
        "exec" => exec: Option<Exec>,
    }
    known ["httpGet", "sleep", "tcpSocket"]
}

fields! {
    /// `Probe`.
    Probe {
        "exec" => exec: Option<Exec>,
    }
    known [
        "failureThreshold", "grpc", "httpGet", "initialDelaySeconds", "periodSeconds",
        "successThreshold", "tcpSocket", "terminationGracePeriodSeconds", "timeoutSeconds",
    ]
}

fields! {
    /// `ExecAction`.
    Exec {
        "command" => command: Vec<String>,
    }
    known []
}

fields! {
    /// `EnvVar`.
    EnvVar {
        "name" => name: String,
        "value" => value: Option<String>,
        "valueFrom" => value_from: Option<EnvSource>,
    }
    known []
}

fields! {
    /// `EnvVarSource`.
    EnvSource {
        "configMapKeyRef" => config_map_key_ref: Option<KeyRef>,
        "fieldRef" => field_ref: Option<FieldRef>,
        "fileKeyRef" => file_key_ref: Present,
        "resourceFieldRef" => resource_field_ref: Option<ResourceRef>,
        "secretKeyRef" => secret_key_ref: Option<KeyRef>,
    }
    known []
}

fields! {
    /// `ConfigMapKeySelector` and `SecretKeySelector`.
    KeyRef {
        "key" => key: String,
        "name" => name: String,
        "optional" => optional: bool,
    }
    known []
}

fields! {
    /// `ObjectFieldSelector`.
    FieldRef {
        "fieldPath" => field_path: String,
    }
    known ["apiVersion"]
}

fields! {
    /// `ResourceFieldSelector`.
    ResourceRef {
        "containerName" => container_name: Option<String>,
        "resource" => resource: String,
        "divisor" => divisor: Option<Quantity>,
    }
    known []
}

fields! {
    /// `EnvFromSource`.
    EnvFrom {
        "configMapRef" => config_map_ref: Option<NameRef>,
        "prefix" => prefix: String,
        "secretRef" => secret_ref: Option<NameRef>,
    }
    known []
}

fields! {
    /// `ConfigMapEnvSource` and `SecretEnvSource`.
    NameRef {
        "name" => name: String,
        "optional" => optional: bool,
    }
    known []
}

fields! {
    /// `ResourceRequirements`.
    Resources {
        "limits" => limits: BTreeMap<String, Quantity>,
        "requests" => requests: BTreeMap<String, Quantity>,
    }
    known ["claims"]
}

fields! {
    /// `SecurityContext`.
    Security {
        "allowPrivilegeEscalation" => allow_privilege_escalation: Option<bool>,
        "capabilities" => capabilities: Capabilities,
        "privileged" => privileged: bool,
        "procMount" => proc_mount: ProcMount,
        "readOnlyRootFilesystem" => read_only_root: bool,
        "runAsGroup" => run_as_group: Option<u32>,
        "runAsNonRoot" => run_as_non_root: Option<bool>,
        "runAsUser" => run_as_user: Option<u32>,
        "seccompProfile" => seccomp_profile: Option<Profile>,
        "windowsOptions" => windows_options: Present,
    }
    known ["appArmorProfile", "seLinuxOptions"]
}

words! {
    /// Whether parts of `/proc` are hidden.
    ProcMount {
        #[default]
        Default = "Default",
        Unmasked = "Unmasked",
    }
}

fields! {
    /// `Capabilities`.
    Capabilities {
        "add" => add: Vec<String>,
        "drop" => drop: Vec<String>,
    }
    known []
}

fields! {
    /// `ConfigMap` and `Secret`.
    Object {
        "metadata" => metadata: Metadata,
        "data" => data: Map,
        "binaryData" => binary_data: Map,
        "stringData" => string_data: Map,
    }
    known ["apiVersion", "kind", "immutable", "type"]
}
