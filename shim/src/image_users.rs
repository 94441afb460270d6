//! Users that only the image knows, in words for the guest.
//!
//! containerd turns users into numbers by the files that kata-cc-snapshotter shows of every image.
//! Some of these numbers mean "ask the image": the lines that they come from say what was asked.
//! The guest gets it as the user's name, `USER[:[GROUP][:strict]]`, and looks into the image.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use shim_oci::User;
use thiserror::Error;

/// The snapshotter's group of a user whose group is the image's.
const IMAGE_GROUP: &str = "kata-cc-image";
/// The snapshotter's group of a user who also gets the groups that the image gives.
const MERGE_GROUP: &str = "kata-cc-merge";
/// What a user by name is until the guest has looked: nobody.
const NOBODY: u32 = 65_534;
/// The first number that the snapshotter gives to a name.
const FIRST_NAME: u32 = 2_147_000_000;

/// Why a container's user is not known.
#[derive(Debug, Error)]
pub(crate) enum UserError {
    /// The snapshotter's files cannot be read.
    #[error("cannot read {path}, which kata-cc-snapshotter shows of every image")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A number that stands for a name, and for none that was shown.
    #[error(
        "user or group {0} stands for a name of an image that this node does not have: use a number below 2147000000"
    )]
    Unknown(u32),
}

/// The words for the users of one container's processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserWords {
    /// Where the snapshotter shows the image's users.
    rootfs: Option<PathBuf>,
    /// Its first process's user in numbers, and in words.
    first: (User, User),
}

impl UserWords {
    /// Puts the user of a container's first process into words.
    ///
    /// # Errors
    ///
    /// [`UserError`].
    pub(crate) fn of(rootfs: Option<&Path>, user: &mut User) -> Result<Self, UserError> {
        let numbers = user.clone();
        let mut words = Self {
            rootfs: rootfs.map(Path::to_owned),
            first: (numbers, User::default()),
        };
        words.look_up(user)?;
        words.first.1 = user.clone();
        Ok(words)
    }

    /// Puts the user of a further process into words: mostly the first one's.
    ///
    /// # Errors
    ///
    /// [`UserError`].
    pub(crate) fn put(&self, user: &mut User) -> Result<(), UserError> {
        let (numbers, words) = &self.first;
        if user == numbers {
            *user = words.clone();
            return Ok(());
        }
        self.look_up(user)
    }

    fn look_up(&self, user: &mut User) -> Result<(), UserError> {
        let Some(rootfs) = &self.rootfs else {
            return Ok(());
        };
        match ImageUsers::read(rootfs)? {
            Some(users) => users.put_into_words(user),
            None => Ok(()),
        }
    }
}

/// What the snapshotter shows, if it is ours.
#[derive(Debug)]
pub(crate) struct ImageUsers {
    passwd: String,
    group: String,
}

impl ImageUsers {
    /// Reads the files in a root file system as the snapshotter delivered it; `None` if it is
    /// another snapshotter's.
    ///
    /// # Errors
    ///
    /// [`UserError::Read`] names the file.
    pub(crate) fn read(rootfs: &Path) -> Result<Option<Self>, UserError> {
        let read = |file: &str| {
            let path = rootfs.join("etc").join(file);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(UserError::Read { path, source }),
            }
        };
        let (Some(passwd), Some(group)) = (read("passwd")?, read("group")?) else {
            return Ok(None);
        };
        let users = Self { passwd, group };
        Ok(users.group(IMAGE_GROUP).is_some().then_some(users))
    }

    fn group(&self, name: &str) -> Option<u32> {
        let found = lines(&self.group).find(|(known, _)| *known == name);
        found.map(|(_, number)| number)
    }

    /// Puts what was asked into words, if it takes the image to answer.
    ///
    /// # Errors
    ///
    /// [`UserError::Unknown`].
    pub(crate) fn put_into_words(&self, user: &mut User) -> Result<(), UserError> {
        let (image, merge) = (self.group(IMAGE_GROUP), self.group(MERGE_GROUP));
        let merges = user.additional_gids.iter().any(|gid| Some(*gid) == merge);
        let own_group = Some(user.gid) == image;
        let is_name = |number: u32| number >= FIRST_NAME;
        let group_name = !own_group && is_name(user.gid);
        if !merges && !own_group && !group_name && !is_name(user.uid) {
            return Ok(());
        }
        let name = |file: &str, number: u32| match is_name(number) {
            true => name_of(file, number).ok_or(UserError::Unknown(number)),
            false => Ok(number.to_string()),
        };
        let group = match own_group {
            true => String::new(),
            false => name(&self.group, user.gid)?,
        };
        let mut words = name(&self.passwd, user.uid)?;
        if !group.is_empty() || !merges {
            words = format!("{words}:{group}");
        }
        if !merges {
            words.push_str(":strict");
        }
        user.username = words;
        user.additional_gids
            .retain(|gid| !is_name(*gid) && *gid != user.gid);
        if is_name(user.uid) {
            user.uid = NOBODY;
        }
        if group_name {
            user.gid = NOBODY;
        } else if own_group {
            user.gid = 0;
        }
        Ok(())
    }
}

/// Names and numbers of a file of users or groups.
fn lines(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

fn name_of(text: &str, number: u32) -> Option<String> {
    let found = lines(text).find(|(_, known)| *known == number);
    found.map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "0:x:0:2147483646:::\n1000:x:1000:2147483646:::\n\
        app:x:2147000000:2147483646:::\n";
    const GROUP: &str = "kata-cc-image:x:2147483646:\nstaff:x:2147000001:\n\
        kata-cc-merge:x:2147483645:0,1000\nkata-cc-merge:x:2147483645:app\n";
    const IMAGE: u32 = 2_147_483_646;
    const MERGE: u32 = 2_147_483_645;

    fn users() -> ImageUsers {
        ImageUsers {
            passwd: PASSWD.into(),
            group: GROUP.into(),
        }
    }

    #[test]
    fn what_containerd_found_becomes_what_was_asked() {
        // (uid, gid, groups) as containerd writes them, and as the guest gets them.
        type Numbers = (u32, u32, &'static [u32]);
        let cases: [(Numbers, &str, Numbers); 10] = [
            (
                (1000, IMAGE, &[IMAGE, MERGE, 4567]),
                "1000",
                (1000, 0, &[4567]),
            ),
            (
                (1000, IMAGE, &[IMAGE, 4567]),
                "1000::strict",
                (1000, 0, &[4567]),
            ),
            ((1000, 2345, &[2345, MERGE]), "1000:2345", (1000, 2345, &[])),
            ((1000, 0, &[0, MERGE]), "1000:0", (1000, 0, &[])),
            ((0, IMAGE, &[IMAGE, MERGE]), "0", (0, 0, &[])),
            (
                (2_147_000_000, IMAGE, &[IMAGE, MERGE]),
                "app",
                (NOBODY, 0, &[]),
            ),
            (
                (2_147_000_000, 2_147_000_001, &[2_147_000_001, MERGE]),
                "app:staff",
                (NOBODY, NOBODY, &[]),
            ),
            (
                (2_147_000_000, IMAGE, &[IMAGE, 3456]),
                "app::strict",
                (NOBODY, 0, &[3456]),
            ),
            ((1000, 2345, &[2345, 4567]), "", (1000, 2345, &[2345, 4567])),
            ((100_000, 0, &[0]), "", (100_000, 0, &[0])),
        ];
        for ((uid, gid, groups), words, expected) in cases {
            let mut user = User {
                uid,
                gid,
                additional_gids: groups.to_vec(),
                username: String::new(),
            };
            users().put_into_words(&mut user).unwrap();
            assert_eq!(user.username, words);
            let found = (user.uid, user.gid, user.additional_gids.as_slice());
            assert_eq!(found, expected, "{words}");
        }
    }

    #[test]
    fn a_number_for_a_name_that_was_never_shown_is_refused() {
        let mut user = User {
            uid: 2_147_000_009,
            ..User::default()
        };
        let error = users().put_into_words(&mut user).unwrap_err().to_string();
        assert!(error.contains("2147000009"), "{error}");
    }

    #[test]
    fn a_further_process_of_the_same_user_gets_the_same_words_without_the_files() {
        let numbers = User {
            uid: 1000,
            gid: IMAGE,
            additional_gids: vec![IMAGE, MERGE],
            ..User::default()
        };
        let mut named = numbers.clone();
        users().put_into_words(&mut named).unwrap();
        let words = UserWords {
            rootfs: Some("/nowhere".into()),
            first: (numbers.clone(), named.clone()),
        };
        let mut further = numbers;
        words.put(&mut further).unwrap();
        assert_eq!(further, named);
        let mut other = User {
            uid: 7,
            ..User::default()
        };
        words.put(&mut other).unwrap();
        assert_eq!((other.uid, other.username.as_str()), (7, ""));
    }

    #[test]
    fn another_snapshotters_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ImageUsers::read(folder.path()).unwrap().is_none());
        let etc = folder.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0::/:\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:\n").unwrap();
        assert!(ImageUsers::read(folder.path()).unwrap().is_none());
        fs::write(etc.join("group"), GROUP).unwrap();
        assert!(ImageUsers::read(folder.path()).unwrap().is_some());
    }
}
