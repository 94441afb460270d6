//! The initdata of a policy: with what its owner has besides.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use agent_protocol::initdata::{
    Algorithm, DIRECTORY, DOCUMENT_ENTRY, Initdata, POLICY_ENTRY, WriteError,
    packed::{PackedError, pack, to_annotation},
    write,
};
use clap::Args;
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
    /// Key broker of the pod (KBS): aa.toml and cdh.toml are made for it.
    #[arg(long, value_name = "URL", conflicts_with = "cdh")]
    kbs: Option<String>,
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
    #[error("{0:?} is no URL that can be written down")]
    Url(String),
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
        let mut keys = String::new();
        if let Some(url) = &self.kbs {
            let url = quoted(url)?;
            add(AGENT, format!("[token_configs.kbs]\nurl = {url}\n"))?;
            keys.push_str(&format!("[kbc]\nname = \"cc_kbc\"\nurl = {url}\n"));
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

    /// The guest of this release does not know this broker yet, and would pull no image.
    pub(super) fn has_broker(&self) -> bool {
        self.kbs.is_some()
    }
}

fn text(path: &PathBuf) -> Result<String, MakeError> {
    fs::read_to_string(path).map_err(|source| MakeError::Read {
        path: path.clone(),
        source,
    })
}

/// A URL as a TOML string.
fn quoted(url: &str) -> Result<String, MakeError> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let is_url = url.starts_with("http://") || url.starts_with("https://");
    match is_url && url.chars().all(is_plain) {
        true => Ok(format!("\"{url}\"")),
        false => Err(MakeError::Url(url.to_owned())),
    }
}

/// The initdata of one policy.
pub(super) fn make(
    document: &Document,
    (algorithm, others): &(Algorithm, BTreeMap<String, String>),
) -> Result<Made, MakeError> {
    let mut entries = others.clone();
    entries.insert(DOCUMENT_ENTRY.to_owned(), document.text());
    let initdata = write(*algorithm, &entries).map_err(MakeError::Write)?;
    let packed = pack(&initdata).map_err(MakeError::Pack)?;
    Ok(Made {
        annotation: to_annotation(&packed),
        initdata,
    })
}
