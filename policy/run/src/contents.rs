//! What the files of a volume hold: ConfigMaps, Secrets and facts about the pod.

use std::collections::BTreeMap;

use crate::{
    check::is_below,
    documents::{Documents, Keys},
    environment::{Facts, ValueError},
    pod::{ConfigMapVolume, DownwardFile, DownwardVolume, KeyToPath, SecretVolume, Volume},
    volumes::VolumeError,
};

/// Kubernetes' default for files of a volume.
const FILE_MODE: u32 = 0o644;

/// One file of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The files of a volume that is made of files, and the kubelet's name for its kind.
pub(crate) fn entries(
    volume: &Volume,
    facts: &Facts<'_>,
    documents: &Documents,
) -> Result<(&'static str, Vec<Entry>), VolumeError> {
    let name = &volume.name;
    let source = Source {
        volume: name,
        facts,
        documents,
    };
    if let Some(map) = &volume.config_map {
        return Ok(("configmap", source.config_map(map, FILE_MODE)?));
    }
    if let Some(secret) = &volume.secret {
        return Ok(("secret", source.secret(secret, FILE_MODE)?));
    }
    if let Some(downward) = &volume.downward_api {
        return Ok(("downward-api", source.downward(downward, FILE_MODE)?));
    }
    let projected = volume.projected.clone().unwrap_or_default();
    let mode = projected.default_mode.unwrap_or(FILE_MODE);
    let mut all = Vec::new();
    for projection in &projected.sources {
        if let Some(map) = &projection.config_map {
            all.extend(source.config_map(map, mode)?);
        }
        if let Some(secret) = &projection.secret {
            all.extend(source.secret(secret, mode)?);
        }
        if let Some(downward) = &projection.downward_api {
            all.extend(source.downward(downward, mode)?);
        }
    }
    Ok(("projected", all))
}

/// Where the contents of one volume come from.
struct Source<'a> {
    volume: &'a str,
    facts: &'a Facts<'a>,
    documents: &'a Documents,
}

/// The object that a volume shows, and how.
struct Object<'a> {
    kind: &'static str,
    name: &'a str,
    items: &'a [KeyToPath],
    optional: bool,
    mode: u32,
}

impl Source<'_> {
    fn config_map(&self, map: &ConfigMapVolume, mode: u32) -> Result<Vec<Entry>, VolumeError> {
        let object = Object {
            kind: "ConfigMap",
            name: &map.name,
            items: &map.items,
            optional: map.optional,
            mode: map.default_mode.unwrap_or(mode),
        };
        self.object(&object, &self.documents.config_maps)
    }

    fn secret(&self, secret: &SecretVolume, mode: u32) -> Result<Vec<Entry>, VolumeError> {
        let object = Object {
            kind: "Secret",
            name: &secret.secret_name,
            items: &secret.items,
            optional: secret.optional,
            mode: secret.default_mode.unwrap_or(mode),
        };
        self.object(&object, &self.documents.secrets)
    }

    fn object(
        &self,
        object: &Object<'_>,
        objects: &BTreeMap<String, Keys>,
    ) -> Result<Vec<Entry>, VolumeError> {
        let (kind, name) = (object.kind, object.name.to_owned());
        let Some(keys) = objects.get(object.name) else {
            let source = ValueError::NoObject { kind, name };
            return if object.optional {
                Ok(Vec::new())
            } else {
                Err(self.value(source))
            };
        };
        if object.items.is_empty() {
            return keys
                .iter()
                .map(|(key, bytes)| self.entry(key, object.mode, bytes.clone()))
                .collect();
        }
        let mut entries = Vec::new();
        for item in object.items {
            match keys.get(&item.key) {
                Some(bytes) => {
                    let mode = item.mode.unwrap_or(object.mode);
                    entries.push(self.entry(&item.path, mode, bytes.clone())?);
                }
                None if object.optional => {}
                None => {
                    return Err(VolumeError::Key {
                        volume: self.volume.to_owned(),
                        kind,
                        name,
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(entries)
    }

    fn downward(&self, downward: &DownwardVolume, mode: u32) -> Result<Vec<Entry>, VolumeError> {
        let default = downward.default_mode.unwrap_or(mode);
        let entry = |item: &DownwardFile| {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => self.facts.field(&field.field_path),
                (None, Some(resource)) => self.facts.resource(resource, None),
                (None, None) => Err(ValueError::NoSource(item.path.clone())),
            };
            let value = value.map_err(|source| self.value(source))?;
            self.entry(&item.path, item.mode.unwrap_or(default), value.into_bytes())
        };
        downward.items.iter().map(entry).collect()
    }

    fn entry(&self, path: &str, mode: u32, bytes: Vec<u8>) -> Result<Entry, VolumeError> {
        let hidden = path.starts_with("..") || path.split('/').any(|p| p.is_empty() || p == ".");
        if hidden || !is_below(path) {
            return Err(VolumeError::Path {
                volume: self.volume.to_owned(),
                path: path.to_owned(),
            });
        }
        Ok(Entry {
            path: path.to_owned(),
            mode: mode & 0o777,
            bytes,
        })
    }

    fn value(&self, source: ValueError) -> VolumeError {
        VolumeError::Value {
            volume: self.volume.to_owned(),
            source,
        }
    }
}
