//! Kernel modules, in the order that the guest image's builder worked out.
//!
//! They are measured with the image. One that does not load is reported and passed
//! over: what needs it fails later and says so, and the rest of the guest works.

use std::{ffi::CString, fs, fs::File, io, path::Path};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};

use crate::{
    log,
    told::{Field, OfGuestImage, Told},
};

/// Loads every module that the list names, one path a line.
pub(super) fn load(list: &Path) {
    let Ok(text) = fs::read_to_string(list) else {
        log::say(&Told::new("no list of modules in the guest image"));
        return;
    };
    for path in text.lines().filter(|line| !line.is_empty()) {
        load_one(path, "");
    }
}

/// Loads what a feature needs, as the builder's list of features has it: a line
/// `feature: path path …`. A feature without a line is one that this kernel lacks.
pub(super) fn load_feature(list: &Path, feature: &str, parameters: &str) {
    let text = fs::read_to_string(list).unwrap_or_default();
    let Some(paths) = paths_of(&text, feature) else {
        let told = Told::new("the guest image has no {part}");
        log::say(&told.with(Field::part(OfGuestImage(feature))));
        return;
    };
    for path in paths {
        load_one(path, parameters);
    }
}

fn paths_of<'a>(text: &'a str, feature: &str) -> Option<impl Iterator<Item = &'a str>> {
    let line = |line: &'a str| line.strip_prefix(feature)?.strip_prefix(':');
    text.lines().find_map(line).map(str::split_whitespace)
}

fn load_one(path: &str, parameters: &str) {
    if let Err(error) = try_load(path, parameters) {
        let told = Told::new("module {part} not loaded").with(Field::part(OfGuestImage(path)));
        log::say(&told.errno(&error));
    }
}

fn try_load(path: &str, parameters: &str) -> io::Result<()> {
    let file = File::open(path)?;
    let parameters = CString::new(parameters)?;
    match finit_module(&file, &parameters, ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_found_by_its_whole_name() {
        let text = "dm-crypt: /a.ko /b.ko\ndm: /c.ko\next4:\n";
        let found = |name| paths_of(text, name).map(Iterator::collect::<Vec<_>>);
        assert_eq!(found("dm-crypt"), Some(vec!["/a.ko", "/b.ko"]));
        assert_eq!(found("dm"), Some(vec!["/c.ko"]));
        assert_eq!(found("ext4"), Some(vec![]), "part of the kernel");
        for name in ["d", "crypt", ""] {
            assert_eq!(found(name), None, "{name}");
        }
    }
}
