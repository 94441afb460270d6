//! Kernel modules, in the order that the guest image's builder worked out.
//!
//! They are measured with the image. One that does not load is reported and passed
//! over: what needs it fails later and says so, and the rest of the guest works.

use std::{fs, fs::File, io, path::Path};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};

use crate::log;

/// Loads every module that the list names, one path a line.
pub(super) fn load(list: &Path) {
    let Ok(text) = fs::read_to_string(list) else {
        log::say("kata-agent: no list of modules in the guest image");
        return;
    };
    for path in text.lines().filter(|line| !line.is_empty()) {
        if let Err(error) = load_one(path) {
            log::say(&format!("kata-agent: module {path} not loaded: {error}"));
        }
    }
}

fn load_one(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
