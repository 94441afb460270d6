//! `kata-cc-node containerd`: puts our runtime into containerd's configuration, or takes it out.
//!
//! What the files become is decided in [`edit`]; here they are read and written, the drop-in
//! before what imports it, the backup before what it is of.

mod edit;
mod files;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use edit::{EditError, Names};
use thiserror::Error;

use crate::{decide, facts};

/// An empty backup says that there was no file.
const BACKUP: &str = ".before-kata-cc";

/// Which configuration, and what it is to name.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// containerd's configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/containerd/config.toml"
    )]
    config: PathBuf,
    /// Take the runtime out again
    #[arg(long)]
    remove: bool,
    /// Where hack/build installed this project
    #[arg(long, value_name = "DIR", default_value = "/opt/kata-cc")]
    prefix: PathBuf,
    /// The shim's configuration, if it is not configuration.toml in the prefix
    #[arg(long, value_name = "FILE")]
    configuration: Option<PathBuf>,
    /// containerd, which is asked for its version and default configuration
    #[arg(long, value_name = "PROGRAM", default_value = "containerd")]
    containerd: PathBuf,
}

/// Why the configuration stays as it is.
#[derive(Debug, Error)]
pub(crate) enum ContainerdError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: run this as root, on the node", path.display())]
    File {
        /// `find`, `read`, `write` or `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The shim is not where containerd is to find it.
    #[error("there is no {}: name the directory of hack/build with --prefix", .0.display())]
    NoShim(PathBuf),
    /// The main file does not let itself be edited.
    #[error("cannot change {}", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        #[source]
        source: EditError,
    },
    /// Somebody else's drop-in.
    #[error("{} is not of this command: move it away, and run this again", .0.display())]
    ForeignDropIn(PathBuf),
    /// A file of containerd 1.7 that containerd 2.x reads.
    #[error(
        "{} is of version 2, which has no place for what containerd {major} needs: write what `containerd config migrate` prints over it, and run this again",
        path.display()
    )]
    OldFile {
        /// The file.
        path: PathBuf,
        /// containerd's major version.
        major: u32,
    },
    /// There is no file, and no containerd that says what stands for it.
    #[error(
        "there is no {}, and containerd does not print its default ({asked}): name the program with --containerd",
        path.display()
    )]
    NoDefault {
        /// The file.
        path: PathBuf,
        /// What came of asking.
        asked: String,
    },
}

impl Arguments {
    /// Does it; the files that were changed or removed.
    ///
    /// # Errors
    /// [`ContainerdError`] says what to do.
    pub(crate) fn run(self) -> Result<Vec<PathBuf>, ContainerdError> {
        // A link stays a link: what it names is replaced.
        let main = self.config.canonicalize();
        let main = main.or_else(|_| std::path::absolute(&self.config));
        let main = main.map_err(failed("find", &self.config))?;
        let drop_in = main.with_file_name("conf.d").join("kata-cc.toml");
        let theirs = read(&drop_in)?.is_some_and(|text| !edit::is_ours(&text));
        if theirs {
            return Err(ContainerdError::ForeignDropIn(drop_in));
        }
        if self.remove {
            self.take_out(&main, &drop_in)
        } else {
            self.put_in(&main, drop_in)
        }
    }

    fn put_in(&self, main: &Path, drop_in: PathBuf) -> Result<Vec<PathBuf>, ContainerdError> {
        let shim = self.prefix.join("bin/containerd-shim-kata-cc-v2");
        if !shim.is_file() {
            return Err(ContainerdError::NoShim(shim));
        }
        let configuration = self.configuration.clone();
        let names = Names {
            shim,
            configuration: configuration.unwrap_or(self.prefix.join("configuration.toml")),
            drop_in,
        };
        let found = read(main)?;
        let base = match &found {
            Some(text) => self.readable(text, main)?.to_owned(),
            None => self.absent(main)?,
        };
        let edited = edit::add(&base, &names).map_err(of(main))?;
        check_imported(&base, main, &names.drop_in)?;
        let mut changed = Vec::new();
        if let Some(text) = &edited.drop_in {
            changed.extend(write_if_changed(&names.drop_in, text, main)?);
        }
        if found.as_ref() != Some(&edited.main) {
            let backup = files::beside(main, BACKUP);
            // A backup of a file that has our runtime already would be of no use.
            if read(&backup)?.is_none() {
                changed.extend(write_if_changed(&backup, &found.unwrap_or_default(), main)?);
            }
            changed.extend(write_if_changed(main, &edited.main, main)?);
        }
        Ok(changed)
    }

    fn take_out(&self, main: &Path, drop_in: &Path) -> Result<Vec<PathBuf>, ContainerdError> {
        let backup = files::beside(main, BACKUP);
        let (found, kept) = (read(main)?, read(&backup)?);
        let mut changed = Vec::new();
        if let Some(text) = found {
            let made = kept.as_deref() == Some("");
            let original = if made { self.absent(main).ok() } else { kept };
            let back = edit::remove(&text, original.as_deref(), drop_in).map_err(of(main))?;
            if made && original.as_deref() == Some(back.as_str()) {
                changed.extend(remove(main)?);
            } else {
                changed.extend(write_if_changed(main, &back, main)?);
            }
        }
        changed.extend(remove(drop_in)?);
        changed.extend(remove(&backup)?);
        Ok(changed)
    }

    /// The text, unless it is of a version that the node's containerd only migrates.
    fn readable<'a>(&self, text: &'a str, main: &Path) -> Result<&'a str, ContainerdError> {
        // Without containerd at hand the file alone decides.
        let said = facts::said(&self.containerd, &["--version"]).unwrap_or_default();
        match decide::version(&said) {
            Some((major, _)) if major > 1 && edit::is_version_2(text) => {
                Err(ContainerdError::OldFile {
                    path: main.to_owned(),
                    major,
                })
            }
            _ => Ok(text),
        }
    }

    /// What stands for a main file that does not exist.
    fn absent(&self, main: &Path) -> Result<String, ContainerdError> {
        let default = facts::said(&self.containerd, &["config", "default"]);
        let default = default.map_err(|asked| ContainerdError::NoDefault {
            path: main.to_owned(),
            asked,
        })?;
        edit::absent(&default).map_err(of(main))
    }
}

fn of(main: &Path) -> impl Fn(EditError) -> ContainerdError {
    |source| ContainerdError::Edit {
        path: main.to_owned(),
        source,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContainerdError {
    move |source| ContainerdError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<String>, ContainerdError> {
    files::read(path).map_err(failed("read", path))
}

/// No file that the main file imports has our names, or takes ours away.
fn check_imported(base: &str, main: &Path, drop_in: &Path) -> Result<(), ContainerdError> {
    let imports = edit::imports(base).map_err(of(main))?;
    let folder = main.parent().unwrap_or(main);
    let files = imports
        .iter()
        .flat_map(|import| files::named_by(&folder.join(import)));
    for file in files.filter(|file| file != drop_in) {
        let text = read(&file)?.unwrap_or_default();
        edit::check_imported(&text, edit::is_version_2(base)).map_err(of(&file))?;
    }
    Ok(())
}

/// The path, if its text was another; owner and permissions become those of the main file.
fn write_if_changed(
    path: &Path,
    text: &str,
    main: &Path,
) -> Result<Option<PathBuf>, ContainerdError> {
    if read(path)?.as_deref() == Some(text) {
        return Ok(None);
    }
    files::replace(path, text, main).map_err(failed("write", path))?;
    Ok(Some(path.to_owned()))
}

/// The path, if there was a file.
fn remove(path: &Path) -> Result<Option<PathBuf>, ContainerdError> {
    let there = path.exists();
    files::remove(path).map_err(failed("remove", path))?;
    Ok(there.then(|| path.to_owned()))
}

#[cfg(test)]
mod tests;
