//! Initdata and policies that are not taken.

use agent_protocol::initdata::{disk::DiskError, packed::PackedError};

use crate::{
    initdata::error::{BoundError, ScanError, TakeError},
    told::{
        field::{Field, FromHost},
        hardware,
        measured::note,
        text::Told,
    },
};

/// What the launch binds is not known.
pub(crate) fn bound(error: &BoundError) -> Told {
    match error {
        BoundError::NoReports => Told::new("the guest runs in a TEE whose reports cannot be had"),
        BoundError::Report(error) => hardware::own_report(error),
    }
}

/// There is no saying what the owner's initdata is.
pub(crate) fn scan(error: &ScanError) -> Told {
    match error {
        ScanError::List(error) => Told::new("the guest's disks cannot be listed").errno(error),
        ScanError::Read { disk, source } => {
            Told::new("disk {disk} cannot be read, and it might hold initdata")
                .with(Field::disk(FromHost(disk)))
                .errno(source)
        }
        ScanError::Several(count) => {
            Told::new("{count} disks hold initdata, where there can be one")
                .with(Field::count(*count))
        }
        ScanError::Disk(error) => disk(error),
        ScanError::Packed(error) => packed(error),
    }
}

fn disk(error: &DiskError) -> Told {
    Told::new(match error {
        DiskError::TooLarge => "the initdata disk is larger than such disks may be",
        DiskError::Header => "the disk does not start as an initdata disk does",
        DiskError::Length(_) => "the initdata disk ends before its content does",
        DiskError::Empty => "the initdata disk is empty",
        DiskError::Tail => "the initdata disk has more than zeros behind the document",
    })
}

fn packed(error: &PackedError) -> Told {
    Told::new(match error {
        PackedError::Base64 => "the initdata annotation is not base64",
        PackedError::TooLarge | PackedError::Inflated => "initdata is larger than it may be",
        PackedError::Gzip(_) => "initdata cannot be inflated: it is not one intact gzip member",
        PackedError::Tail(_) => "more bytes follow the gzip member of initdata",
        PackedError::Document(_) => "the initdata document cannot be used",
    })
}

/// Initdata that was found is not taken.
pub(crate) fn take(error: &TakeError) -> Told {
    match error {
        TakeError::Digest {
            found,
            fitted,
            bound,
        } => Told::new(
            "initdata has the digest {initdata}, which fits to {fitted}, but the launch binds \
             {bound}",
        )
        .with(Field::initdata(FromHost(found)))
        .with(Field::fitted(*fitted))
        .with(Field::bound(*bound)),
        TakeError::Algorithm { found } => Told::new(
            "initdata says {what} for its digest, but a paravisor's tpm takes sha256 only: \
             make the initdata with that algorithm",
        )
        .with(Field::what(found)),
        TakeError::Register(error) => {
            Told::new("initdata cannot be measured into the paravisor's tpm")
                .because(hardware::tpm(error))
        }
        TakeError::Log(error) => Told::new("initdata cannot be measured").because(note(error)),
        TakeError::Files(error) => {
            Told::new("initdata cannot be laid out in the guest").errno(error)
        }
        TakeError::TwoPolicies => {
            Told::new("initdata holds two policies, pod-policy.json and policy.rego")
        }
        TakeError::OtherPolicy => Told::new(
            "in initdata, a pod-policy.json must begin with a brace and a policy.rego must not begin with a brace",
        ),
        TakeError::Policy(_) => {
            Told::new("the policy in initdata cannot be used: it is empty, too large or no text")
        }
    }
}
