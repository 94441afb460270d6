//! Hides what a layer removes from the layers below it.

use rustix::fs::{AtFlags, FileType, OFlags, unlinkat};

use super::{
    SettleError, Settling,
    attributes::{names, unchanged},
    is_absent, open_at,
};
use crate::tree::{TreePath, make_whiteout, set_opaque, tree_failed};

impl Settling<'_> {
    /// A directory that the layer removes and brings again has nothing of the one below,
    /// neither content nor attributes.
    pub(super) fn renew_removed_directories(&mut self) -> Result<(), SettleError> {
        let whiteouts = std::mem::take(&mut self.notes.whiteouts);
        for path in whiteouts {
            self.deadline.check()?;
            match open_at(&self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(own) => {
                    set_opaque(&own, path.as_bytes())?;
                    self.notes.implied.remove(&path);
                }
                Err(error) if is_absent(error) => {
                    self.notes.whiteouts.insert(path);
                }
                Err(error) => return Err(tree_failed("open", path.as_bytes())(error).into()),
            }
        }
        Ok(())
    }

    /// Hides what there is to hide; parents first, so that what a removed directory holds
    /// needs nothing more.
    pub(super) fn hide(&mut self) -> Result<(), SettleError> {
        let mut made = Vec::new();
        for path in std::mem::take(&mut self.notes.whiteouts) {
            self.deadline.check()?;
            let (parent, name) = path.split_last().unwrap_or_default();
            if let Some(parent) = self.directory_at(&parent)? {
                made.extend(self.hide_name(&parent, name)?);
            }
        }
        for path in std::mem::take(&mut self.notes.opaque) {
            self.deadline.check()?;
            if let Some(directory) = self.directory_at(&path)? {
                made.extend(self.hide_content(&directory)?);
            }
        }
        made.iter().try_for_each(|path| self.remove_needless(path))
    }

    /// overlayfs shows a whiteout in a directory that has nothing below it.
    fn remove_needless(&self, path: &TreePath) -> Result<(), SettleError> {
        if !self.is_hidden(path)? {
            return Ok(());
        }
        let parent = self.parent_of(path)?;
        unchanged(&parent, || unlinkat(&parent, path.name(), AtFlags::empty()))
            .map_err(tree_failed("remove whiteout", path.as_bytes()))?;
        Ok(())
    }

    /// Gives the whiteouts that were made.
    fn hide_content(&mut self, directory: &TreePath) -> Result<Vec<TreePath>, SettleError> {
        if !directory.is_root() {
            self.ensure(directory)?;
            set_opaque(&self.own(directory)?, directory.as_bytes())?;
            return Ok(Vec::new());
        }
        // A root cannot be opaque: overlayfs takes the mark of directories below it only.
        let below = self.view.as_ref().map(names).transpose();
        let below = below.map_err(tree_failed("read below", b"."))?;
        let mut made = Vec::new();
        for name in below.unwrap_or_default() {
            made.extend(self.hide_name(directory, &name)?);
        }
        Ok(made)
    }

    /// Gives the whiteout, if one had to be made.
    fn hide_name(
        &mut self,
        parent: &TreePath,
        name: &[u8],
    ) -> Result<Option<TreePath>, SettleError> {
        let path = parent.join(name);
        if self.look(&path)?.is_none() || self.notes.links.contains_key(&path) {
            return Ok(None);
        }
        match self.own_entry(&path)? {
            Some((_, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                set_opaque(&self.own(&path)?, path.as_bytes())?;
                Ok(None)
            }
            // A file of the layer, or a whiteout made already, hides the one below by itself.
            Some(_) => Ok(None),
            None => {
                self.ensure(parent)?;
                let parent = self.own(parent)?;
                unchanged(&parent, || make_whiteout(&parent, name))
                    .map_err(tree_failed("make whiteout", path.as_bytes()))?;
                Ok(Some(path))
            }
        }
    }
}
