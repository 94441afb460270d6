//! `kata-cc image inspect`: what is encrypted, for whom, and which signatures are there.
//!
//! Everything printed is what the image claims. Nothing is decrypted and no signature
//! is verified: that takes keys and a policy, and is what a pull does.

use agent_documents::parse_json;
use agent_image_registry::Digest;
use agent_keys::Recipient;
use clap::Args;
use policy_images::{Document, Place, PlaceError, Source};
use serde::Serialize;
use serde_json::Value;

use crate::image::registry::{OptionError, RegistryOptions};

/// Annotation of a cosign signature (cosign signature specification).
const COSIGN_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Media types and artifact types of Sigstore bundles begin with this.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// Show what of an image is encrypted, with which key ids, and which signatures are there.
///
/// SRC is `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or docker://REF. Signatures are found, not
/// verified.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Image to look at.
    #[arg(value_name = "SRC")]
    source: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryOptions,
}

/// Why an image cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("manifest {0} is not JSON")]
    Json(Digest, #[source] serde_json::Error),
    #[error("manifest {0} is neither an image's nor an index")]
    Document(Digest),
}

#[derive(Debug, Serialize)]
struct Report {
    digest: String,
    media_type: String,
    signatures: Vec<Signature>,
    images: Vec<Image>,
}

#[derive(Debug, Serialize)]
struct Image {
    digest: String,
    /// Only where an index says so.
    platform: Option<String>,
    layers: Vec<Layer>,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize)]
struct Layer {
    digest: String,
    media_type: String,
    bytes: u64,
    encrypted: bool,
    recipients: Vec<Wrapped>,
}

#[derive(Debug, Serialize)]
struct Wrapped {
    /// `provider.<name>`, `jwe`, `pgp` or `pkcs7`.
    scheme: String,
    /// How a JWE wraps the key; absent for other schemes.
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    /// Absent where the scheme has none, or it cannot be read.
    key_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Signature {
    kind: &'static str,
    /// The tag or the digest under which it lies.
    place: String,
    count: usize,
}

/// Prints what there is.
pub(crate) fn run(options: &Options) -> Result<(), InspectError> {
    let source = options.source.source(&options.registry.config()?)?;
    let root = source.root(options.source.version().as_deref())?;
    let report = inspect(&source, &root)?;
    if options.json {
        let json = serde_json::to_string_pretty(&report).expect("a report is an object");
        println!("{json}");
    } else {
        print(&report);
    }
    Ok(())
}

fn inspect(source: &Source, root: &Document) -> Result<Report, InspectError> {
    let json = parse(root)?;
    let mut images = Vec::new();
    if let Some(entries) = json["manifests"].as_array() {
        for entry in entries {
            let digest = text(&entry["digest"]);
            let Some(document) = source.document(&digest)? else {
                continue;
            };
            let platform = &entry["platform"];
            let platform = format!(
                "{}/{}",
                text(&platform["os"]),
                text(&platform["architecture"])
            );
            images.push(image(source, &document, Some(platform))?);
        }
    } else {
        images.push(image(source, root, None)?);
    }
    let is_index = json["manifests"].is_array();
    Ok(Report {
        digest: root.digest.to_string(),
        media_type: json["mediaType"]
            .as_str()
            .map(str::to_owned)
            .or_else(|| root.media_type.clone())
            .unwrap_or_default(),
        signatures: if is_index {
            signatures(source, &root.digest)?
        } else {
            Vec::new()
        },
        images,
    })
}

fn parse(document: &Document) -> Result<Value, InspectError> {
    let json: Value = parse_json(&document.bytes)
        .map_err(|error| InspectError::Json(document.digest.clone(), error))?;
    if !json["manifests"].is_array() && !json["layers"].is_array() {
        return Err(InspectError::Document(document.digest.clone()));
    }
    Ok(json)
}

/// Text of an image, fit for a terminal.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or("?");
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn image(
    source: &Source,
    document: &Document,
    platform: Option<String>,
) -> Result<Image, InspectError> {
    let json = parse(document)?;
    let layers = json["layers"].as_array().into_iter().flatten();
    Ok(Image {
        digest: document.digest.to_string(),
        platform,
        layers: layers.map(layer).collect(),
        signatures: signatures(source, &document.digest)?,
    })
}

fn layer(json: &Value) -> Layer {
    let annotations = json["annotations"].as_object().into_iter().flatten();
    let annotations = annotations
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let clean = |id: String| text(&id.into());
    let recipients = Recipient::of(&annotations)
        .into_iter()
        .map(|one| match one {
            Recipient::Key { provider, id } => (format!("provider.{provider}"), None, Some(id)),
            Recipient::Jwe { algorithm, id } => ("jwe".to_owned(), Some(algorithm), id),
            Recipient::Unreadable(provider) => (format!("provider.{provider}"), None, None),
            Recipient::Other(scheme) => (scheme, None, None),
            _ => ("unknown".to_owned(), None, None),
        });
    let media_type = text(&json["mediaType"]);
    Layer {
        digest: text(&json["digest"]),
        bytes: json["size"].as_u64().unwrap_or_default(),
        encrypted: media_type.ends_with("+encrypted"),
        media_type,
        recipients: recipients
            .map(|(scheme, algorithm, key_id)| Wrapped {
                scheme: clean(scheme),
                algorithm: algorithm.map(clean),
                key_id: key_id.map(clean),
            })
            .collect(),
    }
}

/// Cosign's tag beside the image, and Sigstore bundles that refer to it.
fn signatures(source: &Source, digest: &Digest) -> Result<Vec<Signature>, InspectError> {
    let mut found = Vec::new();
    let tag = format!("{}.sig", digest.as_str().replacen(':', "-", 1));
    if let Some(document) = source.document(&tag)? {
        let json: Value = parse_json(&document.bytes).unwrap_or_default();
        let layers = json["layers"].as_array().into_iter().flatten();
        let count = layers.filter(|one| one["annotations"][COSIGN_SIGNATURE].is_string());
        found.push(Signature {
            kind: "cosign",
            count: count.count(),
            place: tag,
        });
    }
    let Some(index) = source.referrers(digest)? else {
        return Ok(found);
    };
    let index: Value = parse_json(&index.bytes).unwrap_or_default();
    for entry in index["manifests"].as_array().into_iter().flatten() {
        let digest = text(&entry["digest"]);
        // Only the manifest itself says reliably what it is.
        let document = match Digest::parse(&digest) {
            Ok(_) => source.document(&digest)?,
            Err(_) => None,
        };
        let bytes = document.map(|document| document.bytes).unwrap_or_default();
        let json: Value = parse_json(&bytes).unwrap_or_default();
        let layers = json["layers"].as_array().into_iter().flatten();
        let bundles = layers.filter(|one| {
            one["mediaType"]
                .as_str()
                .is_some_and(|media_type| media_type.starts_with(BUNDLE))
        });
        match bundles.count() {
            0 => {}
            count => found.push(Signature {
                kind: "sigstore bundle",
                place: digest,
                count,
            }),
        }
    }
    Ok(found)
}

fn print(report: &Report) {
    println!("{}  {}", report.digest, report.media_type);
    print_signatures(&report.signatures);
    for image in &report.images {
        if let Some(platform) = &image.platform {
            println!("{}  {platform}", image.digest);
        }
        for (index, layer) in image.layers.iter().enumerate() {
            println!(
                "layer {}  {}  {}  {} bytes",
                index + 1,
                layer.digest,
                layer.media_type,
                layer.bytes
            );
            for one in &layer.recipients {
                println!("  encrypted for {}", recipient(one));
            }
        }
        print_signatures(&image.signatures);
    }
}

fn recipient(one: &Wrapped) -> String {
    let id = match (&one.key_id, &one.algorithm) {
        (Some(id), _) => id,
        // A JWE needs to name no key.
        (None, Some(_)) => "an unnamed key",
        (None, None) => "(no readable key id)",
    };
    match &one.algorithm {
        Some(algorithm) => format!("{id}  ({}, {algorithm})", one.scheme),
        None => format!("{id}  ({})", one.scheme),
    }
}

fn print_signatures(signatures: &[Signature]) {
    for one in signatures {
        println!("signatures  {}  {}  {}", one.count, one.kind, one.place);
    }
}
