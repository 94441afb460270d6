//! Ids that the host chooses and the guest uses as names of files and cgroups.
//!
//! An id starts with a letter or digit and goes on with letters, digits, `.`,
//! `-` and `_`, at least two characters in all. So it is never empty, never `.`
//! or `..`, and holds no separator: it is safe as one path component.

use std::fmt;

use thiserror::Error;

use crate::limits::ID_BYTES_MAX;

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Fewer than two characters.
    #[error("id is shorter than 2 characters")]
    TooShort,
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("id is longer than {ID_BYTES_MAX} bytes")]
    TooLong,
    /// The first character is neither letter nor digit.
    #[error("id does not start with a letter or digit")]
    BadStart,
    /// A later character is none of letter, digit, `.`, `-`, `_`.
    #[error("id holds a character that is none of letter, digit, '.', '-', '_'")]
    BadCharacter,
}

fn check(text: &str) -> Result<(), IdError> {
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    let mut bytes = text.bytes();
    let first = bytes.next().ok_or(IdError::TooShort)?;
    if !first.is_ascii_alphanumeric() {
        return Err(IdError::BadStart);
    }
    if bytes.len() == 0 {
        return Err(IdError::TooShort);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if bytes.all(allowed) {
        Ok(())
    } else {
        Err(IdError::BadCharacter)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes a string that fits the rules of this module.
            ///
            /// # Errors
            ///
            /// [`IdError`] names the rule that the string breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The id as it came.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                std::path::Path::new(&*self.0)
            }
        }
    };
}

id!(
    /// The pod as containerd names it; also the id of its pause container.
    SandboxId
);
id!(
    /// A container of the pod.
    ContainerId
);
id!(
    /// A further process in a container.
    ExecId
);

/// Which process of a container a request means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProcessId {
    /// The container's first process.
    Init,
    /// A process started by `ExecProcess`.
    Exec(ExecId),
}

impl ProcessId {
    /// Reads the exec id of a request: empty, or equal to the container's id,
    /// means the init process (one Kata shim sends the one, one the other).
    ///
    /// # Errors
    ///
    /// [`IdError`] names the rule that the string breaks.
    pub fn parse(container: &ContainerId, exec_id: &str) -> Result<Self, IdError> {
        if exec_id.is_empty() || exec_id == container.as_str() {
            return Ok(Self::Init);
        }
        ExecId::parse(exec_id).map(Self::Exec)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parse_accepts_what_containerd_sends() {
        for text in [
            "ab",
            "0a",
            "a.b-c_d",
            "7f3c0b0e1c0f4c8b9a",
            &"a".repeat(ID_BYTES_MAX),
        ] {
            assert_eq!(
                ContainerId::parse(text).map(|id| id.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn parse_names_the_broken_rule() {
        let long = "a".repeat(ID_BYTES_MAX + 1);
        for (text, error) in [
            ("", IdError::TooShort),
            ("a", IdError::TooShort),
            (long.as_str(), IdError::TooLong),
            ("..", IdError::BadStart),
            (".a", IdError::BadStart),
            ("-a", IdError::BadStart),
            ("a/b", IdError::BadCharacter),
            ("a\0", IdError::BadCharacter),
            ("a b", IdError::BadCharacter),
            ("aé", IdError::BadCharacter),
        ] {
            assert_eq!(ContainerId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn process_id_reads_both_spellings_of_init() {
        let container = ContainerId::parse("c1").unwrap();
        assert_eq!(ProcessId::parse(&container, ""), Ok(ProcessId::Init));
        assert_eq!(ProcessId::parse(&container, "c1"), Ok(ProcessId::Init));
        let exec = ExecId::parse("e1").unwrap();
        assert_eq!(
            ProcessId::parse(&container, "e1"),
            Ok(ProcessId::Exec(exec))
        );
        assert_eq!(ProcessId::parse(&container, "../x"), Err(IdError::BadStart));
    }

    proptest! {
        #[test]
        fn every_parsed_id_is_one_plain_path_component(text in ".*") {
            if let Ok(id) = ContainerId::parse(&text) {
                let mut parts = std::path::Path::new(id.as_str()).components();
                prop_assert!(matches!(parts.next(), Some(std::path::Component::Normal(_))));
                prop_assert!(parts.next().is_none());
            }
        }
    }
}
