//! Guest paths that the host chooses.
//!
//! A [`GuestPath`] is absolute and holds no `.`, no `..`, no empty component and
//! no zero byte, so it cannot step out of the directory that it starts with.
//! That is a statement about text only: whoever opens it must still refuse
//! symbolic links (`openat2`).

use std::{fmt, path::Path};

use thiserror::Error;

use crate::limits::PATH_BYTES_MAX;

/// Why a string is not a guest path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("path is not absolute")]
    NotAbsolute,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// A component is empty, `.` or `..`.
    #[error("path has a component that is empty, '.' or '..'")]
    BadComponent,
    /// It holds a zero byte.
    #[error("path holds a zero byte")]
    ZeroByte,
    /// It is not below the root asked for.
    #[error("path is not below {root}")]
    Outside {
        /// The root it should be below.
        root: &'static str,
    },
}

/// An absolute guest path in its only spelling.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestPath(Box<str>);

impl GuestPath {
    /// Takes an absolute path in its only spelling; `/` alone is refused.
    ///
    /// # Errors
    ///
    /// [`PathError`] names the rule that the string breaks.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.contains('\0') {
            return Err(PathError::ZeroByte);
        }
        let relative = text.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        if relative
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(PathError::BadComponent);
        }
        Ok(Self(text.into()))
    }

    /// As [`GuestPath::parse`], and the path must lie strictly below `root`.
    ///
    /// # Errors
    ///
    /// [`PathError`] names the rule that the string breaks.
    pub fn parse_below(root: &'static str, text: &str) -> Result<Self, PathError> {
        let path = Self::parse(text)?;
        match path.below(root) {
            Some(_) => Ok(path),
            None => Err(PathError::Outside { root }),
        }
    }

    /// The rest of the path after `root` and a slash, if it lies below `root`.
    #[must_use]
    pub fn below(&self, root: &str) -> Option<&str> {
        self.0
            .strip_prefix(root.trim_end_matches('/'))?
            .strip_prefix('/')
    }

    /// The path as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for GuestPath {
    fn as_ref(&self) -> &Path {
        Path::new(&*self.0)
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPath({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/run/kata-containers/shared/containers";

    #[test]
    fn parse_accepts_plain_absolute_paths() {
        for text in ["/a", "/run/x/..y", "/run/.hidden", "/a b/ü"] {
            assert_eq!(
                GuestPath::parse(text).map(|path| path.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn parse_names_the_broken_rule() {
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for (text, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("/", PathError::BadComponent),
            ("//", PathError::BadComponent),
            ("/a/", PathError::BadComponent),
            ("/a//b", PathError::BadComponent),
            ("/a/./b", PathError::BadComponent),
            ("/a/../b", PathError::BadComponent),
            ("/..", PathError::BadComponent),
            ("/a\0", PathError::ZeroByte),
            (long.as_str(), PathError::TooLong),
        ] {
            assert_eq!(GuestPath::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn parse_below_refuses_the_root_itself_and_its_neighbours() {
        assert!(GuestPath::parse_below(ROOT, &format!("{ROOT}/x")).is_ok());
        for text in [
            ROOT.to_owned(),
            format!("{ROOT}x/y"),
            "/etc/passwd".to_owned(),
        ] {
            assert_eq!(
                GuestPath::parse_below(ROOT, &text),
                Err(PathError::Outside { root: ROOT }),
                "{text}"
            );
        }
    }
}
