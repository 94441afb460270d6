//! The pod's volumes: which the guest makes, which are files of the host, and which cannot be.

use std::collections::BTreeMap;

use policy_engine::document;

use super::Derivation;
use crate::pod::{HostPath, Volume};

impl Derivation<'_> {
    /// The volumes that the guest makes.
    pub(super) fn volumes(&mut self) -> BTreeMap<String, document::Volume> {
        let mut made = BTreeMap::new();
        let volumes = &self.workload.template.spec.volumes;
        for (number, volume) in volumes.iter().enumerate() {
            let at = format!("spec.volumes[{number}]");
            if let Some(empty) = self.check_volume(&at, volume) {
                made.insert(volume.name.clone(), empty);
            }
        }
        made
    }

    fn check_volume(&mut self, at: &str, volume: &Volume) -> Option<document::Volume> {
        if let Some(kind) = volume.impossible() {
            let message = "is of a kind that a confidential pod cannot use: the host would \
                           provide what is in it; use emptyDir, configMap, secret, projected or \
                           downwardAPI";
            self.error(&format!("{at}.{kind}"), message);
            return None;
        }
        let kinds = [
            volume.config_map.is_some(),
            volume.downward_api.is_some(),
            volume.empty_dir.is_some(),
            volume.host_path.is_some(),
            volume.projected.is_some(),
            volume.secret.is_some(),
        ];
        match kinds.iter().filter(|there| **there).count() {
            1 => {}
            // A volume that says no kind is an emptyDir.
            0 => return Some(document::Volume::default()),
            _ => {
                self.error(at, "has more than one kind");
                return None;
            }
        }
        if let Some(path) = &volume.host_path {
            self.check_host_path(&format!("{at}.hostPath"), path);
        }
        let empty = volume.empty_dir.as_ref()?;
        let memory = match empty.medium.as_str() {
            "" => false,
            "Memory" => true,
            other => {
                let message = format!("{other} cannot be had in a guest: use Memory, or nothing");
                self.error(&format!("{at}.emptyDir.medium"), message);
                false
            }
        };
        let limit = empty.size_limit.filter(|_| memory);
        Some(document::Volume {
            memory,
            size: limit.and_then(|limit| u64::try_from(limit.units()).ok()),
        })
    }

    fn check_host_path(&mut self, at: &str, path: &HostPath) {
        let is_special = matches!(path.kind.as_str(), "Socket" | "CharDevice" | "BlockDevice")
            || path.path == "/dev"
            || path.path.starts_with("/dev/");
        if is_special {
            let message = "a socket or device of the host cannot be used by a confidential pod: \
                           remove the volume";
            self.error(at, message);
        } else {
            let message = "is a copy of files of the host, which may put anything there: the \
                           policy allows any content";
            self.warn(at, message);
        }
    }
}
