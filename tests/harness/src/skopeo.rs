//! A skopeo that knows key providers, whatever Debian this is.
//!
//! Debian 12's own (1.9) encrypts with JWE only. Debian 13's is unpacked aside with
//! the libraries it needs and started with their loader, so nothing of the machine changes.

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
const SUITE: &str = "trixie";
const PACKAGES: [&str; 5] = [
    "skopeo",
    "libc6",
    "libgpgme11t64",
    "libassuan9",
    "libgpg-error0",
];
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
        let aside = directory.with_extension(unique());
        let downloaded = download(&aside);
        if downloaded.is_ok() {
            let _ = fs::remove_dir_all(&directory);
            fs::rename(&aside, &directory).context("moving skopeo into the cache")?;
        } else {
            let _ = fs::remove_dir_all(&aside);
        }
        downloaded?;
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        let mut command = Command::new(self.loader());
        command.args(self.arguments()).arg("--version");
        let text = run_ok(command, Duration::from_secs(20))?;
        ensure!(text.contains(" 1.18."), "this is {}", text.trim());
        Ok(())
    }

    fn loader(&self) -> PathBuf {
        self.0.join(LIBRARIES).join("ld-linux-x86-64.so.2")
    }

    fn arguments(&self) -> [PathBuf; 3] {
        let libraries = self.0.join(LIBRARIES);
        // What is not unpacked aside, such as libsqlite3, is the machine's.
        let paths = format!("{}:/{LIBRARIES}", libraries.display());
        let program = self.0.join("usr/bin/skopeo");
        ["--library-path".into(), paths.into(), program]
    }

    /// A command that runs it in `node`.
    #[must_use]
    pub fn command(&self, node: &Node) -> Command {
        let mut command = node.command(self.loader());
        command.args(self.arguments());
        command
    }
}

fn download(into: &Path) -> Result<()> {
    let packages = into.join("packages");
    fs::create_dir_all(&packages)?;
    let mut command = Command::new("apt-get");
    command
        .args(["download", "-q"])
        .args(PACKAGES.map(|package| format!("{package}/{SUITE}")))
        .current_dir(&packages);
    run_ok(command, DEADLINE)?;
    for package in fs::read_dir(&packages)? {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(package?.path()).arg(into);
        run_ok(command, DEADLINE)?;
    }
    fs::remove_dir_all(&packages).context("removing packages")
}
