//! Kernel modules: which ones the guest gets, and in which order they load.
//!
//! A kernel package carries no dependency list; each module names what it needs in the
//! `depends=` entry of its `.modinfo` section, so the order is derived from there. Modules are
//! stored uncompressed in the initrd: the initrd is compressed as a whole, and a kernel
//! without module decompression can load them too.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

mod object_file;
mod tree;

use object_file::{decompress, read_depends};
use tree::Name;
pub use tree::{ModuleTree, TreeError};

/// Loaded by the agent before anything else, in this order with what they depend on.
pub const BOOT: [&str; 6] = [
    "vsock",
    "vmw_vsock_virtio_transport",
    "virtio_net",
    "virtio_blk",
    "overlay",
    "af_packet",
];

/// Loaded by the agent when a feature is asked for: the driver first, then what makes it
/// work well and may be absent (ciphers and faster code for them).
pub const ON_DEMAND: [&[&str]; 10] = [
    &["brd"],
    &["dm-crypt", "xts", "aesni-intel"],
    &["dm-integrity", "authenc", "sha256-ssse3"],
    &["dm-verity", "sha256-ssse3"],
    &["erofs"],
    &["ext4"],
    &["quota_v2"],
    &["sev-guest"],
    &["tdx-guest"],
    &["virtio-rng"],
];

/// Why modules cannot be chosen or ordered.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The guest cannot start without it.
    #[error("the kernel has no module {0:?}, which the guest needs to start")]
    Required(String),
    /// A module names one that is not there.
    #[error("module {module:?} depends on {dependency:?}, which the kernel does not have")]
    Dependency {
        /// The module.
        module: String,
        /// What it names.
        dependency: String,
    },
    /// Modules that depend on each other can never be loaded.
    #[error("module {0:?} depends on itself")]
    Cycle(String),
    /// A module cannot be decompressed.
    #[error("module {module:?} cannot be decompressed")]
    Decompress {
        /// The module.
        module: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A module is larger than a module can be.
    #[error("module {0:?} is larger than 64 MiB")]
    TooLarge(String),
    /// A module is not what the kernel loads.
    #[error("module {0:?} is not an ELF object with a .modinfo section")]
    NotModule(String),
    /// A module of another kernel.
    #[error("module {module:?} belongs to kernel {found:?}, not to {release:?}")]
    Release {
        /// The module.
        module: String,
        /// The kernel it was built for.
        found: String,
        /// The kernel it was found with.
        release: String,
    },
}

/// One module as it goes into the initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path below `/lib/modules/<release>/`, ending in `.ko`.
    pub path: String,
    /// The uncompressed object.
    pub content: Vec<u8>,
}

/// The modules that a guest gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Every module, by its path.
    pub modules: BTreeMap<String, Vec<u8>>,
    /// Paths to load at boot, dependencies first.
    pub boot: Vec<String>,
    /// Per feature, paths to load, dependencies first, without those loaded at boot.
    pub on_demand: BTreeMap<String, Vec<String>>,
    /// Wanted modules that are part of the kernel itself.
    pub builtin: BTreeSet<String>,
    /// Wanted modules that this kernel does not have; the guest starts without them.
    pub missing: BTreeSet<String>,
}

/// Chooses the modules of a guest: [`BOOT`], [`ON_DEMAND`] and the owner's `extra` ones, each
/// of which is a feature of its own.
///
/// # Errors
///
/// When one that the guest needs is missing, or one that it gets is broken.
pub fn select(
    tree: &ModuleTree,
    release: &str,
    extra: &[String],
) -> Result<Selection, ModuleError> {
    let mut picker = Picker {
        tree,
        release,
        loaded: BTreeMap::new(),
        selection: Selection::default(),
    };
    for name in BOOT {
        if !picker.has(name) {
            return Err(ModuleError::Required(name.to_owned()));
        }
    }
    let boot = picker.order(&BOOT, &[])?;
    for group in ON_DEMAND {
        picker.feature(group, &boot)?;
    }
    for name in extra {
        if !picker.has(name) {
            return Err(ModuleError::Required(name.clone()));
        }
        picker.feature(&[name], &boot)?;
    }
    picker.selection.boot = boot;
    Ok(picker.finish())
}

struct Picker<'a> {
    tree: &'a ModuleTree,
    release: &'a str,
    loaded: BTreeMap<Name, Loaded>,
    selection: Selection,
}

#[derive(Clone)]
struct Loaded {
    module: Module,
    depends: Vec<String>,
}

impl Picker<'_> {
    fn has(&self, name: &str) -> bool {
        let name = Name::new(name);
        self.tree.is_builtin(&name) || self.tree.file(&name).is_some()
    }

    fn feature(&mut self, group: &[&str], boot: &[String]) -> Result<(), ModuleError> {
        let (present, missing): (Vec<&str>, Vec<&str>) =
            group.iter().partition(|name| self.has(name));
        self.selection
            .missing
            .extend(missing.iter().map(|name| (*name).to_owned()));
        let Some(driver) = group.first().filter(|name| self.has(name)) else {
            return Ok(());
        };
        let paths = self.order(&present, boot)?;
        self.selection.on_demand.insert((*driver).to_owned(), paths);
        Ok(())
    }

    /// Paths of the modules and of all they depend on, in load order.
    fn order(&mut self, names: &[&str], without: &[String]) -> Result<Vec<String>, ModuleError> {
        let mut order = Vec::new();
        for name in names {
            if self.tree.is_builtin(&Name::new(name)) {
                self.selection.builtin.insert((*name).to_owned());
            }
            self.visit(name, &mut Vec::new(), &mut order)?;
        }
        order.retain(|path| !without.contains(path));
        Ok(order)
    }

    fn visit(
        &mut self,
        text: &str,
        above: &mut Vec<Name>,
        order: &mut Vec<String>,
    ) -> Result<(), ModuleError> {
        let name = Name::new(text);
        if self.tree.is_builtin(&name) {
            return Ok(());
        }
        if above.contains(&name) {
            return Err(ModuleError::Cycle(text.to_owned()));
        }
        let loaded = self.load(&name, above)?;
        if order.contains(&loaded.module.path) {
            return Ok(());
        }
        above.push(name);
        for dependency in &loaded.depends {
            self.visit(dependency, above, order)?;
        }
        above.pop();
        order.push(loaded.module.path);
        Ok(())
    }

    fn load(&mut self, name: &Name, above: &[Name]) -> Result<Loaded, ModuleError> {
        if let Some(loaded) = self.loaded.get(name) {
            return Ok(loaded.clone());
        }
        let Some((path, stored)) = self.tree.file(name) else {
            return Err(match above.last() {
                Some(module) => ModuleError::Dependency {
                    module: module.as_str().to_owned(),
                    dependency: name.as_str().to_owned(),
                },
                None => ModuleError::Required(name.as_str().to_owned()),
            });
        };
        let (path, content) = decompress(path, stored)?;
        let depends = read_depends(&path, &content, self.release)?;
        let module = Module { path, content };
        let loaded = Loaded { module, depends };
        self.loaded.insert(name.clone(), loaded.clone());
        Ok(loaded)
    }

    fn finish(mut self) -> Selection {
        for loaded in self.loaded.into_values() {
            let Module { path, content } = loaded.module;
            self.selection.modules.insert(path, content);
        }
        self.selection
    }
}

#[cfg(test)]
mod tests;
