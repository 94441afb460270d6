//! Files that are read whole and written at once.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

/// The file's text; `None` if there is no file.
///
/// # Errors
/// When it is there and cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `text` in the file's place, with owner and permissions of `like`, if it is there:
/// whoever reads the file finds the old text or the new. containerd's configuration may hold
/// a registry's password, so what comes of it is no more readable than it.
///
/// # Errors
/// When the file beside it cannot be written or moved.
pub(crate) fn replace(path: &Path, text: &str, like: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = beside(path, ".new");
    remove(&aside)?;
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(like) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(old.permissions())?;
    } else {
        file.set_permissions(PermissionsExt::from_mode(0o644))?;
    }
    file.sync_all()?;
    fs::rename(&aside, path)
}

/// The files that a line of `imports`, whose last part may have asterisks, names.
pub(crate) fn named_by(import: &Path) -> Vec<PathBuf> {
    let entries = import.parent().and_then(|folder| fs::read_dir(folder).ok());
    let Some((entries, pattern)) = entries.zip(import.file_name()) else {
        return Vec::new();
    };
    let pattern = pattern.to_string_lossy();
    let named = |name: OsString| matches(&pattern, &name.to_string_lossy());
    let entries = entries.flatten();
    entries
        .filter(|entry| named(entry.file_name()))
        .map(|entry| entry.path())
        .collect()
}

/// A pattern in which each `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(start) else {
        return false;
    };
    let mut tails = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    tails.any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)))
}

/// Removes the file, if there is one.
///
/// # Errors
/// When it is there and cannot be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The path with `suffix` behind its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*.toml", "kata.toml", true),
            ("k*a*.toml", "kata.toml", true),
            ("kata.toml", "kata.toml", true),
            ("*", "kata.toml", true),
            ("*.yaml", "kata.toml", false),
            ("a*", "kata.toml", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern}");
        }
    }
}
