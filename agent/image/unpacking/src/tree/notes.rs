//! What a layer that was built apart still needs from the layers below it.

use std::collections::{BTreeMap, BTreeSet};

use super::path::TreePath;

/// What a layer leaves to be settled against the layers below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Directories made only because something in them was named, parents first.
    pub(crate) implied: BTreeSet<TreePath>,
    /// Names hidden from the layers below.
    pub(crate) whiteouts: BTreeSet<TreePath>,
    /// Hard links to files of the layers below: the link's path, then the target's.
    pub(crate) links: BTreeMap<TreePath, TreePath>,
    /// The layer states its root's attributes.
    pub(crate) root_stated: bool,
    /// The layer hides everything below it.
    pub(crate) root_opaque: bool,
}

impl Notes {
    /// Whether the directory is right whatever lies below it.
    #[must_use]
    pub fn are_settled(&self) -> bool {
        self.implied.is_empty() && self.whiteouts.is_empty() && self.links.is_empty()
    }

    /// Forgets what was noted about a path and everything below it.
    pub(super) fn forget(&mut self, path: &TreePath) {
        for set in [&mut self.implied, &mut self.whiteouts] {
            // Names below a directory sort between `path/` and `path0`.
            let below = path.below();
            let gone: Vec<TreePath> = set.range(below).cloned().chain([path.clone()]).collect();
            for path in &gone {
                set.remove(path);
            }
        }
        self.links.retain(|link, _| !link.is_within(path));
    }
}
