//! The way along a path whose links are followed as `chroot` would: never above the root,
//! and never for ever.

use super::path::TreePath;

/// As in Linux.
const LINKS_MAX: u32 = 40;

/// Links that lead on without an end.
#[derive(Debug)]
pub(crate) struct TooManyLinks;

/// A path on its way from the root. Whoever walks says of each step what is there.
pub(crate) struct Walk {
    here: TreePath,
    /// Components still to go, the next one last.
    ahead: Vec<Vec<u8>>,
    links: u32,
}

impl Walk {
    pub(crate) fn along(path: &TreePath) -> Self {
        Self {
            here: TreePath::default(),
            ahead: path.components().rev().map(<[u8]>::to_vec).collect(),
            links: 0,
        }
    }

    /// The next name on the way; `None` at its end.
    pub(crate) fn step(&mut self) -> Option<TreePath> {
        loop {
            let name = self.ahead.pop()?;
            if name != b".." {
                return Some(self.here.join(&name));
            }
            self.here.pop();
        }
    }

    /// Goes to the name that [`Self::step`] gave.
    pub(crate) fn enter(&mut self, next: TreePath) {
        self.here = next;
    }

    /// Goes where the link points that stands at the name that [`Self::step`] gave.
    pub(crate) fn follow(&mut self, target: &[u8]) -> Result<(), TooManyLinks> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(TooManyLinks);
        }
        if target.starts_with(b"/") {
            self.here = TreePath::default();
        }
        let parts = target.split(|byte| *byte == b'/').rev();
        let parts = parts.filter(|part| !matches!(*part, b"" | b"."));
        self.ahead.extend(parts.map(<[u8]>::to_vec));
        Ok(())
    }

    /// Where it has come to.
    pub(crate) fn here(&self) -> &TreePath {
        &self.here
    }

    pub(crate) fn end(self) -> TreePath {
        self.here
    }
}
