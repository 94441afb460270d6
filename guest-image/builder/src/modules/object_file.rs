//! One module: an ELF object, usually compressed, that says what it depends on.

use std::io::Read;

use object::{Endianness, Object, ObjectSection, read::elf::ElfFile64};

use super::ModuleError;

/// Most that one module may hold once decompressed.
const MAX_MODULE_BYTES: u64 = 64 << 20;

/// The module's path without the suffix of its compression, and its plain content.
pub(super) fn decompress(path: &str, stored: &[u8]) -> Result<(String, Vec<u8>), ModuleError> {
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
pub(super) fn read_depends(
    path: &str,
    content: &[u8],
    release: &str,
) -> Result<Vec<String>, ModuleError> {
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
