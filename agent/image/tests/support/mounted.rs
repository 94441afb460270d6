//! Images that are pulled and mounted, to be looked at as a container would.

use std::fs;

use agent_image_unpacking::RootFs;

use super::*;

/// A mounted image; unmounted when dropped.
pub struct Mounted {
    rootfs: RootFs,
    _directory: tempfile::TempDir,
}

impl Mounted {
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.rootfs.path().join(name)
    }

    pub fn names(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub fn mount(archives: &[Vec<u8>]) -> Mounted {
    try_mount(archives).unwrap_or_else(|sentence| panic!("{sentence}"))
}

pub fn try_mount(archives: &[Vec<u8>]) -> Result<Mounted, String> {
    let layers: Vec<Layer> = archives.iter().map(|archive| plain(archive)).collect();
    let mut files = Files::default();
    files.image(&layers);
    let registry = Registry::serving(files);
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));
    let image = puller
        .pull(&registry.reference("x"))
        .map_err(|error| error.sentence())?;
    let rootfs = puller
        .assemble(&image, &directory.path().join("bundle"))
        .unwrap();
    Ok(Mounted {
        rootfs,
        _directory: directory,
    })
}

pub fn refused(archive: Tar) -> String {
    match try_mount(&[archive.end()]) {
        Ok(_) => panic!("it was not refused"),
        Err(sentence) => sentence,
    }
}

pub fn tar() -> Tar {
    Tar::new()
}
