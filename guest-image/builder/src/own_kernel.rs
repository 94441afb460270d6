//! The guest's own kernel: built from Debian's source with our configuration and our patch,
//! once for each combination of what decides its bytes.
//!
//! A kernel lies in the cache in a directory named by the digest of its inputs, with its
//! configuration and what it was built from. What lies there was built by whoever owns the
//! cache; who trusts nobody builds again and compares.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

pub use compile::CompileError;
use compile::{PATCH, STAMPS, Tree};
pub use description::BuiltFrom;
use features::{FEATURES, Options};
pub use features::{FeaturesError, UnmetError};
use guest_image_measurement::Sha256Digest;

mod compile;
mod description;
mod features;

use crate::{
    kernel::{Kernel, KernelError},
    modules::ModuleTree,
};

const VMLINUZ: &str = "vmlinuz";
const BUILTIN: &str = "modules.builtin";
const CONFIGURATION: &str = "config";
const DESCRIPTION: &str = "kernel.json";
/// Kernels that stay in the cache.
const KEPT: usize = 4;

/// Why there is no kernel of our own.
#[derive(Debug, thiserror::Error)]
pub enum OwnKernelError {
    /// The list of features is malformed.
    #[error("the list of the kernel's features is malformed")]
    Features(#[from] FeaturesError),
    /// It cannot be built.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// What was built is not a kernel.
    #[error("what was built")]
    Kernel(#[from] KernelError),
    /// The cache cannot be used.
    #[error("cannot use {path:?}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cache was written by another program.
    #[error("{path:?} does not describe a kernel: remove its directory")]
    Description {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What a kernel is built from.
pub struct Order {
    source: PathBuf,
    from: BuiltFrom,
    key: String,
}

impl Order {
    /// An order for the kernel of this source, with the programs of this machine.
    ///
    /// # Errors
    ///
    /// When the source cannot be read or a program is missing.
    pub fn new(source: &Path) -> Result<Self, OwnKernelError> {
        let bytes = fs::read(source).map_err(at(source))?;
        let name = source.file_name().unwrap_or_default();
        let from = BuiltFrom {
            source: name.to_string_lossy().into_owned(),
            source_sha256: Sha256Digest::of(&bytes).to_string(),
            features_sha256: Sha256Digest::of(FEATURES.as_bytes()).to_string(),
            configuration_sha256: String::new(),
            patch_sha256: Sha256Digest::of(PATCH.as_bytes()).to_string(),
            tools: compile::tools()?,
            stamps: STAMPS.map(str::to_owned).to_vec(),
        };
        let inputs = serde_json::to_vec(&from).expect("a description has text keys only");
        let key = Sha256Digest::of(&inputs).to_string();
        let source = source.to_owned();
        Ok(Self { source, from, key })
    }

    /// Where the kernel lies in a cache once it is built.
    #[must_use]
    pub fn place(&self, cache: &Path) -> PathBuf {
        cache.join(format!("own-{}", self.key.get(..16).unwrap_or_default()))
    }

    /// Whether it is built.
    #[must_use]
    pub fn is_built(&self, cache: &Path) -> bool {
        self.place(cache).join(DESCRIPTION).is_file()
    }

    /// Builds the kernel if it is not in the cache, and says where it is. Who comes meanwhile
    /// waits.
    ///
    /// # Errors
    ///
    /// When it cannot be built.
    pub fn build(&self, cache: &Path, processes: usize) -> Result<PathBuf, OwnKernelError> {
        let place = self.place(cache);
        fs::create_dir_all(cache).map_err(at(cache))?;
        let lock = cache.join(".own-lock");
        let file = File::create(&lock).map_err(at(&lock))?;
        file.lock().map_err(at(&lock))?;
        if !self.is_built(cache) {
            let work = tempfile::Builder::new().prefix(".own-").tempdir_in(cache);
            let work = work.map_err(at(cache))?;
            let built = self.compile(work.path(), processes)?;
            let _ = fs::remove_dir_all(&place);
            fs::rename(&built, &place).map_err(at(&place))?;
            prune(cache);
        }
        Ok(place)
    }

    /// The configuration that this source gives, without compiling it.
    ///
    /// # Errors
    ///
    /// When the patch does not apply or the features cannot be had.
    pub fn configuration(&self, cache: &Path) -> Result<String, OwnKernelError> {
        fs::create_dir_all(cache).map_err(at(cache))?;
        let work = tempfile::Builder::new().prefix(".own-").tempdir_in(cache);
        let work = work.map_err(at(cache))?;
        let tree = Tree::unpack(&self.source, work.path())?;
        Ok(tree.configure(&Options::parse(FEATURES)?)?)
    }

    fn compile(&self, work: &Path, processes: usize) -> Result<PathBuf, OwnKernelError> {
        let options = Options::parse(FEATURES)?;
        let tree = Tree::unpack(&self.source, work)?;
        let configuration = tree.configure(&options)?;
        tree.compile(processes)?;
        let built = work.join("built");
        fs::create_dir(&built).map_err(at(&built))?;
        for (from, name) in [(tree.vmlinuz(), VMLINUZ), (tree.builtin(), BUILTIN)] {
            fs::copy(&from, built.join(name)).map_err(at(&from))?;
        }
        let path = built.join(CONFIGURATION);
        fs::write(&path, &configuration).map_err(at(&path))?;
        let from = BuiltFrom {
            configuration_sha256: Sha256Digest::of(configuration.as_bytes()).to_string(),
            ..self.from.clone()
        };
        let path = built.join(DESCRIPTION);
        let text = serde_json::to_vec_pretty(&from).expect("a description has text keys only");
        fs::write(&path, text).map_err(at(&path))?;
        Ok(built)
    }
}

/// Reads a kernel from its directory in the cache.
///
/// # Errors
///
/// When it is not whole.
pub fn open(place: &Path) -> Result<Kernel, OwnKernelError> {
    let read = |name: &str| {
        let path = place.join(name);
        fs::read(&path).map_err(at(&path))
    };
    let mut tree = ModuleTree::default();
    tree.add(BUILTIN, read(BUILTIN)?);
    let description = read(DESCRIPTION)?;
    let from = agent_documents::parse_json(&description).map_err(|source| {
        let path = place.join(DESCRIPTION);
        OwnKernelError::Description { path, source }
    })?;
    let mut kernel = Kernel::new(read(VMLINUZ)?, tree, None)?;
    kernel.built_from = Some(from);
    Ok(kernel)
}

/// Forgets the oldest kernels; one that cannot be removed only takes room.
fn prune(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    let mut all: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("own-"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    all.sort();
    let surplus = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(path);
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OwnKernelError {
    let path = path.to_owned();
    move |source| OwnKernelError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, content: &str| {
            let file = folder.path().join(name);
            fs::write(&file, content).unwrap();
            Order::new(&file).unwrap().place(folder.path())
        };
        let first = place("a.deb", "1");
        assert_eq!(first, place("a.deb", "1"));
        assert_ne!(first, place("a.deb", "2"));
    }

    #[test]
    fn a_kernel_that_is_not_whole_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("modules.builtin"), "{error}");
    }
}
