//! Everything that the owner accepts, read from files and parsed, and a digest of them all.
//!
//! The files are looked at again when one of them changes, so that a release is revoked while the
//! broker runs. Tokens carry the digest: none outlives a change. Files that cannot be read or
//! parsed release nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_evidence::{HostData, LaunchMeasurement, Sha256Digest};
use agent_keys_protocol::ResourceName;
use agent_protocol::initdata::{DocumentError, Initdata};
use policy_appraisal::{
    Workload,
    snp::{ReferenceValues, Roots, RootsError, Store as CertificateStore},
};
use serde::de::DeserializeOwned;

use crate::{
    configuration::{Configuration, FILE},
    rego::{
        AttestationPolicy, DEFAULT_ATTESTATION, DEFAULT_RESOURCE, NamedValues, RegoError,
        ResourcePolicy,
    },
};

const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file of the owner's is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub struct RulesError {
    path: PathBuf,
    #[source]
    source: FileError,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not read.
    #[error("cannot be read")]
    Read(#[from] io::Error),
    /// Too long.
    #[error("has more than {FILE_BYTES_MAX} bytes")]
    Long,
    /// No text.
    #[error("is not UTF-8")]
    Text(#[from] std::str::Utf8Error),
    /// No TOML of the form.
    #[error("is not the configuration of a broker")]
    Toml(#[from] toml::de::Error),
    /// No JSON of the form.
    #[error("is not JSON of the form that is expected")]
    Json(#[from] serde_json::Error),
    /// No roots.
    #[error("holds no trust anchors")]
    Roots(#[from] RootsError),
    /// No initdata.
    #[error("is no initdata")]
    Initdata(#[from] DocumentError),
    /// No Rego.
    #[error(transparent)]
    Rego(#[from] RegoError),
    /// A name that can be none.
    #[error("names {0:?}, which is no resource or pattern of resources")]
    Pattern(String),
    /// Zeros bind nothing.
    #[error("accepts HOST_DATA of zeros, which a guest without initdata and policy has")]
    Unbound,
    /// No measurement.
    #[error("gives a version to {0:?}, which is no launch measurement")]
    Measurement(String),
}

/// What the owner accepts.
pub struct Rules {
    pub(crate) configuration: Configuration,
    pub(crate) references: ReferenceValues,
    pub(crate) roots: Roots,
    pub(crate) certificates: Option<CertificateStore>,
    /// What may be bound, with the document where the owner has it.
    pub(crate) bound: BTreeMap<HostData, Option<Initdata>>,
    pub(crate) attestation: AttestationPolicy,
    pub(crate) resource: ResourcePolicy,
    pub(crate) requirements: Vec<Required>,
    /// SHA-256 over all files, in hexadecimal.
    pub(crate) digest: String,
    stamps: Vec<(PathBuf, Stamp)>,
}

/// A requirement with its workload read.
pub(crate) struct Required {
    pattern: [String; 3],
    pub(crate) workload: Workload,
    pub(crate) max_age_seconds: u32,
    /// As a token names the outcome.
    pub(crate) name: String,
}

impl Required {
    pub(crate) fn is_for(&self, name: &ResourceName) -> bool {
        let segments = name.segments();
        let mut pairs = self.pattern.iter().zip(segments);
        pairs.all(|(pattern, segment)| pattern == "*" || pattern == segment)
    }
}

/// Reads files and remembers what was read.
struct Files<'a> {
    directory: &'a Path,
    digests: Vec<u8>,
    stamps: Vec<(PathBuf, Stamp)>,
}

impl Rules {
    /// Reads `broker.toml` in this directory and everything that it names.
    ///
    /// # Errors
    ///
    /// [`RulesError`] names the file.
    pub fn read(directory: &Path) -> Result<Self, RulesError> {
        let mut files = Files {
            directory,
            digests: Vec::new(),
            stamps: Vec::new(),
        };
        let own = Path::new(FILE);
        let configuration: Configuration =
            files.parse(own, |text| Ok(agent_documents::parse_toml(text)?))?;
        let values = match &configuration.reference_values {
            Some(path) => files.json(path)?,
            None => NamedValues::default(),
        };
        let attestation = match &configuration.attestation_policy {
            Some(path) => files.parse(path, |text| Ok(AttestationPolicy::load(text, values)?))?,
            None => files.own(AttestationPolicy::load(DEFAULT_ATTESTATION, values))?,
        };
        let resource = match &configuration.resource_policy {
            Some(path) => files.parse(path, |text| Ok(ResourcePolicy::load(text)?))?,
            None => files.own(ResourcePolicy::load(DEFAULT_RESOURCE))?,
        };
        let roots = match &configuration.roots {
            Some(path) => {
                let bytes = files.bytes(path)?;
                Roots::parse(&bytes).map_err(|error| files.wrong(path, error))?
            }
            None => Roots::amd(),
        };
        let rules = Self {
            references: files.json(&configuration.references)?,
            roots,
            certificates: configuration
                .certificates
                .as_ref()
                .map(|path| CertificateStore::new(directory.join(path))),
            bound: bound(&configuration, &mut files)?,
            attestation,
            resource,
            requirements: requirements(&configuration, &mut files)?,
            digest: Sha256Digest::of(&[&files.digests]).to_string(),
            stamps: std::mem::take(&mut files.stamps),
            configuration,
        };
        check_versions(&rules.configuration).map_err(|error| files.wrong(own, error))?;
        Ok(rules)
    }

    /// Whether no file was changed, replaced or removed since before it was read.
    pub(crate) fn are_current(&self) -> bool {
        self.stamps
            .iter()
            .all(|(path, stamp)| fs::metadata(path).is_ok_and(|found| Stamp::of(&found) == *stamp))
    }
}

fn check_versions(configuration: &Configuration) -> Result<(), FileError> {
    for text in configuration.guest_images.keys() {
        let parsed: Result<LaunchMeasurement, _> = text.parse();
        // Written otherwise, it would not be found.
        if parsed.is_err() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(FileError::Measurement(text.clone()));
        }
    }
    Ok(())
}

fn bound(
    configuration: &Configuration,
    files: &mut Files<'_>,
) -> Result<BTreeMap<HostData, Option<Initdata>>, RulesError> {
    let mut bound = BTreeMap::new();
    for host_data in &configuration.host_data {
        if *host_data == HostData::ZERO {
            return Err(files.wrong(Path::new(FILE), FileError::Unbound));
        }
        bound.insert(*host_data, None);
    }
    for path in &configuration.initdata {
        let document = Initdata::parse(&files.bytes(path)?);
        let document = document.map_err(|error| files.wrong(path, error))?;
        let host_data = HostData(document.digest().host_data());
        bound.insert(host_data, Some(document));
    }
    Ok(bound)
}

fn requirements(
    configuration: &Configuration,
    files: &mut Files<'_>,
) -> Result<Vec<Required>, RulesError> {
    let mut read = Vec::new();
    for (number, one) in configuration.require.iter().enumerate() {
        let pattern = pattern(&one.resource);
        let pattern = pattern.map_err(|error| files.wrong(Path::new(FILE), error))?;
        read.push(Required {
            pattern,
            workload: files.json(&one.workload)?,
            max_age_seconds: one.log_max_age_seconds,
            name: number.to_string(),
        });
    }
    Ok(read)
}

/// Three segments, of which each is one of a resource's name, or `*`.
pub(crate) fn pattern(text: &str) -> Result<[String; 3], FileError> {
    let wrong = || FileError::Pattern(text.to_owned());
    let segments: Vec<&str> = text.split('/').collect();
    let named: Vec<&str> = segments
        .iter()
        .map(|segment| if *segment == "*" { "x" } else { segment })
        .collect();
    ResourceName::parse(&named.join("/")).map_err(|_| wrong())?;
    let owned: Vec<String> = segments.into_iter().map(str::to_owned).collect();
    owned.try_into().map_err(|_| wrong())
}

impl Files<'_> {
    fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, RulesError> {
        let real = self.directory.join(path);
        let (bytes, stamp) = read(&real).map_err(|error| self.wrong(path, error))?;
        self.digests.extend(Sha256Digest::of(&[&bytes]).0);
        self.stamps.push((real, stamp));
        Ok(bytes)
    }

    fn parse<T>(
        &mut self,
        path: &Path,
        parse: impl FnOnce(&str) -> Result<T, FileError>,
    ) -> Result<T, RulesError> {
        let bytes = self.bytes(path)?;
        let text = std::str::from_utf8(&bytes).map_err(FileError::from);
        text.and_then(parse)
            .map_err(|error| self.wrong(path, error))
    }

    fn json<T: DeserializeOwned>(&mut self, path: &Path) -> Result<T, RulesError> {
        self.parse(path, |text| {
            Ok(agent_documents::parse_json(text.as_bytes())?)
        })
    }

    /// Of a text that is ours.
    fn own<T>(&self, loaded: Result<T, RegoError>) -> Result<T, RulesError> {
        loaded.map_err(|error| self.wrong(Path::new("the built-in policy"), error))
    }

    fn wrong(&self, path: &Path, error: impl Into<FileError>) -> RulesError {
        RulesError {
            path: self.directory.join(path),
            source: error.into(),
        }
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Stamp), FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    // Before it is read: a change while it is read shows afterwards.
    let stamp = Stamp::of(&file.metadata()?);
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        Ok((bytes, stamp))
    } else {
        Err(FileError::Long)
    }
}

/// A file as it was before it was read: which one, how long, and when it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            inode: found.ino(),
            length: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}
