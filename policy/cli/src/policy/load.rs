//! A policy in any of the forms that it travels in.

use std::{
    io,
    path::{Path, PathBuf},
};

use agent_protocol::initdata::{
    ANNOTATION, DOCUMENT_ENTRY, Initdata, POLICY_ENTRY, PolicyText,
    packed::{PackedError, from_annotation, unpack},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use policy_engine::document::{Document, DocumentError};
use policy_generator::{Problems, Reading, Text, annotations};

/// A policy, and where it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// `Deployment web`, or the file.
    pub(super) name: String,
    /// What it is.
    pub(super) policy: Policy,
    /// The initdata that has it, if one does.
    pub(super) initdata: Option<Initdata>,
}

/// One of the two kinds.
#[derive(Debug)]
pub(super) enum Policy {
    /// A policy document.
    Document(Box<Document>),
    /// A policy in Rego, as Kata's generator writes it.
    Rego(String),
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name}")]
    Document {
        name: String,
        #[source]
        source: DocumentError,
    },
    #[error("the initdata of {name} cannot be read")]
    Initdata {
        name: String,
        #[source]
        source: PackedError,
    },
    #[error("the policy annotation of {0} is not base64 of text")]
    Annotation(String),
    #[error("the initdata of {0} has neither {DOCUMENT_ENTRY} nor {POLICY_ENTRY}")]
    NoEntry(String),
    #[error("{0} is no policy, no initdata, and no YAML of a pod with one in its annotations")]
    Nothing(String),
    #[error("{0} has no policy in its annotations: make one with kata-cc policy gen")]
    NotAnnotated(String),
    #[error("{name} has {count} policies: name a file with one")]
    Several { name: String, count: usize },
    #[error(
        "{0} has a policy in Rego, of which only its own author can say what it allows; lint tells what is known of it"
    )]
    Rego(String),
    #[error(transparent)]
    Yaml(#[from] Problems),
}

/// All policies of a file.
pub(super) fn load(path: &Path) -> Result<Vec<Found>, LoadError> {
    let name = path.display().to_string();
    let bytes = read(path)?;
    if bytes.trim_ascii_start().starts_with(b"{") && !is_object_of_kubernetes(&bytes) {
        let document = parse(&name, &bytes)?;
        return Ok(vec![found(name, Policy::Document(document), None)]);
    }
    if let Some(initdata) = initdata(&bytes) {
        return Ok(vec![of_initdata(name, initdata)?]);
    }
    let text = String::from_utf8(bytes).map_err(|_| LoadError::Nothing(name.clone()))?;
    if text
        .lines()
        .any(|line| line.trim_start().starts_with("package "))
    {
        return Ok(vec![found(name, Policy::Rego(text), None)]);
    }
    of_yaml(name, text)
}

/// The one document of a file.
pub(super) fn document(path: &Path) -> Result<Document, LoadError> {
    match one(path)?.policy {
        Policy::Document(document) => Ok(*document),
        Policy::Rego(_) => Err(LoadError::Rego(path.display().to_string())),
    }
}

/// The one policy of a file.
pub(super) fn one(path: &Path) -> Result<Found, LoadError> {
    let mut all = load(path)?;
    let count = all.len();
    match all.pop() {
        Some(found) if count == 1 => Ok(found),
        _ => Err(LoadError::Several {
            name: path.display().to_string(),
            count,
        }),
    }
}

fn found(name: String, policy: Policy, initdata: Option<Initdata>) -> Found {
    Found {
        name,
        policy,
        initdata,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    bytes.map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

/// `kubectl get -o json` begins like a document.
fn is_object_of_kubernetes(bytes: &[u8]) -> bool {
    let json: serde_json::Value = agent_documents::parse_json(bytes).unwrap_or_default();
    json.get("apiVersion").is_some()
}

fn initdata(bytes: &[u8]) -> Option<Initdata> {
    let packed = |packed: &[u8]| unpack(packed).ok();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return packed(bytes);
    }
    if bytes.trim_ascii_start().starts_with(b"H4sI") {
        let text = String::from_utf8_lossy(bytes);
        return from_annotation(&text).ok().and_then(|bytes| packed(&bytes));
    }
    Initdata::parse(bytes).ok()
}

fn parse(name: &str, bytes: &[u8]) -> Result<Box<Document>, LoadError> {
    let document = Document::parse(bytes).map_err(|source| LoadError::Document {
        name: name.to_owned(),
        source,
    });
    Ok(Box::new(document?))
}

fn of_initdata(name: String, initdata: Initdata) -> Result<Found, LoadError> {
    let entries = initdata.entries();
    let policy = match (entries.get(DOCUMENT_ENTRY), entries.get(POLICY_ENTRY)) {
        (Some(text), _) => Policy::Document(parse(&name, text.as_bytes())?),
        (None, Some(rego)) => Policy::Rego(rego.clone()),
        (None, None) => return Err(LoadError::NoEntry(name)),
    };
    Ok(found(name, policy, Some(initdata)))
}

fn of_yaml(name: String, text: String) -> Result<Vec<Found>, LoadError> {
    let file = Text {
        name: name.clone(),
        text,
    };
    let Ok(annotations) = annotations(&file, &Reading::default()) else {
        return Err(LoadError::Nothing(name));
    };
    if annotations.is_empty() {
        return Err(LoadError::NotAnnotated(name));
    }
    let of = |[workload, annotation, value]: [String; 3]| {
        if annotation == ANNOTATION {
            let unpacked = from_annotation(&value).and_then(|packed| unpack(&packed));
            let initdata = unpacked.map_err(|source| LoadError::Initdata {
                name: workload.clone(),
                source,
            })?;
            return of_initdata(workload, initdata);
        }
        let bytes = STANDARD.decode(value.trim_ascii()).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.filter(|text| PolicyText::parse(text).is_ok());
        let text = text.ok_or_else(|| LoadError::Annotation(workload.clone()))?;
        Ok(found(workload, Policy::Rego(text), None))
    };
    annotations.into_iter().map(of).collect()
}
