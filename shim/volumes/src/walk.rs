//! What is in a volume: directories, regular files, and links that lead down.
//!
//! The walk goes from descriptor to descriptor, so it stays in the volume whatever becomes of
//! names meanwhile. Files are only listed here: they are opened, beneath the volume's own
//! descriptor, when they are sent.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use crate::{
    CopyError, CopyPlan,
    copy::{BYTES_MAX, read_error},
    place::target,
};

/// The most files of one volume.
pub(crate) const ENTRIES_MAX: usize = 4096;
/// The link to the version of a ConfigMap, Secret or token that counts.
pub(crate) const LINK: &str = "..data";
/// The deepest tree.
pub(crate) const DEPTH_MAX: usize = 32;

/// One thing to send.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name beneath the volume; empty for the volume itself.
    pub(crate) name: PathBuf,
    /// Where it goes.
    pub(crate) guest: String,
    pub(crate) content: Content,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Content {
    Directory(Metadata),
    /// It is looked at when it is opened.
    File,
    Link(Metadata, PathBuf),
}

/// Everything to send, parents before children. Of a volume that has versions, only the one
/// that counts.
///
/// # Errors
///
/// [`CopyError`] names what cannot be read, or says that there is too much, or that another
/// version came meanwhile.
pub(crate) fn entries(plan: &CopyPlan) -> Result<Vec<Entry>, CopyError> {
    let path = plan.place.path();
    let root = plan.place.root().map_err(read_error(path))?;
    // A version is complete before the link leads to it.
    let version = plan.place.link(LINK);
    let mut walk = Walk {
        plan,
        version: version.as_deref(),
        entries: Vec::new(),
        seen: 0,
        bytes: 0,
    };
    walk.add(&root, PathBuf::new(), plan.guest.clone(), 0)?;
    let mut entries = walk.entries;
    if plan.place.link(LINK) != version {
        return Err(CopyError::Changed { path: path.into() });
    }
    // Links last, and first among them the one to the version: what they show is complete
    // when they appear.
    entries.sort_by_key(|entry| match entry.content {
        Content::Link(..) if entry.name == Path::new(LINK) => 1,
        Content::Link(..) => 2,
        _ => 0,
    });
    Ok(entries)
}

struct Walk<'a> {
    plan: &'a CopyPlan,
    version: Option<&'a Path>,
    entries: Vec<Entry>,
    seen: usize,
    bytes: u64,
}

impl Walk<'_> {
    fn add(
        &mut self,
        file: &File,
        name: PathBuf,
        guest: String,
        depth: usize,
    ) -> Result<(), CopyError> {
        let path = self.plan.path_of(&name);
        let metadata = file.metadata().map_err(read_error(&path))?;
        let kind = metadata.file_type();
        if kind.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.len());
        }
        self.seen += 1;
        if self.seen > ENTRIES_MAX || self.bytes > BYTES_MAX || depth > DEPTH_MAX {
            return Err(CopyError::TooLarge);
        }
        let content = if kind.is_dir() {
            Content::Directory(metadata)
        } else if kind.is_file() {
            Content::File
        } else if kind.is_symlink() {
            let target = target(file).map_err(read_error(&path))?;
            if !leads_down(&target) {
                tracing::debug!(path = %path.display(), "not copied");
                return Ok(());
            }
            Content::Link(metadata, target)
        } else {
            tracing::debug!(path = %path.display(), "not copied");
            return Ok(());
        };
        self.entries.push(Entry {
            name: name.clone(),
            guest: guest.clone(),
            content,
        });
        if !kind.is_dir() || self.plan.only_directory {
            return Ok(());
        }
        for child in names(file).map_err(read_error(&path))? {
            if depth == 0 && self.is_other_version(&child) {
                continue;
            }
            let path = self.plan.path_of(&name.join(&child));
            let file = self.plan.place.child(file, &child);
            let file = file.map_err(read_error(&path))?;
            let text = child.to_str();
            let text = text.ok_or(CopyError::Name { path })?;
            self.add(&file, name.join(text), format!("{guest}/{text}"), depth + 1)?;
        }
        Ok(())
    }

    /// Whether this is a version of the volume, or the beginning of one, that does not count.
    fn is_other_version(&self, name: &Path) -> bool {
        let hidden = name.as_os_str().as_bytes().starts_with(b"..") && name != Path::new(LINK);
        hidden && self.version.is_some_and(|version| version != name)
    }
}

/// Names in a directory; one more than a volume may have at most.
fn names(directory: &File) -> io::Result<Vec<PathBuf>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listed = Dir::from_fd(openat(directory, ".", flags, Mode::empty())?)?;
    let mut names = Vec::new();
    for entry in listed.iter() {
        let entry = entry?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        names.push(name.to_owned());
        if names.len() > ENTRIES_MAX {
            break;
        }
    }
    Ok(names)
}

/// Whether a link leads down from where it is. The guest refuses others, for they could
/// lead anywhere.
fn leads_down(target: &Path) -> bool {
    let mut parts = target.components();
    target.components().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tests::plan_of;

    fn listed(host: &Path) -> Result<Vec<String>, CopyError> {
        let plan = plan_of(&host.canonicalize().unwrap());
        Ok(entries(&plan)?
            .into_iter()
            .map(|entry| entry.guest)
            .collect())
    }

    #[test]
    fn a_configuration_volume_is_sent_with_its_links_and_one_version() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("..2026_01")).unwrap();
        fs::write(root.join("..2026_01/key"), "value").unwrap();
        // One that is not complete yet, or that nobody needs any more.
        fs::create_dir(root.join("..2026_02")).unwrap();
        std::os::unix::fs::symlink("..2026_02", root.join("..data_tmp")).unwrap();
        std::os::unix::fs::symlink("..2026_01", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", root.join("key")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("away")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let mut found = listed(root).unwrap();
        assert_eq!(found[0], "/g");
        assert_eq!(found[3..], ["/g/..data", "/g/key"]);
        found.sort();
        assert_eq!(
            found,
            [
                "/g",
                "/g/..2026_01",
                "/g/..2026_01/key",
                "/g/..data",
                "/g/key"
            ]
        );
    }

    #[test]
    fn a_volume_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("big")).unwrap();
        file.set_len(BYTES_MAX + 1).unwrap();
        assert!(matches!(listed(folder.path()), Err(CopyError::TooLarge)));
        file.set_len(1).unwrap();
        assert!(listed(folder.path()).is_ok());
        for number in 0..ENTRIES_MAX {
            std::os::unix::fs::symlink("/", folder.path().join(number.to_string())).unwrap();
        }
        assert!(matches!(listed(folder.path()), Err(CopyError::TooLarge)));
    }
}
