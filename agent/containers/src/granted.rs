//! What a container does that needs a grant: each use is refused without it, and marked in
//! the log with it.

use std::{fmt, path::PathBuf};

use agent_requests::to_be_granted;
use oci_spec::runtime::Process;
use policy_engine::Grants;
use thiserror::Error;

/// Something that needs a grant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Use {
    /// Files of the host over what the image has there.
    HostFiles(PathBuf),
    /// A capability that only some containers have.
    Capability(String),
    /// Sockets of `AF_VSOCK`.
    Vsock,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostFiles(path) => write!(f, "host content covers {}", path.display()),
            Self::Capability(name) => write!(f, "has {name}"),
            Self::Vsock => f.write_str("may open AF_VSOCK"),
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
    let mut uses: Vec<_> = covered.into_iter().map(Use::HostFiles).collect();
    uses.extend(to_be_granted(process).into_iter().map(Use::Capability));
    if grants.vsock {
        uses.push(Use::Vsock);
    }
    match uses.iter().find(|one| !is_granted(grants, one)) {
        Some(refused) => Err(refused.clone()),
        None => Ok(uses.iter().map(Use::to_string).collect()),
    }
}

fn is_granted(grants: &Grants, one: &Use) -> bool {
    match one {
        Use::HostFiles(_) => grants.host_files_cover,
        Use::Capability(name) => grants.capabilities.contains(name),
        Use::Vsock => grants.vsock,
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
