//! `kata-cc measure`: what a genuine VM reports when it boots a guest image or an IGVM file,
//! and why one reports otherwise.
//!
//! The computation is `guest-image-measurement`'s, as in `kata-cc-image measure`; here it
//! is at hand for an owner who has an image and a verdict but no builder.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use guest_image_measurement::{
    Firmware, GuestImage, INITRD, KERNEL, Launch, MANIFEST, Sha384Digest, Vmm,
    explain::{MAX_SEARCHED, explain_image},
    igvm::{Igvm, Loader},
    launches::Launches,
};
use serde::Serialize;

/// Exit code of `--explain` for a digest that is none of an image's.
const UNEXPLAINED: u8 = 3;

/// What a genuine VM reports when it boots a guest image or an IGVM file.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the digest has no explanation.
#[derive(Args)]
pub(crate) struct Options {
    /// Directory of the guest image, or an IGVM file: that has firmware and processors of its own
    image: PathBuf,
    #[command(flatten)]
    launches: Launches,
    /// Say which launch gives this digest instead
    #[arg(long, value_name = "DIGEST")]
    explain: Option<Sha384Digest>,
    /// Further firmware that may have been launched (repeatable)
    #[arg(long, value_name = "FILE", requires = "explain")]
    suspect_firmware: Vec<PathBuf>,
    /// Further command line that may have been launched (repeatable)
    #[arg(long, value_name = "TEXT", requires = "explain")]
    suspect_cmdline: Vec<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "explain")]
    json: bool,
}

/// One genuine launch.
#[derive(Debug, Serialize)]
pub(crate) struct Expected {
    vcpus: u16,
    #[serde(flatten)]
    start: Start,
    #[serde(serialize_with = "as_text")]
    pub(crate) launch_digest: Sha384Digest,
    /// Whether the image's manifest says that its kernel has the guard; an IGVM file has none.
    #[serde(skip)]
    pub(crate) guard: Option<bool>,
}

/// What the host chose, beside the number of processors.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Start {
    Image {
        vcpu_type: &'static str,
        sev_features: String,
    },
    Igvm {
        loader: &'static str,
    },
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image {
                vcpu_type,
                sev_features,
            } => write!(f, "{vcpu_type}, features {sev_features}"),
            Self::Igvm { loader } => write!(f, "vCPU, loader {loader}"),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4} x {}", self.vcpus, self.start)
    }
}

fn as_text<S: serde::Serializer>(digest: &Sha384Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

/// Prints the digests or the explanation; gives the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    if let Some(wanted) = options.explain {
        return explained(options, wanted);
    }
    let expected = expected(&options.launches, &options.image)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&expected)?);
        return Ok(0);
    }
    for launch in expected {
        println!("{}  {launch}", launch.launch_digest);
    }
    Ok(0)
}

fn explained(options: &Options, wanted: Sha384Digest) -> Result<u8> {
    if options.image.is_file() {
        return explained_igvm(&options.image, wanted);
    }
    let image = read_image(&options.image)?;
    let mut firmware = Vec::new();
    for path in std::iter::once(&options.launches.firmware).chain(&options.suspect_firmware) {
        firmware.push((path.display().to_string(), read_firmware(path)?));
    }
    let suspects = firmware
        .iter()
        .map(|(label, firmware)| (label.as_str(), firmware.clone()))
        .collect();
    if let Some(found) = explain_image(wanted, &image, suspects, &options.suspect_cmdline) {
        println!("{found}");
        return Ok(0);
    }
    eprintln!(
        "kata-cc: no launch of {} with up to {MAX_SEARCHED} vCPUs, the known processor types and command lines, and this firmware has the digest {wanted}",
        options.image.display()
    );
    Ok(UNEXPLAINED)
}

/// A file leaves nothing open but who loads it.
fn explained_igvm(path: &Path, wanted: Sha384Digest) -> Result<u8> {
    let named = || format!("the IGVM file {}", path.display());
    let file = read(path)?;
    let igvm = Igvm::parse(&file).with_context(named)?;
    for loader in Loader::ALL {
        // A loader that refuses the file did not start the VM.
        if igvm.digest(loader) == Ok(wanted) {
            println!("{} loaded by {loader}", named());
            return Ok(0);
        }
    }
    eprintln!(
        "kata-cc: under no loader has {} the digest {wanted}",
        named()
    );
    Ok(UNEXPLAINED)
}

/// What each of these launches of an image, or that of an IGVM file, reports.
pub(crate) fn expected(launches: &Launches, path: &Path) -> Result<Vec<Expected>> {
    if path.is_file() {
        let expected = expected_igvm(launches, &read(path)?);
        return expected.with_context(|| format!("the IGVM file {}", path.display()));
    }
    expected_image(launches, &read_image(path)?)
}

fn expected_igvm(launches: &Launches, file: &[u8]) -> Result<Vec<Expected>> {
    let igvm = Igvm::parse(file)?;
    let launch_digest = igvm.digest(launches.loader)?;
    // With an ID block for another launch the secure processor starts no VM.
    let named = || format!("would not start when {} loads it", launches.loader);
    igvm.authenticate(launch_digest).with_context(named)?;
    let loader = launches.loader.name();
    Ok(vec![Expected {
        vcpus: igvm.processors(),
        start: Start::Igvm { loader },
        launch_digest,
        guard: None,
    }])
}

fn expected_image(launches: &Launches, image: &GuestImage) -> Result<Vec<Expected>> {
    let firmware = read_firmware(&launches.firmware)?;
    let kernel = image.hashes();
    let mut expected = Vec::new();
    let choices = launches.vcpu_type.iter().flat_map(|model| {
        launches
            .sev_features
            .iter()
            .map(move |bits| (*model, *bits))
    });
    for (model, features) in choices {
        let launch = Launch {
            firmware: &firmware,
            kernel: Some(&kernel),
            signature: model.signature(),
            features,
            vmm: Vmm::Qemu,
        };
        for count in launches.vcpus.as_slice() {
            expected.push(Expected {
                vcpus: count.number(),
                start: Start::Image {
                    vcpu_type: model.name(),
                    sev_features: format!("{:#x}", features.raw()),
                },
                launch_digest: launch.digest(*count)?,
                guard: Some(image.has_guard()),
            });
        }
    }
    Ok(expected)
}

/// Reads an image's manifest and compares its files with it.
fn read_image(directory: &Path) -> Result<GuestImage> {
    let path = directory.join(MANIFEST);
    let image = GuestImage::parse_manifest(&read(&path)?);
    let image = image.with_context(|| path.display().to_string())?;
    let (kernel, initrd) = (
        read(&directory.join(KERNEL))?,
        read(&directory.join(INITRD))?,
    );
    let checked = image.check(&kernel, &initrd);
    checked.with_context(|| format!("the guest image {}", directory.display()))?;
    Ok(image)
}

fn read_firmware(path: &Path) -> Result<Firmware> {
    let image = read(path).context("the firmware cannot be read (Debian's is ovmf-amdsev)")?;
    Firmware::parse(&image).with_context(|| format!("the firmware {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
