//! The commands: read what the arguments name, call the library, print.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use guest_image_builder::{
    Image, Recipe,
    agent::Agent,
    build as build_image,
    certificates::Certificates,
    cmdline::CommandLine,
    deb, fetch as fetching,
    initrd::Compression,
    kernel::Kernel,
    manifest::{FileDigest, Manifest, ManifestError},
    show as showing,
};

use crate::Outcome;

pub(crate) mod igvm;
pub(crate) mod measure;
pub(crate) mod own_kernel;

/// The bundle of Debian and most others.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What an image is made of.
#[derive(Args)]
pub(crate) struct InputArgs {
    /// Agent: a static executable that becomes the guest's first process
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    #[command(flatten)]
    source: own_kernel::SourceArgs,
    /// Debian's cloud kernel 6.12, downloaded with apt, instead of our own: it has no guard
    #[arg(long, conflicts_with_all = ["kernel_deb", "kernel", "modules", "source", "source_version"])]
    stock_kernel: bool,
    /// Kernel as a Debian package: it has no guard
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "modules", "source", "source_version"])]
    kernel_deb: Option<PathBuf>,
    /// Kernel as a bzImage: it has no guard
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel: Option<PathBuf>,
    /// Its modules: a /lib/modules/RELEASE directory
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Further module that the agent may load on demand (repeatable)
    #[arg(long = "module", value_name = "NAME")]
    extra_modules: Vec<String>,
    /// Certificate authorities of this machine that the guest trusts
    #[arg(long, value_name = "FILE", default_value = CA_BUNDLE)]
    ca_bundle: PathBuf,
    /// Further certificate authority in PEM form (repeatable)
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// Further kernel parameters
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,
    /// How the initrd is stored
    #[arg(long, value_enum, default_value = "zstd")]
    compression: Compression,
}

/// Arguments of `build`.
#[derive(Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    inputs: InputArgs,
    /// Directory that holds images, each in a directory of its own
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Name of the image
    #[arg(long, default_value = "default")]
    name: String,
}

/// Arguments of `show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Directory of the image
    image: PathBuf,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Directory of the image
    image: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
}

/// Arguments of `fetch-kernel`.
#[derive(Args)]
pub(crate) struct FetchArgs {
    /// Directory to keep packages in [default: $KATA_CC_CACHE/kernel or ~/.cache/kata-cc/kernel]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Version of the package, as a manifest names it
    #[arg(long, value_name = "VERSION")]
    package_version: Option<String>,
}

pub(crate) fn build(arguments: &BuildArgs) -> anyhow::Result<Outcome> {
    let name = &arguments.name;
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        bail!("image name {name:?} cannot be a directory name: give a plain --name");
    }
    let image = make(&arguments.inputs)?;
    let written = image.write(&arguments.output, name)?;
    println!("{}", written.display());
    Ok(Outcome::Done)
}

pub(crate) fn show(arguments: &ShowArgs) -> anyhow::Result<Outcome> {
    let manifest = Manifest::read(&arguments.image)?;
    if let Some(difference) = difference(&manifest, &arguments.image)? {
        return Ok(difference);
    }
    if arguments.json {
        print!("{}", String::from_utf8_lossy(&manifest.to_json()));
    } else {
        print!("{}", showing::table(&manifest));
    }
    Ok(Outcome::Done)
}

/// Says so when the image's files are not those of its manifest.
fn difference(manifest: &Manifest, image: &Path) -> anyhow::Result<Option<Outcome>> {
    match manifest.check_files(image) {
        Ok(()) => Ok(None),
        Err(error @ ManifestError::Mismatch { .. }) => {
            eprintln!("kata-cc-image: {error}");
            Ok(Some(Outcome::Different))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn verify(arguments: &VerifyArgs) -> anyhow::Result<Outcome> {
    let image = make(&arguments.inputs)?;
    let mut different = Vec::new();
    for (name, expected) in image.files() {
        let path = arguments.image.join(name);
        let found = read(&path)?;
        if found != expected {
            different.push(name);
        }
    }
    if different.is_empty() {
        println!("identical");
        return Ok(Outcome::Done);
    }
    eprintln!(
        "kata-cc-image: {} differs from what these inputs give: {}",
        arguments.image.display(),
        different.join(", ")
    );
    Ok(Outcome::Different)
}

pub(crate) fn fetch(arguments: &FetchArgs) -> anyhow::Result<Outcome> {
    let cache = match &arguments.cache {
        Some(cache) => cache.clone(),
        None => default_cache()?,
    };
    let package = fetching::kernel_package(&cache, arguments.package_version.as_deref())?;
    println!("{}", package.display());
    Ok(Outcome::Done)
}

fn default_cache() -> anyhow::Result<PathBuf> {
    if let Some(cache) = env::var_os("KATA_CC_CACHE") {
        return Ok(PathBuf::from(cache).join("kernel"));
    }
    let home = env::var_os("HOME").context("HOME is not set: give --cache DIR")?;
    Ok(PathBuf::from(home).join(".cache/kata-cc/kernel"))
}

fn make(arguments: &InputArgs) -> anyhow::Result<Image> {
    let mut inputs = BTreeMap::new();
    let agent = read(&arguments.agent)?;
    inputs.insert("agent".to_owned(), FileDigest::of(&agent));
    let agent =
        Agent::parse(agent).with_context(|| format!("the agent {}", arguments.agent.display()))?;
    let kernel = kernel(arguments, &mut inputs)?;
    let certificates = certificates(arguments)?;
    let pem = FileDigest::of(&certificates.to_pem());
    inputs.insert("certificates".to_owned(), pem);
    let recipe = Recipe {
        kernel,
        agent,
        certificates,
        cmdline: CommandLine::with_appended(&arguments.append)?,
        extra_modules: arguments.extra_modules.clone(),
        compression: arguments.compression,
        inputs,
    };
    Ok(build_image(recipe)?)
}

fn kernel(
    arguments: &InputArgs,
    inputs: &mut BTreeMap<String, FileDigest>,
) -> anyhow::Result<Kernel> {
    if let (Some(vmlinuz), Some(modules)) = (&arguments.kernel, &arguments.modules) {
        let kernel = Kernel::open(vmlinuz, modules).with_context(|| {
            format!(
                "the kernel {} with {}",
                vmlinuz.display(),
                modules.display()
            )
        })?;
        inputs.insert("kernel".to_owned(), FileDigest::of(&kernel.vmlinuz));
        return Ok(kernel);
    }
    let package = match &arguments.kernel_deb {
        Some(package) => package.clone(),
        None if arguments.stock_kernel => fetching::kernel_package(&default_cache()?, None)?,
        None => return arguments.source.kernel(),
    };
    let bytes = read(&package)?;
    inputs.insert("kernel-package".to_owned(), FileDigest::of(&bytes));
    deb::kernel(&bytes).with_context(|| format!("the kernel package {}", package.display()))
}

fn certificates(arguments: &InputArgs) -> anyhow::Result<Certificates> {
    let mut certificates = Certificates::default();
    for path in std::iter::once(&arguments.ca_bundle).chain(&arguments.ca) {
        certificates
            .add_pem(&read(path)?)
            .with_context(|| format!("the certificate file {}", path.display()))?;
    }
    Ok(certificates)
}

fn read_firmware(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| {
        format!(
            "cannot read the firmware {} (Debian's package is ovmf-amdsev)",
            path.display()
        )
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
