//! What a container sees of files that the host copies, where the owner knows it: the digest that
//! `docs/workload-digest.md` tells, of the tree that a kubelet makes.
//!
//! ConfigMaps only: the digest has no salt, so that it would tell who guesses a Secret that the
//! guess is right.

use std::collections::BTreeMap;

use super::Derivation;
use crate::{
    objects::Kind,
    pod::{ConfigMapVolume, KeyToPath, Volume},
    sha256::sha256,
};

/// Kubernetes' default for files of a volume.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
/// The top of a volume on the node's disk, and of one in its memory.
const ROOT_ON_DISK: u32 = 0o777;
const ROOT_IN_MEMORY: u32 = 0o1777;
/// What `fsGroup` adds to read-only volumes (`volume_linux.go`).
const GROUP_FILE: u32 = 0o440;
const GROUP_DIRECTORY: u32 = 0o2550;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
/// What the guest takes over of a mode.
const PERMISSIONS: u32 = 0o7777;

/// A tree of files.
#[derive(Debug)]
enum Entry {
    File { mode: u32, content: Vec<u8> },
    Directory(BTreeMap<String, Entry>),
}

impl Derivation<'_> {
    /// The digest of a part of a volume, if all of that is known.
    pub(super) fn contents(&self, volume: &Volume, part: &str) -> Option<String> {
        if !self.choices.contents {
            return None;
        }
        let mut files = BTreeMap::new();
        let mut root_mode = ROOT_ON_DISK;
        if let Some(map) = &volume.config_map {
            self.add(&mut files, map, FILE_MODE)?;
        } else {
            let projected = volume.projected.as_ref()?;
            root_mode = ROOT_IN_MEMORY;
            let mode = projected.default_mode.unwrap_or(FILE_MODE);
            for source in &projected.sources {
                // Anything but a ConfigMap is not known, or secret.
                self.add(&mut files, source.config_map.as_ref()?, mode)?;
            }
        }
        let fs_group = self
            .workload
            .template
            .spec
            .security_context
            .fs_group
            .is_some();
        let mut entry = &Entry::Directory(files);
        for name in part.split('/').filter(|name| !name.is_empty()) {
            let Entry::Directory(files) = entry else {
                return None;
            };
            entry = files.get(name)?;
        }
        let top = if part.is_empty() {
            root_mode
        } else {
            DIRECTORY_MODE
        };
        Some(hex::encode(digest(entry, top, fs_group)))
    }

    fn add(
        &self,
        files: &mut BTreeMap<String, Entry>,
        map: &ConfigMapVolume,
        mode: u32,
    ) -> Option<()> {
        let objects = &self.inputs.objects;
        let keys = objects.find(Kind::ConfigMap, self.namespace(), &map.name)?;
        let mode = map.default_mode.unwrap_or(mode);
        let content = |key: &str| keys.values.get(key).or_else(|| keys.binary.get(key));
        if map.items.is_empty() {
            for (key, bytes) in keys.values.iter().chain(&keys.binary) {
                put(files, key, mode, bytes)?;
            }
        }
        for KeyToPath {
            key,
            mode: own,
            path,
        } in &map.items
        {
            put(files, path, own.unwrap_or(mode), content(key)?)?;
        }
        Some(())
    }
}

fn put(files: &mut BTreeMap<String, Entry>, path: &str, mode: u32, content: &[u8]) -> Option<()> {
    match path.split_once('/') {
        None => {
            let content = content.to_vec();
            files.insert(path.to_owned(), Entry::File { mode, content });
            Some(())
        }
        Some((directory, rest)) => {
            let empty = || Entry::Directory(BTreeMap::new());
            match files.entry(directory.to_owned()).or_insert_with(empty) {
                Entry::Directory(inner) => put(inner, rest, mode, content),
                Entry::File { .. } => None,
            }
        }
    }
}

fn digest(entry: &Entry, top_mode: u32, fs_group: bool) -> [u8; 32] {
    match entry {
        Entry::File { mode, content } => {
            let group = if fs_group { GROUP_FILE } else { 0 };
            let mode = TYPE_FILE | mode & PERMISSIONS | group;
            let text = format!("{mode:o}\n");
            sha256(&[text.as_bytes(), &sha256(&[content])])
        }
        Entry::Directory(files) => {
            let group = if fs_group { GROUP_DIRECTORY } else { 0 };
            let mode = TYPE_DIRECTORY | top_mode | group;
            let lines = files.iter().map(|(name, entry)| {
                let digest = hex::encode(digest(entry, DIRECTORY_MODE, fs_group));
                format!("{digest} {name}\n")
            });
            let text = format!("{mode:o}\n{}", lines.collect::<String>());
            sha256(&[text.as_bytes()])
        }
    }
}
