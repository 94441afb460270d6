//! Reference → manifest and configuration, each byte of both verified.

use crate::{
    config::ConfigFile,
    digest::Digest,
    document::{self, ACCEPT, Document, DocumentError, IndexEntry, Manifest, Platform},
    fetch::{Answer, Client, Deadline, FetchError, Request, Source},
    reference::Reference,
};

/// Largest manifest that registries must accept is 4 MiB; configurations of long histories are larger.
const MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;
const CONFIG_MAX_BYTES: u64 = 8 * 1024 * 1024;

const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// A manifest or index as it came, and its verified digest: what signatures are about.
#[derive(Debug)]
pub struct Original {
    /// Its digest, which matches.
    pub digest: Digest,
    /// As the registry sent them.
    pub bytes: Vec<u8>,
}

/// An image of our platform, before any of its layers.
#[derive(Debug)]
pub struct Resolved {
    /// Where it was found.
    pub source: Source,
    /// The platform's manifest, then the index that led to it, if one did.
    pub originals: Vec<Original>,
    /// The manifest for this platform.
    pub manifest: Manifest,
    /// Its digest.
    pub manifest_digest: Digest,
    /// The image's configuration.
    pub config: ConfigFile,
}

/// Why there is no such image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The download.
    #[error("its {what} cannot be fetched")]
    Fetch {
        /// Manifest, index or configuration.
        what: &'static str,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// Bytes other than those named.
    #[error(
        "the digest of its {what} does not match: {expected} was asked for, the registry sent {found}; ask who changed it"
    )]
    Digest {
        /// Manifest, index or configuration.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A `Docker-Content-Digest` that is not the content's.
    #[error("the registry says that its {what} has the digest `{stated}`, but it has not")]
    StatedDigest {
        /// Manifest or index.
        what: &'static str,
        /// What the registry says.
        stated: String,
    },
    /// Another length than the one named.
    #[error("its {what} has {found} bytes, but {expected} are stated")]
    Size {
        /// Manifest or configuration.
        what: &'static str,
        /// What is stated.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Not a manifest or index.
    #[error("its {what} cannot be used")]
    Document {
        /// Manifest or index.
        what: &'static str,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// An index without our platform.
    #[error("it has no image for {own}, only for: {offered}")]
    Platform {
        /// This guest's platform.
        own: String,
        /// What the index has.
        offered: String,
    },
    /// An index of something else than images.
    #[error("it is an index without an image for any platform")]
    NoImage,
    /// An index inside an index.
    #[error("its index refers to another index, which is not supported")]
    NestedIndex,
    /// An artifact that is not a container image.
    #[error("its configuration has the media type `{0}`, so it is not a container image")]
    ConfigType(String),
    /// Not a configuration.
    #[error("its configuration cannot be read")]
    Config(#[source] serde_json::Error),
    /// A configuration for somewhere else.
    #[error("its configuration is for {found}, but this guest is {own}")]
    ConfigPlatform {
        /// This guest's platform.
        own: String,
        /// The configuration's.
        found: String,
    },
    /// Layers and diff ids that do not pair up.
    #[error("its manifest has {layers} layers, but its configuration {diff_ids} diff ids")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

/// This guest's platform in the words of image indexes.
fn own_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
    }
}

fn named(platform: &Platform) -> String {
    let clean = |text: &str| {
        text.chars()
            .filter(|c| !c.is_control())
            .take(40)
            .collect::<String>()
    };
    format!("{}/{}", clean(&platform.os), clean(&platform.architecture))
}

/// Why there is nothing for this guest in an index.
fn without_ours(entries: &[IndexEntry], own: &Platform) -> ResolveError {
    let mut ours = entries.iter();
    if ours.any(|entry| entry.is_index() && entry.platform.as_ref() == Some(own)) {
        return ResolveError::NestedIndex;
    }
    let offered = document::offered(entries);
    if offered.is_empty() {
        return ResolveError::NoImage;
    }
    let names: Vec<String> = offered.into_iter().take(20).map(named).collect();
    ResolveError::Platform {
        own: named(own),
        offered: names.join(", "),
    }
}

/// Fetches and verifies manifest and configuration from one source.
pub fn resolve(
    client: &Client,
    source: &Source,
    reference: &Reference,
    deadline: &Deadline,
) -> Result<Resolved, ResolveError> {
    let own = own_platform();
    let path = format!("manifests/{}", reference.version());
    let answer = fetch(client, source, &path, "manifest", deadline)?;
    let digest = verified(&answer, "manifest", reference.digest())?;
    let parsed = parse(&answer, "manifest")?;
    let mut originals = vec![Original {
        digest,
        bytes: answer.body,
    }];
    let manifest = match parsed {
        Document::Manifest(manifest) => manifest,
        Document::Index(entries) => {
            let entry = document::choose(&entries, &own);
            let entry = entry.ok_or_else(|| without_ours(&entries, &own))?;
            let path = format!("manifests/{}", entry.digest);
            let answer = fetch(client, source, &path, "platform manifest", deadline)?;
            check_size("platform manifest", entry.size, &answer.body)?;
            let digest = verified(&answer, "platform manifest", Some(&entry.digest))?;
            let parsed = parse(&answer, "platform manifest")?;
            let bytes = answer.body;
            originals.insert(0, Original { digest, bytes });
            match parsed {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => return Err(ResolveError::NestedIndex),
            }
        }
    };
    let config = config(client, source, &manifest, &own, deadline)?;
    Ok(Resolved {
        source: source.clone(),
        manifest,
        manifest_digest: originals[0].digest.clone(),
        config,
        originals,
    })
}

fn fetch(
    client: &Client,
    source: &Source,
    path: &str,
    what: &'static str,
    deadline: &Deadline,
) -> Result<Answer, ResolveError> {
    let request = Request {
        source,
        path,
        what,
        accept: Some(ACCEPT),
        offset: 0,
    };
    client
        .get(request, MANIFEST_MAX_BYTES, deadline)
        .map_err(|source| ResolveError::Fetch { what, source })
}

fn parse(answer: &Answer, what: &'static str) -> Result<Document, ResolveError> {
    Document::parse(&answer.body, answer.content_type.as_deref())
        .map_err(|source| ResolveError::Document { what, source })
}

/// The digest of an answer, which must be the expected one and the one the registry states.
fn verified(
    answer: &Answer,
    what: &'static str,
    expected: Option<&Digest>,
) -> Result<Digest, ResolveError> {
    let stated = answer
        .digest
        .as_deref()
        .map(|text| (text, Digest::parse(text).ok()));
    if let Some(expected) = expected {
        check_digest(what, expected, &answer.body)?;
        return Ok(expected.clone());
    }
    match stated {
        None => Ok(Digest::sha256(&answer.body)),
        Some((_, Some(stated))) if stated.is_of(&answer.body) => Ok(stated),
        Some((text, _)) => Err(ResolveError::StatedDigest {
            what,
            stated: text.chars().take(150).collect(),
        }),
    }
}

fn check_digest(what: &'static str, expected: &Digest, bytes: &[u8]) -> Result<(), ResolveError> {
    let mut hasher = expected.hasher();
    hasher.update(bytes);
    let found = hasher.finish();
    if found == *expected {
        return Ok(());
    }
    Err(ResolveError::Digest {
        what,
        expected: expected.clone(),
        found,
    })
}

fn check_size(what: &'static str, expected: u64, bytes: &[u8]) -> Result<(), ResolveError> {
    let found = bytes.len() as u64;
    if found == expected {
        Ok(())
    } else {
        Err(ResolveError::Size {
            what,
            expected,
            found,
        })
    }
}

fn config(
    client: &Client,
    source: &Source,
    manifest: &Manifest,
    own: &Platform,
    deadline: &Deadline,
) -> Result<ConfigFile, ResolveError> {
    const WHAT: &str = "configuration";
    let descriptor = &manifest.config;
    if !CONFIG_TYPES.contains(&descriptor.media_type.as_str()) {
        return Err(ResolveError::ConfigType(
            descriptor.media_type.chars().take(200).collect(),
        ));
    }
    let path = format!("blobs/{}", descriptor.digest);
    let request = Request {
        source,
        path: &path,
        what: WHAT,
        accept: None,
        offset: 0,
    };
    let answer = client
        .get(request, descriptor.size.min(CONFIG_MAX_BYTES), deadline)
        .map_err(|source| ResolveError::Fetch { what: WHAT, source })?;
    check_digest(WHAT, &descriptor.digest, &answer.body)?;
    check_size(WHAT, descriptor.size, &answer.body)?;
    let config = ConfigFile::parse(&answer.body).map_err(ResolveError::Config)?;
    if config.platform != *own {
        return Err(ResolveError::ConfigPlatform {
            own: named(own),
            found: named(&config.platform),
        });
    }
    let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
    if layers != diff_ids {
        return Err(ResolveError::LayerCount { layers, diff_ids });
    }
    Ok(config)
}
