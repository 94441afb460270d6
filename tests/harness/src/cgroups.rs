//! The bed's own corner of every cgroup hierarchy.
//!
//! A cgroup namespace rooted there makes "no cgroup is left" a question about
//! one subtree, on machines with version 1, version 2 or both.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

const MOUNT: &str = "/sys/fs/cgroup";
/// On version 2 no process may sit beside child groups; the bed's own sit here.
const LEAF: &str = "bed";

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mount_point: PathBuf,
    /// Mount options of a version 1 hierarchy; `None` for version 2.
    controllers: Option<String>,
}

/// The hierarchies in `/proc/self/mounts`.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mount table")?;
    Ok(parse(&mounts))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (mount_point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let controllers = match kind {
                "cgroup" => Some(controllers(options)),
                "cgroup2" => None,
                _ => return None,
            };
            Some(Hierarchy {
                mount_point: mount_point.into(),
                controllers,
            })
        })
        .collect()
}

fn controllers(options: &str) -> String {
    let flags = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr"];
    let kept: Vec<_> = options
        .split(',')
        .filter(|option| !flags.contains(option) && !option.starts_with("release_agent"))
        .map(|option| {
            if option.starts_with("name=") {
                format!("none,{option}")
            } else {
                option.to_owned()
            }
        })
        .collect();
    kept.join(",")
}

/// Makes the group `name` in every hierarchy, ready to take processes.
pub(crate) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.mount_point.join(name);
        fs::create_dir_all(&group).with_context(|| format!("making cgroup {}", group.display()))?;
        // A new cpuset group has no processors until it is told, and takes no process.
        for file in ["cpuset.mems", "cpuset.cpus"] {
            if hierarchy.controllers.is_some() && group.join(file).exists() {
                let parent = fs::read_to_string(hierarchy.mount_point.join(file))?;
                fs::write(group.join(file), parent.trim())
                    .with_context(|| format!("filling {file} of {}", group.display()))?;
            }
        }
        let clone_children = group.join("cgroup.clone_children");
        if clone_children.exists() {
            fs::write(&clone_children, "1")?;
        }
    }
    Ok(())
}

/// Moves the calling process into the group `name` of every hierarchy.
pub(crate) fn move_self(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        enter(&hierarchy.mount_point.join(name))?;
    }
    Ok(())
}

/// Removes what [`create`] made, and all below it; waits for the last process to be gone.
pub(crate) fn remove(name: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    for hierarchy in hierarchies()? {
        let group = hierarchy.mount_point.join(name);
        while let Err(error) = remove_tree(&group) {
            if Instant::now() > end {
                return Err(error).with_context(|| format!("removing {}", group.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Mounts the hierarchies again below a fresh `/sys`, seen from the new cgroup namespace.
pub(crate) fn mount_all(hierarchies: &[Hierarchy]) -> Result<()> {
    let none = None::<&str>;
    if !hierarchies
        .iter()
        .any(|one| one.mount_point == Path::new(MOUNT))
    {
        mount(
            Some("tmpfs"),
            MOUNT,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .context("mounting a tmpfs for cgroups")?;
    }
    for one in hierarchies {
        fs::create_dir_all(&one.mount_point)?;
        let kind = if one.controllers.is_some() {
            "cgroup"
        } else {
            "cgroup2"
        };
        let options = one.controllers.as_deref().or(none);
        mount(
            Some(kind),
            &one.mount_point,
            Some(kind),
            MsFlags::empty(),
            options,
        )
        .with_context(|| format!("mounting {}", one.mount_point.display()))?;
        if one.controllers.is_none() {
            delegate(&one.mount_point)?;
        }
    }
    Ok(())
}

/// Lets groups below a version 2 root use every controller that the root has.
fn delegate(root: &Path) -> Result<()> {
    let leaf = root.join(LEAF);
    fs::create_dir_all(&leaf)?;
    enter(&leaf)?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(
            root.join("cgroup.subtree_control"),
            format!("+{controller}"),
        )
        .with_context(|| format!("delegating the {controller} controller"))?;
    }
    Ok(())
}

/// Moves the calling process, already in the bed's namespaces, into the bed's groups.
///
/// # Errors
/// When a hierarchy refuses it.
pub fn join() -> Result<()> {
    for one in hierarchies()? {
        let leaf = one.mount_point.join(LEAF);
        enter(if one.controllers.is_none() {
            &leaf
        } else {
            &one.mount_point
        })?;
    }
    Ok(())
}

fn enter(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
        .with_context(|| format!("joining cgroup {}", group.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_machine_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found: Vec<_> = parse(mounts)
            .into_iter()
            .map(|one| one.controllers)
            .collect();
        assert_eq!(
            found,
            [Some("cpu".into()), Some("none,name=systemd".into()), None]
        );
    }
}
