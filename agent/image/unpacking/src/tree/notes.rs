//! What a layer that was built apart still needs from the layers below it.

use std::collections::{BTreeMap, BTreeSet};

use super::path::TreePath;

/// What a layer leaves to be settled against the layers below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Directories made only because something in them was named, parents first.
    pub(crate) implied: BTreeSet<TreePath>,
    /// Names hidden from the layers below. Nothing is made of them before it is known
    /// that there is something to hide.
    pub(crate) whiteouts: BTreeSet<TreePath>,
    /// Directories that the layer did not make and whose content below it hides.
    pub(crate) opaque: BTreeSet<TreePath>,
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
        self.implied.is_empty()
            && self.whiteouts.is_empty()
            && self.opaque.is_empty()
            && self.links.is_empty()
    }

    /// Forgets what was made at a path and below it; what the layer hides there stays hidden.
    pub(super) fn forget(&mut self, path: &TreePath) {
        // Names below a directory sort between `path/` and `path0`.
        let below = self.implied.range(path.below()).cloned();
        let gone: Vec<TreePath> = below.chain([path.clone()]).collect();
        for path in &gone {
            self.implied.remove(path);
        }
        self.links.retain(|link, _| !link.is_within(path));
    }
}
