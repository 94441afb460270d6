//! A recorded request as the bytes that went over containerd's socket.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use prost::encoding::{encode_varint, string, uint64};
use serde_json::Value;

use crate::schema::{self, Field, Kind, Message};

/// Writes the request of `method` as protobuf.
///
/// # Errors
/// When the method or a field is none that a kubelet is known to send, or a value is of
/// another kind.
pub(crate) fn request(method: &str, request: &Value) -> Result<Vec<u8>> {
    let message = schema::request(method).with_context(|| format!("{method} is not known"))?;
    let mut bytes = Vec::new();
    write_message(message, request, &mut bytes).context(method.to_owned())?;
    Ok(bytes)
}

fn write_message(message: Message, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let members = value.as_object().context("a message is an object")?;
    for (name, value) in members {
        let field = message.iter().find(|field| field.name == name);
        let field = field.with_context(|| format!("the field {name} is not known"))?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for one in values {
            write_field(field, one, out).with_context(|| name.clone())?;
        }
    }
    Ok(())
}

fn write_field(field: &Field, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let number = field.number;
    let text = || value.as_str().context("text is expected");
    match &field.kind {
        Kind::Text => string::encode(number, &text()?.to_owned(), out),
        Kind::Base64 => write_bytes(number, &BASE64_STANDARD.decode(text()?)?, out),
        Kind::Flag => {
            let flag = value.as_bool().context("true or false is expected")?;
            uint64::encode(number, &u64::from(flag), out);
        }
        Kind::Number => uint64::encode(number, &number_of(value)?, out),
        Kind::Choice(names) => {
            let at = names.iter().position(|name| Some(*name) == value.as_str());
            let at = at.with_context(|| format!("{value} is none of {names:?}"))?;
            uint64::encode(number, &u64::try_from(at)?, out);
        }
        Kind::Message(message) => {
            let mut bytes = Vec::new();
            write_message(message, value, &mut bytes)?;
            write_bytes(number, &bytes, out);
        }
        Kind::Map => {
            let members = value.as_object().context("a map is an object")?;
            for (key, value) in members {
                let mut entry = Vec::new();
                string::encode(1, key, &mut entry);
                let value = value.as_str().context("a map holds text")?;
                string::encode(2, &value.to_owned(), &mut entry);
                write_bytes(number, &entry, out);
            }
        }
    }
    Ok(())
}

/// Signed numbers are written in two's complement, as `int64` is.
fn number_of(value: &Value) -> Result<u64> {
    let digits = match value {
        Value::String(digits) => digits.clone(),
        Value::Number(number) => number.to_string(),
        other => bail!("a number is expected, not {other}"),
    };
    let number: i64 = digits.parse().context("a number is expected")?;
    Ok(number.cast_unsigned())
}

fn write_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(u64::from(number) << 3 | 2, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The first text of the field `number` of an answer: all that its reader needs of it.
pub(crate) fn first_text(bytes: &[u8], number: u32) -> Result<String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = prost::encoding::decode_varint(&mut rest)?;
        ensure!(key & 7 == 2, "an answer of another shape");
        let length = usize::try_from(prost::encoding::decode_varint(&mut rest)?)?;
        let value = rest.get(..length).context("an answer ends early")?;
        if key >> 3 == u64::from(number) {
            return Ok(String::from_utf8(value.to_vec())?);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    bail!("an answer without field {number}")
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{CreateContainerRequest, RunPodSandboxRequest};
    use prost::Message as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_read_by_others_as_it_was_recorded() {
        let recorded = json!({
            "pod_sandbox_id": "s",
            "config": {
                "envs": [{"key": "A", "value": "Yj1j"}],
                "mounts": [{"container_path": "/a", "readonly": true}, {"image_sub_path": "bin"}],
                "linux": {
                    "resources": {"oom_score_adj": "-5", "cpu_period": "100000"},
                    "security_context": {"namespace_options": {"pid": "TARGET"}}
                }
            },
        });
        let bytes = request("CreateContainer", &recorded).unwrap();
        let config = CreateContainerRequest::decode(bytes.as_slice())
            .unwrap()
            .config
            .unwrap();
        assert_eq!(config.envs[0].value, "b=c");
        assert!(config.mounts[0].readonly && config.mounts.len() == 2);
        let linux = config.linux.unwrap();
        assert_eq!(linux.resources.unwrap().oom_score_adj, -5);
        let namespaces = linux.security_context.unwrap().namespace_options.unwrap();
        assert_eq!(namespaces.pid, 3);
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused() {
        let error = request("RunPodSandbox", &json!({"config": {"colour": 1}})).unwrap_err();
        assert!(format!("{error:#}").contains("colour"), "{error:#}");
        assert!(request("Checkpoint", &json!({})).is_err());
    }

    #[test]
    fn the_first_text_of_an_answer_is_found() {
        let answer = RunPodSandboxRequest {
            config: None,
            runtime_handler: "runc".to_owned(),
        };
        assert_eq!(first_text(&answer.encode_to_vec(), 2).unwrap(), "runc");
        assert!(first_text(&answer.encode_to_vec(), 1).is_err());
        assert!(first_text(&[0x12, 9, 1], 2).is_err());
    }
}
