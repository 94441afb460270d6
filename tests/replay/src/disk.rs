//! The node's disk as a kubelet leaves it: a pod's directory with its volumes, and host paths.
//!
//! What a container made is not made here: it has to be there because the container made it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tests_harness::Node;

use crate::{
    listing::{Entry, Kind, Listing},
    recording::HostPath,
};

const PODS: &str = "/var/lib/kubelet/pods";
const EMPTY_DIRS: &str = "volumes/kubernetes.io~empty-dir";
/// Kubelet's own disk is of a type that keeps files, and `/tmp` of the recorded node an overlay. What
/// lies there stays in sight: the project itself, perhaps.
const PREPARE: &str = "set -e
    truncate -s 1G /run/bed/kubelet.ext4
    mkfs.ext4 -q -F /run/bed/kubelet.ext4
    mkdir -p /var/lib/kubelet /run/bed/tmp/upper /run/bed/tmp/work
    mount -o loop /run/bed/kubelet.ext4 /var/lib/kubelet
    mount -t overlay -o lowerdir=/tmp,upperdir=/run/bed/tmp/upper,workdir=/run/bed/tmp/work overlay /tmp
    chmod 1777 /tmp";

/// The disk of one node, as far as one pod is concerned.
#[derive(Debug)]
pub(crate) struct Disk<'bed> {
    node: &'bed Node,
    /// The pod's directory, as the node sees it.
    pub(crate) directory: String,
}

impl<'bed> Disk<'bed> {
    /// Mounts what the recorded node has mounted; once for a node.
    pub(crate) fn prepare(node: &Node) -> Result<()> {
        node.run("sh", &["-c", PREPARE]).map(drop)
    }

    pub(crate) fn of_pod(node: &'bed Node, uid: &str) -> Self {
        let directory = format!("{PODS}/{uid}");
        Self { node, directory }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.node.path(format!("{}/{inside}", self.directory))
    }

    /// Makes the volumes, as before the pod's sandbox; `content` says what files hold.
    pub(crate) fn make_volumes(
        &self,
        listing: &Listing,
        content: &dyn Fn(&str, usize) -> Vec<u8>,
    ) -> Result<()> {
        fs::create_dir_all(self.node.path(PODS))?;
        for entry in listing.entries.iter().filter(|entry| is_kubelets(entry)) {
            let path = self.path(&entry.path);
            if entry.kind == Kind::Directory {
                fs::create_dir_all(&path)?;
            }
            if let Some(tmpfs) = listing.tmpfs(&self.directory, &entry.path) {
                let options = tmpfs.super_options.trim_start_matches("rw,");
                self.mount(&["-t", "tmpfs", "-o", options, "tmpfs"], &entry.path)?;
            }
            make(entry, &path, content).with_context(|| format!("making {}", entry.path))?;
        }
        Ok(())
    }

    /// Unmounts the volumes and takes the directory away.
    pub(crate) fn remove(&self) -> Result<()> {
        let script = format!(
            "cut -d' ' -f2 /proc/mounts | grep -F '{0}/' | sort -r | while read -r at; do umount \"$at\"; done; rm -rf '{0}'",
            self.directory
        );
        self.node.run("sh", &["-c", &script]).map(drop)
    }

    fn mount(&self, arguments: &[&str], inside: &str) -> Result<()> {
        let point = format!("{}/{inside}", self.directory);
        let arguments = [arguments, &[&point]].concat();
        self.node.run("mount", &arguments).map(drop)
    }

    /// Makes what the mounts of a container are of, as right before it is created.
    pub(crate) fn make_sources(&self, host_paths: &[HostPath]) -> Result<()> {
        for one in host_paths {
            let inside = one.path.strip_prefix(&format!("{}/", self.directory));
            let made = match inside {
                Some(inside) if inside.starts_with("volume-subpaths/") => {
                    self.bind_part(one, inside)
                }
                _ => self.make_source(one),
            };
            made.with_context(|| format!("making {}", one.path))?;
        }
        Ok(())
    }

    fn make_source(&self, one: &HostPath) -> Result<()> {
        let path = self.node.path(&one.path);
        // What was a link to nothing, a device or a socket is the node's own.
        if path.symlink_metadata().is_ok() || one.mode.is_empty() {
            return Ok(());
        }
        let parent = path.parent().context("a host path has a directory")?;
        if !parent.exists() {
            fs::create_dir_all(parent)?;
            fs::set_permissions(parent, fs::Permissions::from_mode(0o750))?;
        }
        let entry = Entry {
            path: one.path.clone(),
            kind: match one.kind.as_str() {
                "directory" => Kind::Directory,
                _ => Kind::File { size: 0 },
            },
            mode: u32::from_str_radix(&one.mode, 8)?,
            uid: one.uid,
            gid: one.gid,
        };
        make(&entry, &path, &|_, _| Vec::new())
    }

    /// Binds a part of a volume, as kubelet does for a `subPath`; a part that is not there
    /// becomes a directory with the mode of the volume.
    fn bind_part(&self, one: &HostPath, inside: &str) -> Result<()> {
        let source = match one.fs_type.as_str() {
            "overlay" => format!("/tmp{}", one.mount_root),
            _ => one.mount_root.clone(),
        };
        let (path, target) = (self.node.path(&source), self.path(inside));
        if !path.exists() {
            let known = path.ancestors().find(|parent| parent.exists());
            let known = known.context("the root is there")?;
            let mode = fs::metadata(known)?.permissions();
            fs::create_dir_all(&path)?;
            for made in path.ancestors().take_while(|parent| *parent != known) {
                fs::set_permissions(made, mode.clone())?;
            }
        }
        fs::create_dir_all(target.parent().context("a part has a volume")?)?;
        if path.is_dir() {
            fs::create_dir_all(&target)?;
        } else {
            fs::write(&target, "")?;
        }
        self.mount(&["--bind", &source], inside)
    }

    /// The files in each emptyDir, by the names that the node sees.
    pub(crate) fn written(&self, listing: &Listing) -> Result<Vec<(String, String)>> {
        let volumes = listing.entries.iter().filter_map(|entry| {
            let name = entry.path.strip_prefix(&format!("{EMPTY_DIRS}/"))?;
            (!name.contains('/')).then_some((name, &entry.path))
        });
        volumes
            .map(|(name, path)| {
                let directory = format!("{}/{path}", self.directory);
                let script = format!("cd {directory} && find . -type f | sort | tr '\\n' ' '");
                let files = self.node.run("busybox", &["sh", "-c", &script])?;
                Ok((name.to_owned(), files.trim_end().to_owned()))
            })
            .collect()
    }

    /// Swaps the files of each volume that `new` has in another version, in the kubelet's
    /// order: the new version, `..data`, names that came, names that went, the old version.
    pub(crate) fn change(&self, old: &Listing, new: &Listing, stage: usize) -> Result<()> {
        let before: Vec<_> = old.versions().collect();
        for (volume, version) in new.versions() {
            let known = before.iter().find(|(name, _)| *name == volume);
            let Some((_, gone)) = known.filter(|(_, old)| *old != version) else {
                continue;
            };
            self.swap(new, volume, version, stage)?;
            self.remove_names(old, new, volume)?;
            fs::remove_dir_all(self.path(&format!("{volume}/{gone}")))?;
        }
        Ok(())
    }

    fn swap(&self, new: &Listing, volume: &str, version: &str, stage: usize) -> Result<()> {
        let inside = format!("{volume}/{version}");
        let files = new.entries.iter().filter(|entry| {
            let rest = entry.path.strip_prefix(&inside);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        for entry in files {
            let path = self.path(&entry.path);
            make(entry, &path, &recorded_content(stage))
                .with_context(|| format!("making {}", entry.path))?;
        }
        let (link, data) = (format!("{volume}/..data_tmp"), format!("{volume}/..data"));
        symlink(version, self.path(&link))?;
        fs::rename(self.path(&link), self.path(&data)).context("swapping ..data")?;
        for entry in names(new, volume) {
            if self.path(&entry.path).symlink_metadata().is_err() {
                make(entry, &self.path(&entry.path), &recorded_content(stage))?;
            }
        }
        Ok(())
    }

    fn remove_names(&self, old: &Listing, new: &Listing, volume: &str) -> Result<()> {
        let kept: Vec<_> = names(new, volume).map(|entry| &entry.path).collect();
        for entry in names(old, volume).filter(|entry| !kept.contains(&&entry.path)) {
            fs::remove_file(self.path(&entry.path))?;
        }
        Ok(())
    }
}

/// The links of a volume that its user sees.
fn names<'a>(listing: &'a Listing, volume: &'a str) -> impl Iterator<Item = &'a Entry> {
    listing.entries.iter().filter(move |entry| {
        let name = entry.path.strip_prefix(volume);
        let name = name.and_then(|rest| rest.strip_prefix('/'));
        matches!(entry.kind, Kind::Link { .. })
            && name.is_some_and(|name| !name.contains('/') && !name.starts_with(".."))
    })
}

/// Did the kubelet make it before the pod's sandbox?
fn is_kubelets(entry: &Entry) -> bool {
    let words: Vec<_> = entry.path.split('/').collect();
    !matches!(
        words.as_slice(),
        ["volume-subpaths", ..]
            | ["containers", _, ..]
            | ["volumes", "kubernetes.io~empty-dir", _, _, ..]
    )
}

fn make(entry: &Entry, path: &Path, content: &dyn Fn(&str, usize) -> Vec<u8>) -> Result<()> {
    match &entry.kind {
        Kind::Directory => fs::create_dir_all(path)?,
        Kind::File { size } => fs::write(path, content(&entry.path, *size))?,
        Kind::Link { target } => symlink(target, path)?,
    }
    lchown(path, Some(entry.uid), Some(entry.gid))?;
    if !matches!(entry.kind, Kind::Link { .. }) {
        // After the owner, because a change of owner clears bits.
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
    }
    Ok(())
}

/// What recorded files hold in a stage.
pub(crate) fn recorded_content(stage: usize) -> impl Fn(&str, usize) -> Vec<u8> {
    move |path, size| content(path, size, stage)
}

/// Some content of a recorded size, another in each stage: the recording has sizes only.
pub(crate) fn content(path: &str, size: usize, stage: usize) -> Vec<u8> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let text = if name == "etc-hosts" {
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost\n#".to_owned()
    } else {
        format!("{stage}{name} ")
    };
    text.bytes().cycle().take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn what_containers_made_is_not_the_kubelets() {
        for (path, expected) in [
            ("volumes/kubernetes.io~empty-dir/disk", true),
            ("volumes/kubernetes.io~empty-dir/disk/data", false),
            ("volumes/kubernetes.io~secret/password/..data", true),
            ("volume-subpaths/disk", false),
            ("containers", true),
            ("containers/main/fa2da10f", false),
            ("etc-hosts", true),
        ] {
            assert_eq!(is_kubelets(&entry(path)), expected, "{path}");
        }
    }

    #[test]
    fn content_has_the_recorded_size_and_differs_with_the_stage() {
        assert_eq!(content("a/word", 3, 0).len(), 3);
        assert!(content("a/word", 0, 0).is_empty());
        assert_ne!(content("a/word", 3, 0), content("a/word", 3, 1));
    }

    #[test]
    fn names_are_the_links_that_a_user_sees() {
        let text = "lrwxrwxrwx 777 0:0 3 ./v/..data -> ..1\n\
            lrwxrwxrwx 777 0:0 3 ./v/key -> ..data/key\n\
            -rw-r--r-- 644 0:0 3 ./v/..1/key ->\n";
        let listing = Listing::parse(text).unwrap();
        let found: Vec<_> = names(&listing, "v")
            .map(|entry| entry.path.as_str())
            .collect();
        assert_eq!(found, ["v/key"]);
    }
}
