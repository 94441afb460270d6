//! Which capabilities a container can have, whatever the host asks for.
//!
//! All containers share the guest's one kernel, and the guest proves what runs in it: what
//! would let a container change or read that kernel, or reach other containers past their
//! namespaces, is not given. The table is `docs/capabilities.md`.

use std::collections::BTreeSet;

use agent_protocol::rpc::oci::LinuxCapabilities;
use oci_spec::runtime::Process;
pub(super) use policy_engine::capabilities::Processes;
use policy_engine::capabilities::{Standing::GrantedOnly, asks_for_all, of_asked, standing};
use serde_json::{Value, json};

use crate::error::{RequestError, Unsupported};

/// The capabilities of a process that it can have only if they are granted, by name.
#[must_use]
pub fn to_be_granted(process: &Process) -> BTreeSet<String> {
    let Some(sets) = process.capabilities() else {
        return BTreeSet::new();
    };
    let sets = [
        sets.bounding(),
        sets.effective(),
        sets.inheritable(),
        sets.permitted(),
        sets.ambient(),
    ];
    let names = sets.into_iter().flatten().flatten().map(|one| {
        let name = one.to_string();
        let bare = name.strip_prefix("CAP_").unwrap_or(&name);
        format!("CAP_{bare}")
    });
    names.filter(|name| standing(name) == GrantedOnly).collect()
}

/// The sets as the OCI runtime specification writes them, each named and sorted.
///
/// Whoever asks for all (a privileged container, `add: [ALL]`) gets all that there are for
/// containers; whoever asks for one of the others by name is told so. One that a policy may
/// grant is let through if it is asked for by name: [`to_be_granted`] finds it again.
///
/// # Errors
///
/// When a capability is asked for by name that containers do not get.
pub(super) fn parse(sets: LinuxCapabilities, processes: Processes) -> Result<Value, RequestError> {
    let all = asks_for_all(&sets.Bounding);
    let set = |names: Vec<String>| {
        of_asked(names, all, processes).map_err(|name| {
            RequestError::from(Unsupported::Capability(name.chars().take(64).collect()))
        })
    };
    Ok(json!({
        "bounding": set(sets.Bounding)?,
        "effective": set(sets.Effective)?,
        "inheritable": set(sets.Inheritable)?,
        "permitted": set(sets.Permitted)?,
        "ambient": set(sets.Ambient)?,
    }))
}

#[cfg(test)]
mod tests {
    use policy_engine::capabilities::{
        Standing::{Free, Never, OwnProcesses},
        TABLE,
    };

    use super::*;

    fn sets(names: &[&str]) -> LinuxCapabilities {
        let all: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        LinuxCapabilities {
            Bounding: all.clone(),
            Effective: all.clone(),
            Permitted: all,
            ..Default::default()
        }
    }

    fn bounding(value: &Value) -> Vec<&str> {
        let names = value["bounding"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap()).collect()
    }

    #[test]
    fn every_capability_of_the_kernel_is_in_the_table() {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        let last: usize = last.trim().parse().unwrap();
        assert!(last < TABLE.len(), "the kernel knows {last}");
    }

    #[test]
    fn each_capability_alone_is_given_or_refused_by_its_standing() {
        for (name, standing) in TABLE {
            for processes in [Processes::Own, Processes::Shared] {
                let parsed = parse(sets(&[name]), processes);
                let expected = match standing {
                    Free => true,
                    OwnProcesses => processes == Processes::Own,
                    Never => false,
                    GrantedOnly => true,
                };
                assert_eq!(parsed.is_ok(), expected, "{name} {processes:?}");
                match parsed {
                    Ok(sets) => {
                        let process = json!({
                            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "capabilities": sets,
                        });
                        let found = to_be_granted(&serde_json::from_value(process).unwrap());
                        let expected = (standing == GrantedOnly).then(|| name.to_owned());
                        assert_eq!(found, expected.into_iter().collect(), "{name}");
                    }
                    Err(error) => assert!(error.to_string().contains(name), "{error}"),
                }
            }
        }
        assert!(parse(sets(&["CAP_NEW"]), Processes::Own).is_err());
    }

    #[test]
    fn whoever_asks_for_all_gets_those_that_containers_can_have() {
        let names: Vec<_> = TABLE.iter().map(|(name, _)| *name).collect();
        let own = parse(sets(&names), Processes::Own).unwrap();
        assert!(bounding(&own).contains(&"CAP_SYS_ADMIN"));
        assert!(bounding(&own).contains(&"CAP_SYS_PTRACE"));
        let shared = parse(sets(&names), Processes::Shared).unwrap();
        assert!(!bounding(&shared).contains(&"CAP_SYS_PTRACE"));
        for (name, standing) in TABLE {
            if matches!(standing, Never | GrantedOnly) {
                assert!(!bounding(&own).contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn a_privileged_container_of_a_node_that_lacks_some_gets_what_is_left() {
        let without = ["CAP_SYS_RESOURCE", "CAP_SYS_TIME"];
        let asked = TABLE.map(|(name, _)| name).into_iter();
        let asked: Vec<_> = asked.filter(|name| !without.contains(name)).collect();
        let parsed = parse(sets(&asked), Processes::Own).unwrap();
        assert!(bounding(&parsed).contains(&"CAP_SYS_ADMIN"));
        assert!(!bounding(&parsed).contains(&"CAP_SYS_MODULE"));
        // Half of them are names that somebody wrote.
        assert!(parse(sets(&asked[..20]), Processes::Own).is_err());
    }

    #[test]
    fn the_page_says_what_the_table_says() {
        let page = include_str!("../../../docs/capabilities.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `CAP_"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows.len(), TABLE.len());
        for (row, (name, standing)) in rows.iter().zip(TABLE) {
            assert_eq!(row[1], format!("`{name}`"));
            let words = match standing {
                Never => "never",
                GrantedOnly => "granted only",
                OwnProcesses => "own processes",
                Free => "free",
            };
            assert_eq!([row[2], row[3]], [words, words], "{name}");
        }
    }

    #[test]
    fn equal_sets_are_spelt_alike() {
        let one = parse(sets(&["CAP_KILL", "CAP_CHOWN", "CAP_KILL"]), Processes::Own).unwrap();
        let two = parse(sets(&["CAP_CHOWN", "CAP_KILL"]), Processes::Own).unwrap();
        assert_eq!(one, two);
    }
}
