//! Mounts: what each is, its options, its size.

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
        let mut say = |name: &str, value: String| {
            facts.insert(format!("mount.{point}.{name}"), value);
        };
        say("type", (*kind).to_owned());
        say("options", sorted(options, super_options));
        say("propagation", propagation(optional));
        if let Some(size) = option(super_options, "size") {
            say("size", size.to_owned());
        }
        if is_volume(point) && !volumes.iter().any(|known| known == point) {
            volumes.push((*point).to_owned());
        }
    }
    volumes
}

/// Flags only; a mount is read-only if either it or its file system is.
fn sorted(options: &str, super_options: &str) -> String {
    let mut words: Vec<_> = options.split(',').collect();
    if super_options.split(',').any(|word| word == "ro") && !words.contains(&"ro") {
        words.retain(|word| *word != "rw");
        words.push("ro");
    }
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
