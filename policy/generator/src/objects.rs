//! ConfigMaps and Secrets: what a pod's fields refer to.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::pod::Object;

/// What a ConfigMap or Secret holds.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    /// Text of a ConfigMap, or bytes of a Secret: what variables can be made of.
    pub(crate) values: BTreeMap<String, Vec<u8>>,
    /// Further keys that only volumes show (`binaryData`).
    pub(crate) binary: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// The objects of the owner's files.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    config_maps: Vec<Named<Keys>>,
    secrets: Vec<Named<Keys>>,
    /// Service accounts, and whether they say that their token is not to be mounted.
    accounts: Vec<Named<bool>>,
}

#[derive(Debug)]
struct Named<T> {
    namespace: Option<String>,
    name: String,
    value: T,
}

/// Which of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

impl Objects {
    /// Takes an object in; answers with the keys that are not base64.
    pub(crate) fn add(&mut self, kind: Kind, object: Object) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut decode = |map: crate::pod::Map| {
            let mut decoded = BTreeMap::new();
            for (key, text) in map {
                let compact: String = text.split_whitespace().collect();
                match STANDARD.decode(compact) {
                    Ok(bytes) => drop(decoded.insert(key, bytes)),
                    Err(_) => wrong.push(key),
                }
            }
            decoded
        };
        let plain = |map: crate::pod::Map| map.into_iter().map(|(k, v)| (k, v.into_bytes()));
        let value = match kind {
            Kind::ConfigMap => Keys {
                binary: decode(object.binary_data),
                values: plain(object.data).collect(),
            },
            Kind::Secret => {
                let mut values = decode(object.data);
                values.extend(plain(object.string_data));
                Keys {
                    values,
                    binary: BTreeMap::new(),
                }
            }
        };
        let named = Named {
            namespace: object.metadata.namespace,
            name: object.metadata.name,
            value,
        };
        match kind {
            Kind::ConfigMap => self.config_maps.push(named),
            Kind::Secret => self.secrets.push(named),
        }
        wrong
    }

    /// Takes a service account in.
    pub(crate) fn add_account(&mut self, namespace: Option<String>, name: String, mounts: bool) {
        self.accounts.push(Named {
            namespace,
            name,
            value: mounts,
        });
    }

    /// The keys of an object that a pod of this namespace can see.
    pub(crate) fn find(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Option<&Keys> {
        let all = match kind {
            Kind::ConfigMap => &self.config_maps,
            Kind::Secret => &self.secrets,
        };
        find(all, namespace, name)
    }

    /// Whether a service account says that its token is not to be mounted.
    pub(crate) fn mounts_no_token(&self, namespace: Option<&str>, name: &str) -> bool {
        find(&self.accounts, namespace, name) == Some(&false)
    }
}

/// One of the same namespace, or one of which either side does not say its namespace.
fn find<'a, T>(all: &'a [Named<T>], namespace: Option<&str>, name: &str) -> Option<&'a T> {
    let named = || all.iter().filter(|one| one.name == name);
    let same = named().find(|one| one.namespace.as_deref() == namespace);
    let open = || {
        let one_is_open = |one: &&Named<T>| namespace.is_none() || one.namespace.is_none();
        named().find(one_is_open)
    };
    same.or_else(open).map(|one| &one.value)
}
