//! Downloads what Debian has of the guest's kernel: its source, and the cloud kernel.
//!
//! `apt-get` does the download, so the package is checked against Debian's signed index with
//! the keys and mirrors that the machine's administrator chose. Which version it was stands in
//! the manifest; `--package-version` asks for that one again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian's package that always depends on the newest cloud kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// Debian's package of the source of one long-term series.
const SOURCE_PACKAGE: &str = "linux-source-6.12";
/// The long-term series that the guest is tested with.
const SERIES: &str = "6.12.";

/// Why the kernel cannot be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program cannot be started.
    #[error(
        "cannot run {program}: the kernel is downloaded with apt, on other systems give --source FILE or --kernel-deb FILE"
    )]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// The end of what it printed.
        message: String,
    },
    /// apt knows no such kernel.
    #[error(
        "apt knows no {package} {wanted}: run `apt-get update` (Debian 12 needs bookworm-security and bookworm-backports among the apt sources), or give the file itself"
    )]
    Unknown {
        /// The package.
        package: &'static str,
        /// The version or series asked for.
        wanted: String,
    },
    /// apt's answer names no kernel package.
    #[error("{META_PACKAGE} {0} depends on no linux-image package")]
    NoDependency(String),
    /// The cache directory cannot be used.
    #[error("cannot write to the cache directory {path:?}")]
    Cache {
        /// The directory or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Path of the kernel's package in the cache, downloaded if it is not there yet.
///
/// Without a version: the newest of the series, from the release that apt prefers.
///
/// # Errors
///
/// When apt is not there, knows no such kernel, or cannot download it.
pub fn kernel_package(cache: &Path, version: Option<&str>) -> Result<PathBuf, FetchError> {
    let version = offered(META_PACKAGE, version)?;
    let shown = run("apt-cache", &["show", &format!("{META_PACKAGE}={version}")])?;
    let package = dependency(&shown).ok_or_else(|| FetchError::NoDependency(version.clone()))?;
    let file = cache.join(format!("{package}_{version}_amd64.deb"));
    if !file.is_file() {
        download(cache, &format!("{package}={version}"), &file)?;
    }
    Ok(file)
}

/// Path of the package with the kernel's source in the cache, downloaded if it is not there yet.
///
/// Without a version: the newest of the series, from the release that apt prefers.
///
/// # Errors
///
/// When apt is not there, knows no such package, or cannot download it.
pub fn source_package(cache: &Path, version: Option<&str>) -> Result<PathBuf, FetchError> {
    let version = offered(SOURCE_PACKAGE, version)?;
    let file = cache.join(format!("{SOURCE_PACKAGE}_{version}_all.deb"));
    if !file.is_file() {
        download(cache, &format!("{SOURCE_PACKAGE}={version}"), &file)?;
    }
    Ok(file)
}

/// The version of a package that apt would install of the series, or the one asked for.
fn offered(package: &'static str, version: Option<&str>) -> Result<String, FetchError> {
    let table = run("apt-cache", &["policy", package])?;
    preferred(&table, version).ok_or_else(|| FetchError::Unknown {
        package,
        wanted: version.unwrap_or(SERIES).to_owned(),
    })
}

/// The version in `apt-cache policy`'s table with the highest priority; of equals, the first,
/// because apt sorts them newest first.
fn preferred(table: &str, version: Option<&str>) -> Option<String> {
    let mut best: Option<(i32, &str)> = None;
    for line in table.lines() {
        let mut words = line.trim_start_matches([' ', '*']).split_whitespace();
        let (Some(candidate), Some(priority), None) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Ok(priority) = priority.parse() else {
            continue;
        };
        let fits = version.map_or(candidate.starts_with(SERIES), |v| v == candidate);
        if fits && best.is_none_or(|(highest, _)| priority > highest) {
            best = Some((priority, candidate));
        }
    }
    best.map(|(_, candidate)| candidate.to_owned())
}

/// The kernel package that `apt-cache show`'s first record depends on.
fn dependency(shown: &str) -> Option<&str> {
    let depends = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    depends
        .split([' ', ','])
        .find(|word| word.starts_with("linux-image-"))
}

/// Downloads into a directory of its own first: a download cut short must not look complete.
fn download(cache: &Path, package: &str, file: &Path) -> Result<(), FetchError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Cache { path, source }
    };
    fs::create_dir_all(cache).map_err(failed(cache))?;
    let partial = tempfile::Builder::new()
        .prefix(".download-")
        .tempdir_in(cache)
        .map_err(failed(cache))?;
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-o", "Acquire::http::Timeout=60"])
        .args(["-o", "Acquire::https::Timeout=60", "download", package]);
    output(command.current_dir(partial.path()), "apt-get")?;
    let entries = fs::read_dir(partial.path()).map_err(failed(cache))?;
    for entry in entries {
        let path = entry.map_err(failed(cache))?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            return fs::rename(&path, file).map_err(failed(file));
        }
    }
    Err(FetchError::Failed {
        command: format!("apt-get download {package}"),
        message: "it left no package".to_owned(),
    })
}

fn run(program: &'static str, arguments: &[&str]) -> Result<String, FetchError> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    output(&mut command, program)
}

fn output(command: &mut Command, program: &'static str) -> Result<String, FetchError> {
    let output = command
        .output()
        .map_err(|source| FetchError::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().last().unwrap_or("it printed nothing");
    Err(FetchError::Failed {
        command: format!("{command:?}").replace('"', ""),
        message: last.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
linux-image-cloud-amd64:
  Installed: (none)
  Candidate: 6.1.192-2
  Version table:
     7.2.13-1 70
         70 http://mirror.example/debian sid/main amd64 Packages
     6.12.107-1 80
         80 http://mirror.example/debian trixie/main amd64 Packages
     6.12.95-1~bpo12+1 90
         90 http://mirror.example/debian bookworm-backports/main amd64 Packages
 *** 6.1.192-2 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
";

    #[test]
    fn the_series_is_taken_from_the_release_that_apt_prefers() {
        let version = preferred(TABLE, None);
        assert_eq!(version.as_deref(), Some("6.12.95-1~bpo12+1"));
    }

    #[test]
    fn a_version_asked_for_is_taken_whatever_its_series() {
        let version = preferred(TABLE, Some("6.1.192-2"));
        assert_eq!(version.as_deref(), Some("6.1.192-2"));
        assert_eq!(preferred(TABLE, Some("6.1")), None);
    }

    #[test]
    fn the_kernel_package_is_the_first_dependency() {
        let shown = "Package: linux-image-cloud-amd64\n\
                     Depends: linux-image-6.12.95+deb12-cloud-amd64 (= 6.12.95-1~bpo12+1)\n";
        let expected = Some("linux-image-6.12.95+deb12-cloud-amd64");
        assert_eq!(dependency(shown), expected);
    }
}
