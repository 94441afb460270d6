//! The guest itself: its start, its network, its hardware.

use crate::{
    boot::error::BootError,
    network::NetworkError,
    run_error::RunError,
    sandbox::SandboxError,
    told::{
        containers::{namespaces, storage},
        field::{Field, FromHost},
        hardware,
        measured::note,
        text::Told,
    },
};

/// The pod that cannot be set up.
pub(crate) fn sandbox(error: &SandboxError) -> Told {
    match error {
        SandboxError::Exists => Told::new("the sandbox is set up already"),
        SandboxError::New => Told::new("the sandbox is not set up yet"),
        SandboxError::Ended => Told::new("the sandbox is taken down"),
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
        NetworkError::Log(error) => {
            Told::new("the change of the network cannot be measured").because(note(error))
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

/// The guest that cannot start.
pub(crate) fn boot(error: &BootError) -> Told {
    match error {
        BootError::Mount { source, .. } => {
            Told::new("cannot mount a file system of the guest").errno(source)
        }
        BootError::Devices(error) => Told::new("cannot read which devices there are").errno(error),
        BootError::Device { vendor, device } => {
            Told::new("the host attached the device {sent}, which no pod has")
                .with(Field::sent(FromHost(&format!("{vendor:04x}:{device:04x}"))))
        }
        BootError::Switch { name, source } => Told::new("cannot set {what} of the kernel")
            .with(Field::what(name))
            .errno(source),
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
            Told::new("cannot measure into the guest's tpm").because(hardware::tpm(error))
        }
        RunError::Listen { .. } => Told::new("cannot listen for the host's calls"),
    }
}
