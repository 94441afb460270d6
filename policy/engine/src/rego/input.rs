//! A request as the JSON document that a policy sees as `input`.
//!
//! The shape is a contract: policies that exist index it. Field names are those of the schema
//! (`OCI`, `hwAddr`), but `type` is `type_`; a message that is not there is null, lists and maps
//! always are; bytes are an array of numbers, and a choice of an enumeration is its number.
//! `CopyFileRequest` has a document of its own, without the file's content.
//!
//! Requests come from the host, and have passed the limit on the length of a message before.

use std::collections::BTreeSet;

use agent_protocol::rpc::agent::CopyFileRequest;
use protobuf::{
    MessageDyn,
    reflect::{FieldDescriptor, MessageRef, ReflectFieldRef, ReflectValueRef},
};
use serde::Serialize;
use thiserror::Error;

/// The longest document. A list of bytes takes up to four characters for each.
pub const INPUT_BYTES_MAX: usize = 20 << 20;

const FILE_TYPE_MASK: u32 = 0o170_000;

/// Which fields of a request a policy can see at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// Every one.
    All,
    /// Those that it names, anywhere.
    Named(BTreeSet<String>),
}

impl Fields {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// Why a request has no document. The host is at fault.
#[derive(Debug, Error)]
pub enum InputError {
    /// Longer than [`INPUT_BYTES_MAX`].
    #[error("the request is longer than any that a policy judges")]
    TooLong,
    /// The target of a symbolic link is not UTF-8.
    #[error("the target of a symbolic link is no text")]
    LinkTarget,
}

/// The document of a request, with those of its fields that the policy can see.
///
/// # Errors
///
/// [`InputError`] for what no policy can judge.
pub fn input(message: &dyn MessageDyn, seen: &Fields) -> Result<String, InputError> {
    if let Some(copy) = message.downcast_ref::<CopyFileRequest>() {
        return copy_file(copy);
    }
    let mut writer = Writer::default();
    writer.message(message, Some(seen))?;
    String::from_utf8(writer.bytes).map_err(|_| InputError::TooLong)
}

#[derive(Serialize)]
struct CopyFileInput<'a> {
    path: &'a str,
    file_type: &'static str,
    symlink_target: Option<&'a str>,
    file_size: i64,
    file_mode: u32,
    dir_mode: u32,
    uid: i32,
    gid: i32,
    offset: i64,
}

fn copy_file(request: &CopyFileRequest) -> Result<String, InputError> {
    let file_type = match request.file_mode & FILE_TYPE_MASK {
        0o100_000 => "Regular",
        0o040_000 => "Directory",
        0o120_000 => "Symlink",
        _ => "Unknown",
    };
    let target = (file_type == "Symlink").then(|| std::str::from_utf8(&request.data));
    let document = CopyFileInput {
        path: &request.path,
        file_type,
        symlink_target: target.transpose().map_err(|_| InputError::LinkTarget)?,
        file_size: request.file_size,
        file_mode: request.file_mode,
        dir_mode: request.dir_mode,
        uid: request.uid,
        gid: request.gid,
        offset: request.offset,
    };
    let text = serde_json::to_string(&document).map_err(|_| InputError::TooLong)?;
    bounded(text.len()).map(|()| text)
}

fn bounded(len: usize) -> Result<(), InputError> {
    match len > INPUT_BYTES_MAX {
        true => Err(InputError::TooLong),
        false => Ok(()),
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn scalar<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), InputError> {
        let written = serde_json::to_writer(&mut self.bytes, value);
        written.map_err(|_| InputError::TooLong)?;
        bounded(self.bytes.len())
    }

    /// Members of an object, or elements of a list, with commas between.
    fn each<T>(
        &mut self,
        (open, close): (&str, &str),
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), InputError>,
    ) -> Result<(), InputError> {
        self.raw(open);
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.raw(",");
            }
            write(self, item)?;
        }
        self.raw(close);
        Ok(())
    }

    fn message(
        &mut self,
        message: &dyn MessageDyn,
        seen: Option<&Fields>,
    ) -> Result<(), InputError> {
        let descriptor = message.descriptor_dyn();
        let fields = descriptor.fields();
        let fields = fields.filter(|field| seen.is_none_or(|seen| seen.has(member(field.name()))));
        self.each(("{", "}"), fields, |writer, field| {
            writer.member(message, &field)
        })
    }

    fn member(
        &mut self,
        message: &dyn MessageDyn,
        field: &FieldDescriptor,
    ) -> Result<(), InputError> {
        if let Some(choice) = field.containing_oneof() {
            // A choice is an object whose only member is what was chosen.
            self.scalar(choice.name())?;
            self.raw(":");
            return match field.get_singular(message) {
                None => self.scalar(&()),
                Some(value) => {
                    self.raw("{");
                    self.scalar(field.name())?;
                    self.raw(":");
                    self.value(&value)?;
                    self.raw("}");
                    Ok(())
                }
            };
        }
        self.scalar(member(field.name()))?;
        self.raw(":");
        self.field(message, field)
    }

    fn field(
        &mut self,
        message: &dyn MessageDyn,
        field: &FieldDescriptor,
    ) -> Result<(), InputError> {
        match field.get_reflect(message) {
            ReflectFieldRef::Optional(value) => match value.value() {
                Some(value) => self.value(&value),
                None if has_presence(field) => self.scalar(&()),
                None => self.value(&field.singular_default_value()),
            },
            ReflectFieldRef::Repeated(list) => {
                self.each(("[", "]"), list.into_iter(), |writer, value| {
                    writer.value(&value)
                })
            }
            ReflectFieldRef::Map(map) => {
                // Sorted: the document of a request is always the same.
                let mut members: Vec<_> = map.into_iter().collect();
                members.sort_by_cached_key(|(key, _)| key.to_string());
                self.each(("{", "}"), members.into_iter(), |writer, (key, value)| {
                    writer.scalar(&key.to_string())?;
                    writer.raw(":");
                    writer.value(&value)
                })
            }
        }
    }

    fn value(&mut self, value: &ReflectValueRef<'_>) -> Result<(), InputError> {
        match value {
            ReflectValueRef::U32(value) => self.scalar(value),
            ReflectValueRef::U64(value) => self.scalar(value),
            ReflectValueRef::I32(value) | ReflectValueRef::Enum(_, value) => self.scalar(value),
            ReflectValueRef::I64(value) => self.scalar(value),
            ReflectValueRef::F32(value) => self.scalar(value),
            ReflectValueRef::F64(value) => self.scalar(value),
            ReflectValueRef::Bool(value) => self.scalar(value),
            ReflectValueRef::String(value) => self.scalar(*value),
            ReflectValueRef::Bytes(value) => self.scalar(*value),
            ReflectValueRef::Message(value) => self.nested(value),
        }
    }

    fn nested(&mut self, message: &MessageRef<'_>) -> Result<(), InputError> {
        self.message(&**message, None)
    }
}

/// The name of a field in the document.
fn member(field: &str) -> &str {
    match field {
        "type" => "type_",
        other => other,
    }
}

fn has_presence(field: &FieldDescriptor) -> bool {
    matches!(
        field.singular_runtime_type(),
        protobuf::reflect::RuntimeType::Message(_)
    ) || field.proto().proto3_optional()
}
