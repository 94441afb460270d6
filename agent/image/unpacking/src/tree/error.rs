//! Why an archive could not become a directory, in words for users.

use rustix::io::Errno;

use crate::tar::TarError;

/// Why an archive could not become a directory.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The archive itself.
    #[error("the layer's archive cannot be read after {entries} entries")]
    Tar {
        /// How many entries had been read.
        entries: u64,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// A name that leaves the root.
    #[error("entry `{0}` has a `..` in its name, which no layer may have")]
    DotDot(String),
    /// A whiteout without a name, or of `.` or `..`.
    #[error("entry `{0}` is a whiteout that names no file")]
    Whiteout(String),
    /// A device that overlayfs takes for a whiteout.
    #[error("entry `{0}` is character device 0:0, which overlayfs takes for a deleted file")]
    FalseWhiteout(String),
    /// A hard link to nothing.
    #[error("entry `{name}` is a hard link to `{target}`, which is not in the image")]
    LinkTarget {
        /// The entry.
        name: String,
        /// What it links to.
        target: String,
    },
    /// Links that lead in a circle, or through too many links.
    #[error("entry `{0}` lies behind too many symbolic links")]
    TooManyLinks(String),
    /// A parent that is neither a directory nor a link to one.
    #[error("entry `{0}` lies below something that is not a directory")]
    NotADirectory(String),
    /// More unstated parents and whiteouts than can be kept.
    #[error("the layer names too many files in directories that it does not state")]
    TooManyNotes,
    /// The store has no room.
    #[error("cannot {step} `{name}`: the image store is full; give it more space")]
    Full {
        /// What was being done.
        step: &'static str,
        /// On which entry.
        name: String,
    },
    /// A system call failed.
    #[error("cannot {step} `{name}`")]
    System {
        /// What was being done.
        step: &'static str,
        /// On which entry.
        name: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

/// Shown to users: bytes that are not text are escaped, and length is bounded.
pub(crate) fn shown(name: &[u8]) -> String {
    name.iter()
        .take(300)
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect()
}

/// Turns a failed call on an entry into an error that names both.
pub(crate) fn tree_failed(step: &'static str, name: &[u8]) -> impl FnOnce(Errno) -> TreeError {
    let name = shown(name);
    move |source| match source {
        Errno::NOSPC | Errno::DQUOT => TreeError::Full { step, name },
        source => TreeError::System { step, name, source },
    }
}
