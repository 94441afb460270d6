//! Whether the kernel that booted keeps code in the host's ACPI tables from the guest's memory.
//!
//! No report says it. The launch measurement finds the image among those that the owner named,
//! and the image's manifest says it of the kernel in it: that is as true as its author is. A
//! measurement that comes from the references, an endorsement or an IGVM file names no image.

use std::{collections::BTreeMap, fmt};

use agent_evidence::LaunchMeasurement;
use serde::Serialize;

/// The guard of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Guard {
    /// The image's manifest says that its kernel has it.
    Present,
    /// The image's manifest does not say so.
    Absent,
    /// No image that was named has this measurement, or the evidence is refused.
    Unknown,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present, by the manifest of the image that booted",
            Self::Absent => "absent, by the manifest of the image that booted",
            Self::Unknown => "unknown, the evidence leads to no image of --guest-image",
        })
    }
}

/// Those of all images that may have booted, by launch measurement.
#[derive(Debug, Default)]
pub(crate) struct Guards(BTreeMap<LaunchMeasurement, bool>);

impl Guards {
    /// Takes over what an image's manifest says. Where two manifests describe one measurement
    /// and one of them does not claim the guard, it counts as absent.
    pub(super) fn add(&mut self, measurement: LaunchMeasurement, guard: Option<bool>) {
        if let Some(guard) = guard {
            let known = self.0.entry(measurement).or_insert(guard);
            *known &= guard;
        }
    }

    /// That of the image with this measurement.
    pub(super) fn of(&self, measurement: LaunchMeasurement) -> Guard {
        match self.0.get(&measurement) {
            Some(true) => Guard::Present,
            Some(false) => Guard::Absent,
            None => Guard::Unknown,
        }
    }
}
