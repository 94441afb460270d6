//! Moves what a layer put "into" a symbolic link of a layer below to where the link leads.

use rustix::{
    fs::{AtFlags, Mode, OFlags, RenameFlags, futimens, mkdirat, renameat_with, unlinkat},
    io::Errno,
};

use super::{
    SettleError, Settling,
    attributes::{is_opaque, names, unchanged},
    open_at,
};
use crate::{
    tar::Time,
    tree::{
        TreePath, default_directory, directory_attributes, set_opaque, shown, times, tree_failed,
    },
};

impl Settling<'_> {
    /// Moves an implied directory's content to where the link below it leads.
    pub(super) fn relocate(&mut self, from: &TreePath, to: &TreePath) -> Result<(), SettleError> {
        if to.is_within(from) || from.is_within(to) && !to.is_root() {
            return Err(SettleError::Conflict(shown(from.as_bytes())));
        }
        self.ensure(to)?;
        self.merge(from, to)?;
        // What was noted below the old place holds below the new one.
        let moved = |path: &TreePath| {
            let mut target = to.clone();
            path.components()
                .skip(from.components().count())
                .for_each(|component| target.push(component));
            target
        };
        let implied = self.notes.implied.range(from.below());
        for path in implied.cloned().collect::<Vec<TreePath>>() {
            self.notes.implied.remove(&path);
            self.notes.implied.insert(moved(&path));
        }
        let links = std::mem::take(&mut self.notes.links);
        let settled = |link: TreePath| {
            if link.is_within(from) {
                moved(&link)
            } else {
                link
            }
        };
        let links = links.into_iter();
        self.notes.links = links.map(|(link, to)| (settled(link), to)).collect();
        Ok(())
    }

    /// Makes a directory and its parents in the layer; they are implied then.
    pub(super) fn ensure(&mut self, path: &TreePath) -> Result<(), SettleError> {
        let mut here = TreePath::default();
        for name in path.components() {
            let parent = here.clone();
            here.push(name);
            match open_at(&self.root, &here, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(_) => return Err(SettleError::Conflict(shown(here.as_bytes()))),
            }
            let parent = self.own(&parent)?;
            unchanged(&parent, || mkdirat(&parent, name, Mode::RWXU))
                .map_err(tree_failed("make", here.as_bytes()))?;
            let made = self.own(&here)?;
            directory_attributes(&made, &default_directory(), here.as_bytes())?;
            futimens(&made, &times(Time::default()))
                .map_err(tree_failed("set the times of", here.as_bytes()))?;
            self.notes.implied.insert(here.clone());
        }
        Ok(())
    }

    fn merge(&mut self, from: &TreePath, to: &TreePath) -> Result<(), SettleError> {
        let (source, target) = (self.own(from)?, self.own(to)?);
        if is_opaque(&source) {
            set_opaque(&target, to.as_bytes())?;
        }
        let entries = names(&source).map_err(tree_failed("read", from.as_bytes()))?;
        for name in entries {
            let result = unchanged(&target, || {
                renameat_with(
                    &source,
                    name.as_slice(),
                    &target,
                    name.as_slice(),
                    RenameFlags::NOREPLACE,
                )
            });
            match result {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let (deeper, there) = (from.join(&name), to.join(&name));
                    let both = [&deeper, &there].map(|path| self.own(path).is_ok());
                    if both != [true, true] {
                        return Err(SettleError::Conflict(shown(deeper.as_bytes())));
                    }
                    self.merge(&deeper, &there)?;
                }
                Err(error) => {
                    return Err(tree_failed("move", from.join(&name).as_bytes())(error).into());
                }
            }
        }
        let Some((parent, name)) = from.split_last() else {
            return Ok(());
        };
        let parent = self.own(&parent)?;
        unchanged(&parent, || unlinkat(&parent, name, AtFlags::REMOVEDIR))
            .map_err(tree_failed("remove", from.as_bytes()))?;
        Ok(())
    }
}
