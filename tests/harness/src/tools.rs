//! Where the programs come from: the build, the cache, the system.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};

/// What `hack/build` leaves in one directory.
#[derive(Debug, Clone)]
pub struct Prefix(PathBuf);

impl Prefix {
    /// Checks that `directory` holds what a node needs.
    ///
    /// # Errors
    /// When a part is missing.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        // Programs of the bed start from another directory.
        let found = directory.canonicalize();
        let prefix = Self(found.with_context(|| format!("finding {}", directory.display()))?);
        for part in [
            "bin/containerd-shim-kata-cc-v2",
            "bin/kata-cc-snapshotter",
            "bin/kata-cc-node",
            "bin/kata-cc",
            "guest/default/manifest.json",
            "configuration.toml",
        ] {
            if !prefix.0.join(part).exists() {
                bail!("{} has no {part}; run hack/build first", prefix.0.display());
            }
        }
        Ok(prefix)
    }

    /// The directory `hack/build` uses when tests and demo call it.
    ///
    /// # Errors
    /// As [`Prefix::open`].
    pub fn of_build() -> Result<Self> {
        if let Some(directory) = std::env::var_os("KATA_CC_PREFIX") {
            return Self::open(PathBuf::from(directory));
        }
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kata-cc");
        let target = target
            .canonicalize()
            .context("nothing is built yet; run hack/build first")?;
        Self::open(target)
    }

    /// One program of the prefix.
    #[must_use]
    pub fn bin(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Where downloads and builds of other people's programs are kept between runs.
///
/// # Errors
/// When it cannot be made.
pub fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("KATA_CC_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
            PathBuf::from(home).join(".cache/kata-cc")
        },
        PathBuf::from,
    );
    fs::create_dir_all(&base).with_context(|| format!("making {}", base.display()))?;
    Ok(base)
}

/// The `bed` program: this one, or the one built beside the test that runs.
pub(crate) fn bed() -> Result<PathBuf> {
    built("bed")
}

/// A program of this workspace, from where the running one was built.
///
/// # Errors
/// When it is not built.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    // Tests run from `deps`, programs from the directory above it.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built; run hack/build first"))
}

/// A word no other bed of this machine has.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// The first of `names` on `PATH` or in the system directories.
pub(crate) fn system(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/bin", "/usr/sbin", "/usr/local/go/bin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed; run hack/setup first"))
}
