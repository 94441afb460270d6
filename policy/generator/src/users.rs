//! Users and groups of an image, from its `/etc/passwd` and `/etc/group`.

use std::collections::BTreeSet;

use policy_engine::OfImage;

/// The two files, as far as the image has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

/// What `/etc/passwd` says of a user.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Users {
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let mut fields = fields.skip(1);
            let uid = fields.next()?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default();
            Some(Entry {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    /// What the guest will find for a user: as it looks in the same files.
    pub(crate) fn of(&self, uid: u32) -> OfImage {
        let entry = self.entries().find(|entry| entry.uid == uid);
        let home = entry.as_ref().map_or("", |entry| entry.home);
        let home = if home.is_empty() { "/" } else { home };
        let groups = entry.map(|entry| self.groups_with(entry.name));
        OfImage {
            home: Some(home.to_owned()),
            groups: groups.unwrap_or_default(),
        }
    }

    /// The groups that have a user as a member; one that is called like the user does not count.
    fn groups_with(&self, user: &str) -> BTreeSet<u32> {
        let lines = self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name != user)?;
            let gid = fields.nth(1)?.parse().ok()?;
            let mut members = fields.next().unwrap_or_default().split(',');
            (!name.is_empty() && members.any(|member| member == user)).then_some(gid)
        });
        lines.collect()
    }

    /// Number and group of a user by name.
    pub(crate) fn named(&self, name: &str) -> Option<(u32, u32)> {
        let found = self.entries().find(|entry| entry.name == name);
        found.map(|entry| (entry.uid, entry.gid))
    }

    /// The group of a user by number; 0 if nobody has the number, as in the guest.
    pub(crate) fn group_of(&self, uid: u32) -> u32 {
        let found = self.entries().find(|entry| entry.uid == uid);
        found.map_or(0, |entry| entry.gid)
    }

    /// The number of a group by name.
    pub(crate) fn group_named(&self, name: &str) -> Option<u32> {
        self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let known = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            (known == name).then_some(gid)
        })
    }
}

/// An image's `USER`: each part by name or number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageUser<'a> {
    pub(crate) user: &'a str,
    pub(crate) group: Option<&'a str>,
}

impl<'a> ImageUser<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        Self { user, group }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let users = Users {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:/bin/sh\nbad\n".into(),
            group: "staff:x:50:web\nbad\n".into(),
        };
        assert_eq!(users.named("web"), Some((101, 102)));
        assert_eq!(users.named("bad"), None);
        assert_eq!((users.group_of(101), users.group_of(7)), (102, 0));
        assert_eq!(users.group_named("staff"), Some(50));
        let of_image = users.of(101);
        assert_eq!(of_image.home.as_deref(), Some("/"));
        assert_eq!(of_image.groups, [50].into());
        assert_eq!(users.of(0).home.as_deref(), Some("/root"));
        assert_eq!(ImageUser::parse("a:b").group, Some("b"));
        assert_eq!(ImageUser::parse("a:"), ImageUser::parse("a"));
    }
}
