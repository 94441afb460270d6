//! A kernel with its modules, from a Debian package or from files.

use std::{fs, io, path::Path};

use crate::{
    modules::{ModuleTree, TreeError},
    own_kernel::BuiltFrom,
};

/// Where the x86 boot protocol puts its magic and the offset of the version text
/// (Linux `Documentation/arch/x86/boot.rst`).
const MAGIC_OFFSET: usize = 0x202;
const VERSION_OFFSET: usize = 0x20e;
const SETUP_OFFSET: usize = 0x200;

/// A bootable kernel and the modules that belong to it.
pub struct Kernel {
    /// The `bzImage`, as the VM loads it.
    pub vmlinuz: Vec<u8>,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The modules of that release.
    pub tree: ModuleTree,
    /// The package it came from, if it came from one.
    pub package: Option<KernelPackage>,
    /// What it was built from, if it is our own: then it has the guard.
    pub built_from: Option<BuiltFrom>,
}

/// Name and version of the package that a kernel came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPackage {
    /// For example `linux-image-6.12.95+deb12-cloud-amd64`.
    pub name: String,
    /// For example `6.12.95-1~bpo12+1`.
    pub version: String,
}

/// Why a kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is no kernel where one must be.
    #[error("holds no kernel (/boot/vmlinuz-…)")]
    Missing,
    /// The file is not an x86 kernel.
    #[error("is not an x86 kernel in bzImage form")]
    NotBzImage,
    /// There are no modules where some must be.
    #[error("holds no kernel modules (/lib/modules/…)")]
    NoModules,
    /// The kernel file cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The module directory cannot be read.
    #[error("needs a readable module directory")]
    Tree(#[from] TreeError),
}

impl Kernel {
    /// Puts a kernel together from its parts.
    ///
    /// # Errors
    ///
    /// When the kernel is not a bzImage or there are no modules.
    pub fn new(
        vmlinuz: Vec<u8>,
        tree: ModuleTree,
        package: Option<KernelPackage>,
    ) -> Result<Self, KernelError> {
        if vmlinuz.is_empty() {
            return Err(KernelError::Missing);
        }
        let release = release(&vmlinuz).ok_or(KernelError::NotBzImage)?;
        if tree.is_empty() {
            return Err(KernelError::NoModules);
        }
        Ok(Self {
            vmlinuz,
            release,
            tree,
            package,
            built_from: None,
        })
    }

    /// Reads a kernel file and a `/lib/modules/<release>` directory.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or they are not a kernel and modules.
    pub fn open(vmlinuz: &Path, modules: &Path) -> Result<Self, KernelError> {
        let bytes = fs::read(vmlinuz).map_err(KernelError::Read)?;
        Self::new(bytes, ModuleTree::open(modules)?, None)
    }
}

/// The first word of the version text in a bzImage.
fn release(vmlinuz: &[u8]) -> Option<String> {
    if vmlinuz.get(MAGIC_OFFSET..)?.get(..4)? != b"HdrS" {
        return None;
    }
    let pointer: [u8; 2] = vmlinuz.get(VERSION_OFFSET..)?.get(..2)?.try_into().ok()?;
    let start = SETUP_OFFSET + usize::from(u16::from_le_bytes(pointer));
    let text = vmlinuz.get(start..)?;
    let text = text.get(..text.len().min(256))?;
    let word = text.split(|b| matches!(b, 0 | b' ')).next()?;
    let word = std::str::from_utf8(word).ok()?;
    let plausible = !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    (plausible && !word.contains('/')).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(version: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[MAGIC_OFFSET..MAGIC_OFFSET + 4].copy_from_slice(b"HdrS");
        image[VERSION_OFFSET..VERSION_OFFSET + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x300 + version.len()].copy_from_slice(version);
        image
    }

    #[test]
    fn the_release_is_the_first_word_of_the_version() {
        let image = bz_image(b"6.12.95+deb12-cloud-amd64 (debian@x) #1\0");
        assert_eq!(
            release(&image).as_deref(),
            Some("6.12.95+deb12-cloud-amd64")
        );
    }

    #[test]
    fn files_that_are_no_kernel_are_refused() {
        for image in [
            vec![1; 16],
            vec![0; 4096],
            bz_image(b"\0"),
            bz_image(b"../x\0"),
        ] {
            let refused = Kernel::new(image, ModuleTree::default(), None);
            assert!(matches!(refused, Err(KernelError::NotBzImage)));
        }
        let refused = Kernel::new(Vec::new(), ModuleTree::default(), None);
        assert!(matches!(refused, Err(KernelError::Missing)));
    }

    #[test]
    fn a_kernel_without_modules_is_refused() {
        let refused = Kernel::new(bz_image(b"6.12 \0"), ModuleTree::default(), None);
        assert!(matches!(refused, Err(KernelError::NoModules)));
    }

    #[test]
    fn a_version_pointer_past_the_end_is_refused() {
        let mut image = bz_image(b"6.12 \0");
        image[VERSION_OFFSET..VERSION_OFFSET + 2].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(release(&image), None);
    }
}
