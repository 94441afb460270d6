//! From inputs to an image, and from an image to a directory.
//!
//! [`build`] does no I/O. [`Image::write`] replaces a directory as a whole, so that nobody
//! starts a kernel of one build with the initrd of another.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    agent::Agent,
    certificates::Certificates,
    cmdline::CommandLine,
    cpio::ArchiveError,
    initrd::{self, Compression},
    kernel::Kernel,
    manifest::{
        self, BuilderDescription, FileDigest, InitrdDescription, KernelDescription, Manifest,
        ModulesDescription,
    },
    modules::{self, ModuleError, Selection},
};

/// All that an image is made of.
pub struct Recipe {
    /// Kernel and modules.
    pub kernel: Kernel,
    /// The first process.
    pub agent: Agent,
    /// Certificate authorities that the guest trusts.
    pub certificates: Certificates,
    /// The kernel command line.
    pub cmdline: CommandLine,
    /// Modules for features of the owner's own.
    pub extra_modules: Vec<String>,
    /// How the initrd is stored.
    pub compression: Compression,
    /// Digests of what the above were read from, by role.
    pub inputs: BTreeMap<String, FileDigest>,
}

/// An image in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel.
    pub vmlinuz: Vec<u8>,
    /// The initrd, as stored.
    pub initrd: Vec<u8>,
    /// What both are.
    pub manifest: Manifest,
}

/// Why an image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The modules.
    #[error("cannot choose the kernel modules")]
    Modules(#[from] ModuleError),
    /// The initrd's content.
    #[error("cannot lay out the initrd")]
    Layout(#[from] ArchiveError),
    /// The initrd's compression.
    #[error("cannot compress the initrd")]
    Compress(#[source] io::Error),
}

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path:?}")]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Builds an image.
///
/// # Errors
///
/// When the kernel lacks a module that the guest needs, or has broken ones.
pub fn build(recipe: Recipe) -> Result<Image, BuildError> {
    let kernel = recipe.kernel;
    let selection = modules::select(&kernel.tree, &kernel.release, &recipe.extra_modules)?;
    let pem = recipe.certificates.to_pem();
    let archive = initrd::archive(recipe.agent.bytes(), &kernel.release, &selection, pem)?;
    let unpacked_bytes = archive.len() as u64;
    let initrd = initrd::compress(archive, recipe.compression).map_err(BuildError::Compress)?;
    let package = kernel.package;
    let manifest = Manifest {
        schema: Manifest::current_schema(),
        architecture: "x86_64".to_owned(),
        cmdline: recipe.cmdline.as_str().to_owned(),
        files: BTreeMap::from([
            (manifest::KERNEL.to_owned(), FileDigest::of(&kernel.vmlinuz)),
            (manifest::INITRD.to_owned(), FileDigest::of(&initrd)),
        ]),
        kernel: KernelDescription {
            release: kernel.release,
            package: package.as_ref().map(|p| p.name.clone()),
            package_version: package.map(|p| p.version),
            guard: kernel.built_from.is_some(),
            built_from: kernel.built_from,
        },
        initrd: InitrdDescription {
            compression: recipe.compression.as_str().to_owned(),
            unpacked_bytes,
            certificates: recipe.certificates.count(),
        },
        modules: describe(selection),
        inputs: recipe.inputs,
        builder: BuilderDescription {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    };
    Ok(Image {
        vmlinuz: kernel.vmlinuz,
        initrd,
        manifest,
    })
}

fn describe(selection: Selection) -> ModulesDescription {
    let digest = |(path, content): (String, Vec<u8>)| (path, FileDigest::of(&content));
    ModulesDescription {
        boot: selection.boot,
        on_demand: selection.on_demand,
        builtin: selection.builtin,
        missing: selection.missing,
        files: selection.modules.into_iter().map(digest).collect(),
    }
}

impl Image {
    /// The image's files: name and content, the manifest last.
    #[must_use]
    pub fn files(&self) -> [(&'static str, Vec<u8>); 3] {
        [
            (manifest::KERNEL, self.vmlinuz.clone()),
            (manifest::INITRD, self.initrd.clone()),
            (manifest::FILE_NAME, self.manifest.to_json()),
        ]
    }

    /// Writes the image to `output/name`, replacing what is there as a whole.
    ///
    /// # Errors
    ///
    /// When a file cannot be written or the directory not replaced.
    pub fn write(&self, output: &Path, name: &str) -> Result<PathBuf, WriteError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| WriteError { path, source }
        };
        let target = output.join(name);
        let fresh = output.join(format!(".{name}.new-{}", std::process::id()));
        let stale = output.join(format!(".{name}.old-{}", std::process::id()));
        fs::create_dir_all(&fresh).map_err(at(&fresh))?;
        let written = self
            .write_files(&fresh)
            .and_then(|()| replace(&fresh, &target, &stale).map_err(at(&target)));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&fresh);
        }
        written.map(|()| target)
    }

    fn write_files(&self, directory: &Path) -> Result<(), WriteError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| WriteError { path, source }
        };
        set_mode(directory, 0o755).map_err(at(directory))?;
        for (name, content) in self.files() {
            let path = directory.join(name);
            fs::write(&path, content).map_err(at(&path))?;
            set_mode(&path, 0o644).map_err(at(&path))?;
        }
        Ok(())
    }
}

/// Modes are set, not left to the umask: another user's VM process must be able to read.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn replace(fresh: &Path, target: &Path, stale: &Path) -> io::Result<()> {
    let replaced = match fs::rename(target, stale) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    fs::rename(fresh, target)?;
    if replaced {
        fs::remove_dir_all(stale)?;
    }
    Ok(())
}
