//! Names below a layer's root, free of `.`, `..`, doubled slashes and NUL.

/// A path below the root, `/` between its components; the root itself is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TreePath(Vec<u8>);

impl TreePath {
    /// Normalises a name from an archive; `None` if it has a `..`.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let mut path = Self(Vec::with_capacity(name.len()));
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return None,
                component => path.push(component),
            }
        }
        Some(path)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty())
    }

    /// The path without its last component, and that component; `None` for the root.
    pub(crate) fn split_last(&self) -> Option<(Self, &[u8])> {
        let name = self.components().next_back()?;
        let parent = self.0.len().saturating_sub(name.len() + 1);
        Some((Self(self.0[..parent].to_vec()), name))
    }

    /// The last component; empty for the root.
    pub(crate) fn name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// Appends one component.
    pub(crate) fn push(&mut self, component: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(component);
    }

    /// Goes to the parent; the root stays the root, as `..` does in a `chroot`.
    pub(crate) fn pop(&mut self) {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.0.truncate(end);
    }

    pub(crate) fn join(&self, component: &[u8]) -> Self {
        let mut path = self.clone();
        path.push(component);
        path
    }

    /// The range in which everything below this path sorts.
    pub(crate) fn below(&self) -> std::ops::Range<Self> {
        let mut from = self.clone();
        from.0.push(b'/');
        let mut to = self.clone();
        to.0.push(b'/' + 1);
        from..to
    }

    /// Whether this is `ancestor` or lies below it.
    pub(crate) fn is_within(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(ancestor.0.as_slice()) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest.first() == Some(&b'/'),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> TreePath {
        TreePath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_normalised_and_never_leave_the_root() {
        for (name, normal) in [
            ("", ""),
            (".", ""),
            ("/", ""),
            ("./a//b/./c/", "a/b/c"),
            ("/etc/..x", "etc/..x"),
        ] {
            assert_eq!(path(name).as_bytes(), normal.as_bytes());
        }
        for name in ["..", "a/../b", "/..", "a/.."] {
            assert_eq!(TreePath::parse(name.as_bytes()), None);
        }
    }

    #[test]
    fn a_path_is_within_its_ancestors_and_not_within_names_that_begin_alike() {
        assert!(
            path("a/b").is_within(&path("a"))
                && path("a").is_within(&path("a"))
                && path("a").is_within(&path(""))
        );
        assert!(!path("ab").is_within(&path("a")) && !path("a").is_within(&path("a/b")));
    }

    #[test]
    fn push_pop_and_split_agree() {
        let mut walked = path("a");
        walked.push(b"b");
        assert_eq!(walked.split_last(), Some((path("a"), &b"b"[..])));
        walked.pop();
        walked.pop();
        walked.pop();
        assert!(walked.is_root() && walked.split_last().is_none());
    }
}
