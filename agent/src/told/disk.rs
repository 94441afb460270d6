//! The scratch disk.

use agent_scratch_disk::{DiskError, Place, ScratchError};

use crate::told::{field::Field, text::Told};

/// A scratch disk that cannot be used.
pub(super) fn scratch(error: &ScratchError) -> Told {
    match error {
        ScratchError::Disk(error) => {
            Told::new("the scratch disk cannot be used").because(disk(error))
        }
        ScratchError::Mapping(_) => Told::new("the scratch disk cannot be protected"),
        ScratchError::Size(_) => {
            Told::new("the scratch disk cannot be used: it is too small for a file system")
        }
        ScratchError::System { step, source } => Told::new("cannot {step} the scratch disk")
            .with(Field::step(step))
            .errno(source),
    }
}

fn disk(error: &DiskError) -> Told {
    match error {
        DiskError::Read { source, .. } => {
            Told::new("what the kernel says of it cannot be read").errno(source)
        }
        DiskError::Several(count) => {
            Told::new("the host attached {count} disks with its serial number")
                .with(Field::count(*count))
        }
        DiskError::ReadOnly => Told::new("the host attached it read-only"),
        DiskError::Attribute(_) => Told::new("what the kernel says of it cannot be understood"),
    }
}

/// A place that is full, and what to do about it.
pub(super) fn full(place: &Place) -> Told {
    match place {
        Place::Disk { mib } => {
            Told::new("the scratch disk of {mib} MiB is full: raise scratch_disk_mib")
                .with(Field::mib(*mib))
        }
        Place::Memory => Told::new(
            "the guest's memory for images is full: set scratch_disk_mib or give the pod more \
             memory",
        ),
    }
}
