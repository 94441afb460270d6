//! A pod's directory on the node: what lies in it, and what is mounted there.

use anyhow::{Context, Result, bail};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { size: usize },
    Link { target: String },
}

/// One entry, by its path below the pod's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// One mount below the pod's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// In the mounted file system.
    pub(crate) root: String,
    pub(crate) point: String,
    pub(crate) fs_type: String,
    pub(crate) super_options: String,
}

/// A directory with its parents first, and its mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    pub(crate) mounts: Vec<Mount>,
}

impl Listing {
    /// Parses what `find` and `/proc/self/mountinfo` said, one thing a line.
    ///
    /// # Errors
    /// At a line of another form.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (entries, mounts) = text.split_once("# mounts\n").unwrap_or((text, ""));
        Ok(Self {
            entries: entries.lines().map(entry).collect::<Result<_>>()?,
            mounts: mounts.lines().map(mount).collect::<Result<_>>()?,
        })
    }

    /// The tmpfs that is mounted at `path` of the pod's directory, if one is.
    pub(crate) fn tmpfs(&self, directory: &str, path: &str) -> Option<&Mount> {
        let point = format!("{directory}/{path}");
        let mut all = self.mounts.iter();
        all.find(|mount| mount.fs_type == "tmpfs" && mount.root == "/" && mount.point == point)
    }

    /// The volumes whose files are swapped as one, with the version that they have.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            Kind::Link { target } => Some((entry.path.strip_suffix("/..data")?, target.as_str())),
            _ => None,
        })
    }
}

/// `drwxr-x--- 750 0:0 4096 ./containers ->`
fn entry(line: &str) -> Result<Entry> {
    let mut words = line.split(' ');
    let mut word = || {
        words
            .next()
            .with_context(|| format!("a short line: {line}"))
    };
    let (letters, mode, owner, size, path) = (word()?, word()?, word()?, word()?, word()?);
    let target = words.nth(1).unwrap_or_default().to_owned();
    let (uid, gid) = owner.split_once(':').context("an owner is UID:GID")?;
    let kind = match letters.chars().next() {
        Some('d') => Kind::Directory,
        Some('-') => Kind::File {
            size: size.parse()?,
        },
        Some('l') => Kind::Link { target },
        other => bail!("a file of kind {other:?}: {line}"),
    };
    Ok(Entry {
        path: path.trim_start_matches("./").to_owned(),
        kind,
        mode: u32::from_str_radix(mode, 8)?,
        uid: uid.parse()?,
        gid: gid.parse()?,
    })
}

/// `/ /var/lib/kubelet/pods/… rw,relatime shared:47 - tmpfs tmpfs rw,size=24581256k`
fn mount(line: &str) -> Result<Mount> {
    let short = || format!("a short line: {line}");
    let (place, what) = line.split_once(" - ").with_context(short)?;
    let (mut place, mut what) = (place.split(' '), what.split(' '));
    Ok(Mount {
        root: place.next().with_context(short)?.to_owned(),
        point: place.next().with_context(short)?.to_owned(),
        fs_type: what.next().with_context(short)?.to_owned(),
        super_options: what.nth(1).with_context(short)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "drwxrwsrwx 2777 0:2000 4096 ./volumes/v ->\n\
        -rw-r----- 640 1000:2000 1153 ./volumes/v/..1/token ->\n\
        lrwxrwxrwx 777 0:2000 3 ./volumes/v/..data -> ..1\n\
        # mounts\n\
        / /pods/u/volumes/v rw,relatime shared:47 - tmpfs tmpfs rw,size=262144k,noswap\n";

    #[test]
    fn kinds_modes_owners_and_mounts_are_read() {
        let listing = Listing::parse(TEXT).unwrap();
        assert_eq!(listing.entries[0].kind, Kind::Directory);
        assert_eq!(listing.entries[0].mode, 0o2777);
        assert_eq!(listing.entries[1].kind, Kind::File { size: 1153 });
        assert_eq!(
            (listing.entries[1].uid, listing.entries[1].gid),
            (1000, 2000)
        );
        assert_eq!(
            listing.versions().collect::<Vec<_>>(),
            [("volumes/v", "..1")]
        );
        let tmpfs = listing.tmpfs("/pods/u", "volumes/v").unwrap();
        assert_eq!(tmpfs.super_options, "rw,size=262144k,noswap");
        assert!(listing.tmpfs("/pods/u", "volumes/w").is_none());
    }

    #[test]
    fn a_line_of_another_form_is_refused() {
        for text in ["drwx 750 0:0", "srwx 750 0:0 1 ./a ->", "# mounts\n/ /a"] {
            assert!(Listing::parse(text).is_err(), "{text}");
        }
    }
}
