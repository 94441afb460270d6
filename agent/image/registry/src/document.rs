//! What registries answer under `/manifests/`: image manifests and indexes.
//!
//! The registry is hostile, and so are these bytes until their digest matches.
//! Even then they are only what somebody pushed: unknown members are ignored, but
//! a member given twice, a document that is both manifest and index, and a list
//! longer than any real image's are refused, so that no two readers can see two
//! different images.
//!
//! Formats: OCI image specification 1.1 (`manifest.md`, `image-index.md`),
//! Docker image manifest version 2, schema 2.

use std::collections::BTreeMap;

use agent_documents::parse_json;
use serde::Deserialize;

use crate::digest::Digest;

/// Media types that are asked for, as one `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest of more layers than this cannot be mounted by overlayfs (500) anyway.
const LAYERS_MAX: usize = 500;
const INDEX_ENTRIES_MAX: usize = 1000;

/// A manifest or index, whichever the bytes are.
#[derive(Debug)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Vec<IndexEntry>),
}

/// One image for one platform.
#[derive(Debug)]
pub struct Manifest {
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// Some content: what it is, its digest and its exact length.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What its producer adds.
    #[serde(default, deserialize_with = "crate::json::unique_map_or_null")]
    pub annotations: BTreeMap<String, String>,
}

/// One platform of an index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What it runs on.
    pub platform: Option<Platform>,
    /// What a referrer is, as far as the registry says.
    pub artifact_type: Option<String>,
}

/// An operating system and a kind of CPU, in the words of image indexes.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, as a rule.
    pub os: String,
    /// `amd64`, `arm64` and so on.
    pub architecture: String,
}

/// Why the registry's answer is not a manifest or index we can use.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not JSON of the right shape.
    #[error("it is not a manifest or index")]
    Json(#[source] serde_json::Error),
    /// Docker's schema 1, obsolete since 2017.
    #[error(
        "it is a Docker schema 1 manifest, which is not supported; push the image again with a current tool"
    )]
    SchemaOne,
    /// A version of the format that nobody has defined.
    #[error("its `schemaVersion` is {0}; it must be 2")]
    SchemaVersion(u64),
    /// Neither manifest nor index.
    #[error("its media type `{0}` is neither an image manifest nor an index")]
    MediaType(String),
    /// It has members of both a manifest and an index.
    #[error("it has the members of a manifest and of an index at once")]
    Ambiguous,
    /// A member that its media type demands is missing.
    #[error("it has no member `{0}`")]
    Missing(&'static str),
    /// Too long a list.
    #[error("it lists {count} {what}; at most {max} are supported")]
    TooMany {
        /// What it lists.
        what: &'static str,
        /// How many it lists.
        count: usize,
        /// How many are supported.
        max: usize,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<IndexEntry>>,
    /// Schema 1 only.
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses an answer; `content_type` decides only where the document itself is silent.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, DocumentError> {
        let raw: Raw = parse_json(bytes).map_err(DocumentError::Json)?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(DocumentError::SchemaOne);
        }
        if raw.schema_version != 2 {
            return Err(DocumentError::SchemaVersion(raw.schema_version));
        }
        if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
            return Err(DocumentError::Ambiguous);
        }
        let content_type = content_type
            .and_then(|text| text.split(';').next())
            .map(str::trim);
        let fallback = if raw.manifests.is_some() {
            OCI_INDEX
        } else {
            OCI_MANIFEST
        };
        let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
        let media_type = match (&raw.media_type, content_type) {
            (Some(own), _) => own.as_str(),
            (None, Some(sent)) if known.contains(&sent) => sent,
            (None, _) => fallback,
        };
        match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => {
                let config = raw.config.ok_or(DocumentError::Missing("config"))?;
                let layers = raw.layers.ok_or(DocumentError::Missing("layers"))?;
                limit("layers", layers.len(), LAYERS_MAX)?;
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            OCI_INDEX | DOCKER_LIST => {
                let entries = raw.manifests.ok_or(DocumentError::Missing("manifests"))?;
                limit("manifests", entries.len(), INDEX_ENTRIES_MAX)?;
                Ok(Self::Index(entries))
            }
            other => Err(DocumentError::MediaType(other.chars().take(200).collect())),
        }
    }
}

fn limit(what: &'static str, count: usize, max: usize) -> Result<(), DocumentError> {
    if count > max {
        Err(DocumentError::TooMany { what, count, max })
    } else {
        Ok(())
    }
}

/// The first image for this guest's own platform; the variant is ignored.
pub(crate) fn choose<'a>(entries: &'a [IndexEntry], own: &Platform) -> Option<&'a IndexEntry> {
    let mut entries = entries.iter();
    entries.find(|entry| entry.is_image() && entry.platform.as_ref() == Some(own))
}

/// The platforms for which an index has images, for the message that says ours is not
/// among them. Attestations stand in indexes too, for the platform `unknown`.
pub(crate) fn offered(entries: &[IndexEntry]) -> Vec<&Platform> {
    let images = entries.iter().filter(|entry| entry.is_image());
    let platforms = images.filter_map(|entry| entry.platform.as_ref());
    let mut known: Vec<&Platform> = platforms
        .filter(|platform| platform.os != "unknown")
        .collect();
    known.dedup();
    known
}

impl IndexEntry {
    fn is_image(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    pub(crate) fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2{extra},"config":{{"mediaType":"c","digest":"{DIGEST}","size":2}},
            "layers":[{{"mediaType":"l","digest":"{DIGEST}","size":3,"annotations":{{"a":"b"}}}}]}}"#
        )
    }

    fn index(os: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"{OCI_MANIFEST}","digest":"{DIGEST}","size":1,
              "platform":{{"os":"unknown","architecture":"unknown"}}}},
            {{"mediaType":"{OCI_MANIFEST}","digest":"{DIGEST}","size":5,
              "platform":{{"os":"{os}","architecture":"amd64","variant":"v9"}}}}]}}"#
        )
    }

    #[test]
    fn manifest_is_read_whatever_says_its_type() {
        for extra in [
            "",
            r#","mediaType":"application/vnd.docker.distribution.manifest.v2+json""#,
        ] {
            let Ok(Document::Manifest(read)) =
                Document::parse(manifest(extra).as_bytes(), Some("text/plain"))
            else {
                panic!("not a manifest");
            };
            assert_eq!((read.config.size, read.layers[0].size), (2, 3));
            assert_eq!(read.layers[0].annotations["a"], "b");
        }
    }

    #[test]
    fn index_gives_the_entry_of_our_platform_or_none() {
        let own = Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
        };
        for (os, size) in [("linux", Some(5)), ("windows", None)] {
            let Ok(Document::Index(entries)) = Document::parse(index(os).as_bytes(), None) else {
                panic!("not an index");
            };
            assert_eq!(choose(&entries, &own).map(|entry| entry.size), size);
        }
    }

    #[test]
    fn documents_of_two_meanings_are_refused() {
        let both = manifest(r#","manifests":[]"#);
        assert!(matches!(
            Document::parse(both.as_bytes(), None),
            Err(DocumentError::Ambiguous)
        ));
        let twice = manifest(r#","schemaVersion":2"#);
        assert!(matches!(
            Document::parse(twice.as_bytes(), None),
            Err(DocumentError::Json(_))
        ));
        let annotated_twice = manifest("").replace(r#"{"a":"b"}"#, r#"{"a":"b","a":"c"}"#);
        assert!(matches!(
            Document::parse(annotated_twice.as_bytes(), None),
            Err(DocumentError::Json(_))
        ));
        let typed = manifest(r#","mediaType":"application/vnd.oci.image.index.v1+json""#);
        assert!(matches!(
            Document::parse(typed.as_bytes(), None),
            Err(DocumentError::Missing("manifests"))
        ));
    }

    #[test]
    fn other_versions_of_the_format_are_refused_by_name() {
        for version in [0, 3] {
            let other = manifest("").replace("sion\":2", &format!("sion\":{version}"));
            let error = Document::parse(other.as_bytes(), None).unwrap_err();
            assert!(matches!(error, DocumentError::SchemaVersion(found) if found == version));
        }
    }

    #[test]
    fn depth_is_limited_in_members_that_nobody_reads_too() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let nested = manifest(&format!(r#","unread":{deep}"#));
        let error = Document::parse(nested.as_bytes(), None).unwrap_err();
        assert!(
            matches!(error, DocumentError::Json(source) if source.to_string().contains("nested"))
        );
        let text = format!(r#","unread":"{}\"[""#, "[{".repeat(1000));
        assert!(Document::parse(manifest(&text).as_bytes(), None).is_ok());
    }

    #[test]
    fn schema_one_is_refused_by_name() {
        let old = r#"{"schemaVersion":1,"name":"x","fsLayers":[{"blobSum":"y"}]}"#;
        assert!(matches!(
            Document::parse(old.as_bytes(), None),
            Err(DocumentError::SchemaOne)
        ));
    }
}
