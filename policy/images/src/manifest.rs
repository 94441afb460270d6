//! What encryption changes in manifests and indexes; everything else in them stays.
//!
//! Docker's media types have no encrypted forms, so a Docker image becomes an OCI
//! one. Types: OCI image specification 1.1 (`media-types.md`), Docker image manifest
//! version 2 schema 2, and the `+encrypted` types of the image encryption draft.

use std::collections::BTreeSet;

use agent_documents::parse_json;
use agent_image_registry::Digest;
use serde_json::{Value, json};

use crate::document::Document;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const ENCRYPTED: &str = "+encrypted";

/// Some content that a manifest or index names.
#[derive(Debug, Clone)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Why a manifest is not one that can be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON.
    #[error("it is not JSON")]
    Json(#[source] serde_json::Error),
    /// Another document, or an old one.
    #[error("it is neither an image manifest nor an index of the current schema")]
    Schema,
    /// A member without media type, digest or size.
    #[error("its member `{0}` is not a descriptor")]
    Descriptor(&'static str),
    /// A layer that is to be encrypted and is not there.
    #[error(
        "it has {count} layers, so there is no layer {number}: 1 is at the bottom, -1 at the top"
    )]
    NoLayer {
        /// The layer that was asked for.
        number: i64,
        /// How many there are.
        count: usize,
    },
    /// A layer that is encrypted.
    #[error("it is encrypted already; decrypt it first, or choose others with --layer")]
    Encrypted,
    /// No layer.
    #[error("its media type `{0}` is not a layer's")]
    MediaType(String),
}

/// The document as JSON, if it is a manifest or index.
pub(crate) fn parse(document: &Document) -> Result<Value, ManifestError> {
    let json: Value = parse_json(&document.bytes).map_err(ManifestError::Json)?;
    let is_current = json["schemaVersion"] == 2;
    let has_one = json["layers"].is_array() != json["manifests"].is_array();
    if !is_current || !has_one {
        return Err(ManifestError::Schema);
    }
    Ok(json)
}

/// Whether these bytes are the manifest of a container image, or an index.
pub(crate) fn is_image(bytes: &[u8]) -> bool {
    let json: Value = parse_json(bytes).unwrap_or_default();
    let is_layer = |layer: &Value| layer["mediaType"].as_str().is_some_and(is_layer_type);
    json["manifests"].is_array()
        || json["layers"]
            .as_array()
            .is_some_and(|layers| !layers.is_empty() && layers.iter().all(is_layer))
}

fn is_layer_type(media_type: &str) -> bool {
    !matches!(encrypted_type(media_type), Err(ManifestError::MediaType(_)))
}

/// What an index lists; `None` for a manifest.
pub(crate) fn entries(json: &Value) -> Result<Option<Vec<Descriptor>>, ManifestError> {
    let entries = json["manifests"].as_array();
    entries
        .map(|entries| {
            entries
                .iter()
                .map(|one| descriptor(one, "manifests"))
                .collect()
        })
        .transpose()
}

/// Configuration and layers of a manifest.
pub(crate) fn parts(json: &Value) -> Result<(Descriptor, Vec<Descriptor>), ManifestError> {
    let config = descriptor(&json["config"], "config")?;
    let layers = json["layers"].as_array().ok_or(ManifestError::Schema)?;
    let layers = layers.iter().map(|one| descriptor(one, "layers"));
    Ok((config, layers.collect::<Result<_, _>>()?))
}

/// Everything a manifest names, as far as it can be understood.
pub(crate) fn blobs(bytes: &[u8]) -> Vec<Descriptor> {
    let json: Value = parse_json(bytes).unwrap_or_default();
    parts(&json).map_or_else(
        |_| Vec::new(),
        |(config, layers)| std::iter::once(config).chain(layers).collect(),
    )
}

fn descriptor(json: &Value, member: &'static str) -> Result<Descriptor, ManifestError> {
    let refuse = || ManifestError::Descriptor(member);
    let text = |name: &str| json[name].as_str().ok_or_else(refuse);
    Ok(Descriptor {
        media_type: text("mediaType")?.to_owned(),
        digest: Digest::parse(text("digest")?).map_err(|_| refuse())?,
        size: json["size"].as_u64().ok_or_else(refuse)?,
    })
}

/// The positions of the layers that numbers from the user name; all if there are none.
pub(crate) fn choose(numbers: &[i64], count: usize) -> Result<BTreeSet<usize>, ManifestError> {
    if numbers.is_empty() {
        return Ok((0..count).collect());
    }
    let position = |number: &i64| {
        let magnitude = usize::try_from(number.unsigned_abs()).ok()?;
        let position = match number.signum() {
            1 => magnitude.checked_sub(1)?,
            -1 => count.checked_sub(magnitude)?,
            _ => return None,
        };
        (position < count).then_some(position)
    };
    let found = numbers.iter().map(|number| {
        let number_is = *number;
        position(number).ok_or(ManifestError::NoLayer {
            number: number_is,
            count,
        })
    });
    found.collect()
}

/// The media type that a layer has when it is encrypted.
pub(crate) fn encrypted_type(media_type: &str) -> Result<String, ManifestError> {
    if media_type.ends_with(ENCRYPTED) {
        return Err(ManifestError::Encrypted);
    }
    for (from, to) in [
        (OCI_LAYER, OCI_LAYER),
        (OCI_NONDISTRIBUTABLE, OCI_NONDISTRIBUTABLE),
        (DOCKER_LAYER, OCI_LAYER),
        (DOCKER_FOREIGN, OCI_NONDISTRIBUTABLE),
    ] {
        match media_type.strip_prefix(from) {
            Some("") => return Ok(format!("{to}{ENCRYPTED}")),
            Some("+gzip" | ".gzip") => return Ok(format!("{to}+gzip{ENCRYPTED}")),
            Some("+zstd" | ".zstd") => return Ok(format!("{to}+zstd{ENCRYPTED}")),
            _ => {}
        }
    }
    Err(ManifestError::MediaType(media_type.to_owned()))
}

/// Puts an encrypted layer in the place of the plain one; other annotations stay.
pub(crate) fn set_layer(
    json: &mut Value,
    index: usize,
    layer: &Descriptor,
    annotations: Vec<(String, String)>,
) {
    let place = &mut json["layers"][index];
    set(place, &layer.media_type, &layer.digest, layer.size);
    if !place["annotations"].is_object() {
        place["annotations"] = json!({});
    }
    for (name, value) in annotations {
        place["annotations"][name] = value.into();
    }
    // Where a foreign layer lies in clear.
    if let Some(members) = place.as_object_mut() {
        members.remove("urls");
        members.remove("data");
    }
}

/// Names the new form of an index's entry.
pub(crate) fn set_entry(json: &mut Value, index: usize, media_type: &str, bytes: &[u8]) {
    let place = &mut json["manifests"][index];
    let digest = Digest::sha256(bytes);
    set(place, media_type, &digest, bytes.len() as u64);
    if let Some(members) = place.as_object_mut() {
        members.remove("data");
    }
}

fn set(place: &mut Value, media_type: &str, digest: &Digest, size: u64) {
    place["mediaType"] = media_type.into();
    place["digest"] = digest.as_str().into();
    place["size"] = size.into();
}

/// The manifest's media type and bytes, all of its parts being OCI's now.
pub(crate) fn finish_manifest(mut json: Value) -> (String, Vec<u8>) {
    json["mediaType"] = OCI_MANIFEST.into();
    if json["config"]["mediaType"] == DOCKER_CONFIG {
        json["config"]["mediaType"] = OCI_CONFIG.into();
    }
    for layer in json["layers"].as_array_mut().into_iter().flatten() {
        let plain = layer["mediaType"].as_str().and_then(|media_type| {
            let encrypted = encrypted_type(media_type).ok()?;
            Some(encrypted.strip_suffix(ENCRYPTED)?.to_owned())
        });
        if let Some(plain) = plain {
            layer["mediaType"] = plain.into();
        }
    }
    (OCI_MANIFEST.to_owned(), bytes(&json))
}

/// The index's media type and bytes.
pub(crate) fn finish_index(mut json: Value) -> (String, Vec<u8>) {
    json["mediaType"] = OCI_INDEX.into();
    (OCI_INDEX.to_owned(), bytes(&json))
}

fn bytes(json: &Value) -> Vec<u8> {
    serde_json::to_vec(json).expect("parsed JSON can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layer_types_have_an_encrypted_form_of_oci() {
        for (plain, encrypted) in [
            (
                format!("{OCI_LAYER}+zstd"),
                format!("{OCI_LAYER}+zstd{ENCRYPTED}"),
            ),
            (
                OCI_NONDISTRIBUTABLE.to_owned(),
                format!("{OCI_NONDISTRIBUTABLE}{ENCRYPTED}"),
            ),
            (
                format!("{DOCKER_LAYER}.gzip"),
                format!("{OCI_LAYER}+gzip{ENCRYPTED}"),
            ),
            (DOCKER_LAYER.to_owned(), format!("{OCI_LAYER}{ENCRYPTED}")),
            (
                format!("{DOCKER_FOREIGN}.gzip"),
                format!("{OCI_NONDISTRIBUTABLE}+gzip{ENCRYPTED}"),
            ),
        ] {
            assert_eq!(encrypted_type(&plain).unwrap(), encrypted);
            let again = encrypted_type(&encrypted).unwrap_err();
            assert!(matches!(again, ManifestError::Encrypted));
        }
        let other = encrypted_type("application/vnd.in-toto+json").unwrap_err();
        assert!(matches!(other, ManifestError::MediaType(_)));
    }

    #[test]
    fn layers_are_chosen_from_either_end_and_no_others() {
        let chosen = |numbers: &[i64]| choose(numbers, 3).map(Vec::from_iter);
        assert_eq!(chosen(&[]).unwrap(), [0, 1, 2]);
        assert_eq!(chosen(&[1, -1, 3]).unwrap(), [0, 2]);
        for number in [0, 4, -4, i64::MIN] {
            assert!(matches!(
                chosen(&[number]),
                Err(ManifestError::NoLayer { .. })
            ));
        }
    }

    #[test]
    fn what_encryption_does_not_concern_stays() {
        let digest = Digest::sha256(b"x");
        let mut json = json!({"schemaVersion": 2, "x": 1,
            "config": {"mediaType": DOCKER_CONFIG, "digest": digest.as_str(), "size": 1},
            "layers": [
                {"mediaType": format!("{DOCKER_LAYER}.gzip"), "digest": digest.as_str(), "size": 1,
                 "annotations": {"a": "b"}, "urls": ["http://x"]},
                {"mediaType": DOCKER_LAYER, "digest": digest.as_str(), "size": 1}]});
        let (_, layers) = parts(&json).unwrap();
        let new = Descriptor {
            media_type: encrypted_type(&layers[0].media_type).unwrap(),
            digest: Digest::sha256(b"y"),
            size: 2,
        };
        set_layer(&mut json, 0, &new, vec![("c".to_owned(), "d".to_owned())]);
        let (media_type, bytes) = finish_manifest(json);
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(media_type, OCI_MANIFEST);
        assert_eq!(
            (&json["x"], &json["config"]["mediaType"]),
            (&json!(1), &json!(OCI_CONFIG))
        );
        assert_eq!(
            json["layers"][0],
            json!({"mediaType": new.media_type, "digest": new.digest.as_str(), "size": 2,
                "annotations": {"a": "b", "c": "d"}})
        );
        assert_eq!(json["layers"][1]["mediaType"], OCI_LAYER);
    }

    #[test]
    fn documents_that_are_nested_too_deep_are_refused_by_name() {
        let deep = [r#"{"a":"#.repeat(100_000), "}".repeat(100_000)].concat();
        let document = Document {
            media_type: None,
            digest: Digest::sha256(b""),
            bytes: deep.into(),
        };
        let Err(ManifestError::Json(cause)) = parse(&document) else {
            panic!("not the error");
        };
        assert!(
            cause.to_string().contains("nested more than 128"),
            "{cause}"
        );
    }

    #[test]
    fn documents_of_other_schemas_are_refused() {
        for bytes in [
            "[]",
            "{}",
            r#"{"schemaVersion":1,"layers":[]}"#,
            r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
        ] {
            let document = Document {
                media_type: None,
                digest: Digest::sha256(b""),
                bytes: bytes.into(),
            };
            assert!(
                matches!(parse(&document), Err(ManifestError::Schema)),
                "{bytes}"
            );
        }
    }
}
