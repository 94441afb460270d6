//! The command line of a containerd shim.
//!
//! containerd calls the binary with single-dash flags and one action, as the
//! shim v2 contract says (containerd, `core/runtime/v2/README.md`). A flag may be
//! written `-flag value` or `-flag=value`, with one dash or two. An unknown flag is
//! refused: a containerd that needs one must not be misunderstood silently.

use std::path::PathBuf;

use thiserror::Error;

/// What the caller asked the binary to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start (or find) the shim of a container and print its address.
    Start,
    /// Undo what a dead shim left and print the exit of its task.
    Delete,
    /// Run the task service on the socket inherited as standard input.
    Serve,
    /// Print `RuntimeInfo` for containerd's introspection.
    Info,
    /// Print the version.
    Version,
}

/// Everything from the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// What to do.
    pub(crate) action: Action,
    /// containerd's namespace, for example `k8s.io`.
    pub(crate) namespace: String,
    /// The container or sandbox the call is about.
    pub(crate) id: String,
    /// containerd's gRPC address, part of the name of the shim's socket.
    pub(crate) address: String,
    /// The bundle; `None` means the working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// Whether containerd itself runs at debug level.
    pub(crate) debug: bool,
}

/// Why the command line was refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ArgumentsError {
    /// The flag is not part of the contract.
    #[error(
        "unknown flag {0}: expected -namespace, -id, -address, -publish-binary, -bundle, -socket, -debug, -info or -v"
    )]
    UnknownFlag(String),
    /// The flag needs a value and was the last word.
    #[error("flag {0} needs a value")]
    MissingValue(String),
    /// No action, or one that does not exist.
    #[error("unknown action {0:?}: expected start or delete")]
    UnknownAction(String),
    /// An action that needs a container was called without `-id`.
    #[error("action {0} needs -id and -namespace")]
    MissingId(&'static str),
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    ///
    /// [`ArgumentsError`] names the word that does not fit.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, ArgumentsError> {
        let mut words = words.into_iter();
        let mut arguments = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let mut action = None;
        while let Some(word) = words.next() {
            match word.strip_prefix('-') {
                None => action = Some(word),
                Some(flag) => {
                    if let Some(found) = arguments.flag(flag, &mut words)? {
                        arguments.action = found;
                        return Ok(arguments);
                    }
                }
            }
        }
        arguments.action = match action.as_deref() {
            Some("start") => Action::Start,
            Some("delete") => Action::Delete,
            Some("serve") => Action::Serve,
            other => return Err(ArgumentsError::UnknownAction(other.unwrap_or("").into())),
        };
        if arguments.id.is_empty() || arguments.namespace.is_empty() {
            return Err(ArgumentsError::MissingId(match arguments.action {
                Action::Start => "start",
                Action::Delete => "delete",
                _ => "serve",
            }));
        }
        Ok(arguments)
    }

    /// Takes one flag; answers with the action if the flag is one by itself.
    fn flag(
        &mut self,
        flag: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<Option<Action>, ArgumentsError> {
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "info" => return Ok(Some(Action::Info)),
            "v" | "version" => return Ok(Some(Action::Version)),
            "debug" => {
                self.debug = inline.as_deref() != Some("false");
                return Ok(None);
            }
            _ => {}
        }
        let mut value = || {
            inline
                .clone()
                .or_else(|| words.next())
                .ok_or_else(|| ArgumentsError::MissingValue(format!("-{name}")))
        };
        match name {
            "namespace" => self.namespace = value()?,
            "id" => self.id = value()?,
            "address" => self.address = value()?,
            "bundle" => self.bundle = Some(value()?.into()),
            // Events go through TTRPC_ADDRESS and the socket's name is fixed,
            // so both are accepted for the contract and not used.
            "publish-binary" | "socket" => drop(value()?),
            _ => return Err(ArgumentsError::UnknownFlag(format!("-{name}"))),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentsError> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn parse_accepts_what_containerd_sends() {
        let line = "-namespace k8s.io -address /run/containerd/containerd.sock \
                    -publish-binary /usr/bin/containerd -id abc -debug start";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.action, Action::Start);
        assert_eq!(arguments.namespace, "k8s.io");
        assert_eq!(arguments.id, "abc");
        assert_eq!(arguments.address, "/run/containerd/containerd.sock");
        assert!(arguments.debug);

        let arguments = parse("--namespace=n --id=c1 -bundle /b delete").unwrap();
        assert_eq!(arguments.action, Action::Delete);
        assert_eq!(arguments.bundle, Some("/b".into()));
        assert!(!arguments.debug);
    }

    #[test]
    fn information_needs_no_container() {
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("--version").unwrap().action, Action::Version);
    }

    #[test]
    fn parse_names_the_word_that_does_not_fit() {
        for (line, error) in [
            ("-what 1 start", ArgumentsError::UnknownFlag("-what".into())),
            ("start -id", ArgumentsError::MissingValue("-id".into())),
            ("stop", ArgumentsError::UnknownAction("stop".into())),
            ("", ArgumentsError::UnknownAction(String::new())),
            ("-namespace n start", ArgumentsError::MissingId("start")),
            ("-id a delete", ArgumentsError::MissingId("delete")),
        ] {
            assert_eq!(parse(line), Err(error), "{line:?}");
        }
    }
}
