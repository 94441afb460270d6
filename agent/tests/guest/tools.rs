//! Programs that the test needs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct Tools {
    pub(crate) qemu: PathBuf,
    pub(crate) iasl: PathBuf,
    pub(crate) vsock: PathBuf,
    pub(crate) registry: PathBuf,
    pub(crate) skopeo: PathBuf,
    pub(crate) umoci: PathBuf,
    pub(crate) openssl: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) image_builder: PathBuf,
}

impl Tools {
    /// All of them, or the name of one that is missing.
    pub(crate) fn find() -> Result<Self, &'static str> {
        let built = Path::new(env!("CARGO_BIN_EXE_kata-agent")).with_file_name("kata-cc-image");
        Ok(Self {
            qemu: in_path("qemu-system-x86_64")?,
            iasl: in_path("iasl")?,
            vsock: in_path("vhost-device-vsock").or_else(cached)?,
            registry: in_path("docker-registry")?,
            skopeo: in_path("skopeo")?,
            umoci: in_path("umoci")?,
            openssl: in_path("openssl")?,
            busybox: in_path("busybox")?,
            image_builder: built.exists().then_some(built).ok_or("kata-cc-image")?,
        })
    }
}

fn in_path(name: &'static str) -> Result<PathBuf, &'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
        .ok_or(name)
}

/// Where the project's scripts install what no distribution packages.
fn cached(name: &'static str) -> Result<PathBuf, &'static str> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache.or_else(home).ok_or(name)?.join("kata-cc");
    let folders = fs::read_dir(cache).map_err(|_| name)?;
    let found = folders.flatten().filter_map(|folder| {
        let file = folder.path().join("bin").join(name);
        (folder.file_name().to_string_lossy().starts_with(name) && file.exists()).then_some(file)
    });
    found.max().ok_or(name)
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
