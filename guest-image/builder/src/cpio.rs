//! A cpio archive in the `newc` format that the kernel unpacks as its first root.
//!
//! Written by hand because the result must not depend on anything but names, modes and
//! contents: entries are sorted, inode numbers follow that order, owner is 0:0 and every time
//! is 0. Format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;

/// File type bits of `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// Largest file the format can describe: sizes are eight hexadecimal digits.
const MAX_FILE_BYTES: usize = u32::MAX as usize;

/// Why an entry cannot be part of an archive.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchiveError {
    /// The path has an empty, `.` or `..` component, or begins with `/`.
    #[error("archive path {0:?} is not relative and plain")]
    Path(String),
    /// Two entries have the same path.
    #[error("archive path {0:?} is given twice")]
    Duplicate(String),
    /// The content is larger than the format can say.
    #[error("archive file {0:?} is larger than 4 GiB")]
    TooLarge(String),
}

enum Entry {
    Directory,
    File(Vec<u8>),
    CharacterDevice { major: u32, minor: u32 },
}

/// An archive being collected; [`Archive::into_bytes`] writes it.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, (u32, Entry)>,
}

impl Archive {
    /// Adds a directory and those above it, which get mode 0755 unless added themselves.
    ///
    /// # Errors
    ///
    /// When the path is not relative and plain.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), ArchiveError> {
        self.parents(path)?;
        let entry = (DIRECTORY | mode, Entry::Directory);
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Adds a regular file and the directories above it.
    ///
    /// # Errors
    ///
    /// When the path is not relative and plain or already taken, or the content too large.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) -> Result<(), ArchiveError> {
        if content.len() > MAX_FILE_BYTES {
            return Err(ArchiveError::TooLarge(path.to_owned()));
        }
        self.leaf(path, REGULAR | mode, Entry::File(content))
    }

    /// Adds a character device node and the directories above it.
    ///
    /// # Errors
    ///
    /// When the path is not relative and plain or already taken.
    pub fn device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), ArchiveError> {
        let node = Entry::CharacterDevice { major, minor };
        self.leaf(path, CHARACTER | mode, node)
    }

    /// The archive's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, (mode, entry))) in (1_u32..).zip(self.entries) {
            let links = if matches!(entry, Entry::Directory) {
                2
            } else {
                1
            };
            let (content, device) = match entry {
                Entry::Directory => (Vec::new(), (0, 0)),
                Entry::File(content) => (content, (0, 0)),
                Entry::CharacterDevice { major, minor } => (Vec::new(), (major, minor)),
            };
            write_entry(&mut out, &path, [inode, mode, links], device, &content);
        }
        write_entry(&mut out, "TRAILER!!!", [0, 0, 1], (0, 0), &[]);
        out
    }

    fn leaf(&mut self, path: &str, mode: u32, entry: Entry) -> Result<(), ArchiveError> {
        self.parents(path)?;
        if self.entries.contains_key(path) {
            return Err(ArchiveError::Duplicate(path.to_owned()));
        }
        self.entries.insert(path.to_owned(), (mode, entry));
        Ok(())
    }

    fn parents(&mut self, path: &str) -> Result<(), ArchiveError> {
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        if !path.split('/').all(plain) || path.contains('\0') {
            return Err(ArchiveError::Path(path.to_owned()));
        }
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            self.entries
                .entry(parent.to_owned())
                .or_insert((DIRECTORY | 0o755, Entry::Directory));
        }
        Ok(())
    }
}

fn write_entry(
    out: &mut Vec<u8>,
    path: &str,
    [inode, mode, links]: [u32; 3],
    (major, minor): (u32, u32),
    content: &[u8],
) {
    let bytes = u32::try_from(content.len()).expect("Archive::file limits the size");
    let name_bytes = u32::try_from(path.len() + 1).expect("a path is far below 4 GiB");
    out.extend_from_slice(b"070701");
    // Inode, mode, uid, gid, links, mtime, size, device, node's device, name size, checksum.
    let fields = [
        inode, mode, 0, 0, links, 0, bytes, 0, 0, major, minor, name_bytes, 0,
    ];
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_children_and_inodes_follow_the_order() {
        let mut archive = Archive::default();
        archive.file("b/c/f", 0o644, b"x".to_vec()).unwrap();
        archive.file("a", 0o755, Vec::new()).unwrap();
        let bytes = archive.into_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let positions: Vec<_> = ["a\0", "b\0", "b/c\0", "b/c/f\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).unwrap())
            .collect();
        assert!(positions.is_sorted(), "{positions:?}");
        assert!(text.starts_with("07070100000001000081ed"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn order_of_insertion_does_not_show() {
        let make = |names: &[&str]| {
            let mut archive = Archive::default();
            for name in names {
                archive.file(name, 0o644, name.as_bytes().to_vec()).unwrap();
            }
            archive.into_bytes()
        };
        assert_eq!(make(&["a/b", "a/c", "d"]), make(&["d", "a/c", "a/b"]));
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        let mut archive = Archive::default();
        for path in ["/a", "a//b", "../a", "a/./b", "", "a\0b"] {
            let refused = archive.file(path, 0o644, Vec::new());
            assert_eq!(refused, Err(ArchiveError::Path(path.to_owned())));
        }
    }

    #[test]
    fn a_path_given_twice_is_refused() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, Vec::new()).unwrap();
        let refused = archive.file("a", 0o644, Vec::new());
        assert_eq!(refused, Err(ArchiveError::Duplicate("a".to_owned())));
    }
}
