//! Requests about files of the guest.

use agent_protocol::{id::ContainerId, limits::PATH_BYTES_MAX, path::GuestPath, rpc::agent};
use policy_engine::Asked;

use crate::{
    error::RequestError,
    parse::{Parse, at_most, container_id, rule},
    paths::{SHARED_ROOT, STATE_ROOT},
};

const TYPE_MASK: u32 = 0o170_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;
/// No set-id bits: a file of the host's gives nobody another identity.
const FILE_MODE: u32 = 0o777;
/// In a directory the group bit only says whose group new files get, as `fsGroup` needs it.
const DIRECTORY_MODE: u32 = 0o3777;

/// A file, or a piece of one, that the host puts below the shared root.
#[derive(Debug)]
pub struct CopyFile {
    /// Where, strictly below [`SHARED_ROOT`].
    pub path: GuestPath,
    /// What.
    pub kind: FileKind,
    /// Permissions of parents that are not there yet, if the host says which.
    pub directory_mode: Option<u32>,
    /// Whose it becomes.
    pub owner: FileOwner,
}

/// What a file is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory {
        /// Its permissions.
        mode: u32,
    },
    /// A link to something below its own directory.
    Symlink {
        /// Where it leads: relative, without `..`.
        target: String,
    },
    /// Bytes of a regular file.
    Regular {
        /// Its permissions.
        mode: u32,
        /// Where these bytes go; 0 starts anew.
        offset: u64,
        /// How many bytes the file has in all.
        size: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// FileOwner of a file; `None` leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOwner {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A wish for the message that a container left at its end.
#[derive(Debug)]
pub struct GetDiagnosticData {
    /// The container.
    pub container: ContainerId,
}

/// A wish to know how full a volume is.
#[derive(Debug)]
pub struct GetVolumeStats {
    /// Where it is mounted, strictly below the state root.
    pub path: GuestPath,
}

impl Parse for CopyFile {
    type Message = agent::CopyFileRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let path = GuestPath::parse_below(SHARED_ROOT, &message.path).map_err(|source| {
            RequestError::Path {
                field: "path",
                source,
            }
        })?;
        let kind = match message.file_mode & TYPE_MASK {
            TYPE_DIRECTORY => FileKind::Directory {
                mode: message.file_mode & DIRECTORY_MODE,
            },
            TYPE_SYMLINK => FileKind::Symlink {
                target: link_target(message.data)?,
            },
            TYPE_REGULAR => {
                let mode = message.file_mode & FILE_MODE;
                regular(mode, message.offset, message.file_size, message.data)?
            }
            _ => return Err(RequestError::Invalid("file type")),
        };
        let owner = FileOwner {
            uid: id(message.uid)?,
            gid: id(message.gid)?,
        };
        Ok(Self {
            path,
            kind,
            directory_mode: Some(message.dir_mode & 0o777).filter(|mode| *mode != 0),
            owner,
        })
    }
}

fn regular(mode: u32, offset: i64, size: i64, bytes: Vec<u8>) -> Result<FileKind, RequestError> {
    let offset = u64::try_from(offset).map_err(|_| RequestError::Invalid("offset"))?;
    let size = u64::try_from(size).map_err(|_| RequestError::Invalid("file size"))?;
    let len = u64::try_from(bytes.len()).map_err(|_| RequestError::Invalid("data"))?;
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(FileKind::Regular {
            mode,
            offset,
            size,
            bytes,
        }),
        _ => Err(RequestError::Invalid("offset")),
    }
}

/// Kubernetes' own links (`..data`, `ca.crt` → `..data/ca.crt`) are like this; any
/// other could lead a later mount astray.
fn link_target(bytes: Vec<u8>) -> Result<String, RequestError> {
    at_most("link target", bytes.len(), PATH_BYTES_MAX)?;
    let target = String::from_utf8(bytes).map_err(|_| RequestError::Invalid("link target"))?;
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if target.contains('\0') || !target.split('/').all(plain) {
        return Err(RequestError::Invalid("link target"));
    }
    Ok(target)
}

fn id(value: i32) -> Result<Option<u32>, RequestError> {
    match value {
        -1 => Ok(None),
        _ => u32::try_from(value)
            .map(Some)
            .map_err(|_| RequestError::Invalid("owner")),
    }
}

impl Parse for GetDiagnosticData {
    type Message = agent::GetDiagnosticDataRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        if message.log_type != "termination_log" {
            return Err(RequestError::Invalid("log type"));
        }
        Ok(Self {
            container: container_id(&message.container_id)?,
        })
    }
}

impl Parse for GetVolumeStats {
    type Message = agent::VolumeStatsRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let path =
            GuestPath::parse_below(STATE_ROOT, &message.volume_guest_path).map_err(|source| {
                RequestError::Path {
                    field: "volume path",
                    source,
                }
            })?;
        Ok(Self { path })
    }
}

rule! {
    CopyFile => "CopyFileRequest", |asked| Asked::File { path: asked.path.below(SHARED_ROOT).unwrap_or_default(), is_link: matches!(asked.kind, FileKind::Symlink { .. }) };
    GetDiagnosticData => "GetDiagnosticDataRequest", |asked| Asked::Of(asked.container.as_str());
    GetVolumeStats => "VolumeStatsRequest";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &str, file_mode: u32, data: &[u8]) -> agent::CopyFileRequest {
        agent::CopyFileRequest {
            path: path.into(),
            file_mode,
            file_size: 4,
            uid: -1,
            gid: 5,
            data: data.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_file_lies_below_the_shared_root() {
        let inside = format!("{SHARED_ROOT}/c1-0123456789abcdef-hosts");
        let request = CopyFile::parse(message(&inside, 0o100_644, b"abcd")).unwrap();
        assert_eq!(
            request.owner,
            FileOwner {
                uid: None,
                gid: Some(5)
            }
        );
        for path in [
            "/etc/passwd",
            SHARED_ROOT,
            &format!("{SHARED_ROOT}/../x"),
            "",
        ] {
            assert!(
                CopyFile::parse(message(path, 0o100_644, b"")).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn devices_and_pipes_are_refused() {
        let path = format!("{SHARED_ROOT}/x");
        for mode in [0, 0o020_644, 0o060_644, 0o010_644, 0o140_644] {
            assert!(
                CopyFile::parse(message(&path, mode, b"")).is_err(),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn no_file_gets_a_set_id_bit() {
        let path = format!("{SHARED_ROOT}/x");
        let request = CopyFile::parse(message(&path, 0o106_755, b"abcd")).unwrap();
        assert!(matches!(
            request.kind,
            FileKind::Regular { mode: 0o755, .. }
        ));
        let request = CopyFile::parse(message(&path, 0o046_775, b"")).unwrap();
        assert_eq!(request.kind, FileKind::Directory { mode: 0o2775 });
    }

    #[test]
    fn a_link_leads_down_only() {
        for (target, valid) in [
            ("..data/ca.crt", true),
            ("..2024_01", true),
            ("a/b", true),
            ("../a", false),
            ("a/../b", false),
            ("/etc", false),
            ("", false),
            ("a//b", false),
            ("a\0", false),
        ] {
            assert_eq!(link_target(target.into()).is_ok(), valid, "{target:?}");
        }
    }

    #[test]
    fn a_chunk_lies_within_its_file() {
        assert!(regular(0o644, 0, 4, vec![0; 4]).is_ok());
        assert!(regular(0o644, 2, 4, vec![0; 2]).is_ok());
        for (offset, size) in [(-1, 4), (1, 4), (i64::MAX, i64::MAX), (0, -1), (0, 3)] {
            assert!(
                regular(0o644, offset, size, vec![0; 4]).is_err(),
                "{offset} {size}"
            );
        }
    }
}
