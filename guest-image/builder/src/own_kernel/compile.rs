//! From an archive with the source to a kernel: unpack, patch, configure, compile.
//!
//! Nothing of the machine reaches the bytes but the programs themselves: the environment is
//! empty, the time and place that a kernel tells of its build are constants, and the source is
//! compiled where it lies, so that names of files in it are relative.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::features::{Options, UnmetError};

/// Our patch.
pub(super) const PATCH: &str = include_str!("../../../kernel/guard.patch");

/// What a kernel says of its build; Linux' `Documentation/kbuild/reproducible-builds.rst`.
pub(super) const STAMPS: [&str; 4] = [
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER=kata-cc",
    "KBUILD_BUILD_HOST=kata-cc",
    "KBUILD_BUILD_VERSION=1",
];

/// Programs whose versions decide bytes.
const TOOLS: [&str; 3] = ["gcc", "ld", "lz4"];

/// Why no kernel comes of a source.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A program is missing.
    #[error("cannot run {program}, which the kernel is built with: run hack/setup")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source cannot be unpacked.
    #[error("cannot unpack the kernel's source: {0}")]
    Unpack(String),
    /// The archive holds something else.
    #[error("the package holds no archive usr/src/linux-source-….tar.xz")]
    NoSource,
    /// The patch is for another source.
    #[error("the guard's patch does not apply to this source and must be brought up to it: {0}")]
    Patch(String),
    /// The source cannot be configured.
    #[error("cannot configure the kernel: {0}")]
    Configure(String),
    /// The configuration is not what was asked for.
    #[error("the kernel's configuration is not what its features ask for")]
    Unmet(#[from] UnmetError),
    /// The compiler failed.
    #[error("cannot compile the kernel: {0}")]
    Compile(String),
    /// A file cannot be read or written.
    #[error("cannot use {path:?}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A patched source in a directory of its own.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// Unpacks and patches a source in an empty directory.
    pub(super) fn unpack(source: &Path, directory: &Path) -> Result<Self, CompileError> {
        let archive = if source.extension().is_some_and(|end| end == "deb") {
            let package = directory.join("package");
            let mut command = plain("dpkg-deb");
            command.arg("-x").arg(source).arg(&package);
            run(command, "dpkg-deb")?.map_err(CompileError::Unpack)?;
            archive_in(&package.join("usr/src"))?
        } else {
            source.to_owned()
        };
        let tree = directory.join("linux");
        fs::create_dir(&tree).map_err(at(&tree))?;
        let mut command = plain("tar");
        command.arg("-xf").arg(archive).arg("-C").arg(&tree);
        command.arg("--strip-components=1");
        run(command, "tar")?.map_err(CompileError::Unpack)?;
        let tree = Self(tree);
        tree.patch(PATCH)?;
        Ok(tree)
    }

    /// Every hunk where it belongs, or none: what moved must be looked at.
    fn patch(&self, text: &str) -> Result<(), CompileError> {
        let file = self.0.with_file_name("guard.patch");
        fs::write(&file, text).map_err(at(&file))?;
        let mut command = plain("patch");
        command.args(["-p1", "-F0", "-s", "--no-backup-if-mismatch", "-i"]);
        command.arg(&file).arg("-d").arg(&self.0);
        run(command, "patch")?.map_err(CompileError::Patch)
    }

    /// Has Linux complete what the features ask for; answers with the whole configuration.
    pub(super) fn configure(&self, options: &Options) -> Result<String, CompileError> {
        let fragment = self.0.with_file_name("fragment");
        fs::write(&fragment, options.fragment()).map_err(at(&fragment))?;
        let mut command = self.make();
        command.env("KCONFIG_ALLCONFIG", &fragment);
        command.args(["-s", "allnoconfig"]);
        run(command, "make")?.map_err(CompileError::Configure)?;
        let path = self.0.join(".config");
        let configuration = fs::read_to_string(&path).map_err(at(&path))?;
        options.check(&configuration)?;
        Ok(configuration)
    }

    /// Compiles with so many processes.
    pub(super) fn compile(&self, processes: usize) -> Result<(), CompileError> {
        let mut command = self.make();
        command.args([
            "-s",
            &format!("-j{processes}"),
            "bzImage",
            "modules.builtin",
        ]);
        run(command, "make")?.map_err(CompileError::Compile)
    }

    /// The kernel.
    pub(super) fn vmlinuz(&self) -> PathBuf {
        self.0.join("arch/x86/boot/bzImage")
    }

    /// The list of what would be modules elsewhere.
    pub(super) fn builtin(&self) -> PathBuf {
        self.0.join("modules.builtin")
    }

    fn make(&self) -> Command {
        let mut command = plain("make");
        let stamps = STAMPS.iter().filter_map(|stamp| stamp.split_once('='));
        command
            .arg("-C")
            .arg(&self.0)
            .arg("ARCH=x86_64")
            .envs(stamps);
        command
    }
}

fn archive_in(folder: &Path) -> Result<PathBuf, CompileError> {
    let entries = fs::read_dir(folder).map_err(|_| CompileError::NoSource)?;
    let is_source = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("linux-source-") && name.contains(".tar."))
    };
    let mut found = entries.flatten().map(|entry| entry.path());
    found.find(is_source).ok_or(CompileError::NoSource)
}

/// The first line of what each program says of its version.
pub(super) fn tools() -> Result<Vec<String>, CompileError> {
    let version = |program| {
        let mut command = plain(program);
        command.arg("--version");
        let output = start(command, program)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    TOOLS.into_iter().map(version).collect()
}

/// A program with nothing in its environment that could decide what it does.
fn plain(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null());
    command
}

fn start(mut command: Command, program: &'static str) -> Result<Output, CompileError> {
    let output = command.output();
    output.map_err(|source| CompileError::Start { program, source })
}

/// What a failed program said last, as far as it tells the cause.
fn run(command: Command, program: &'static str) -> Result<Result<(), String>, CompileError> {
    let output = start(command, program)?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let told = |line: &&str| line.contains("error") || line.contains("FAILED");
    let line = text.lines().find(told).or_else(|| text.lines().last());
    Ok(Err(line.unwrap_or("it said nothing").trim().to_owned()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CompileError {
    let path = path.to_owned();
    move |source| CompileError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(content: &str) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("linux");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), content).unwrap();
        (folder, Tree(tree))
    }

    const CHANGE: &str = "--- a/file\n+++ b/file\n@@ -1 +1 @@\n-old\n+new\n";

    #[test]
    fn a_patch_applies_where_it_belongs() {
        let (_folder, tree) = tree("old\n");
        tree.patch(CHANGE).unwrap();
        assert_eq!(fs::read_to_string(tree.0.join("file")).unwrap(), "new\n");
    }

    #[test]
    fn a_patch_that_no_longer_applies_is_told_as_that() {
        let (_folder, tree) = tree("other\n");
        let error = tree.patch(CHANGE).unwrap_err().to_string();
        assert!(error.contains("does not apply to this source"), "{error}");
        assert!(error.contains("hunk FAILED"), "{error}");
    }

    #[test]
    fn our_patch_says_whose_licence_it_has() {
        assert!(PATCH.contains("SPDX-License-Identifier: GPL-2.0"));
    }
}
