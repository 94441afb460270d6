//! What the pod did so far, as far as the policy depends on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    asked::AskedUser,
    denied::{Code, Finding},
    document::{Container, Document, Stage},
    workload::sha256,
};

/// Ids that are remembered; a pod has no more containers in its life.
const IDS_MAX: usize = 1 << 17;
const INTERFACES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PodStage {
    #[default]
    New,
    BeingMade,
    Runs,
    Ended,
}

/// What the node calls the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being made.
    Claimed,
    /// Made, and not started.
    Waits,
    /// Being started.
    Starts,
    Runs,
    Ended,
}

/// A container that is there.
#[derive(Debug)]
pub(crate) struct Live {
    /// Its place in the document; none for the pause container.
    pub(crate) entry: Option<usize>,
    pub(crate) phase: Phase,
    /// What its first process has, which others must have too.
    pub(crate) first: First,
}

/// What of a container's first process further ones are held against.
#[derive(Debug, Clone, Default)]
pub(crate) struct First {
    pub(crate) user: AskedUser,
    pub(crate) home: Option<String>,
}

/// What is known of a container of the document.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    started: bool,
    succeeded: bool,
}

/// The pod's state.
#[derive(Debug, Default)]
pub(crate) struct PodState {
    pub(crate) stage: PodStage,
    pub(crate) hostname: String,
    pub(crate) identity: Option<Identity>,
    pub(crate) live: BTreeMap<String, Live>,
    used: BTreeSet<[u8; 16]>,
    entries: BTreeMap<usize, Entry>,
    interfaces: BTreeSet<String>,
}

impl PodState {
    pub(crate) fn is_new(&self, id: &str) -> bool {
        !self.used.contains(&short(id)) && self.used.len() < IDS_MAX
    }

    pub(crate) fn has_pause(&self) -> bool {
        self.live.values().any(|live| live.entry.is_none())
    }

    /// The container of the document that an id stands for; the pause container has none.
    pub(crate) fn container<'d>(&self, document: &'d Document, id: &str) -> Option<&'d Container> {
        let entry = self.live.get(id)?.entry?;
        at(document, entry)
    }

    /// Whether a container of the document may be made now.
    pub(crate) fn comes_now(&self, document: &Document, number: usize) -> Result<(), Finding> {
        let runs = |live: &Live| live.entry == Some(number) && live.phase != Phase::Ended;
        if self.live.values().any(runs) {
            return Err(Finding::of(Code::ContainerRuns));
        }
        let wrong = || Err(Finding::of(Code::ContainerOrder));
        let Some(own) = document.containers.get(number) else {
            // Ephemeral ones come at any time.
            return Ok(());
        };
        let is_app = own.stage == Stage::App;
        let mut later_started = false;
        for (other, container) in document.containers.iter().enumerate() {
            let entry = self.entry(other);
            let is_before = container.stage != Stage::App && (is_app || other < number);
            let done = match container.stage {
                Stage::Init => entry.succeeded,
                Stage::Sidecar => entry.started,
                Stage::App => true,
            };
            if is_before && !done {
                return wrong();
            }
            later_started |= !is_before && other != number && entry.started;
        }
        // What ran to its end before the others is not run beside them.
        if own.stage == Stage::Init && self.entry(number).succeeded && later_started {
            return wrong();
        }
        Ok(())
    }

    fn entry(&self, number: usize) -> Entry {
        self.entries.get(&number).copied().unwrap_or_default()
    }

    pub(crate) fn claim(&mut self, id: &str, entry: Option<usize>) {
        self.used.insert(short(id));
        let live = Live {
            entry,
            phase: Phase::Claimed,
            first: First::default(),
        };
        self.live.insert(id.to_owned(), live);
    }

    /// As if it had never been asked for.
    pub(crate) fn give_back(&mut self, id: &str) {
        self.used.remove(&short(id));
        self.live.remove(id);
    }

    pub(crate) fn step(&mut self, id: &str, from: Phase, to: Phase) {
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        if live.phase != from {
            return;
        }
        live.phase = to;
        if let (Phase::Runs, Some(entry)) = (to, live.entry) {
            self.entries.entry(entry).or_default().started = true;
        }
    }

    /// A container's process has ended, well or not.
    pub(crate) fn ended(&mut self, id: &str, well: bool) {
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        live.phase = Phase::Ended;
        if let Some(number) = live.entry {
            let entry = self.entries.entry(number).or_default();
            entry.started = true;
            entry.succeeded |= well;
        }
    }

    /// Remembers an interface of the pod; false when there are too many.
    pub(crate) fn add_interface(&mut self, name: &str) -> bool {
        let room = self.interfaces.len() < INTERFACES_MAX || self.interfaces.contains(name);
        if room {
            self.interfaces.insert(name.to_owned());
        }
        room
    }

    pub(crate) fn has_interface(&self, name: &str) -> bool {
        self.interfaces.contains(name)
    }
}

fn short(id: &str) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(sha256(id.as_bytes())) {
        *to = from;
    }
    short
}

/// A container of the document by its number, the ephemeral ones last.
pub(crate) fn at(document: &Document, number: usize) -> Option<&Container> {
    document
        .containers
        .iter()
        .chain(&document.ephemeral)
        .nth(number)
}

/// The number of a container of the document.
pub(crate) fn number(document: &Document, name: &str) -> Option<usize> {
    let mut all = document.containers.iter().chain(&document.ephemeral);
    all.position(|container| container.name == name)
}
