//! The users that the node shows of every image.
//!
//! containerd looks a container's user up in its root file system before the shim hears of the
//! container: a name must be there, and a number without a group gets the group of its line. The
//! node has no image, so it shows every number and every name that an image's configuration
//! says, with groups that say "ask the guest", where the image is:
//!
//! ```text
//! 1000:x:1000:2147483646:::            the group is the one that the image gives the user
//! app:x:2147000000:2147483646:::       the user of this name
//! kata-cc-image:x:2147483646:
//! kata-cc-merge:x:2147483645:0,1,…,app  the groups that the image gives the user are wanted
//! staff:x:2147000001:                  the group of this name
//! ```
//!
//! The shim turns them back into words. Names that were shown once keep their numbers.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;

/// Images' users have 16 bits, in practice.
const HIGHEST_NUMBER: u32 = u16::MAX as u32;
/// containerd takes no number above 2^31 - 1.
const FIRST_NAME: u32 = 2_147_000_000;
const NAMES_MAX: u32 = 100_000;
const IMAGE_GROUP: u32 = 2_147_483_646;
const MERGE_GROUP: u32 = 2_147_483_645;
/// The longest line of `/etc/group`, which some read into a buffer of 64 KiB.
const LINE_BYTES: usize = 32 << 10;
/// The largest configuration of an image that is read.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
const NAME_BYTES_MAX: usize = 64;

/// Whether a name belongs to a user or to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    User,
    Group,
}

/// The files, and what is known of images.
#[derive(Debug)]
pub(crate) struct ImageUsers {
    etc: PathBuf,
    /// containerd's blobs, among them the configurations of images.
    blobs: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<(Kind, String), u32>,
    seen: HashSet<OsString>,
}

/// The part of an image's configuration that names its user.
#[derive(Deserialize)]
struct ImageConfig {
    #[serde(default)]
    config: Execution,
    #[expect(dead_code, reason = "what has none is no image's configuration")]
    rootfs: serde::de::IgnoredAny,
}

#[derive(Default, Deserialize)]
struct Execution {
    #[serde(rename = "User", default)]
    user: String,
}

impl ImageUsers {
    /// Shows users in `directory`, of images whose configurations are in the content store.
    pub(crate) fn new(directory: &Path, content: &Path) -> Self {
        let etc = directory.join("etc");
        let names = ["passwd", "group"].map(|file| fs::read_to_string(etc.join(file)));
        let [passwd, group] = names.map(Result::unwrap_or_default);
        let shown = shown_names(Kind::User, &passwd).chain(shown_names(Kind::Group, &group));
        let known = Known {
            names: shown.collect(),
            seen: HashSet::new(),
        };
        Self {
            etc,
            blobs: content.join("blobs/sha256"),
            known: Mutex::new(known),
        }
    }

    /// Shows what was not there yet: the files, and names of images that came since.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.names.len();
        known.learn(&self.blobs);
        let shown = ["passwd", "group"].map(|file| self.etc.join(file));
        if known.names.len() == before && shown.iter().all(|file| file.exists()) {
            return Ok(());
        }
        fs::create_dir_all(&self.etc)?;
        for (file, text) in shown.iter().zip([known.passwd(), known.group()]) {
            let partial = file.with_extension("partial");
            fs::write(&partial, text)?;
            fs::rename(&partial, file)?;
        }
        Ok(())
    }
}

impl Known {
    /// Reads the configurations of images that were not seen yet.
    fn learn(&mut self, blobs: &Path) {
        let entries = fs::read_dir(blobs).into_iter().flatten().flatten();
        let mut blobs: Vec<PathBuf> = entries
            .filter(|entry| self.seen.insert(entry.file_name()))
            .map(|entry| entry.path())
            .collect();
        blobs.sort();
        for blob in blobs {
            if let Some(user) = user_of(&blob) {
                let (user, group) = user.split_once(':').unwrap_or((&user, ""));
                self.name(Kind::User, user);
                self.name(Kind::Group, group);
            }
        }
    }

    fn name(&mut self, kind: Kind, name: &str) {
        let plain = name.len() <= NAME_BYTES_MAX
            && name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b":,".contains(&b));
        let is_number = name.parse::<i64>().is_ok();
        let next = u32::try_from(self.names.len()).ok();
        if let Some(next) = next.filter(|next| *next < NAMES_MAX)
            && plain
            && !is_number
            && !name.is_empty()
        {
            let number = FIRST_NAME.saturating_add(next);
            self.names.entry((kind, name.to_owned())).or_insert(number);
        }
    }

    fn named(&self, wanted: Kind) -> impl Iterator<Item = (&str, u32)> {
        let all = self.names.iter();
        all.filter(move |((kind, _), _)| *kind == wanted)
            .map(|((_, name), number)| (name.as_str(), *number))
    }

    fn passwd(&self) -> String {
        let mut text = String::new();
        for number in 0..=HIGHEST_NUMBER {
            let _ = writeln!(text, "{number}:x:{number}:{IMAGE_GROUP}:::");
        }
        for (name, number) in self.named(Kind::User) {
            let _ = writeln!(text, "{name}:x:{number}:{IMAGE_GROUP}:::");
        }
        text
    }

    fn group(&self) -> String {
        let mut text = format!("kata-cc-image:x:{IMAGE_GROUP}:\n");
        for (name, number) in self.named(Kind::Group) {
            let _ = writeln!(text, "{name}:x:{number}:");
        }
        let numbers = (0..=HIGHEST_NUMBER).map(|number| number.to_string());
        let names = self.named(Kind::User).map(|(name, _)| name.to_owned());
        let mut line = String::new();
        for member in numbers.chain(names) {
            if line.len() > LINE_BYTES {
                let _ = writeln!(text, "{line}");
                line.clear();
            }
            if line.is_empty() {
                let _ = write!(line, "kata-cc-merge:x:{MERGE_GROUP}:{member}");
            } else {
                let _ = write!(line, ",{member}");
            }
        }
        let _ = writeln!(text, "{line}");
        text
    }
}

/// The names in a file that was shown before, with their numbers.
fn shown_names(kind: Kind, text: &str) -> impl Iterator<Item = ((Kind, String), u32)> {
    text.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        let names = FIRST_NAME..FIRST_NAME.saturating_add(NAMES_MAX);
        names
            .contains(&number)
            .then(|| ((kind, name.to_owned()), number))
    })
}

/// The user of an image's configuration; none if the blob is something else.
fn user_of(blob: &Path) -> Option<String> {
    let file = File::open(blob).ok()?;
    if file.metadata().ok()?.len() > CONFIG_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    let mut file = file.take(CONFIG_BYTES_MAX);
    // Most blobs are compressed layers.
    file.by_ref().take(1).read_to_end(&mut bytes).ok()?;
    if bytes != b"{" {
        return None;
    }
    file.read_to_end(&mut bytes).ok()?;
    let image: ImageConfig = agent_documents::parse_json(&bytes).ok()?;
    Some(image.config.user)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(tempfile::TempDir);

    impl Node {
        fn new() -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(node.0.path().join("content/blobs/sha256")).unwrap();
            node
        }

        fn blob(&self, name: &str, text: &str) {
            let blobs = self.0.path().join("content/blobs/sha256");
            fs::write(blobs.join(name), text).unwrap();
        }

        fn image(&self, name: &str, user: &str) {
            let config = format!(r#"{{"config":{{"User":"{user}"}},"rootfs":{{"diff_ids":[]}}}}"#);
            self.blob(name, &config);
        }

        fn users(&self) -> ImageUsers {
            let (empty, content) = (self.0.path().join("empty"), self.0.path().join("content"));
            ImageUsers::new(&empty, &content)
        }

        fn shown(&self, file: &str) -> String {
            fs::read_to_string(self.0.path().join("empty/etc").join(file)).unwrap()
        }
    }

    #[test]
    fn numbers_and_the_names_of_images_are_shown() {
        let node = Node::new();
        node.image("a", "app:staff");
        node.image("b", "1000:1000");
        node.image("c", "a:b:c");
        node.blob("layer", "\u{1f}\u{8b}compressed");
        node.blob("manifest", r#"{"layers":[]}"#);
        node.users().refresh().unwrap();
        let (passwd, group) = (node.shown("passwd"), node.shown("group"));
        for line in ["0:x:0:2147483646:::", "65535:x:65535:2147483646:::"] {
            assert!(passwd.lines().any(|one| one == line), "{line}");
        }
        assert!(passwd.contains("\napp:x:2147000000:2147483646:::\n"));
        assert!(group.contains("\nstaff:x:2147000001:\n"));
        assert!(!group.contains("b:c"), "a name with a colon is none");
        let merged = group
            .lines()
            .filter(|line| line.starts_with("kata-cc-merge:"));
        let members: Vec<&str> = merged
            .flat_map(|line| line.rsplit(':').next().unwrap().split(','))
            .collect();
        assert!(
            ["0", "1000", "65535", "app"]
                .iter()
                .all(|one| members.contains(one))
        );
        assert!(group.lines().all(|line| line.len() < 64 << 10));
    }

    #[test]
    fn a_name_keeps_its_number_when_others_come_and_over_a_restart() {
        let node = Node::new();
        node.image("a", "zoe");
        node.users().refresh().unwrap();
        node.image("b", "adam");
        let users = node.users();
        users.refresh().unwrap();
        assert!(node.shown("passwd").contains("\nzoe:x:2147000000:"));
        assert!(node.shown("passwd").contains("\nadam:x:2147000001:"));
        fs::remove_dir_all(node.0.path().join("empty")).unwrap();
        users.refresh().unwrap();
        assert!(node.shown("passwd").contains("\nadam:x:2147000001:"));
    }

    #[test]
    fn a_node_without_a_content_store_shows_numbers() {
        let node = Node::new();
        fs::remove_dir_all(node.0.path().join("content")).unwrap();
        node.users().refresh().unwrap();
        assert_eq!(node.shown("passwd").lines().count(), 65_536);
    }
}
