//! Kernel modules: which ones the guest gets, and in which order they load.
//!
//! A kernel package carries no dependency list; each module names what it needs in the
//! `depends=` entry of its `.modinfo` section, so the order is derived from there. Modules are
//! stored uncompressed in the initrd: the initrd is compressed as a whole, and a kernel
//! without module decompression can load them too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use object::{Endianness, Object, ObjectSection, read::elf::ElfFile64};

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
pub const ON_DEMAND: [&[&str]; 8] = [
    &["dm-crypt", "xts", "aesni-intel"],
    &["dm-integrity", "authenc", "sha256-ssse3"],
    &["dm-verity", "sha256-ssse3"],
    &["erofs"],
    &["ext4"],
    &["sev-guest"],
    &["tdx-guest"],
    &["virtio-rng"],
];

/// Most that one module may hold once decompressed.
const MAX_MODULE_BYTES: u64 = 64 << 20;

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

/// Name of a module as the kernel has it: `-` and `_` are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

impl Name {
    fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
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

    /// Whether it knows no module at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.builtin.is_empty()
    }
}

const BUILTIN_LIST: &str = "modules.builtin";

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
        self.tree.builtin.contains(&name) || self.tree.files.contains_key(&name)
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
            if self.tree.builtin.contains(&Name::new(name)) {
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
        if self.tree.builtin.contains(&name) {
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
        let Some((path, stored)) = self.tree.files.get(name) else {
            return Err(match above.last() {
                Some(module) => ModuleError::Dependency {
                    module: module.0.clone(),
                    dependency: name.0.clone(),
                },
                None => ModuleError::Required(name.0.clone()),
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

/// The module's path without the suffix of its compression, and its plain content.
fn decompress(path: &str, stored: &[u8]) -> Result<(String, Vec<u8>), ModuleError> {
    let failed = |source| ModuleError::Decompress {
        module: path.to_owned(),
        source,
    };
    let (plain, reader): (&str, Box<dyn Read + '_>) = if let Some(plain) = path.strip_suffix(".xz")
    {
        (plain, Box::new(liblzma::read::XzDecoder::new(stored)))
    } else if let Some(plain) = path.strip_suffix(".zst") {
        (plain, Box::new(zstd::Decoder::new(stored).map_err(failed)?))
    } else if let Some(plain) = path.strip_suffix(".gz") {
        (plain, Box::new(flate2::read::GzDecoder::new(stored)))
    } else {
        (path, Box::new(stored))
    };
    let mut content = Vec::new();
    let read = reader
        .take(MAX_MODULE_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if read as u64 > MAX_MODULE_BYTES {
        return Err(ModuleError::TooLarge(path.to_owned()));
    }
    Ok((plain.to_owned(), content))
}

/// What the module says it depends on; it must belong to the kernel.
fn read_depends(path: &str, content: &[u8], release: &str) -> Result<Vec<String>, ModuleError> {
    let not_module = || ModuleError::NotModule(path.to_owned());
    let file = ElfFile64::<Endianness>::parse(content).map_err(|_| not_module())?;
    let section = file.section_by_name(".modinfo").ok_or_else(not_module)?;
    let info = section.data().map_err(|_| not_module())?;
    let mut depends = None;
    let mut found = None;
    for entry in info.split(|byte| *byte == 0) {
        let entry = std::str::from_utf8(entry).unwrap_or_default();
        match entry.split_once('=') {
            Some(("depends", list)) => depends = Some(list),
            Some(("vermagic", magic)) => found = magic.split(' ').next(),
            _ => {}
        }
    }
    let found = found.ok_or_else(not_module)?;
    if found != release {
        return Err(ModuleError::Release {
            module: path.to_owned(),
            found: found.to_owned(),
            release: release.to_owned(),
        });
    }
    let depends = depends.ok_or_else(not_module)?;
    let names = depends.split(',').filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
