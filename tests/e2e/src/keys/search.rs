//! Looks for planted bytes in every file of a bed.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::unistd::{Whence, lseek};
use tests_harness::Node;

/// What the bed has of its own: everything else belongs to the machine.
const PLACES: [&str; 3] = ["/run", "/var/lib", "/dev/shm"];
const PIECE: usize = 1 << 20;

/// Bytes that nobody may see.
pub(super) struct Marker {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Marker {
    pub(super) fn new(what: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { what, bytes }
    }

    /// It as a word of a shell, in two pieces: who has the word has not the marker. None of what
    /// is no plain text.
    pub(super) fn in_pieces(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        let (first, rest) = text.split_at_checked(1)?;
        let is_plain = |one: char| one.is_ascii_alphanumeric() || " +/=-".contains(one);
        text.chars()
            .all(is_plain)
            .then(|| format!("'{first}''{rest}'"))
    }
}

/// Each file of the bed that has a marker, with what it has.
pub(super) fn files_with(node: &Node, markers: &[Marker]) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut found = Vec::new();
    for place in PLACES {
        search(node, Path::new(place), markers, &mut found)?;
    }
    Ok(found)
}

fn search(
    node: &Node,
    inside: &Path,
    markers: &[Marker],
    found: &mut Vec<(PathBuf, &'static str)>,
) -> Result<()> {
    // Files come and go while pods run.
    let Ok(entries) = fs::read_dir(node.path(inside)) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = inside.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            search(node, &path, markers, found)?;
        } else if kind.is_file() {
            let has = markers_in(&entry.path(), markers);
            let has = has.with_context(|| format!("searching {}", path.display()))?;
            found.extend(has.into_iter().map(|what| (path.clone(), what)));
        }
    }
    Ok(())
}

/// The markers in one file, of which holes are not read.
fn markers_in(path: &Path, markers: &[Marker]) -> Result<Vec<&'static str>> {
    let Ok(mut file) = File::open(path) else {
        return Ok(Vec::new());
    };
    let longest = markers.iter().map(|one| one.bytes.len()).max().unwrap_or(0);
    let (mut kept, mut has) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Ok(data) = lseek(file.as_fd(), at, Whence::SeekData) {
        if data > at {
            kept.clear();
        }
        let mut piece = Vec::new();
        file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        at = data + i64::try_from(piece.len())?;
        kept.extend(piece);
        for marker in markers.iter().filter(|one| contains(&kept, &one.bytes)) {
            if !has.contains(&marker.what) {
                has.push(marker.what);
            }
        }
        kept.drain(..kept.len().saturating_sub(longest));
    }
    Ok(has)
}

fn contains(bytes: &[u8], marker: &[u8]) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    #[test]
    fn a_marker_is_found_behind_a_hole_and_across_pieces_and_nothing_else_is() -> Result<()> {
        let markers = [
            Marker::new("this", "PLANTED"),
            Marker::new("that", "ABSENT"),
        ];
        for before in [0, 5, PIECE - 3, PIECE, 3 * PIECE - 1] {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(&vec![b'x'; before])?;
            file.write_all(b"PLANTED")?;
            assert_eq!(markers_in(file.path(), &markers)?, ["this"], "{before}");
        }
        let mut file = tempfile::NamedTempFile::new()?;
        file.seek(SeekFrom::Start(1 << 30))?;
        file.write_all(b"PLANTED")?;
        assert_eq!(markers_in(file.path(), &markers)?, ["this"]);
        Ok(())
    }

    #[test]
    fn a_word_in_pieces_is_the_marker_to_a_shell_alone() -> Result<()> {
        let word = Marker::new("this", "a+b/c=").in_pieces();
        let word = word.context("plain text")?;
        assert!(!word.contains("a+b/c="));
        let mut echo = std::process::Command::new("sh");
        let said = echo.args(["-c", &format!("printf %s {word}")]).output()?;
        assert_eq!(said.stdout, b"a+b/c=");
        assert_eq!(Marker::new("this", [0xff]).in_pieces(), None);
        assert_eq!(Marker::new("this", "a'b").in_pieces(), None);
        Ok(())
    }
}
