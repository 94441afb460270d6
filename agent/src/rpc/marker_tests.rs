//! Errors that hold what must not leave the guest, on every way that they could take.

use std::{io, path::PathBuf, sync::Arc};

use agent_containers::{
    ExecError, ImagesError, RootError, VolumeError,
    job::{JobError, Refusal},
};
use agent_evidence::tee::{TeeError, tpm::TpmError};
use agent_image::{ConfigError, OwnerConfigError};
use agent_image_registry::{Credentials, CredentialsError, Reference};
use agent_image_unpacking::{AssembleError, StoreError};
use agent_measured::NoteError;
use agent_protocol::{
    id::{ContainerId, ExecId},
    path::GuestPath,
};
use agent_scratch_disk::{DiskError, ScratchError};
use tracing::Level;

use super::*;
use crate::log::testing::{LEVELS, console};

const MARKER: &str = "PLANTED";

fn id() -> ContainerId {
    ContainerId::parse("c1").unwrap()
}

/// As a library would say it.
fn said() -> io::Error {
    io::Error::other(io::Error::other(format!("cannot use X={MARKER}")))
}

fn path() -> PathBuf {
    PathBuf::from(format!("/run/{MARKER}"))
}

fn message(error: &CallError) -> String {
    match to_wire("Test", error) {
        ttrpc::Error::RpcStatus(status) => status.message,
        other => panic!("{other}"),
    }
}

fn credentials(json: &str) -> CredentialsError {
    Credentials::parse(json.as_bytes()).err().unwrap()
}

fn in_a_path() -> Vec<CallError> {
    let store = || StoreError::System {
        step: "open",
        path: path(),
        source: said(),
    };
    let root = |error| CallError::Create(CreateError::Root(error));
    vec![
        root(RootError::Assemble(AssembleError::Store(store()))),
        root(RootError::Assemble(AssembleError::MountPoint {
            path: path(),
            source: said(),
        })),
        root(RootError::Images(ImagesError::Config(ConfigError::Store(
            store(),
        )))),
        root(RootError::Images(ImagesError::Scratch(Arc::new(
            ScratchError::Disk(DiskError::Read {
                path: path(),
                source: said(),
            }),
        )))),
    ]
}

fn in_an_environment() -> Vec<CallError> {
    let refused = || JobError::Refused {
        refusal: Refusal::Other,
        message: format!("cannot set the environment KEY={MARKER}"),
    };
    vec![
        CallError::Create(CreateError::Job {
            action: "create",
            container: id(),
            executable: "sh".to_owned(),
            source: refused(),
        }),
        CallError::Exec(ExecError::Job {
            container: id(),
            executable: "sh".to_owned(),
            source: refused(),
        }),
    ]
}

fn in_a_file() -> Vec<CallError> {
    let owner = |error| {
        let error = RootError::Images(ImagesError::Owner(error));
        CallError::Create(CreateError::Root(error))
    };
    let toml = toml::from_str::<toml::Table>(&format!("key = \"{MARKER}\" more"));
    let spec = serde_json::from_str::<bool>(&format!("\"{MARKER}\"")).unwrap_err();
    vec![
        owner(OwnerConfigError::Toml(Box::new(toml.unwrap_err()))),
        owner(OwnerConfigError::Broker(MARKER.to_owned())),
        owner(OwnerConfigError::Credentials(credentials(&format!(
            "{{\"auths\":\"{MARKER}\"}}"
        )))),
        owner(OwnerConfigError::Absent {
            key: "image_security_policy_uri",
            name: MARKER.to_owned(),
        }),
        RequestError::Spec(spec).into(),
    ]
}

fn in_a_library_s_message() -> Vec<CallError> {
    let listed = "/run/kata-containers/shared/containers/f";
    vec![
        CallError::Volume(said()),
        CallError::Stream(StreamError::Kernel(said())),
        CallError::Network(NetworkError::Connect(said())),
        CallError::Create(CreateError::Prepare {
            what: "the streams",
            container: id(),
            source: said(),
        }),
        CallError::Create(CreateError::Storage(agent_containers::StorageError {
            mount_point: GuestPath::parse(listed).unwrap(),
            source: VolumeError::Kernel(said()),
        })),
        CallError::Create(CreateError::Log(NoteError::Register(
            TpmError::Open(said()),
        ))),
        CallError::Copy(CopyError {
            step: "open",
            path: GuestPath::parse(listed).unwrap(),
            source: said(),
        }),
    ]
}

fn all() -> Vec<CallError> {
    let kinds = [
        in_a_path(),
        in_an_environment(),
        in_a_file(),
        in_a_library_s_message(),
    ];
    kinds.into_iter().flatten().collect()
}

#[cfg(not(feature = "debug-log"))]
#[test]
fn no_marker_leaves_in_an_answer_or_on_the_console_at_any_level() {
    for level in LEVELS {
        for error in all() {
            let mut answer = String::new();
            let console = console(level, || answer = message(&error));
            assert!(!answer.contains(MARKER), "{answer}");
            assert!(!console.contains(MARKER), "{level}: {console}");
            if level >= Level::WARN {
                assert!(console.contains("call failed"), "{level}: {console}");
            }
        }
    }
}

#[test]
fn each_error_does_hold_the_marker() {
    for error in all() {
        let mut whole = format!("{error:?}");
        let mut cause = Some(&error as &dyn StdError);
        while let Some(error) = cause {
            whole.push_str(&error.to_string());
            cause = error.source();
        }
        assert!(whole.contains(MARKER), "{whole}");
    }
}

#[test]
fn the_hardware_s_failure_is_told_without_its_words() {
    let error = TeeError::File {
        step: "open",
        path: path(),
        source: said(),
    };
    let told = told::tee(&error).to_string();
    assert!(
        !told.contains(MARKER) && told.contains("cannot open"),
        "{told}"
    );
}

#[test]
fn what_the_host_itself_sent_is_told() {
    let missing = CallError::Exec(ExecError::Job {
        container: id(),
        executable: "nothing-here".to_owned(),
        source: JobError::Refused {
            refusal: Refusal::NoExecutable,
            message: String::new(),
        },
    });
    let user = agent_containers::UserError::Unknown("nobody-here".to_owned());
    let exists = ExecError::Exists {
        container: id(),
        exec: ExecId::parse("e1").unwrap(),
    };
    let root = RootError::Reference {
        text: "No Image".to_owned(),
        source: Reference::parse("No Image").err().unwrap(),
    };
    for (error, told) in [
        (missing, "executable 'nothing-here' missing in $PATH"),
        (
            CreateError::User(user).into(),
            "user \"nobody-here\" is not in",
        ),
        (exists.into(), "container c1 has a process e1 already"),
        (
            CreateError::Root(root).into(),
            "'No Image' is not an image reference",
        ),
    ] {
        let answer = message(&error);
        assert!(answer.contains(told), "{answer}");
    }
}
