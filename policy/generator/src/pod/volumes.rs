//! A pod's volumes, and where its containers have them.

use super::Present;
use crate::{
    quantity::Quantity,
    yaml::read::{fields, words},
};

fields! {
    /// `VolumeMount`.
    VolumeMount {
        "mountPath" => mount_path: String,
        "mountPropagation" => propagation: Propagation,
        "name" => name: String,
        "readOnly" => read_only: bool,
        "subPath" => sub_path: String,
        "subPathExpr" => sub_path_expr: String,
    }
    known ["recursiveReadOnly"]
}

words! {
    /// Whether mounts made on one side show on the other.
    Propagation {
        #[default]
        None = "None",
        HostToContainer = "HostToContainer",
        Bidirectional = "Bidirectional",
    }
}

fields! {
    /// `Volume`; the kinds that a guest cannot have are only known to be there.
    Volume {
        "configMap" => config_map: Option<ConfigMapVolume>,
        "downwardAPI" => downward_api: Option<DownwardVolume>,
        "emptyDir" => empty_dir: Option<EmptyDir>,
        "hostPath" => host_path: Option<HostPath>,
        "name" => name: String,
        "projected" => projected: Option<ProjectedVolume>,
        "secret" => secret: Option<SecretVolume>,
        "awsElasticBlockStore" => aws: Present,
        "azureDisk" => azure_disk: Present,
        "azureFile" => azure_file: Present,
        "cephfs" => cephfs: Present,
        "cinder" => cinder: Present,
        "csi" => csi: Present,
        "ephemeral" => ephemeral: Present,
        "fc" => fc: Present,
        "flexVolume" => flex_volume: Present,
        "gcePersistentDisk" => gce: Present,
        "glusterfs" => glusterfs: Present,
        "image" => image: Present,
        "iscsi" => iscsi: Present,
        "nfs" => nfs: Present,
        "persistentVolumeClaim" => claim: Present,
        "rbd" => rbd: Present,
        "vsphereVolume" => vsphere: Present,
    }
    known []
}

impl Volume {
    /// The name of its kind, if it is one that no guest can have.
    pub(crate) fn impossible(&self) -> Option<&'static str> {
        let kinds = [
            (self.aws, "awsElasticBlockStore"),
            (self.azure_disk, "azureDisk"),
            (self.azure_file, "azureFile"),
            (self.cephfs, "cephfs"),
            (self.cinder, "cinder"),
            (self.csi, "csi"),
            (self.ephemeral, "ephemeral"),
            (self.fc, "fc"),
            (self.flex_volume, "flexVolume"),
            (self.gce, "gcePersistentDisk"),
            (self.glusterfs, "glusterfs"),
            (self.image, "image"),
            (self.iscsi, "iscsi"),
            (self.nfs, "nfs"),
            (self.claim, "persistentVolumeClaim"),
            (self.rbd, "rbd"),
            (self.vsphere, "vsphereVolume"),
        ];
        let found = kinds.into_iter().find(|(there, _)| there.0);
        found.map(|(_, kind)| kind)
    }
}

fields! {
    /// `ConfigMapVolumeSource` and `ConfigMapProjection`.
    ConfigMapVolume {
        "defaultMode" => default_mode: Option<u32>,
        "items" => items: Vec<KeyToPath>,
        "name" => name: String,
        "optional" => optional: bool,
    }
    known []
}

fields! {
    /// `SecretVolumeSource`.
    SecretVolume {
        "defaultMode" => default_mode: Option<u32>,
        "items" => items: Vec<KeyToPath>,
        "optional" => optional: bool,
        "secretName" => name: String,
    }
    known []
}

fields! {
    /// `SecretProjection`.
    SecretProjection {
        "items" => items: Vec<KeyToPath>,
        "name" => name: String,
        "optional" => optional: bool,
    }
    known []
}

fields! {
    /// `KeyToPath`.
    KeyToPath {
        "key" => key: String,
        "mode" => mode: Option<u32>,
        "path" => path: String,
    }
    known []
}

fields! {
    /// `DownwardAPIVolumeSource` and `DownwardAPIProjection`.
    DownwardVolume {}
    known ["defaultMode", "items"]
}

fields! {
    /// `ProjectedVolumeSource`.
    ProjectedVolume {
        "defaultMode" => default_mode: Option<u32>,
        "sources" => sources: Vec<Projection>,
    }
    known []
}

fields! {
    /// `VolumeProjection`.
    Projection {
        "configMap" => config_map: Option<ConfigMapVolume>,
        "downwardAPI" => downward_api: Option<DownwardVolume>,
        "secret" => secret: Option<SecretProjection>,
        "clusterTrustBundle" => trust_bundle: Present,
        "podCertificate" => certificate: Present,
        "serviceAccountToken" => token: Present,
    }
    known []
}

fields! {
    /// `EmptyDirVolumeSource`.
    EmptyDir {
        "medium" => medium: String,
        "sizeLimit" => size_limit: Option<Quantity>,
    }
    known []
}

fields! {
    /// `HostPathVolumeSource`.
    HostPath {
        "path" => path: String,
        "type" => kind: String,
    }
    known []
}
