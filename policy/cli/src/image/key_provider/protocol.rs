//! The JSON inside the key-provider protocol, and what is done for it.
//!
//! Format: `ocicrypt`, `docs/keyprovider.md`; the parameters are those of the
//! Confidential Containers key provider, `keyid=…::keypath=…`. Bytes are base64 from
//! Go programs and arrays of numbers from others; both are read, arrays are written,
//! which both read.

use std::{collections::BTreeMap, path::PathBuf};

use agent_documents::parse_json;
use agent_keys::{OfflineKeys, Packet, PacketError};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use policy_images::{PacketVersion, SealError, seal_packet};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::image::keys::{KeyOptionError, find};

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the request is not a key provider's")]
    Json(#[source] serde_json::Error),
    #[error("the request has no {0}")]
    Missing(&'static str),
    #[error("the parameters are not base64 of `name=value::name=value`")]
    Parameters,
    #[error("parameter `{0}` is not known; keyid and keypath are")]
    Parameter(String),
    #[error("keys are wrapped with A256GCM only, not with `{0}`")]
    Algorithm(String),
    #[error("the sample key is known to everybody; name a key of your own with keyid=kbs:///…")]
    Sample,
    #[error(transparent)]
    Key(#[from] KeyOptionError),
    #[error("the layer's key cannot be wrapped")]
    Seal(#[from] SealError),
    #[error("the layer's key cannot be unwrapped")]
    Packet(#[from] PacketError),
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    keywrapparams: WrapParameters,
    #[serde(default)]
    keyunwrapparams: UnwrapParameters,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrapParameters {
    ec: Option<EncryptConfig>,
    optsdata: Option<Bytes>,
}

#[derive(Default, Deserialize)]
struct UnwrapParameters {
    annotation: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptConfig {
    #[serde(default)]
    parameters: BTreeMap<String, Vec<Bytes>>,
}

/// Bytes in either form.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Numbers(Vec<u8>),
        }
        let bytes = match Form::deserialize(deserializer)? {
            Form::Text(text) => STANDARD.decode(text).map_err(serde::de::Error::custom)?,
            Form::Numbers(numbers) => numbers,
        };
        Ok(Self(bytes.into()))
    }
}

#[derive(Serialize)]
struct WrapResponse {
    keywrapresults: Annotation,
    keyunwrapresults: Empty,
}

#[derive(Serialize)]
struct Annotation {
    annotation: Vec<u8>,
}

#[derive(Serialize)]
struct UnwrapResponse<'a> {
    keywrapresults: Empty,
    keyunwrapresults: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
    optsdata: &'a [u8],
}

#[derive(Serialize)]
struct Empty {}

/// What the user said after the provider's name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    key_id: Option<String>,
    key_path: Option<PathBuf>,
}

/// Answers `WrapKey`.
pub(crate) fn wrap(json: &[u8], keys: &OfflineKeys) -> Result<Vec<u8>, ProtocolError> {
    let request: Request = parse_json(json).map_err(ProtocolError::Json)?;
    let WrapParameters { ec, optsdata } = request.keywrapparams;
    let options = optsdata.ok_or(ProtocolError::Missing("options to wrap (optsdata)"))?;
    // There is one provider in a request: the one that was asked.
    let values = ec.into_iter().flat_map(|ec| ec.parameters.into_values());
    let parameters = parameters(values.flatten())?;
    let id = parameters
        .key_id
        .ok_or(ProtocolError::Missing("key id; say keyid=kbs:///…"))?;
    let (id, key) = find(keys, &id, parameters.key_path.as_deref())?;
    let packet = seal_packet(&options.0, &id, &key, PacketVersion::One)?;
    Ok(json_of(&WrapResponse {
        keywrapresults: Annotation { annotation: packet },
        keyunwrapresults: Empty {},
    }))
}

/// Answers `UnWrapKey`.
pub(crate) fn unwrap(json: &[u8], keys: &OfflineKeys) -> Result<Vec<u8>, ProtocolError> {
    let request: Request = parse_json(json).map_err(ProtocolError::Json)?;
    let annotation = request.keyunwrapparams.annotation;
    let annotation = annotation.ok_or(ProtocolError::Missing("annotation"))?;
    let options = Packet::parse(&annotation.0)?.open(keys)?;
    Ok(json_of(&UnwrapResponse {
        keywrapresults: Empty {},
        keyunwrapresults: Options { optsdata: &options },
    }))
}

fn json_of(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("an answer is an object")
}

fn parameters(values: impl Iterator<Item = Bytes>) -> Result<Parameters, ProtocolError> {
    let mut parameters = Parameters::default();
    for value in values {
        let text = std::str::from_utf8(&value.0).map_err(|_| ProtocolError::Parameters)?;
        for pair in text.split("::").filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(ProtocolError::Parameters)?;
            match (name, value) {
                ("keyid", id) => parameters.key_id = Some(id.to_owned()),
                ("keypath", path) => parameters.key_path = Some(path.into()),
                ("sample", "false") | ("algorithm", "A256GCM") => {}
                ("sample", _) => return Err(ProtocolError::Sample),
                ("algorithm", other) => return Err(ProtocolError::Algorithm(short(other))),
                (other, _) => return Err(ProtocolError::Parameter(short(other))),
            }
        }
    }
    Ok(parameters)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keys() -> OfflineKeys {
        let mut keys = OfflineKeys::default();
        let file = json!({"default/key/1": STANDARD.encode([7; 32])});
        keys.add(file.to_string().as_bytes()).unwrap();
        keys
    }

    fn request(parameters: &str, options: Value) -> Vec<u8> {
        let parameters = json!({"attestation-agent": [STANDARD.encode(parameters)]});
        json!({"op": "keywrap", "keyunwrapparams": {"dc": null, "annotation": null},
            "keywrapparams": {"ec": {"Parameters": parameters, "DecryptConfig": {"Parameters": null}},
                "optsdata": options}})
        .to_string()
        .into_bytes()
    }

    fn unwrap_request(annotation: Value) -> Vec<u8> {
        json!({"op": "keyunwrap", "keywrapparams": {"ec": null, "optsdata": null},
            "keyunwrapparams": {"dc": {"Parameters": {}}, "annotation": annotation}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn what_is_wrapped_unwraps_whichever_form_bytes_have() {
        for options in [json!(STANDARD.encode("options")), json!(b"options")] {
            let wrapped = wrap(&request("keyid=kbs:///default/key/1", options), &keys()).unwrap();
            let wrapped: Value = serde_json::from_slice(&wrapped).unwrap();
            let annotation = &wrapped["keywrapresults"]["annotation"];
            let bytes: Vec<u8> = serde_json::from_value(annotation.clone()).unwrap();
            for annotation in [annotation.clone(), json!(STANDARD.encode(&bytes))] {
                let opened = unwrap(&unwrap_request(annotation), &keys()).unwrap();
                let opened: Value = serde_json::from_slice(&opened).unwrap();
                assert_eq!(opened["keyunwrapresults"]["optsdata"], json!(b"options"));
            }
        }
    }

    #[test]
    fn requests_without_a_key_of_the_owners_are_refused() {
        let options = json!("b3B0aW9ucw==");
        let failure =
            |parameters: &str| wrap(&request(parameters, options.clone()), &keys()).unwrap_err();
        assert!(matches!(failure(""), ProtocolError::Missing(_)));
        assert!(matches!(failure("sample=true"), ProtocolError::Sample));
        assert!(matches!(failure("keyid"), ProtocolError::Parameters));
        assert!(matches!(failure("key=1"), ProtocolError::Parameter(_)));
        assert!(matches!(
            failure("algorithm=A256CTR"),
            ProtocolError::Algorithm(_)
        ));
        assert!(matches!(
            failure("keyid=kbs:///default/key/2"),
            ProtocolError::Key(KeyOptionError::Absent(_))
        ));
        assert!(matches!(wrap(b"x", &keys()), Err(ProtocolError::Json(_))));
        assert!(matches!(
            wrap(b"{}", &keys()),
            Err(ProtocolError::Missing(_))
        ));
        assert!(matches!(
            unwrap(b"{}", &keys()),
            Err(ProtocolError::Missing(_))
        ));
        let other = unwrap_request(json!(STANDARD.encode("{}")));
        assert!(matches!(
            unwrap(&other, &keys()),
            Err(ProtocolError::Packet(_))
        ));
    }
}
