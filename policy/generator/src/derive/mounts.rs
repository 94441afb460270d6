//! What is mounted in a container beyond what every container has, in the order of its spec.

use policy_engine::document::Mount;

use super::{
    Derivation,
    environment::{Environment, Value},
};
use crate::{
    expansion::{Piece, pieces},
    images::Image,
    pod::{Container, Propagation, Volume, VolumeMount},
};

/// Where Kubernetes mounts the token of a service account.
pub(crate) const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Derivation<'_> {
    pub(super) fn mounts(
        &mut self,
        at: &str,
        container: &Container,
        image: &Image,
        environment: &Environment,
    ) -> Vec<Mount> {
        if !container.volume_devices.is_empty() {
            let message = "a disk of the host cannot be given to a confidential pod: remove it";
            self.error(&format!("{at}.volumeDevices"), message);
        }
        let mut mounts = Vec::new();
        for (number, wanted) in container.volume_mounts.iter().enumerate() {
            let at = format!("{at}.volumeMounts[{number}]");
            mounts.extend(self.mount(&at, wanted, environment));
        }
        let is_there = |mounts: &[Mount], place: &str| mounts.iter().any(|one| one.at == place);
        if self.has_token() && !is_there(&mounts, TOKEN) {
            mounts.push(Mount {
                at: TOKEN.to_owned(),
                read_only: true,
                ..Mount::default()
            });
        }
        let mut of_image: Vec<String> = image.config.volumes.iter().map(|at| clean(at)).collect();
        of_image.sort();
        for at in of_image {
            if !is_there(&mounts, &at) {
                mounts.push(Mount {
                    at,
                    of_image: true,
                    ..Mount::default()
                });
            }
        }
        // As containerd sorts them (`orderedMounts`).
        mounts.sort_by_key(|mount| mount.at.matches('/').count());
        mounts
    }

    /// Kubernetes mounts a token unless the pod, or else its service account, says no.
    fn has_token(&self) -> bool {
        let spec = &self.workload.template.spec;
        let account = match spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        };
        let by_default = || {
            let objects = &self.inputs.objects;
            self.choices.service_account && !objects.mounts_no_token(self.namespace(), account)
        };
        spec.automount_token
            .map_or_else(by_default, |wanted| wanted && self.choices.service_account)
    }

    fn mount(
        &mut self,
        at: &str,
        wanted: &VolumeMount,
        environment: &Environment,
    ) -> Option<Mount> {
        let workload = self.workload;
        let mut volumes = workload.template.spec.volumes.iter();
        let Some(volume) = volumes.find(|volume| volume.name == wanted.name) else {
            let message = format!("the pod has no volume {}", wanted.name);
            self.error(&format!("{at}.name"), message);
            return None;
        };
        let propagation = match wanted.propagation {
            Propagation::None => None,
            // It changes nothing in a guest, and is asked for all the same.
            Propagation::HostToContainer => Some("rslave".to_owned()),
            Propagation::Bidirectional => {
                let message = "what is mounted in a VM does not appear on the node: remove it";
                self.error(&format!("{at}.mountPropagation"), message);
                None
            }
        };
        if wanted.mount_path.is_empty() || wanted.mount_path.split('/').any(|part| part == "..") {
            self.error(&format!("{at}.mountPath"), "must be a path without ..");
            return None;
        }
        let part = self.part(at, wanted, environment)?;
        // A kubelet takes a relative path as one from the root.
        let place = clean(&format!("/{}", wanted.mount_path));
        let is_empty_dir = volume.empty_dir.is_some() || is_of_no_kind(volume);
        if is_empty_dir {
            let whole = match part.as_str() {
                "" => volume.name.clone(),
                part => format!("{}/{part}", volume.name),
            };
            return Some(Mount {
                at: place,
                volume: Some(whole),
                read_only: wanted.read_only,
                propagation,
                ..Mount::default()
            });
        }
        Some(Mount {
            at: place,
            digest: self.contents(volume, &part),
            // Only what a hostPath shows can be written to.
            read_only: wanted.read_only || volume.host_path.is_none(),
            propagation,
            ..Mount::default()
        })
    }

    /// The part of a volume that is mounted; empty for all of it.
    fn part(
        &mut self,
        at: &str,
        wanted: &VolumeMount,
        environment: &Environment,
    ) -> Option<String> {
        let (field, part) = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (path, expression) if expression.is_empty() => ("subPath", path.clone()),
            (_, expression) => {
                let field = format!("{at}.subPathExpr");
                (
                    "subPathExpr",
                    self.expression(&field, expression, environment)?,
                )
            }
        };
        if part.starts_with('/') || part.split('/').any(|part| part == "..") {
            let message = "must be a path below the volume, without ..";
            self.error(&format!("{at}.{field}"), message);
            return None;
        }
        let parts = part.split('/').filter(|part| !matches!(*part, "" | "."));
        Some(parts.collect::<Vec<_>>().join("/"))
    }

    fn expression(&mut self, at: &str, text: &str, environment: &Environment) -> Option<String> {
        let mut whole = String::new();
        for piece in pieces(text) {
            let name = match piece {
                Piece::Text(text) => {
                    whole.push_str(text);
                    continue;
                }
                Piece::Reference(name) => name,
            };
            match environment.get(name) {
                Some(Value::Known {
                    text,
                    secret: false,
                }) => whole.push_str(text),
                Some(Value::Later(policy_engine::document::Origin::Field(field)))
                    if field.starts_with("metadata.") =>
                {
                    whole.push_str(&format!("$({field})"));
                }
                _ => {
                    let message =
                        format!("refers to $({name}), which is not known before the pod runs");
                    self.error(at, message);
                    return None;
                }
            }
        }
        let is_whole = |part: &str| {
            !part.contains("$(")
                || part.starts_with("$(") && part.ends_with(')') && part.matches('$').count() == 1
        };
        if !whole.split('/').all(is_whole) {
            let message = "the pod's name, namespace and UID can only be whole parts of a path";
            self.error(at, message);
            return None;
        }
        Some(whole)
    }
}

fn is_of_no_kind(volume: &Volume) -> bool {
    let kinds = [
        volume.config_map.is_some(),
        volume.downward_api.is_some(),
        volume.host_path.is_some(),
        volume.projected.is_some(),
        volume.secret.is_some(),
    ];
    !kinds.contains(&true)
}

/// The shortest spelling of an absolute path.
fn clean(path: &str) -> String {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    format!("/{}", parts.join("/"))
}
