//! What a container does that needs a grant: each use is refused without it, and marked in
//! the log with it.

use std::{fmt, path::PathBuf};

use agent_requests::to_be_granted;
use oci_spec::runtime::Process;
use policy_engine::Grants;

/// Something that a container asks for and that needs a grant.
#[derive(Debug, PartialEq, Eq)]
pub enum Use {
    /// Files of the host over what the image has there.
    HostFiles(PathBuf),
    /// A capability that only some containers have.
    Capability(String),
}

/// What the log says of a container that sees another one's processes, beside its digests, in
/// which it is like one that sees the pod's.
pub(crate) const SEES_PROCESSES: &str = "sees the processes of another container";
/// The mark of a container that may open sockets of that family: it need not ask.
const VSOCK: &str = "may open AF_VSOCK";

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostFiles(path) => write!(f, "host content covers {}", path.display()),
            Self::Capability(name) => write!(f, "has {name}"),
        }
    }
}

/// Marks for what a container uses.
///
/// # Errors
///
/// The first use that is not granted.
pub(crate) fn marks(
    grants: &Grants,
    process: &Process,
    covered: Vec<PathBuf>,
) -> Result<Vec<String>, Use> {
    let files = covered.into_iter().map(Use::HostFiles);
    let capabilities = to_be_granted(process).into_iter().map(Use::Capability);
    let mut marks = Vec::new();
    for one in files.chain(capabilities) {
        if !is_granted(grants, &one) {
            return Err(one);
        }
        marks.push(one.to_string());
    }
    if grants.vsock {
        marks.push(VSOCK.to_owned());
    }
    Ok(marks)
}

fn is_granted(grants: &Grants, one: &Use) -> bool {
    match one {
        Use::HostFiles(_) => grants.host_files_cover,
        Use::Capability(name) => grants.capabilities.contains(name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(capability: &str) -> Process {
        let process = json!({
            "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "capabilities": { "bounding": [capability] },
        });
        serde_json::from_value(process).unwrap()
    }

    #[test]
    fn what_is_not_granted_is_refused_by_name() {
        let none = Grants::none();
        let covered = || vec![PathBuf::from("/etc/app")];
        assert_eq!(
            marks(&none, &process("CAP_KILL"), covered()),
            Err(Use::HostFiles("/etc/app".into()))
        );
        assert_eq!(
            marks(&none, &process("CAP_SYS_TIME"), Vec::new()),
            Err(Use::Capability("CAP_SYS_TIME".to_owned()))
        );
        assert_eq!(
            marks(&none, &process("CAP_KILL"), Vec::new()),
            Ok(Vec::new())
        );
    }

    #[test]
    fn what_is_granted_and_used_is_marked() {
        let grants = Grants {
            host_files_cover: true,
            vsock: true,
            capabilities: ["CAP_SYS_TIME".to_owned()].into(),
            ..Grants::none()
        };
        let covered = vec![PathBuf::from("/etc/app")];
        assert_eq!(
            marks(&grants, &process("CAP_SYS_TIME"), covered).unwrap(),
            [
                "host content covers /etc/app",
                "has CAP_SYS_TIME",
                "may open AF_VSOCK"
            ]
        );
        let unused = Grants {
            vsock: false,
            ..grants
        };
        assert!(
            marks(&unused, &process("CAP_KILL"), Vec::new())
                .unwrap()
                .is_empty()
        );
    }
}
