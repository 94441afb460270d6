//! What an owner lets a pod run, held against the log.
//!
//! Without it a verifier knows what ran and must look for itself. With it, one more
//! container, another image, or anything that differs from what the owner named refuses, and
//! is told by its part. Pause containers hold nothing but the agent; their settings are the
//! pod's. Denials are what did not happen.

use std::{collections::BTreeMap, fmt};

use agent_evidence::{
    Sha256Digest,
    log::{
        ContainerDigests, ContainerEntry, DOMAIN, Entry, ExecDigests, ExecEntry, MeasurementLog,
    },
};
use serde::{Deserialize, Serialize};

use crate::verdict::{Check, Findings};

/// Everything that may have run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// The pod's own settings; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Sha256Digest>,
    /// The containers.
    pub containers: Vec<AllowedContainer>,
    /// The processes that may be started in containers.
    #[serde(default)]
    pub execs: Vec<ExecDigests>,
}

/// Containers of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedContainer {
    /// Digest of the image's manifest: `sha256:…`.
    pub image: String,
    /// What it is, by part, as in [`ContainerEntry`].
    pub digests: ContainerDigests,
    /// What the guest may have let pass, as in [`ContainerEntry`].
    #[serde(default)]
    pub marks: Vec<String>,
    /// How many there may be, restarts included. The log tells at powers of two.
    #[serde(default = "one")]
    pub at_most: u64,
}

const fn one() -> u64 {
    1
}

/// What the log holds and the owner does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// A line of the guest's own that is malformed.
    Malformed(usize),
    /// Settings of the pod.
    Settings(Sha256Digest),
    /// A container, and why.
    Container(Box<ContainerEntry>, Difference),
    /// A further process.
    Exec(Box<ExecEntry>),
}

/// Why a container is not one that the owner named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// No container of this image is named.
    Image,
    /// The nearest of the image differs in these parts.
    Parts(Vec<&'static str>),
    /// It has a mark that is not named.
    Mark(String),
    /// There are more of it than named.
    Number,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image => f.write_str("another image"),
            Self::Parts(parts) => write!(f, "another {}", parts.join(", another ")),
            Self::Mark(mark) => write!(f, "the mark {mark:?}"),
            Self::Number => f.write_str("one too many"),
        }
    }
}

impl fmt::Display for Surplus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(line) => write!(f, "entry {line}, which is malformed"),
            Self::Settings(digest) => write!(f, "settings {digest} of the pod"),
            Self::Container(entry, difference) => write!(
                f,
                "container {:?} of {}: {difference}",
                entry.container,
                entry.image.as_deref().unwrap_or("no image"),
            ),
            Self::Exec(entry) => write!(
                f,
                "a process in container {:?}: {}",
                entry.container, entry.digests.process
            ),
        }
    }
}

/// The parts in which two containers differ.
fn differing(one: &ContainerDigests, other: &ContainerDigests) -> Vec<&'static str> {
    let parts = [
        ("process", one.process == other.process),
        ("environment", one.environment == other.environment),
        ("mounts", one.mounts == other.mounts),
        ("rights", one.rights == other.rights),
        ("settings", one.settings == other.settings),
    ];
    let differing = parts.into_iter().filter(|(_, same)| !same);
    differing.map(|(name, _)| name).collect()
}

impl Workload {
    /// What is in a log and not allowed, in words; none if it holds nothing else. Whether the log
    /// is true is for whoever asks: here it is that of evidence in a protocol that binds it.
    pub fn surplus_of(&self, log: &MeasurementLog) -> Option<String> {
        self.surplus(log).map(|surplus| surplus.to_string())
    }

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
        let mut counted = Counted::default();
        entries(log).find_map(|(line, entry)| match entry {
            None => Some(Surplus::Malformed(line)),
            Some(Entry::Container(entry)) if entry.image.is_none() => {
                self.pause(&entry).err().map(Surplus::Settings)
            }
            Some(Entry::Container(entry)) => {
                let difference = self.container(&entry, &mut counted).err()?;
                Some(Surplus::Container(Box::new(entry), difference))
            }
            Some(Entry::Exec(entry)) => {
                let allowed = self.execs.contains(&entry.digests);
                (!allowed).then(|| Surplus::Exec(Box::new(entry)))
            }
            Some(_) => None,
        })
    }

    /// The pause container has the pod's settings.
    fn pause(&self, entry: &ContainerEntry) -> Result<(), Sha256Digest> {
        let settings = entry.digests.settings;
        match self.settings {
            Some(allowed) if allowed != settings => Err(settings),
            _ => Ok(()),
        }
    }

    fn container(&self, entry: &ContainerEntry, counted: &mut Counted) -> Result<(), Difference> {
        let of_image = || {
            let same = |one: &&AllowedContainer| Some(&one.image) == entry.image.as_ref();
            self.containers.iter().filter(same)
        };
        let Some(nearest) =
            of_image().min_by_key(|one| differing(&one.digests, &entry.digests).len())
        else {
            return Err(Difference::Image);
        };
        let parts = differing(&nearest.digests, &entry.digests);
        if !parts.is_empty() {
            return Err(Difference::Parts(parts));
        }
        let equal = || of_image().filter(|one| one.digests == entry.digests);
        let unnamed = |one: &AllowedContainer| {
            let mut marks = entry.marks.iter();
            marks.find(|mark| !one.marks.contains(mark)).cloned()
        };
        if equal().all(|one| unnamed(one).is_some()) {
            return Err(Difference::Mark(unnamed(nearest).unwrap_or_default()));
        }
        let at_most: u64 = equal().map(|one| one.at_most).fold(0, u64::saturating_add);
        if counted.add(entry) > at_most {
            return Err(Difference::Number);
        }
        Ok(())
    }

    /// What a log holds, as a workload that allows just that: from a run that its owner
    /// trusts.
    ///
    /// # Errors
    ///
    /// The number of a line of the guest's own that is malformed.
    pub fn learn(log: &MeasurementLog) -> Result<Self, usize> {
        let mut learnt = Self::default();
        for (line, entry) in entries(log) {
            match entry.ok_or(line)? {
                Entry::Container(entry) => learnt.add(entry),
                Entry::Exec(entry) if !learnt.execs.contains(&entry.digests) => {
                    learnt.execs.push(entry.digests);
                }
                _ => {}
            }
        }
        Ok(learnt)
    }

    fn add(&mut self, entry: ContainerEntry) {
        let Some(image) = entry.image else {
            self.settings = Some(entry.digests.settings);
            return;
        };
        let same = |one: &&mut AllowedContainer| {
            one.image == image && one.digests == entry.digests && one.marks == entry.marks
        };
        match self.containers.iter_mut().find(same) {
            Some(known) => known.at_most = entry.count,
            None => self.containers.push(AllowedContainer {
                image,
                digests: entry.digests,
                marks: entry.marks,
                at_most: entry.count,
            }),
        }
    }
}

/// The guest's own entries, each with its line; none where a line is malformed.
fn entries(log: &MeasurementLog) -> impl Iterator<Item = (usize, Option<Entry>)> {
    let lines = log.events().iter().enumerate();
    lines.filter_map(|(line, event)| match Entry::of(event) {
        None if event.domain() == DOMAIN => Some((line, None)),
        None => None,
        Some(entry) => Some((line, entry.ok())),
    })
}

/// How many containers there were of each kind, marked ones for themselves.
#[derive(Default)]
struct Counted(BTreeMap<(Option<String>, ContainerDigests), BTreeMap<Vec<String>, u64>>);

impl Counted {
    /// Counts an entry; returns how many equal ones there are.
    fn add(&mut self, entry: &ContainerEntry) -> u64 {
        let kind = (entry.image.clone(), entry.digests);
        let counts = self.0.entry(kind).or_default();
        counts.insert(entry.marks.clone(), entry.count);
        counts.values().copied().fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::log::{DenialEntry, Event, Operation};

    use super::*;

    const IMAGE: &str = "sha256:11";

    fn digests(process: u8) -> ContainerDigests {
        let one = |byte| Sha256Digest([byte; 32]);
        ContainerDigests {
            process: one(process),
            environment: one(2),
            mounts: one(3),
            rights: one(4),
            settings: one(5),
        }
    }

    fn container(image: Option<&str>, process: u8, count: u64) -> ContainerEntry {
        ContainerEntry {
            container: "c".to_owned(),
            image: image.map(str::to_owned),
            digests: digests(process),
            marks: Vec::new(),
            chosen: Vec::new(),
            count,
        }
    }

    fn exec(process: u8) -> ExecEntry {
        ExecEntry {
            container: "c".to_owned(),
            digests: ExecDigests {
                process: Sha256Digest([process; 32]),
                environment: Sha256Digest([2; 32]),
                rights: Sha256Digest([4; 32]),
            },
            count: 1,
        }
    }

    fn log(entries: &[Entry]) -> MeasurementLog {
        let mut log = MeasurementLog::new();
        for entry in entries {
            log.append(entry.event().unwrap()).unwrap();
        }
        log
    }

    fn learnt(entries: &[Entry]) -> Workload {
        let learnt = Workload::learn(&log(entries)).unwrap();
        let text = serde_json::to_string(&learnt).unwrap();
        assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), learnt);
        learnt
    }

    fn run() -> Vec<Entry> {
        let denial = DenialEntry {
            rule: "X".to_owned(),
            code: None,
            count: 1,
        };
        vec![
            container(None, 1, 1).into(),
            container(Some(IMAGE), 7, 1).into(),
            container(Some(IMAGE), 7, 2).into(),
            container(Some(IMAGE), 8, 1).into(),
            exec(9).into(),
            denial.into(),
        ]
    }

    #[test]
    fn what_the_owner_names_passes() {
        assert_eq!(learnt(&run()).surplus(&log(&run())), None);
    }

    /// What comes of a run with one more entry.
    fn with(entry: impl Into<Entry>) -> Option<Surplus> {
        let more = [run(), vec![entry.into()]].concat();
        learnt(&run()).surplus(&log(&more))
    }

    #[test]
    fn an_extra_container_another_image_or_process_is_found() {
        for (entry, expected) in [
            (container(Some(IMAGE), 7, 4), Difference::Number),
            (container(Some("sha256:22"), 7, 1), Difference::Image),
            (
                container(Some(IMAGE), 6, 1),
                Difference::Parts(vec!["process"]),
            ),
        ] {
            match with(entry) {
                Some(Surplus::Container(_, difference)) => assert_eq!(difference, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(with(exec(1)), Some(Surplus::Exec(_))));
    }

    #[test]
    fn whatever_differs_is_told_by_its_part() {
        let other = Sha256Digest([99; 32]);
        for part in ["process", "environment", "mounts", "rights", "settings"] {
            let mut entry = container(Some(IMAGE), 7, 1);
            let digests = &mut entry.digests;
            match part {
                "process" => digests.process = other,
                "environment" => digests.environment = other,
                "mounts" => digests.mounts = other,
                "rights" => digests.rights = other,
                _ => digests.settings = other,
            }
            let surplus = with(entry).unwrap();
            assert!(
                surplus.to_string().ends_with(&format!("another {part}")),
                "{surplus}"
            );
            let mut process = exec(9);
            match part {
                "process" => process.digests.process = other,
                "environment" => process.digests.environment = other,
                "rights" => process.digests.rights = other,
                _ => continue,
            }
            assert!(matches!(with(process), Some(Surplus::Exec(_))), "{part}");
        }
        let mut pause = container(None, 1, 1);
        pause.digests.settings = other;
        assert!(matches!(with(pause), Some(Surplus::Settings(_))));
    }

    #[test]
    fn a_mark_that_the_owner_did_not_name_is_refused() {
        let mut marked = container(Some(IMAGE), 7, 1);
        marked.marks = vec!["host content covers /bin/sh".to_owned()];
        match with(marked.clone()) {
            Some(Surplus::Container(_, Difference::Mark(mark))) => {
                assert_eq!(mark, "host content covers /bin/sh");
            }
            other => panic!("{other:?}"),
        }
        let named = [run(), vec![marked.into()]].concat();
        assert_eq!(learnt(&named).surplus(&log(&named)), None);
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
            assert_eq!(Workload::learn(&log), Err(0));
        }
        assert_eq!(Operation::Exec.name(), "exec");
    }

    #[test]
    fn a_workload_with_unknown_members_or_without_digests_is_no_workload() {
        for text in [
            "{}",
            r#"{"containers":[],"more":1}"#,
            r#"{"containers":[{}]}"#,
            r#"{"containers":[{"image":"sha256:11"}]}"#,
        ] {
            assert!(serde_json::from_str::<Workload>(text).is_err(), "{text}");
        }
    }
}
