//! The guest itself: its start, its network, its hardware.

use agent_evidence::{
    snp::OwnReportError,
    tee::{TeeError, tpm::TpmError},
};

use super::{Field, FromHost, Told, namespaces, note, storage};
use crate::{boot::BootError, network::NetworkError, run_error::RunError, sandbox::SandboxError};

/// The pod that cannot be set up.
pub(crate) fn sandbox(error: &SandboxError) -> Told {
    match error {
        SandboxError::Exists => Told::new("the sandbox is set up already"),
        SandboxError::File { path, source } => Told::new("cannot make {place}")
            .with(Field::place(path))
            .errno(source),
        SandboxError::Namespaces(error) => {
            Told::new("cannot make the pod's namespaces").because(namespaces(error))
        }
        SandboxError::Storage(error) => storage(error),
    }
}

/// The network that cannot be set up or read.
pub(crate) fn network(error: &NetworkError) -> Told {
    match error {
        NetworkError::Connect(error) => {
            Told::new("cannot talk to the kernel about the network").errno(error)
        }
        NetworkError::NoCard(address) => {
            Told::new("no network card with address {interface} appeared in the guest")
                .with(Field::interface(FromHost(address)))
        }
        NetworkError::NoInterface(name) => Told::new("the guest has no interface '{interface}'")
            .with(Field::interface(FromHost(name))),
        NetworkError::Kernel {
            step,
            object,
            source,
        } => {
            let told = Told::new("cannot {step} of {interface}")
                .with(Field::step(step))
                .with(Field::interface(FromHost(object)));
            match &**source {
                rtnetlink::Error::NetlinkError(message) => {
                    told.errno(&std::io::Error::from_raw_os_error(-message.raw_code()))
                }
                _ => told,
            }
        }
    }
}

/// Hardware that gives no report.
pub(crate) fn tee(error: &TeeError) -> Told {
    match error {
        TeeError::File { step, source, .. } => {
            Told::new("cannot {step} the kernel's interface to the secure processor")
                .with(Field::step(step))
                .errno(source)
        }
        TeeError::Provider(_) => Told::new("the report provider is unknown"),
        TeeError::Raced => Told::new("the report entry was changed while it was read"),
        TeeError::Refused { firmware, .. } => {
            Told::new("the secure processor refused: firmware error {code}")
                .with(Field::code(*firmware))
        }
        TeeError::Busy(_) => Told::new("the host stayed busy"),
        TeeError::Answer => Told::new("the secure processor's answer is malformed"),
        TeeError::Silent(time) => {
            Told::new("the secure processor did not answer within {seconds} seconds")
                .with(Field::seconds(time.as_secs()))
        }
        TeeError::OtherLog => Told::new("the tpm has another measurement log than was given"),
        TeeError::Tpm(error) => Told::new("the paravisor's tpm cannot be used").because(tpm(error)),
    }
}

/// A TPM that fails.
pub(super) fn tpm(error: &TpmError) -> Told {
    match error {
        TpmError::Device { step, source, .. } => Told::new("cannot {step} the tpm")
            .with(Field::step(step))
            .errno(source),
        TpmError::Open(error) => Told::new("cannot open the tpm").errno(error),
        TpmError::Refused { code, .. } => {
            Told::new("the tpm refused a command with code {code}").with(Field::code(*code))
        }
        TpmError::Malformed { .. } => Told::new("the tpm's response is malformed"),
        TpmError::NoBank(_) => Told::new("the tpm lacks a bank of pcrs"),
        TpmError::Nonce(_) => Told::new("the nonce is longer than a tpm's quote takes"),
        TpmError::IndexSize { .. } => Told::new("an nv index of the tpm has another size"),
        TpmError::Pcrs => Told::new("the tpm's pcrs are not those that its quote signed"),
    }
}

/// The guest's own report.
pub(super) fn own_report(error: &OwnReportError) -> Told {
    match error {
        OwnReportError::Kind(_) => {
            Told::new("the guest's own report is of a tee that this build cannot read")
        }
        OwnReportError::Random => Told::new("no random bytes for the guest's own report"),
        OwnReportError::Obtain(error) => {
            Told::new("the guest's own report cannot be had").because(tee(error))
        }
        OwnReportError::Length(_) => Told::new("the guest's own report cannot be read"),
        OwnReportError::Stale => {
            Told::new("the guest's own report does not carry the bytes that were asked for")
        }
    }
}

/// The guest that cannot start.
pub(crate) fn boot(error: &BootError) -> Told {
    match error {
        BootError::Mount { source, .. } => {
            Told::new("cannot mount a file system of the guest").errno(source)
        }
        BootError::File { source, .. } => {
            Told::new("cannot make a file of the new root").errno(source)
        }
        BootError::Enter(error) => Told::new("cannot enter the new root").errno(error),
        BootError::Run(error) => Told::new("cannot run the agent from the new root").errno(error),
    }
}

/// The agent that cannot go on.
pub(crate) fn run(error: &RunError) -> Told {
    match error {
        RunError::Config(error) => {
            Told::new("the kernel command line's {what} is not valid").with(Field::what(error.key))
        }
        RunError::System { step, source } => Told::new("cannot {step}")
            .with(Field::step(step))
            .errno(source),
        RunError::Network(error) => network(error),
        RunError::Measure(error) => Told::new("cannot measure the boot").because(note(error)),
        RunError::Tpm(error) => {
            Told::new("cannot measure into the guest's tpm").because(tpm(error))
        }
        RunError::Listen { .. } => Told::new("cannot listen for the host's calls"),
    }
}
