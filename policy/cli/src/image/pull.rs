//! `kata-cc image pull`: what the guest does with an image, done here.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use agent_image::{Config, ConfigError, Image, OwnerConfigError, Puller};
use agent_image_registry::{Reference, ReferenceError};
use agent_image_signatures::AcceptedSignature;
use agent_image_unpacking::{AssembleError, Progress};
use agent_keys::{Cached, KeyProvider};
use clap::Args;
use serde::Serialize;

use crate::{
    image::{
        keys::{KeyFiles, KeyOptionError, PrivateKeyFiles},
        registry::{OptionError, RegistryOptions},
        signatures::{SignatureOptionError, SignatureOptions},
    },
    initdata::{self, InitdataError},
};

/// Often enough to look alive.
const REDRAW: Duration = Duration::from_millis(200);

/// Options for what initdata says.
const INSTEAD_OF: [&str; 8] = [
    "policy",
    "lookaside",
    "files",
    "private_key_files",
    "authfile",
    "registries_conf",
    "extra_roots",
    "insecure",
];

/// Pull an image as the guest would: fetch, decrypt, verify and unpack it.
///
/// DIR gets the image's root file system as `rootfs` and what is known about it as
/// `image.json`. Needs root: layers hold files of any owner and device nodes, and are
/// put together by overlayfs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Image, as in a pod's YAML.
    #[arg(value_name = "REF")]
    reference: String,
    /// Directory to make, or an empty one.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print the report as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Keep layers there for the next pull, as a guest does for the next container.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Pull as a pod with this initdata would: its signature policy, keys, credentials,
    /// registries and roots, and none of this command's. Its policy.rego is not asked.
    /// A document, or what `kata-cc initdata show` takes besides.
    #[arg(long, value_name = "FILE", conflicts_with_all = INSTEAD_OF)]
    initdata: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyFiles,
    #[command(flatten)]
    private_keys: PrivateKeyFiles,
    #[command(flatten)]
    signatures: SignatureOptions,
    #[command(flatten)]
    registry: RegistryOptions,
}

/// Why the image is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("unpacking an image needs root (owners, device nodes, overlayfs); run it with sudo")]
    NotRoot,
    #[error("{} is not empty; name a directory that is", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot {step} {}", path.display())]
    System {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Key(#[from] KeyOptionError),
    #[error(transparent)]
    Signature(#[from] SignatureOptionError),
    #[error(transparent)]
    Initdata(#[from] InitdataError),
    #[error(transparent)]
    Owner(#[from] OwnerConfigError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The library's whole chain, with how far the pull had come.
    #[error(
        "{sentence} (of all layers: after {received} of {expected} bytes, {requests} requests)"
    )]
    Pull {
        sentence: String,
        received: u64,
        expected: u64,
        requests: u64,
    },
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error("cp could not copy the root file system: {0}")]
    Copy(ExitStatus),
}

/// What is known about a pulled image.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    manifest_digest: String,
    config_digest: String,
    user: String,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    working_dir: String,
    layers: Vec<LayerLine>,
    /// Those that met the policy; none where it demands none.
    signatures: Vec<SignatureLine>,
    requests: u64,
    /// From the first request to the last verified layer.
    pull_seconds: f64,
    /// Copying the root file system out of its layers, which a guest does not do.
    copy_seconds: f64,
}

#[derive(Debug, Serialize)]
struct LayerLine {
    digest: String,
    diff_id: String,
    media_type: String,
    encrypted: bool,
    stored_bytes: u64,
    /// Absent for a layer that an earlier pull left in the store.
    unpacked_bytes: Option<u64>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct SignatureLine {
    requirement: &'static str,
    signer: String,
    signed_name: Option<String>,
    place: String,
}

/// Pulls the image into the directory.
pub(crate) fn run(options: &Options) -> Result<(), PullError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(PullError::NotRoot);
    }
    let reference = Reference::parse(&options.reference)?;
    let mut config = config(options)?;
    prepare(&options.directory)?;
    // On the same file system, so that a full one is noticed where it matters.
    let work = tempfile::Builder::new()
        .prefix(".kata-cc-pull-")
        .tempdir_in(&options.directory)
        .map_err(failed("make a directory in", &options.directory))?;
    config.store = options
        .store
        .clone()
        .unwrap_or_else(|| work.path().join("store"));
    let puller = Puller::build(config)?;
    let begin = Instant::now();
    let image = pull(&puller, &reference)?;
    let pulled = begin.elapsed();
    let begin = Instant::now();
    let rootfs = puller.assemble(&image, &work.path().join("bundle"))?;
    copy(rootfs.path(), &options.directory.join("rootfs"))?;
    rootfs.unmount()?;
    let report = report(
        &reference,
        image,
        puller.requests(),
        [pulled, begin.elapsed()],
    );
    finish(options, &report)
}

/// The guest's configuration, by initdata or by options.
fn config(options: &Options) -> Result<Config, PullError> {
    let mut config = options.registry.config()?;
    if let Some(path) = &options.initdata {
        config.follow(&initdata::open(path)?)?;
        return Ok(config);
    }
    options.signatures.apply(&mut config)?;
    let mut keys = options.keys.load()?;
    config.private_keys = options.private_keys.load(&mut keys)?;
    if !options.keys.is_empty() || !config.private_keys.is_empty() {
        let keys: Arc<dyn KeyProvider> = Arc::new(Cached::new(keys));
        config.keys = Some(keys);
    }
    Ok(config)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PullError {
    let path = path.to_owned();
    move |source| PullError::System { step, path, source }
}

/// Nothing of the user's is overwritten, and nothing is mixed with it.
fn prepare(directory: &Path) -> Result<(), PullError> {
    fs::create_dir_all(directory).map_err(failed("make", directory))?;
    let mut entries = fs::read_dir(directory).map_err(failed("read", directory))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(PullError::NotEmpty(directory.to_owned())),
    }
}

fn pull(puller: &Puller, reference: &Reference) -> Result<Image, PullError> {
    let (progress, done) = (Progress::default(), AtomicBool::new(false));
    let result = thread::scope(|scope| {
        if io::stderr().is_terminal() {
            scope.spawn(|| draw(&progress, &done));
        }
        let result = puller.pull_watched(reference, &progress);
        done.store(true, Ordering::Relaxed);
        result
    });
    result.map_err(|error| PullError::Pull {
        sentence: error.sentence(),
        received: progress.received_bytes(),
        expected: progress.expected_bytes(),
        requests: puller.requests(),
    })
}

/// One line on the terminal, drawn again and again (ECMA-48 EL erases it).
fn draw(progress: &Progress, done: &AtomicBool) {
    const MIB: f64 = 1_048_576.0;
    let begin = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let mib = |bytes: u64| bytes as f64 / MIB;
        let line = format!(
            "\r\x1b[2K{:5.1} s  layers {}/{}  {:.1} of {:.1} MiB",
            begin.elapsed().as_secs_f32(),
            progress.finished(),
            progress.layers(),
            mib(progress.received_bytes()),
            mib(progress.expected_bytes())
        );
        // A terminal that cannot be written to is no reason to end the pull.
        let _ = io::stderr().write_all(line.as_bytes());
        thread::sleep(REDRAW);
    }
    let _ = io::stderr().write_all(b"\r\x1b[2K");
}

/// Copies with everything that files have; cp is the one that knows it all.
fn copy(from: &Path, to: &Path) -> Result<(), PullError> {
    let status = Command::new("cp")
        .args(["--archive", "--no-target-directory", "--"])
        .args([from, to])
        .status()
        .map_err(failed("copy with cp to", to))?;
    if status.success() {
        return Ok(());
    }
    // Half of a root file system is worse than none; what cp said says why.
    let _ = fs::remove_dir_all(to);
    Err(PullError::Copy(status))
}

fn report(reference: &Reference, image: Image, requests: u64, times: [Duration; 2]) -> Report {
    let layers = image.reports.iter().zip(&image.diff_ids);
    let layers = layers.map(|(layer, diff_id)| LayerLine {
        digest: layer.digest.to_string(),
        diff_id: diff_id.to_string(),
        media_type: layer.media_type.clone(),
        encrypted: layer.encrypted,
        stored_bytes: layer.stored_bytes,
        unpacked_bytes: layer.unpacked_bytes,
        seconds: layer.duration.as_secs_f64(),
    });
    Report {
        reference: reference.to_string(),
        manifest_digest: image.manifest_digest.to_string(),
        config_digest: image.config_digest.to_string(),
        layers: layers.collect(),
        signatures: image.signatures.into_iter().map(signature).collect(),
        user: image.config.user,
        env: image.config.env,
        entrypoint: image.config.entrypoint,
        cmd: image.config.cmd,
        working_dir: image.config.working_dir,
        requests,
        pull_seconds: times[0].as_secs_f64(),
        copy_seconds: times[1].as_secs_f64(),
    }
}

fn signature(accepted: AcceptedSignature) -> SignatureLine {
    SignatureLine {
        requirement: accepted.requirement,
        signer: accepted.signer,
        signed_name: accepted.signed_name,
        place: accepted.place,
    }
}

fn finish(options: &Options, report: &Report) -> Result<(), PullError> {
    let path = options.directory.join("image.json");
    let json = serde_json::to_string_pretty(report).expect("a report is an object") + "\n";
    fs::write(&path, &json).map_err(failed("write", &path))?;
    if options.json {
        print!("{json}");
        return Ok(());
    }
    println!("{}  {}", report.manifest_digest, report.reference);
    for (index, layer) in report.layers.iter().enumerate() {
        let unpacked = layer.unpacked_bytes.map_or_else(
            || "in the store already".to_owned(),
            |bytes| format!("{bytes} unpacked, {:.2} s", layer.seconds),
        );
        println!(
            "layer {}  {}  {}  {} bytes, {unpacked}",
            index + 1,
            layer.digest,
            layer.media_type,
            layer.stored_bytes
        );
    }
    for one in &report.signatures {
        println!(
            "signature  {}  {}  {}",
            one.requirement, one.signer, one.place
        );
    }
    println!(
        "{} requests, pulled in {:.2} s, copied to {} in {:.2} s",
        report.requests,
        report.pull_seconds,
        options.directory.join("rootfs").display(),
        report.copy_seconds
    );
    Ok(())
}
