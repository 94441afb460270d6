//! What an owner lets a pod run, held against the log.
//!
//! Without it a verifier knows what ran and must look for itself. With it, one more
//! container, another image or a process that nobody named refuses. Pause containers
//! hold nothing but the agent and always pass; denials are what did not happen.

use std::fmt;

use agent_evidence::{
    Sha256Digest,
    log::{ContainerEntry, DOMAIN, Entry, ExecEntry, MeasurementLog},
};
use serde::Deserialize;

use crate::verdict::{Check, Findings};

/// Everything that may have run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// The containers.
    pub containers: Vec<AllowedContainer>,
    /// Digests of the processes that may be started in containers, as in [`ExecEntry`].
    #[serde(default)]
    pub execs: Vec<Sha256Digest>,
}

/// Containers of one image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedContainer {
    /// Digest of the image's manifest: `sha256:…`.
    pub image: String,
    /// Digest of the process, as in [`ContainerEntry`]; any if left out.
    #[serde(default)]
    pub process: Option<Sha256Digest>,
    /// How many there may be, restarts included.
    #[serde(default = "one")]
    pub at_most: u32,
}

const fn one() -> u32 {
    1
}

/// What the log holds and the owner does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// A line of the guest's own that is malformed.
    Malformed(usize),
    /// A container.
    Container(Box<ContainerEntry>),
    /// A further process.
    Exec(Box<ExecEntry>),
}

impl fmt::Display for Surplus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(line) => write!(f, "entry {line}, which is malformed"),
            Self::Container(entry) => write!(
                f,
                "container {:?} of {:?}, process {}",
                entry.container, entry.image, entry.process
            ),
            Self::Exec(entry) => write!(
                f,
                "process {:?} in container {:?}, {}",
                entry.exec, entry.container, entry.process
            ),
        }
    }
}

impl Workload {
    /// Notes whether the log holds nothing else.
    pub(crate) fn judge(&self, log: &MeasurementLog, findings: &mut Findings) {
        let surplus = self.surplus(log);
        findings.note(
            Check::Workload,
            surplus.is_none(),
            "the containers and processes that the owner named",
            surplus.map_or_else(|| "these".to_owned(), |surplus| surplus.to_string()),
        );
    }

    /// The first thing in the log that is not allowed.
    pub(crate) fn surplus(&self, log: &MeasurementLog) -> Option<Surplus> {
        let mut left = self.containers.clone();
        for (line, event) in log.events().iter().enumerate() {
            let surplus = match Entry::of(event) {
                None if event.domain() == DOMAIN => Some(Surplus::Malformed(line)),
                None => None,
                Some(Err(_)) => Some(Surplus::Malformed(line)),
                Some(Ok(Entry::Container(entry))) => {
                    let allowed = entry.image.is_none() || take(&mut left, &entry);
                    (!allowed).then(|| Surplus::Container(Box::new(entry)))
                }
                Some(Ok(Entry::Exec(entry))) => {
                    let allowed = self.execs.contains(&entry.process);
                    (!allowed).then(|| Surplus::Exec(Box::new(entry)))
                }
                Some(Ok(_)) => None,
            };
            if surplus.is_some() {
                return surplus;
            }
        }
        None
    }
}

/// Uses one of the allowed containers up; those that name the process first.
fn take(left: &mut [AllowedContainer], entry: &ContainerEntry) -> bool {
    let fits = |allowed: &&mut AllowedContainer| {
        allowed.at_most > 0 && Some(&allowed.image) == entry.image.as_ref()
    };
    let named = left
        .iter_mut()
        .filter(fits)
        .find(|allowed| allowed.process == Some(entry.process));
    let found = match named {
        Some(named) => Some(named),
        None => left
            .iter_mut()
            .filter(fits)
            .find(|allowed| allowed.process.is_none()),
    };
    match found {
        Some(allowed) => {
            allowed.at_most -= 1;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::log::{DenialEntry, Event, Operation};

    use super::*;

    const IMAGE: &str = "sha256:11";

    fn container(image: Option<&str>, process: u8) -> Entry {
        ContainerEntry {
            container: "c".to_owned(),
            image: image.map(str::to_owned),
            spec: Sha256Digest([0; 32]),
            process: Sha256Digest([process; 32]),
        }
        .into()
    }

    fn exec(process: u8) -> Entry {
        ExecEntry {
            container: "c".to_owned(),
            exec: "e".to_owned(),
            process: Sha256Digest([process; 32]),
        }
        .into()
    }

    fn surplus(workload: &str, entries: &[Entry]) -> Option<Surplus> {
        let workload: Workload = serde_json::from_str(workload).unwrap();
        let mut log = MeasurementLog::new();
        for entry in entries {
            log.append(entry.event().unwrap()).unwrap();
        }
        workload.surplus(&log)
    }

    #[test]
    fn what_the_owner_names_passes() {
        let denial = DenialEntry {
            rule: "X".to_owned(),
            count: 1,
        };
        let workload = format!(
            r#"{{"containers":[{{"image":"{IMAGE}","at_most":2}},
                               {{"image":"{IMAGE}","process":"{}"}}],
                "execs":["{}"]}}"#,
            "07".repeat(32),
            "09".repeat(32)
        );
        let entries = [
            container(None, 1),
            container(Some(IMAGE), 7),
            container(Some(IMAGE), 2),
            container(Some(IMAGE), 3),
            exec(9),
            exec(9),
            denial.into(),
        ];
        assert_eq!(surplus(&workload, &entries), None);
        let one_more = [&entries[..], &[container(Some(IMAGE), 7)]].concat();
        assert!(matches!(
            surplus(&workload, &one_more),
            Some(Surplus::Container(_))
        ));
    }

    #[test]
    fn an_extra_container_another_image_or_process_is_found() {
        let one = format!(r#"{{"containers":[{{"image":"{IMAGE}"}}]}}"#);
        let ours = container(Some(IMAGE), 1);
        for entries in [
            &[ours.clone(), ours.clone()][..],
            &[container(Some("sha256:22"), 1)],
            &[ours.clone(), exec(1)],
        ] {
            assert!(surplus(&one, entries).is_some(), "{entries:?}");
        }
        assert_eq!(surplus(&one, &[ours]), None);
        let named = format!(
            r#"{{"containers":[{{"image":"{IMAGE}","process":"{}"}}]}}"#,
            "01".repeat(32)
        );
        assert_eq!(surplus(&named, &[container(Some(IMAGE), 1)]), None);
        assert!(surplus(&named, &[container(Some(IMAGE), 2)]).is_some());
    }

    #[test]
    fn lines_that_cannot_be_read_are_found() {
        for (operation, content) in [("container", "{}"), ("exec", "x"), ("later", "{}")] {
            let mut log = MeasurementLog::new();
            log.append(Event::parse(DOMAIN, operation, content).unwrap())
                .unwrap();
            assert_eq!(
                Workload::default().surplus(&log),
                Some(Surplus::Malformed(0)),
                "{operation}"
            );
        }
        assert_eq!(Operation::Exec.name(), "exec");
    }

    #[test]
    fn a_workload_with_unknown_members_is_no_workload() {
        for text in [
            "{}",
            r#"{"containers":[],"more":1}"#,
            r#"{"containers":[{}]}"#,
        ] {
            assert!(serde_json::from_str::<Workload>(text).is_err(), "{text}");
        }
    }
}
