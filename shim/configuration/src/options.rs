//! The runtime's options, as containerd passes them with `Create`.
//!
//! For a runtime that it does not know, containerd sends
//! `runtimeoptions.v1.Options`: the configuration file's path, or the whole options
//! table as TOML text if it names no file. The three fields are decoded here by
//! hand: no other message of that schema is needed.

use std::path::PathBuf;

use protobuf::{CodedInputStream, well_known_types::any::Any};
use thiserror::Error;

/// What the options say about configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum TaskOptions {
    /// They name no configuration.
    None,
    /// A file.
    Path(PathBuf),
    /// TOML text.
    Inline(String),
}

/// Why the options cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// They are another message than the one for unknown runtimes.
    #[error(
        "runtime options are of type {0:?}: expected runtimeoptions.v1.Options, so runtime_type must be io.containerd.kata-cc.v2"
    )]
    UnknownType(String),
    /// The bytes are not an encoded message of that type.
    #[error("runtime options are malformed")]
    Malformed(#[source] protobuf::Error),
    /// The inline text is not UTF-8.
    #[error("runtime options hold a configuration that is not UTF-8")]
    NotText(#[source] std::string::FromUtf8Error),
}

const TYPES: [&str; 2] = [
    "runtimeoptions.v1.Options",
    // containerd before 1.6
    "cri.runtimeoptions.v1.Options",
];

const CONFIG_PATH_TAG: u32 = 2 << 3 | 2;
const CONFIG_BODY_TAG: u32 = 3 << 3 | 2;

impl TaskOptions {
    /// Decodes the options of a `Create` request.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] says what they are instead.
    pub fn decode(options: Option<&Any>) -> Result<Self, OptionsError> {
        let Some(options) = options else {
            return Ok(Self::None);
        };
        if options.type_url.is_empty() && options.value.is_empty() {
            return Ok(Self::None);
        }
        let name = options.type_url.rsplit('/').next().unwrap_or_default();
        if !TYPES.contains(&name) {
            return Err(OptionsError::UnknownType(options.type_url.clone()));
        }
        let (path, body) = fields(&options.value).map_err(OptionsError::Malformed)?;
        if !path.is_empty() {
            return Ok(Self::Path(path.into()));
        }
        if body.is_empty() {
            return Ok(Self::None);
        }
        String::from_utf8(body)
            .map(Self::Inline)
            .map_err(OptionsError::NotText)
    }
}

fn fields(bytes: &[u8]) -> protobuf::Result<(String, Vec<u8>)> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut path = String::new();
    let mut body = Vec::new();
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            CONFIG_PATH_TAG => path = input.read_string()?,
            CONFIG_BODY_TAG => body = input.read_bytes()?,
            other => skip(other, &mut input)?,
        }
    }
    Ok((path, body))
}

fn skip(tag: u32, input: &mut CodedInputStream<'_>) -> protobuf::Result<()> {
    let mut unknown = protobuf::UnknownFields::new();
    protobuf::rt::read_unknown_or_skip_group(tag, input, &mut unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(type_url: &str, value: &[u8]) -> Result<TaskOptions, OptionsError> {
        let any = Any {
            type_url: type_url.to_owned(),
            value: value.to_vec(),
            ..Any::default()
        };
        TaskOptions::decode(Some(&any))
    }

    #[test]
    fn a_path_wins_over_inline_text() {
        let bytes = b"\x0a\x01t\x12\x02/c\x1a\x03a=1";
        assert_eq!(
            options("runtimeoptions.v1.Options", bytes).unwrap(),
            TaskOptions::Path("/c".into())
        );
        assert_eq!(
            options("cri.runtimeoptions.v1.Options", b"\x1a\x03a=1").unwrap(),
            TaskOptions::Inline("a=1".into())
        );
    }

    #[test]
    fn no_options_mean_nothing() {
        assert_eq!(TaskOptions::decode(None).unwrap(), TaskOptions::None);
        assert_eq!(options("", b"").unwrap(), TaskOptions::None);
        assert_eq!(
            options("runtimeoptions.v1.Options", b"").unwrap(),
            TaskOptions::None
        );
    }

    #[test]
    fn other_messages_and_broken_bytes_are_refused() {
        assert!(matches!(
            options("containerd.runc.v1.Options", b""),
            Err(OptionsError::UnknownType(_))
        ));
        assert!(matches!(
            options("runtimeoptions.v1.Options", b"\x12\x7fx"),
            Err(OptionsError::Malformed(_))
        ));
        assert!(matches!(
            options("runtimeoptions.v1.Options", b"\x1a\x01\xff"),
            Err(OptionsError::NotText(_))
        ));
    }
}
