//! The end of what the host copied for one container: `<container>-<16 hex digits>-<name>`.
//! What it copied for the pod has another name, and stays.

use std::{fs, io, path::Path};

use agent_image_unpacking::remove_directory;
use agent_protocol::id::ContainerId;

/// Digits between a container's id and the name of a file.
const DIGITS: usize = 16;

/// Removes a container's files and directories below a root; tries all of them.
///
/// # Errors
///
/// The first that could not be removed.
pub(crate) fn remove(root: &Path, id: &ContainerId) -> io::Result<()> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut result = Ok(());
    for entry in entries {
        let entry = entry?;
        if !entry
            .file_name()
            .to_str()
            .is_some_and(|name| is_of(id, name))
        {
            continue;
        }
        let removed = match entry.file_type()?.is_dir() {
            true => remove_directory(&entry.path()),
            false => fs::remove_file(entry.path()),
        };
        result = result.and(removed);
    }
    result
}

/// Whether a file or directory of this name was copied for a container.
pub(crate) fn is_of(id: &ContainerId, name: &str) -> bool {
    let rest = name.strip_prefix(id.as_str());
    let digits = rest.and_then(|rest| rest.strip_prefix('-')?.split_once('-'));
    digits.is_some_and(|(digits, _)| {
        digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_for_a_container_goes_with_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let own = ["c1-0123456789abcdef-hosts", "c1-0123456789abcdee-config"];
        let others = [
            "c2-0123456789abcdef-hosts",
            "c11-0123456789abcdef-hosts",
            "c1-hosts",
            "sandbox-0123456789abcdef-data",
        ];
        for name in own.iter().chain(&others) {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("key"), "x").unwrap();
        }
        fs::remove_dir_all(path(own[0])).unwrap();
        fs::write(path(own[0]), "x").unwrap();
        let id = ContainerId::parse("c1").unwrap();
        remove(root.path(), &id).unwrap();
        for name in own {
            assert!(!path(name).exists(), "{name}");
        }
        for name in others {
            assert!(path(name).exists(), "{name}");
        }
        remove(&path("nowhere"), &id).unwrap();
    }
}
