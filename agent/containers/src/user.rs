//! Who a process runs as, as the image's `/etc/passwd` and `/etc/group` say.
//!
//! The node does not have these files, so a request may leave it to the guest: its user's name is
//! `USER[:[GROUP][:strict]]`, each by name or by number. Without a group it is the one that
//! `/etc/passwd` gives the user, or 0; further groups are those of the request and, unless it
//! says `strict`, those that `/etc/group` gives the user (Kubernetes' `supplementalGroupsPolicy`).
//! What is resolved here is what is measured.

use std::{collections::BTreeSet, io, path::Path};

use oci_spec::runtime::Process as SpecProcess;
use policy_engine::OfImage;
use thiserror::Error;

use crate::inside::Inside;

/// Larger than any user database that a person wrote.
const DATABASE_BYTES_MAX: u64 = 4 << 20;
const STRICT: &str = "strict";
const HOME: &str = "HOME=";

/// Why a user cannot be found.
#[derive(Debug, Error)]
pub enum UserError {
    /// The image has no such user or group.
    #[error("user {0:?} is not in the image's /etc/passwd and /etc/group")]
    Unknown(String),
    /// The image's database cannot be read.
    #[error("the image's {file} cannot be read")]
    Read {
        /// Its name.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Puts the numbers of a user of the image into a process, and the user's home unless the
/// process has one. Returns what the image says of the user.
///
/// # Errors
///
/// When the image does not know a name. A number needs no entry.
pub(crate) fn settle(
    inside: &Inside,
    asked: &str,
    process: &mut SpecProcess,
) -> Result<OfImage, UserError> {
    let database = Database::read(inside);
    if !asked.is_empty() {
        let found = database.find(asked, process)?;
        process.set_user(found);
    }
    let image = database.of(process.user().uid());
    if let (false, Some(home)) = (has_home(process), &image.home) {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.push(format!("{HOME}{home}"));
        process.set_env(Some(environment));
    }
    Ok(image)
}

/// Gives a process what another one was given for the same words, so that what the container
/// wrote since does not count.
pub(crate) fn same(of: &SpecProcess, process: &mut SpecProcess) {
    process.set_user(of.user().clone());
    let mut homes = of
        .env()
        .iter()
        .flatten()
        .filter(|one| one.starts_with(HOME));
    if let (false, Some(home)) = (has_home(process), homes.next()) {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.push(home.clone());
        process.set_env(Some(environment));
    }
}

fn has_home(process: &SpecProcess) -> bool {
    let mut environment = process.env().iter().flatten();
    environment.any(|entry| entry.starts_with(HOME))
}

/// What the request says of a user.
struct Asked<'a> {
    user: &'a str,
    group: Option<&'a str>,
    strict: bool,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(':');
        let user = parts.next().filter(|user| !user.is_empty())?;
        let group = parts.next().filter(|group| !group.is_empty());
        let strict = match parts.next() {
            None => false,
            Some(STRICT) => true,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self {
            user,
            group,
            strict,
        })
    }
}

/// The image's two files; one that cannot be read is empty, until a name is looked for in it.
struct Database {
    passwd: io::Result<String>,
    group: String,
}

/// A line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Database {
    fn read(inside: &Inside) -> Self {
        let text = |file: &str| {
            let read = inside.read(Path::new(file), DATABASE_BYTES_MAX);
            read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Self {
            passwd: text("/etc/passwd"),
            group: text("/etc/group").unwrap_or_default(),
        }
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let lines = self.passwd.as_deref().unwrap_or_default().lines();
        lines.filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let mut fields = fields.skip(1);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let home = fields.nth(1).unwrap_or_default();
            Some(Entry {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    fn find(
        &self,
        text: &str,
        process: &SpecProcess,
    ) -> Result<oci_spec::runtime::User, UserError> {
        let unknown = || UserError::Unknown(text.to_owned());
        let asked = Asked::parse(text).ok_or_else(unknown)?;
        let number = asked.user.parse::<u32>().ok();
        let entry = self.entries().find(|entry| match number {
            Some(uid) => entry.uid == uid,
            None => entry.name == asked.user,
        });
        let uid = number.or(entry.as_ref().map(|entry| entry.uid));
        let uid = uid.ok_or_else(|| match &self.passwd {
            Err(error) => UserError::Read {
                file: "/etc/passwd",
                source: error.kind().into(),
            },
            Ok(_) => unknown(),
        })?;
        let gid = match asked.group {
            Some(group) => self.group_number(group).ok_or_else(unknown)?,
            None => entry.as_ref().map_or(0, |entry| entry.gid),
        };
        let own = entry.filter(|_| !asked.strict);
        let own = own.map(|entry| self.groups_of(entry.name));
        let sent = process.user().additional_gids().clone();
        let mut seen = BTreeSet::new();
        let groups = [gid].into_iter().chain(own.unwrap_or_default());
        let groups = groups.chain(sent.unwrap_or_default());
        let mut user = process.user().clone();
        user.set_uid(uid);
        user.set_gid(gid);
        user.set_additional_gids(Some(groups.filter(|gid| seen.insert(*gid)).collect()));
        Ok(user)
    }

    /// Number and members of each group, by name.
    fn group_lines(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    }

    fn group_number(&self, group: &str) -> Option<u32> {
        let named = || {
            let mut lines = self.group_lines();
            lines.find_map(|(name, gid, _)| (name == group).then_some(gid))
        };
        group.parse().ok().or_else(named)
    }

    /// A group that is called like the user is the user's first one, or none, as containerd
    /// has it.
    fn groups_of(&self, user: &str) -> Vec<u32> {
        let lines = self.group_lines().filter(|(name, ..)| *name != user);
        lines
            .filter(|(_, _, members)| members.split(',').any(|member| member == user))
            .map(|(_, gid, _)| gid)
            .collect()
    }

    fn of(&self, uid: u32) -> OfImage {
        let entry = self.entries().find(|entry| entry.uid == uid);
        let home = entry.as_ref().map_or("", |entry| entry.home);
        let home = if home.is_empty() { "/" } else { home };
        let groups = entry.map(|entry| self.groups_of(entry.name));
        OfImage {
            home: Some(home.to_owned()),
            groups: groups.unwrap_or_default().into_iter().collect(),
        }
    }
}

/// Looks up in files of an image: what is asked, `/etc/passwd` and `/etc/group` follow each other,
/// a zero byte between them.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (asked, passwd, group) = (next(), next(), next());
    let database = Database {
        passwd: Ok(passwd),
        group,
    };
    let found = database.find(&asked, &SpecProcess::default());
    if let Ok(user) = found {
        let groups = user.additional_gids().clone().unwrap_or_default();
        let distinct: BTreeSet<_> = groups.iter().collect();
        assert_eq!(distinct.len(), groups.len());
        assert_eq!(groups.first(), Some(&user.gid()));
        assert!(database.of(user.uid()).home.is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv/app:/bin/sh\nbad:x\nlone:x:7:7\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,app\napp:x:1001:app\nstaff:x:50:app\nbad\n";

    struct Image(tempfile::TempDir);

    impl Image {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let etc = folder.path().join("etc");
            fs::create_dir(&etc).unwrap();
            fs::write(etc.join("passwd"), PASSWD).unwrap();
            fs::write(etc.join("group"), GROUP).unwrap();
            Self(folder)
        }

        fn settle(&self, asked: &str, sent: &[u32]) -> Result<SpecProcess, UserError> {
            let mut process = SpecProcess::default();
            let mut user = oci_spec::runtime::User::default();
            user.set_additional_gids(Some(sent.to_vec()));
            process.set_user(user);
            process.set_env(Some(vec!["A=b".into()]));
            settle(&Inside::open(self.0.path()).unwrap(), asked, &mut process)?;
            Ok(process)
        }
    }

    #[test]
    fn a_user_is_what_the_image_says_by_name_and_by_number() {
        let image = Image::new();
        for (asked, sent, uid, groups, home) in [
            ("app", &[][..], 1000, &[1001, 10, 50][..], "/srv/app"),
            ("1000", &[3456], 1000, &[1001, 10, 50, 3456], "/srv/app"),
            ("1000::strict", &[3456], 1000, &[1001, 3456], "/srv/app"),
            ("app:staff", &[], 1000, &[50, 10], "/srv/app"),
            ("app:0:strict", &[1, 0], 1000, &[0, 1], "/srv/app"),
            ("1000:2345", &[], 1000, &[2345, 10, 50], "/srv/app"),
            ("0", &[], 0, &[0, 10], "/root"),
            ("root", &[], 0, &[0, 10], "/root"),
            ("4242", &[], 4242, &[0], "/"),
            ("lone", &[], 7, &[7], "/"),
        ] {
            let process = image.settle(asked, sent).unwrap();
            let user = process.user();
            assert_eq!(user.uid(), uid, "{asked}");
            assert_eq!(Some(&user.gid()), groups.first(), "{asked}");
            assert_eq!(user.additional_gids().as_deref(), Some(groups), "{asked}");
            let home = format!("HOME={home}");
            assert_eq!(process.env().as_ref().unwrap()[1..], [home], "{asked}");
        }
    }

    #[test]
    fn what_the_image_does_not_know_is_refused_by_name() {
        let image = Image::new();
        for asked in [
            "nobody",
            "bad",
            ":app",
            "app:nogroup",
            "app:staff:loose",
            "app:staff:strict:x",
            "-1",
            "4294967296",
        ] {
            let error = image.settle(asked, &[]).unwrap_err().to_string();
            assert!(error.contains(asked), "{error}");
        }
        fs::remove_dir_all(image.0.path().join("etc")).unwrap();
        assert!(matches!(
            image.settle("app", &[]),
            Err(UserError::Read { .. })
        ));
        assert_eq!(image.settle("5", &[]).unwrap().user().uid(), 5);
    }

    #[test]
    fn a_home_that_the_process_has_stays() {
        let image = Image::new();
        let inside = Inside::open(image.0.path()).unwrap();
        let mut process = SpecProcess::default();
        process.set_env(Some(vec!["HOME=/else".into()]));
        settle(&inside, "app", &mut process).unwrap();
        assert_eq!(
            process.env().as_deref(),
            Some(&["HOME=/else".to_owned()][..])
        );
    }

    #[test]
    fn a_further_process_is_who_the_first_one_is_whatever_was_written_since() {
        let image = Image::new();
        let first = image.settle("app", &[]).unwrap();
        let mut further = SpecProcess::default();
        further.set_env(Some(vec!["B=c".into()]));
        same(&first, &mut further);
        assert_eq!(further.user(), first.user());
        assert_eq!(further.env().as_ref().unwrap()[1], "HOME=/srv/app");
    }
}
