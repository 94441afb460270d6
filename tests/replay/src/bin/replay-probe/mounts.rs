//! Mounts: what each is, what may be done there, its size.

use std::path::Path;

use crate::{Facts, read};

/// Says what is mounted, and returns where volumes are.
pub(crate) fn mounts(facts: &mut Facts) -> Vec<String> {
    let mut volumes = Vec::new();
    for line in read("/proc/self/mountinfo").lines() {
        let Some((place, what)) = line.split_once(" - ") else {
            continue;
        };
        let place: Vec<_> = place.split(' ').collect();
        let what: Vec<_> = what.split(' ').collect();
        let ([_, _, _, _, point, options, optional @ ..], [kind, _, super_options]) =
            (place.as_slice(), what.as_slice())
        else {
            continue;
        };
        if point.starts_with("/sys/fs/cgroup") {
            // Which version there is, is the node's.
            continue;
        }
        let is_directory = Path::new(point).is_dir();
        let mut say = |name: &str, value: String| {
            facts.insert(format!("mount.{point}.{name}"), value);
        };
        let mut all = options.split(',').chain(super_options.split(','));
        let access = if all.any(|word| word == "ro") {
            "ro"
        } else {
            "rw"
        };
        say("access", access.to_owned());
        say("flags", flags(options));
        say("propagation", propagation(optional));
        if is_directory {
            say("type", (*kind).to_owned());
        }
        if let Some(size) = option(super_options, "size")
            && is_directory
            && access == "rw"
        {
            say("size", size.to_owned());
        }
        if is_volume(point) && !volumes.iter().any(|known| known == point) {
            volumes.push((*point).to_owned());
        }
    }
    volumes
}

/// What may not be done there; how times are kept is a matter of taste.
fn flags(options: &str) -> String {
    let known = ["nodev", "noexec", "nosuid"];
    let mut words: Vec<_> = options
        .split(',')
        .filter(|one| known.contains(one))
        .collect();
    words.sort_unstable();
    words.join(",")
}

/// Numbers of peer groups are chance.
fn propagation(optional: &[&str]) -> String {
    let kinds: Vec<_> = optional
        .iter()
        .map(|one| one.split(':').next().unwrap_or_default())
        .collect();
    if kinds.is_empty() {
        "private".to_owned()
    } else {
        kinds.join(",")
    }
}

fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    let mut words = options.split(',').filter_map(|one| one.split_once('='));
    words.find_map(|(key, value)| (key == name).then_some(value))
}

/// Not the file systems that every container has.
fn is_volume(point: &str) -> bool {
    let own = ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue"];
    let below = ["/proc/", "/sys/", "/etc/resolv", "/etc/host"];
    !own.contains(&point) && !below.iter().any(|prefix| point.starts_with(prefix))
}
