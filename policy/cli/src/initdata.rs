//! `kata-cc initdata`: makes, shows and digests what an owner binds to a launch.
//!
//! Works on files alone and talks to nobody. `make` writes the document and prints
//! what a pod and a verifier need: the annotation's value and `HOST_DATA`. `show` and
//! `digest` take the document itself, the annotation's value, a gzip file or the
//! content of an initdata disk; which one it is shows in its first bytes.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a file cannot be read or written |
//! | 2 | wrong usage |
//! | 3 | the input is no initdata, or breaks one of its rules |

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use agent_protocol::initdata::{
    ANNOTATION, Algorithm, DISK_BYTES_MAX, DOCUMENT_BYTES_MAX, Digest, Initdata, POLICY_ANNOTATION,
    PolicyError, PolicyText, WriteError,
    disk::{self, DiskError, frame, unframe},
    packed::{self, PackedError, from_annotation, pack, to_annotation, unpack},
    write,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use thiserror::Error;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a file cannot be read or written
  2  wrong usage
  3  the input is no initdata, or breaks one of its rules";

/// Longest input: a document, or less of anything else.
const INPUT_BYTES_MAX: u64 = DOCUMENT_BYTES_MAX as u64 + 1;

/// Make, show and digest the initdata that a pod carries and its launch binds.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Make(Make),
    Show(Show),
    Digest(Input),
}

/// Make initdata of files; print the pod's annotation and HOST_DATA.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct Make {
    /// Files, each under its own name or as NAME=FILE; usual names are aa.toml, cdh.toml
    /// and policy.rego.
    #[arg(value_name = "[NAME=]FILE", required = true)]
    files: Vec<String>,
    /// How the digest is made.
    #[arg(long, value_enum, default_value_t = Choice::Sha256)]
    algorithm: Choice,
    /// Write the document to this file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the content of the disk to this file, as the guest finds it.
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Show what initdata holds: digest, HOST_DATA, and its entries.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct Show {
    #[command(flatten)]
    input: Input,
    /// Print the content of this entry and nothing else.
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    entry: Option<String>,
}

/// Print HOST_DATA of a launch that binds this initdata, or this policy.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct Input {
    /// Document, annotation value, gzip file or disk content; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file is a policy by itself, as for AKS's policy annotation.
    #[arg(long)]
    policy: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    Sha256,
    Sha384,
    Sha512,
}

impl From<Choice> for Algorithm {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Sha256 => Self::Sha256,
            Choice::Sha384 => Self::Sha384,
            Choice::Sha512 => Self::Sha512,
        }
    }
}

/// Why a command about initdata failed, or a file is none.
#[derive(Debug, Error)]
pub(crate) enum InitdataError {
    #[error("cannot {step} {path}")]
    File {
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be an entry of initdata: it is not UTF-8 text")]
    Text { path: String },
    #[error("{name} is given twice")]
    Twice { name: String },
    #[error("{path} has no name: give one as NAME=FILE")]
    Unnamed { path: String },
    #[error("initdata cannot be made")]
    Write(#[from] WriteError),
    #[error("initdata cannot be packed")]
    Pack(#[source] PackedError),
    #[error("initdata does not fit on its disk")]
    Frame(#[source] DiskError),
    #[error("{path} is no initdata")]
    Packed {
        path: String,
        #[source]
        source: PackedError,
    },
    #[error("{path} is no initdata disk")]
    Disk {
        path: String,
        #[source]
        source: DiskError,
    },
    #[error("{path} is no policy")]
    Policy {
        path: String,
        #[source]
        source: PolicyError,
    },
    #[error("initdata has no entry {0:?}")]
    NoEntry(String),
}

impl InitdataError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. } => 1,
            Self::Twice { .. } | Self::Unnamed { .. } => 2,
            _ => 3,
        }
    }
}

/// What a pod and a verifier need to know.
#[derive(Debug, Serialize)]
struct Summary {
    algorithm: &'static str,
    digest: String,
    /// `HOST_DATA` of a SEV-SNP launch, in hexadecimal.
    host_data: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotation: Option<Pair>,
}

#[derive(Debug, Serialize)]
struct Pair {
    name: &'static str,
    value: String,
}

impl Summary {
    fn of_digest(digest: &Digest) -> Self {
        Self {
            algorithm: digest.algorithm().name(),
            digest: digest.to_string(),
            host_data: hex(&digest.host_data()),
            entries: BTreeMap::new(),
            annotation: None,
        }
    }

    fn of(document: &Initdata) -> Self {
        let sizes = document.entries().iter();
        Self {
            entries: sizes
                .map(|(name, text)| (name.clone(), text.len()))
                .collect(),
            ..Self::of_digest(&document.digest())
        }
    }

    fn text(&self) -> String {
        let Self {
            algorithm,
            digest,
            host_data,
            entries,
            annotation,
        } = self;
        let mut text = format!("digest      {algorithm}:{digest}\nHOST_DATA   {host_data}\n");
        for (name, bytes) in entries {
            text.push_str(&format!("entry       {name} ({bytes} bytes)\n"));
        }
        if let Some(Pair { name, value }) = annotation {
            text.push_str(&format!("annotation  {name}: {value}\n"));
        }
        text
    }

    fn print(&self, json: bool) -> Result<(), InitdataError> {
        let text = if json {
            let text = serde_json::to_string_pretty(self).expect("texts and numbers are json");
            text + "\n"
        } else {
            self.text()
        };
        put(&text)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs the subcommand; answers with its exit code.
pub(crate) fn run(options: &Options) -> u8 {
    let result = match &options.action {
        Action::Make(options) => make(options),
        Action::Show(options) => show(options),
        Action::Digest(input) => digest(input),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            let code = error.exit_code();
            crate::complain(error, code)
        }
    }
}

fn make(options: &Make) -> Result<(), InitdataError> {
    let mut entries = BTreeMap::new();
    for file in &options.files {
        let (name, path) = named(file)?;
        let text = String::from_utf8(read(path)?).map_err(|_| InitdataError::Text {
            path: path.display().to_string(),
        })?;
        if entries.insert(name.clone(), text).is_some() {
            return Err(InitdataError::Twice { name });
        }
    }
    let document = write(options.algorithm.into(), &entries)?;
    let packed = pack(&document).map_err(InitdataError::Pack)?;
    let disk = frame(&packed).map_err(InitdataError::Frame)?;
    for (path, content) in [
        (&options.output, document.text().as_bytes()),
        (&options.disk, &disk),
    ] {
        if let Some(path) = path {
            fs::write(path, content).map_err(file_error("write", path))?;
        }
    }
    let annotation = Pair {
        name: ANNOTATION,
        value: to_annotation(&packed),
    };
    Summary {
        annotation: Some(annotation),
        ..Summary::of(&document)
    }
    .print(options.json)
}

/// Name and path of an argument: `NAME=FILE`, or a file that has a name.
fn named(argument: &str) -> Result<(String, &Path), InitdataError> {
    if let Some((name, path)) = argument.split_once('=') {
        return Ok((name.to_owned(), Path::new(path)));
    }
    let path = Path::new(argument);
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| InitdataError::Unnamed {
        path: argument.to_owned(),
    })?;
    Ok((name.to_owned(), path))
}

fn show(options: &Show) -> Result<(), InitdataError> {
    if options.input.policy {
        return digest(&options.input);
    }
    let document = open(&options.input.file)?;
    match &options.entry {
        None => Summary::of(&document).print(options.input.json),
        Some(name) => {
            let text = document.entries().get(name);
            put(text.ok_or_else(|| InitdataError::NoEntry(name.clone()))?)
        }
    }
}

fn digest(input: &Input) -> Result<(), InitdataError> {
    let summary = if input.policy {
        let policy = policy(&input.file)?;
        Summary {
            annotation: Some(Pair {
                name: POLICY_ANNOTATION,
                value: STANDARD.encode(policy.as_str()),
            }),
            ..Summary::of_digest(&policy.digest())
        }
    } else {
        Summary::of_digest(&open(&input.file)?.digest())
    };
    if input.json {
        return summary.print(true);
    }
    put(&format!("{}\n", summary.host_data))
}

fn policy(path: &Path) -> Result<PolicyText, InitdataError> {
    let bytes = read(path)?;
    let refused = |source| InitdataError::Policy {
        path: path.display().to_string(),
        source,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| refused(PolicyError::Text))?;
    PolicyText::parse(text).map_err(refused)
}

/// Initdata in any of its forms.
pub(crate) fn open(path: &Path) -> Result<Initdata, InitdataError> {
    let bytes = read(path)?;
    let name = || path.display().to_string();
    let packed_error = |source| InitdataError::Packed {
        path: name(),
        source,
    };
    if bytes.starts_with(&disk::MAGIC) {
        let packed = unframe(&bytes).map_err(|source| InitdataError::Disk {
            path: name(),
            source,
        })?;
        return unpack(packed).map_err(packed_error);
    }
    if bytes.starts_with(&packed::MAGIC) {
        return unpack(&bytes).map_err(packed_error);
    }
    // Base64 of a gzip member starts so; a document cannot.
    if bytes.trim_ascii_start().starts_with(b"H4sI") && bytes.len() <= 2 * DISK_BYTES_MAX {
        let text = String::from_utf8_lossy(&bytes);
        return from_annotation(&text)
            .and_then(|packed| unpack(&packed))
            .map_err(packed_error);
    }
    Initdata::parse(&bytes).map_err(|source| packed_error(source.into()))
}

fn read(path: &Path) -> Result<Vec<u8>, InitdataError> {
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(INPUT_BYTES_MAX)
            .read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX).read_to_end(&mut bytes))
    };
    result.map_err(file_error("read", path))?;
    Ok(bytes)
}

fn put(text: &str) -> Result<(), InitdataError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(file_error("write", Path::new("standard output")))
}

fn file_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InitdataError {
    let path = path.display().to_string();
    move |source| InitdataError::File { step, path, source }
}
