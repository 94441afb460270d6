//! The files of a `/lib/modules/<release>` directory, wherever they were read from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// The list of modules that are part of the kernel.
pub(super) const BUILTIN_LIST: &str = "modules.builtin";

/// Why a module directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file or directory in it cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name is not text.
    #[error("the name {0:?} is not UTF-8")]
    Name(PathBuf),
}

/// Name of a module as the kernel has it: `-` and `_` are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    /// From a name in either spelling.
    pub(super) fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
    }

    /// The name's text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// From a file's path, if the file is a module.
    fn of_file(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next()?;
        let (stem, suffix) = file.split_once(".ko")?;
        matches!(suffix, "" | ".xz" | ".zst" | ".gz").then(|| Self::new(stem))
    }
}

/// The files of a `/lib/modules/<release>` directory.
#[derive(Default)]
pub struct ModuleTree {
    files: BTreeMap<Name, (String, Vec<u8>)>,
    builtin: BTreeSet<Name>,
}

impl ModuleTree {
    /// Reads a directory; names decide, order and times do not.
    ///
    /// # Errors
    ///
    /// When a file in it cannot be read.
    pub fn open(root: &Path) -> Result<Self, TreeError> {
        let mut tree = Self::default();
        let mut pending = vec![root.to_owned()];
        while let Some(directory) = pending.pop() {
            let failed = |source| TreeError::Read {
                path: directory.clone(),
                source,
            };
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                // Links (`build`, `source`) lead out of the directory and hold no modules.
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_file() {
                    tree.open_file(root, &entry.path())?;
                }
            }
        }
        Ok(tree)
    }

    fn open_file(&mut self, root: &Path, path: &Path) -> Result<(), TreeError> {
        let relative = path
            .strip_prefix(root)
            .ok()
            .and_then(Path::to_str)
            .ok_or_else(|| TreeError::Name(path.to_owned()))?;
        if relative == BUILTIN_LIST || Name::of_file(relative).is_some() {
            let content = fs::read(path).map_err(|source| TreeError::Read {
                path: path.to_owned(),
                source,
            })?;
            self.add(relative, content);
        }
        Ok(())
    }

    /// Adds a file by its path below the directory; what is neither a module nor the list of
    /// built-in ones is ignored.
    pub fn add(&mut self, relative: &str, content: Vec<u8>) {
        if relative == BUILTIN_LIST {
            let text = String::from_utf8_lossy(&content);
            self.builtin.extend(text.lines().filter_map(Name::of_file));
        } else if let Some(name) = Name::of_file(relative) {
            self.files.insert(name, (relative.to_owned(), content));
        }
    }

    /// Path and stored content of a module.
    pub(super) fn file(&self, name: &Name) -> Option<&(String, Vec<u8>)> {
        self.files.get(name)
    }

    /// Whether a module is part of the kernel itself.
    pub(super) fn is_builtin(&self, name: &Name) -> bool {
        self.builtin.contains(name)
    }

    /// Whether it knows no module at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.builtin.is_empty()
    }
}
