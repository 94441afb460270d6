//! Where the volumes of a pod are in its guest: each in one place, for all its containers and
//! for as long as the pod lives. What a volume is, is told by where it lies on the node.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_protocol::rpc::agent::Storage;
use tokio::sync::OnceCell;

use crate::mountinfo::Spot;

/// The volumes that the pod's containers have had so far.
#[derive(Debug, Default)]
pub struct PodVolumes(Mutex<Vec<Known>>);

/// A volume, or a path of the node, and its place in the guest.
#[derive(Debug, Clone)]
struct Known {
    spot: Spot,
    guest: String,
    what: What,
    /// Whether a container may write there.
    writable: bool,
}

/// How something comes to the guest.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The guest makes it.
    Made(Storage),
    /// It is copied once.
    Copied(Copied),
}

/// Set when a copy for the whole pod is complete.
#[derive(Clone, Default)]
pub struct Copied(pub(crate) Arc<OnceCell<()>>);

impl fmt::Debug for Copied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Copied({})", self.0.initialized())
    }
}

/// Where something is in the guest.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) guest: String,
    pub(crate) what: What,
    /// Whether it is only a part of what was put there.
    pub(crate) is_part: bool,
}

impl Found {
    /// Whether it is the guest's own.
    pub(crate) fn is_made(&self) -> bool {
        matches!(self.what, What::Made(_))
    }
}

/// Why something cannot have a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// A part of it was copied by itself before.
    PartWasCopied,
    /// Another volume has this place.
    Taken,
}

impl PodVolumes {
    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of something that is, or lies in, what is known.
    pub(crate) fn find(&self, spot: &Spot, writable: bool) -> Option<Found> {
        let mut known = self.known();
        let inside = known
            .iter_mut()
            .filter_map(|one| Some((below(spot, &one.spot)?, one)));
        let (rest, one) = inside.min_by_key(|(rest, _)| rest.len())?;
        one.writable |= writable;
        Some(Found {
            guest: join(&one.guest, &rest),
            what: one.what.clone(),
            is_part: !rest.is_empty(),
        })
    }

    /// Gives something its place, unless it has that place already.
    pub(crate) fn add(
        &self,
        spot: Spot,
        guest: String,
        what: What,
        writable: bool,
    ) -> Result<(), Conflict> {
        let mut known = self.known();
        if let Some(one) = known.iter().find(|one| one.guest == guest) {
            return (one.spot == spot).then_some(()).ok_or(Conflict::Taken);
        }
        let mut parts = known.iter().filter(|one| one.spot.below(&spot).is_some());
        if parts.any(|part| part.writable || writable) {
            return Err(Conflict::PartWasCopied);
        }
        known.push(Known {
            spot,
            guest,
            what,
            writable,
        });
        Ok(())
    }
}

/// A path between two places that the protocol can carry.
fn below(spot: &Spot, other: &Spot) -> Option<String> {
    spot.below(other).and_then(Path::to_str).map(str::to_owned)
}

/// A path in the guest.
pub(crate) fn join(guest: &str, rest: &str) -> String {
    if rest.is_empty() {
        guest.to_owned()
    } else {
        format!("{guest}/{rest}")
    }
}
