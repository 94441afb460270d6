//! Files: what lies in the volumes, with modes, owners and content, and whether they can be
//! written.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use nix::sys::stat::{major, minor};

use crate::{Facts, said};

/// Files of one volume that are told one by one.
const LIMIT: usize = 48;
/// Bytes of a file that are told as they are.
const SHORT: usize = 80;

pub(crate) fn volumes(points: &[String], facts: &mut Facts) {
    for point in points {
        let mut left = LIMIT;
        walk(Path::new(point), &mut left, facts);
        facts.insert(format!("write.{point}"), write(Path::new(point)));
    }
}

fn walk(path: &Path, left: &mut usize, facts: &mut Facts) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    facts.insert(format!("file.{}", path.display()), describe(path));
    let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    if !is_directory {
        return;
    }
    let mut entries: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        walk(&entry.path(), left, facts);
    }
}

/// `file 0644 0:2000 text`
fn describe(path: &Path) -> String {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) => return said(error),
    };
    let kind = found.file_type();
    let (kind, content) = if kind.is_dir() {
        ("directory", String::new())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map(|target| target.display().to_string());
        ("link", target.unwrap_or_else(said))
    } else if kind.is_file() {
        ("file", content(path))
    } else if kind.is_char_device() || kind.is_block_device() {
        let number = found.rdev();
        ("device", format!("{}:{}", major(number), minor(number)))
    } else if kind.is_socket() {
        ("socket", String::new())
    } else {
        ("other", String::new())
    };
    let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
    let text = format!("{kind} {mode:04o} {uid}:{gid} {content}");
    text.trim_end().to_owned()
}

fn content(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) if bytes.len() <= SHORT => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(bytes) => {
            // FNV-1a: enough to tell that two are equal.
            let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("{} bytes {hash:016x}", bytes.len())
        }
        Err(error) => said(error),
    }
}

/// Can something be made in a directory, or a file be opened to write?
fn write(path: &Path) -> String {
    let made = path.join(".probe");
    let done = if path.is_dir() {
        fs::write(&made, "x").and_then(|()| fs::remove_file(&made))
    } else if path.is_file() {
        fs::File::options().append(true).open(path).map(drop)
    } else {
        return "not tried".to_owned();
    };
    done.map_or_else(said, |()| "yes".to_owned())
}

pub(crate) fn devices(facts: &mut Facts) {
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let path = entry.path();
        // What is mounted there is told as a volume.
        if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            facts.insert(format!("device.{}", path.display()), describe(&path));
        }
    }
}
