//! The initdata of a policy: with what its owner has besides.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use agent_keys_broker::{AddressError, Addresses};
use agent_protocol::initdata::{
    Algorithm, DIRECTORY, DOCUMENT_ENTRY, Initdata, POLICY_ENTRY, WriteError,
    packed::{PackedError, pack, to_annotation},
    write,
};
use clap::Args;
use policy_broker::identity::guest_configuration;
use policy_engine::document::Document;

use crate::initdata::{InitdataError, open};

const AGENT: &str = "aa.toml";
const KEYS: &str = "cdh.toml";
const IMAGE_POLICY: &str = "image-policy.json";

/// What goes into initdata beside the policy.
#[derive(Debug, Args)]
pub(super) struct InitdataOptions {
    /// Initdata to put the policy into, in any form that `kata-cc initdata show` takes; a
    /// policy that it has is replaced.
    #[arg(long, value_name = "FILE")]
    initdata: Option<PathBuf>,
    /// Key broker of the pod (KBS), as <https://broker.example:8443>: aa.toml is made for it, and
    /// cdh.toml, unless --cdh gives one.
    #[arg(long, value_name = "URL", conflicts_with = "aa")]
    kbs: Option<String>,
    /// Certificate of that broker, PEM; without it the guest image's own roots count.
    #[arg(long, value_name = "FILE", requires = "kbs")]
    kbs_certificate: Option<PathBuf>,
    /// aa.toml, as it is: what `kata-cc broker init` printed.
    #[arg(long, value_name = "FILE")]
    aa: Option<PathBuf>,
    /// Signature policy of images (containers-policy.json): cdh.toml is made for it.
    #[arg(long, value_name = "FILE", conflicts_with = "cdh")]
    image_policy: Option<PathBuf>,
    /// cdh.toml, as it is.
    #[arg(long, value_name = "FILE")]
    cdh: Option<PathBuf>,
}

/// Why there is no initdata.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--initdata")]
    Initdata(#[source] InitdataError),
    #[error("the initdata of --initdata has {0} already: give one of both")]
    Twice(&'static str),
    #[error(
        "the initdata of --initdata has a policy in Rego ({POLICY_ENTRY}), and a pod can have one policy: remove it"
    )]
    Rego,
    #[error("{0:?} cannot be written down as the URL of a key broker")]
    Url(String),
    #[error("--kbs-certificate {} is no certificate in PEM", .0.display())]
    Certificate(PathBuf),
    #[error("no guest would take this key broker")]
    Broker(#[source] AddressError),
    #[error("initdata cannot be made")]
    Write(#[source] WriteError),
    #[error("initdata cannot be packed")]
    Pack(#[source] PackedError),
}

/// Initdata and the annotation that carries it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) initdata: Initdata,
    pub(super) annotation: String,
}

impl InitdataOptions {
    /// All entries but the policy.
    pub(super) fn entries(&self) -> Result<(Algorithm, BTreeMap<String, String>), MakeError> {
        let mut algorithm = Algorithm::Sha256;
        let mut entries = BTreeMap::new();
        if let Some(path) = &self.initdata {
            let initdata = open(path).map_err(MakeError::Initdata)?;
            algorithm = initdata.algorithm();
            entries.clone_from(initdata.entries());
            entries.remove(DOCUMENT_ENTRY);
        }
        if entries.contains_key(POLICY_ENTRY) {
            return Err(MakeError::Rego);
        }
        let mut add = |name: &'static str, text: String| match entries.insert(name.into(), text) {
            None => Ok(()),
            Some(_) => Err(MakeError::Twice(name)),
        };
        if let Some(path) = &self.cdh {
            add(KEYS, text(path)?)?;
        }
        if let Some(path) = &self.aa {
            add(AGENT, usable(text(path)?)?)?;
        }
        let mut keys = String::new();
        if let Some(url) = &self.kbs {
            let url = plain(url)?;
            add(AGENT, usable(self.agent(url)?)?)?;
            if self.cdh.is_none() {
                keys.push_str(&format!("[kbc]\nname = \"cc_kbc\"\nurl = \"{url}\"\n"));
            }
        }
        if let Some(path) = &self.image_policy {
            add(IMAGE_POLICY, text(path)?)?;
            keys.push_str(&format!(
                "[image]\nimage_security_policy_uri = \"file://{DIRECTORY}/{IMAGE_POLICY}\"\n"
            ));
        }
        if !keys.is_empty() {
            add(KEYS, keys)?;
        }
        Ok((algorithm, entries))
    }

    /// `aa.toml` for this URL.
    fn agent(&self, url: &str) -> Result<String, MakeError> {
        let certificate = self.kbs_certificate.as_ref().map(certificate).transpose()?;
        Ok(guest_configuration(url, certificate.as_deref()))
    }
}

fn text(path: &PathBuf) -> Result<String, MakeError> {
    fs::read_to_string(path).map_err(|source| MakeError::Read {
        path: path.clone(),
        source,
    })
}

/// A URL that means the same between quotation marks; what a guest takes of it is judged later.
fn plain(url: &str) -> Result<&str, MakeError> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    match url.chars().all(is_plain) {
        true => Ok(url),
        false => Err(MakeError::Url(url.to_owned())),
    }
}

/// A certificate that means the same between quotation marks.
fn certificate(path: &PathBuf) -> Result<String, MakeError> {
    let text = text(path)?;
    let is_plain = |c: char| (c.is_ascii() && !c.is_ascii_control() || c == '\n') && c != '\\';
    let is_pem = text.contains("-----BEGIN CERTIFICATE-----\n");
    match is_pem && text.chars().all(|c| is_plain(c) && c != '"') {
        true => Ok(text),
        false => Err(MakeError::Certificate(path.clone())),
    }
}

/// `aa.toml` by which a guest finds its broker, if it names one: the guest's own parser decides.
fn usable(text: String) -> Result<String, MakeError> {
    Addresses::parse(&text).map_err(MakeError::Broker)?;
    Ok(text)
}

/// The initdata of one policy.
pub(super) fn make(
    document: &Document,
    (algorithm, others): &(Algorithm, BTreeMap<String, String>),
) -> Result<Made, MakeError> {
    made(*algorithm, others, DOCUMENT_ENTRY, document.text())
}

/// The initdata of a policy in Rego, and of nothing else.
pub(super) fn make_of_rego(text: &str) -> Result<Made, MakeError> {
    made(
        Algorithm::Sha256,
        &BTreeMap::new(),
        POLICY_ENTRY,
        text.to_owned(),
    )
}

fn made(
    algorithm: Algorithm,
    others: &BTreeMap<String, String>,
    name: &str,
    policy: String,
) -> Result<Made, MakeError> {
    let mut entries = others.clone();
    entries.insert(name.to_owned(), policy);
    Made::of(write(algorithm, &entries).map_err(MakeError::Write)?)
}

impl Made {
    /// As it travels.
    pub(super) fn of(initdata: Initdata) -> Result<Self, MakeError> {
        let packed = pack(&initdata).map_err(MakeError::Pack)?;
        Ok(Self {
            annotation: to_annotation(&packed),
            initdata,
        })
    }
}
