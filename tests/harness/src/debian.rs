//! Image tools newer than this machine's own, unpacked aside from Debian's packages.
//!
//! Debian 12's skopeo (1.9) knows no key providers, and its umoci (0.4) no zstd. Debian
//! 13's skopeo is started with the libraries and the loader it was built for, so that
//! nothing of the machine changes; the newest umoci needs nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    node::Node,
    run::run_ok,
    tools::{cache_dir, unique},
};

const DEADLINE: Duration = Duration::from_secs(300);
const SKOPEO: [&str; 5] = [
    "skopeo/trixie",
    "libc6/trixie",
    "libgpgme11t64/trixie",
    "libassuan9/trixie",
    "libgpg-error0/trixie",
];
const UMOCI: [&str; 1] = ["umoci/sid"];
const COSIGN: [&str; 1] = ["cosign/sid"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// skopeo 1.18.
#[derive(Debug, Clone)]
pub struct Skopeo(PathBuf);

impl Skopeo {
    /// Finds it in the cache, or downloads it.
    ///
    /// # Errors
    /// When Debian does not provide it; the message says why, for a test to print.
    pub fn provide() -> Result<Self> {
        let directory = cache_dir()?.join("skopeo-1.18");
        let found = Self(directory.clone());
        if found.check().is_ok() {
            return Ok(found);
        }
        provide(&directory, &SKOPEO)?;
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        let mut words = self.words().into_iter();
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words).arg("--version");
        let text = run_ok(command, Duration::from_secs(20))?;
        ensure!(text.contains(" 1.18."), "this is {}", text.trim());
        Ok(())
    }

    /// The program and its first arguments.
    #[must_use]
    pub fn words(&self) -> [PathBuf; 4] {
        let libraries = self.0.join(LIBRARIES);
        // What is not unpacked aside, such as libsqlite3, is the machine's.
        let paths = format!("{}:/{LIBRARIES}", libraries.display());
        [
            libraries.join("ld-linux-x86-64.so.2"),
            "--library-path".into(),
            paths.into(),
            self.0.join("usr/bin/skopeo"),
        ]
    }

    /// A command that runs it in `node`.
    #[must_use]
    pub fn command(&self, node: &Node) -> Command {
        let [loader, rest @ ..] = self.words();
        let mut command = node.command(loader);
        command.args(rest);
        command
    }
}

/// umoci 0.6 or newer.
///
/// # Errors
/// As [`Skopeo::provide`].
pub fn umoci() -> Result<PathBuf> {
    let directory = cache_dir()?.join("umoci-sid");
    let program = directory.join("usr/bin/umoci");
    if !program.is_file() {
        provide(&directory, &UMOCI)?;
    }
    ensure!(program.is_file(), "the package has no umoci");
    Ok(program)
}

/// cosign 3, which writes Sigstore bundles; with `--new-bundle-format=false`, tags.
///
/// # Errors
/// As [`Skopeo::provide`].
pub fn cosign() -> Result<PathBuf> {
    let directory = cache_dir()?.join("cosign-sid");
    let program = directory.join("usr/bin/cosign");
    if !program.is_file() {
        provide(&directory, &COSIGN)?;
    }
    ensure!(program.is_file(), "the package has no cosign");
    Ok(program)
}

/// Unpacks packages, each with its suite, into a directory of the cache.
fn provide(directory: &Path, packages: &[&str]) -> Result<()> {
    let aside = directory.with_extension(unique());
    let downloaded = download(&aside, packages);
    if downloaded.is_ok() {
        let _ = fs::remove_dir_all(directory);
        return fs::rename(&aside, directory).context("moving packages into the cache");
    }
    let _ = fs::remove_dir_all(&aside);
    downloaded
}

fn download(into: &Path, names: &[&str]) -> Result<()> {
    let packages = into.join("packages");
    fs::create_dir_all(&packages)?;
    let mut command = Command::new("apt-get");
    command
        .args(["download", "-q"])
        .args(names)
        .current_dir(&packages);
    run_ok(command, DEADLINE)?;
    for package in fs::read_dir(&packages)? {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(package?.path()).arg(into);
        run_ok(command, DEADLINE)?;
    }
    fs::remove_dir_all(&packages).context("removing packages")
}
