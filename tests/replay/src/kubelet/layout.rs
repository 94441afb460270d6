//! A pod's directory on the node, as a kubelet leaves it before the pod's sandbox.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::{
    environment::{Known, list},
    files::{File, files},
    objects::Objects,
    place::{directory, place, plug_in},
};
use crate::listing::{Entry, Kind, Listing, Mount};

/// The kubelet's name for the present version of a volume's files.
const VERSION: &str = "..2026_11_28_14_02_45.2590497988";
/// What `fsGroup` adds to files and directories of read-only volumes (`volume_linux.go`).
const GROUP_FILE: u32 = 0o440;
const GROUP_DIRECTORY: u32 = 0o2550;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// What lies in a pod's directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// Entries and mounts.
    pub(crate) listing: Listing,
    /// What the files hold.
    pub(crate) contents: BTreeMap<String, Vec<u8>>,
    group: Option<u32>,
}

/// Lays out the volumes of a pod.
///
/// # Errors
/// When a volume shows what is not there.
pub(crate) fn layout(objects: &Objects, known: &Known) -> Result<Layout> {
    let spec = &objects.pod["spec"];
    let group = spec["securityContext"]["fsGroup"].as_u64();
    let mut made = Layout {
        group: group.and_then(|group| u32::try_from(group).ok()),
        ..Layout::default()
    };
    for (path, mode) in [("", 0o750), ("containers", 0o750), ("volumes", 0o750)] {
        made.own(path, mode);
    }
    for volume in list(&spec["volumes"]).filter(|one| !one["hostPath"].is_object()) {
        made.own(&format!("volumes/kubernetes.io~{}", plug_in(volume)), 0o755);
        made.volume(objects, volume, known)?;
    }
    Ok(made)
}

impl Layout {
    fn add(&mut self, path: &str, kind: Kind, mode: u32, uid: u32, gid: u32) {
        let path = path.to_owned();
        self.listing.entries.push(Entry {
            path,
            kind,
            mode,
            uid,
            gid,
        });
    }

    /// A directory of the kubelet's own.
    fn own(&mut self, path: &str, mode: u32) {
        if !self.listing.entries.iter().any(|one| one.path == path) {
            self.add(path, Kind::Directory, mode, 0, 0);
        }
    }

    fn volume(&mut self, objects: &Objects, volume: &Value, known: &Known) -> Result<()> {
        let above = format!("{}/", directory(&objects.pod));
        let whole = place(&objects.pod, volume).path;
        let path = whole.strip_prefix(&above).unwrap_or(&whole);
        let set_group = self.group.map_or(0, |_| SET_GROUP);
        let sticky = match in_memory(volume) {
            Some(options) => {
                self.listing.mounts.push(Mount {
                    root: "/".to_owned(),
                    point: whole.clone(),
                    fs_type: "tmpfs".to_owned(),
                    super_options: options,
                });
                STICKY
            }
            None => 0,
        };
        let group = self.group.unwrap_or(0);
        let mode = 0o777 | set_group | sticky;
        self.add(path, Kind::Directory, mode, 0, group);
        if plug_in(volume) == "empty-dir" {
            return Ok(());
        }
        let version = format!("{path}/{VERSION}");
        self.add(&version, Kind::Directory, self.directory_mode(), 0, group);
        for file in files(objects, volume, known)? {
            self.file(path, &version, file);
        }
        let target = VERSION.to_owned();
        self.add(
            &format!("{path}/..data"),
            Kind::Link { target },
            0o777,
            0,
            group,
        );
        Ok(())
    }

    fn directory_mode(&self) -> u32 {
        0o755 | self.group.map_or(0, |_| GROUP_DIRECTORY)
    }

    /// A file of a version, the directories on its way, and the link that its user sees.
    fn file(&mut self, volume: &str, version: &str, file: File) {
        let group = self.group.unwrap_or(0);
        let mut above = version.to_owned();
        let (parents, _) = file.path.rsplit_once('/').unwrap_or_default();
        for name in parents.split('/').filter(|name| !name.is_empty()) {
            above = format!("{above}/{name}");
            if !self.listing.entries.iter().any(|one| one.path == above) {
                self.add(&above, Kind::Directory, self.directory_mode(), 0, group);
            }
        }
        let path = format!("{version}/{}", file.path);
        let size = file.bytes.len();
        let mode = file.mode | self.group.map_or(0, |_| GROUP_FILE);
        self.add(&path, Kind::File { size }, mode, file.uid, group);
        self.contents.insert(path, file.bytes);
        let top = file.path.split('/').next().unwrap_or_default();
        let link = format!("{volume}/{top}");
        if !self.listing.entries.iter().any(|one| one.path == link) {
            let target = format!("..data/{top}");
            self.add(&link, Kind::Link { target }, 0o777, file.uid, group);
        }
    }
}

/// The options of the file system in memory that a volume is, if it is one.
fn in_memory(volume: &Value) -> Option<String> {
    let size = match plug_in(volume) {
        "empty-dir" if volume["emptyDir"]["medium"] != "Memory" => return None,
        "empty-dir" => volume["emptyDir"]["sizeLimit"]
            .as_str()
            .and_then(policy_generator::Quantity::parse)
            .map(|size| size.units() / 1024),
        "configmap" => return None,
        _ => None,
    };
    // Without a limit of its own, the node's memory is.
    let size = size.map_or_else(|| "24581256".to_owned(), |size| size.to_string());
    Some(format!("rw,size={size}k,noswap"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording;

    fn laid_out(pod: &str) -> Listing {
        let text = recording::read(&format!("pods/{pod}.yaml")).unwrap();
        let objects = Objects::read(&text, "u").unwrap();
        let known = Known {
            node: String::new(),
            host_address: String::new(),
            address: String::new(),
            memory: 0,
            has_service: false,
        };
        layout(&objects, &known).unwrap().listing
    }

    /// Kinds, modes and owners by name; versions and made-up names are chance.
    fn plain(listing: &Listing) -> Vec<String> {
        let mut lines: Vec<_> = listing
            .entries
            .iter()
            .filter(|one| one.path.starts_with("volumes"))
            .filter(|one| !is_a_containers(&one.path))
            .map(|one| {
                let names = one.path.split('/').map(name);
                let kind = match &one.kind {
                    Kind::Directory => "directory".to_owned(),
                    Kind::File { .. } => "file".to_owned(),
                    Kind::Link { target } => format!("link to {}", name(target)),
                };
                let path = names.collect::<Vec<_>>().join("/");
                format!("{path} {kind} {:o} {}:{}", one.mode, one.uid, one.gid)
            })
            .collect();
        lines.sort();
        lines
    }

    fn name(name: &str) -> &str {
        match name {
            name if name.starts_with("..20") => "VERSION",
            name if name.starts_with("kube-api-access-") => "TOKENS",
            name => name,
        }
    }

    fn is_a_containers(path: &str) -> bool {
        let below = path.split_once("kubernetes.io~empty-dir/");
        below.is_some_and(|(_, rest)| rest.contains('/'))
    }

    #[test]
    fn volumes_are_laid_out_as_a_kubelet_left_them() {
        for pod in ["configuration", "emptydirs", "life", "plain", "users"] {
            let recorded = recording::read(&format!("volumes/{pod}.txt")).unwrap();
            let recorded = Listing::parse(&recorded).unwrap();
            let here = laid_out(pod);
            assert_eq!(plain(&here), plain(&recorded), "{pod}");
            let options = |listing: &Listing| {
                let mounts = listing.mounts.iter().filter(|one| one.fs_type == "tmpfs");
                let mut all: Vec<_> = mounts.map(|one| one.super_options.clone()).collect();
                all.sort();
                all
            };
            assert_eq!(options(&here), options(&recorded), "{pod}");
        }
    }
}
