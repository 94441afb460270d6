//! The pod's cgroup on the host.
//!
//! With `sandbox_cgroup_only` the shim joins the cgroup that the sandbox's spec
//! names before it starts the VM, so that everything it starts is in it from the first
//! instruction. Works on cgroup v2 and on v1 controllers, together if mounted so:
//! the path is made below every cgroup mount. The shim leaves again before it removes
//! the directories that it made.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

/// v1's cpuset starts with no CPU at all and would refuse every process.
const UNUSABLE: &str = "cpuset";

/// Why the pod's cgroup cannot be had.
#[derive(Debug, Error)]
pub(crate) enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("cannot read {path}")]
    Mounts {
        /// The list.
        path: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The spec's path would leave the hierarchy.
    #[error("the sandbox's cgroup path {path:?} is not a plain path")]
    BadPath {
        /// The path.
        path: String,
    },
    /// A directory cannot be made or joined.
    #[error(
        "cannot use cgroup {path}: make it writable, or set sandbox_cgroup_only = false in [runtime]"
    )]
    Use {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Where the shim is going to be, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodCgroup {
    /// For each hierarchy the pod's directory and the shim's own before.
    places: Vec<Place>,
    /// Directories that do not exist yet, parents first.
    made: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    pod: PathBuf,
    origin: PathBuf,
}

impl PodCgroup {
    /// The most bytes of memory that a pod in a cgroup of this path may have; `None` without
    /// a limit.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] if the path cannot name a cgroup, or if the mounts cannot be read.
    pub(crate) fn memory_limit(cgroups_path: &str) -> Result<Option<u64>, CgroupError> {
        let mounts = read("/proc/self/mounts")?;
        let relative = relative(cgroups_path)?;
        let places = hierarchies(&mounts).into_iter().flat_map(|hierarchy| {
            let all = relative.ancestors().map(|path| hierarchy.mount.join(path));
            all.collect::<Vec<_>>()
        });
        Ok(places.filter_map(|place| limit_at(&place)).min())
    }

    /// Finds out what joining would make. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] if the path cannot name a cgroup, or if the mounts cannot be read.
    pub(crate) fn plan(cgroups_path: &str) -> Result<Self, CgroupError> {
        let mounts = read("/proc/self/mounts")?;
        let own = read("/proc/self/cgroup")?;
        let relative = relative(cgroups_path)?;
        let mut plan = Self {
            places: Vec::new(),
            made: Vec::new(),
        };
        for hierarchy in hierarchies(&mounts) {
            let pod = hierarchy.mount.join(&relative);
            let below = pod.ancestors().take_while(|path| *path != hierarchy.mount);
            let mut missing: Vec<PathBuf> = below
                .filter(|path| !path.exists())
                .map(Path::to_owned)
                .collect();
            missing.reverse();
            plan.made.extend(missing);
            plan.places.push(Place {
                origin: hierarchy.mount.join(hierarchy.own_path(&own)),
                pod,
            });
        }
        Ok(plan)
    }

    /// The directories that joining makes, parents first, for the record.
    pub(crate) fn made(&self) -> &[PathBuf] {
        &self.made
    }

    /// Moves this process, and so what it starts from now on, into the pod's cgroup.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Use`] names the directory.
    pub(crate) fn join(&self) -> Result<(), CgroupError> {
        for place in &self.places {
            let failed = |source| CgroupError::Use {
                path: place.pod.clone(),
                source,
            };
            make(&place.pod).map_err(failed)?;
            enter(&place.pod).map_err(failed)?;
        }
        Ok(())
    }

    /// Moves this process back and removes what was made.
    pub(crate) fn leave(&self) {
        for place in &self.places {
            if let Err(error) = enter(&place.origin) {
                tracing::warn!(cgroup = %place.origin.display(), %error, "cgroup not left");
            }
        }
        remove(&self.made);
    }
}

fn read(path: &'static str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Mounts { path, source })
}

/// The limit of one directory, of either version; the kernel's largest number is none.
fn limit_at(place: &Path) -> Option<u64> {
    const NONE: u64 = 1 << 62;
    let limit = ["memory.max", "memory.limit_in_bytes"]
        .iter()
        .find_map(|file| {
            let text = fs::read_to_string(place.join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        });
    limit.filter(|limit| *limit < NONE)
}

/// Another pod may remove a shared parent between two steps, so try a few times.
fn make(path: &Path) -> io::Result<()> {
    let mut result = fs::create_dir_all(path);
    for _ in 0..3 {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                result = fs::create_dir_all(path);
            }
            _ => break,
        }
    }
    result
}

fn enter(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), std::process::id().to_string())
}

/// A killed QEMU leaves its cgroup only when its memory is freed.
const EMPTYING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Removes directories that a record names, children first. What other pods still use
/// stays.
pub(crate) fn remove(made: &[PathBuf]) {
    let deadline = Instant::now() + EMPTYING;
    for path in made.iter().rev() {
        match remove_emptied(path, deadline) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::debug!(cgroup = %path.display(), %error, "cgroup stays");
            }
        }
    }
}

/// Waits for processes that are ending; cgroups below, which are other pods', do not.
fn remove_emptied(path: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(path) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy
                    && !has_cgroups(path)
                    && Instant::now() < deadline =>
            {
                thread::sleep(LOOK_AGAIN);
            }
            result => return result,
        }
    }
}

fn has_cgroups(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Hierarchy<'a> {
    mount: PathBuf,
    /// v1 controllers; `None` for v2.
    controllers: Option<Vec<&'a str>>,
}

/// Every usable cgroup mount of `/proc/self/mounts`.
fn hierarchies(mounts: &str) -> Vec<Hierarchy<'_>> {
    let mut found: Vec<Hierarchy<'_>> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let controllers = match kind {
            "cgroup2" => None,
            "cgroup" => Some(options.split(',').collect::<Vec<_>>()),
            _ => continue,
        };
        let unusable = options
            .split(',')
            .any(|option| option == UNUSABLE || option == "ro");
        // A hierarchy may be mounted twice; once is enough.
        let known = found.iter().any(|other| other.controllers == controllers);
        if !unusable && !known {
            found.push(Hierarchy {
                mount: mount.into(),
                controllers,
            });
        }
    }
    found
}

impl Hierarchy<'_> {
    /// This process's path out of `/proc/self/cgroup`, relative.
    fn own_path<'a>(&self, own: &'a str) -> &'a str {
        let mine = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let matches = match &self.controllers {
                None => names.is_empty(),
                Some(controllers) => names
                    .split(',')
                    .any(|name| !name.is_empty() && controllers.contains(&name)),
            };
            matches.then_some(path)
        });
        mine.unwrap_or("/").trim_start_matches('/')
    }
}

/// The path below each mount: cgroupfs form as it is, systemd form (`slice:prefix:name`)
/// as the directories that systemd would make.
fn relative(cgroups_path: &str) -> Result<PathBuf, CgroupError> {
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    let path = match parts.as_slice() {
        [slice, prefix, name] => {
            let scope = if prefix.is_empty() {
                format!("{name}.scope")
            } else {
                format!("{prefix}-{name}.scope")
            };
            slice_path(slice).join(scope)
        }
        _ => PathBuf::from(cgroups_path.trim_start_matches('/')),
    };
    let plain = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain && path.components().next().is_some() {
        Ok(path)
    } else {
        Err(CgroupError::BadPath {
            path: cgroups_path.to_owned(),
        })
    }
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> PathBuf {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let mut path = PathBuf::new();
    if name.is_empty() || name == "-" {
        return path;
    }
    let mut prefix = String::new();
    for part in name.split('-') {
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs ro 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /other/memory cgroup rw,memory 0 0
proc /proc proc rw 0 0
";

    #[test]
    fn every_hierarchy_is_found_once() {
        let found = hierarchies(HYBRID);
        let mounts: Vec<_> = found.iter().map(|h| h.mount.to_str().unwrap()).collect();
        assert_eq!(
            mounts,
            [
                "/sys/fs/cgroup/unified",
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/memory"
            ]
        );
        let own = "5:memory:/a/b\n4:cpu,cpuacct:/c\n0::/u\n";
        let paths: Vec<_> = found.iter().map(|h| h.own_path(own)).collect();
        assert_eq!(paths, ["u", "c", "a/b"]);
        assert_eq!(found[2].own_path(""), "");
    }

    #[test]
    fn a_cgroup_whose_process_is_still_ending_is_removed_and_one_with_others_below_stays() {
        let name = format!("kata-cc-test-{}", std::process::id());
        let mounts = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];
        let made = mounts.map(|mount| Path::new(mount).join(&name));
        let Some(pod) = made.into_iter().find(|path| fs::create_dir(path).is_ok()) else {
            eprintln!("skipped: no cgroup may be made here");
            return;
        };
        let mut child = std::process::Command::new("sleep").arg("0.5").spawn();
        let child = child.as_mut().unwrap();
        fs::write(pod.join("cgroup.procs"), child.id().to_string()).unwrap();
        let below = pod.join("other");
        fs::create_dir(&below).unwrap();
        let begin = Instant::now();
        remove(std::slice::from_ref(&pod));
        assert!(pod.exists() && begin.elapsed() < EMPTYING);
        fs::remove_dir(&below).unwrap();
        remove(std::slice::from_ref(&pod));
        assert!(!pod.exists());
        child.wait().unwrap();
    }

    #[test]
    fn a_limit_is_a_number_below_the_kernels_largest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |file: &str, text: &str| {
            fs::write(folder.path().join(file), text).unwrap();
            let limit = limit_at(folder.path());
            fs::remove_file(folder.path().join(file)).unwrap();
            limit
        };
        assert_eq!(at("memory.max", "67108864\n"), Some(64 << 20));
        assert_eq!(at("memory.limit_in_bytes", "67108864\n"), Some(64 << 20));
        assert_eq!(at("memory.max", "max\n"), None);
        assert_eq!(at("memory.limit_in_bytes", "9223372036854771712\n"), None);
        assert_eq!(limit_at(folder.path()), None);
        assert!(PodCgroup::memory_limit("/../x").is_err());
    }

    #[test]
    fn both_spellings_of_a_path_are_read() {
        for (text, expected) in [
            ("/kubepods/pod1/c1", "kubepods/pod1/c1"),
            ("k8s.io/c1", "k8s.io/c1"),
            (
                "kubepods-burstable-podx.slice:cri-containerd:c1",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-containerd-c1.scope",
            ),
            ("system.slice:docker:c1", "system.slice/docker-c1.scope"),
        ] {
            assert_eq!(relative(text).unwrap(), Path::new(expected), "{text}");
        }
        for text in ["", "/", "../x", "/a/../../b"] {
            assert!(relative(text).is_err(), "{text:?}");
        }
    }
}
