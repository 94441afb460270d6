//! The bed's guest image: the product's, plus the authority of the bed's registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    authority::Authority,
    run::run_ok,
    tools::{Prefix, built, cache_dir, unique},
};

const BUILD_DEADLINE: Duration = Duration::from_secs(300);
/// Images of older builds that stay in the cache.
const KEPT: usize = 6;

/// The directory of an image with `agent` that trusts `authority`, built when an input has changed.
pub(crate) fn trusting(authority: &Authority, agent: &Path) -> Result<PathBuf> {
    let builder = built("kata-cc-image")?;
    let mut hash = Sha256::new();
    for input in [agent, &builder, &authority.certificate()] {
        hash.update(fs::read(input).with_context(|| format!("reading {}", input.display()))?);
    }
    let kernel = Kernel::of_build()?;
    hash.update(&kernel.sha256);
    let name: String = hex::encode(hash.finalize()).chars().take(16).collect();
    let images = cache_dir()?.join("guest");
    let image = images.join(&name);
    if !image.join("manifest.json").exists() {
        build(agent, &builder, authority, &images, &name, &kernel)?;
        prune(&images)?;
    }
    Ok(image)
}

/// The kernel of the image that `hack/build` made: the bed's has the same.
struct Kernel {
    sha256: String,
    stock: bool,
}

impl Kernel {
    fn of_build() -> Result<Self> {
        let path = Prefix::of_build()?
            .path()
            .join("guest/default/manifest.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let manifest: serde_json::Value =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        let sha256 = manifest["files"]["vmlinuz"]["sha256"].as_str();
        Ok(Self {
            sha256: sha256.context("the manifest names no kernel")?.to_owned(),
            stock: manifest["kernel"]["guard"] != true,
        })
    }
}

/// Built aside and moved into place: a build that is cut short leaves no half image.
fn build(
    agent: &Path,
    builder: &Path,
    authority: &Authority,
    images: &Path,
    name: &str,
    kernel: &Kernel,
) -> Result<()> {
    let aside = images.join(format!(".{name}-{}", unique()));
    fs::create_dir_all(&aside)?;
    let mut command = Command::new(builder);
    command
        .arg("build")
        .arg("--agent")
        .arg(agent)
        .arg("--ca")
        .arg(authority.certificate())
        .arg("--output")
        .arg(&aside)
        .args(["--name", name])
        .args(kernel.stock.then_some("--stock-kernel"));
    let built = run_ok(command, BUILD_DEADLINE).context("building the bed's guest image");
    let moved = built.and_then(|_| {
        let _ = fs::remove_dir_all(images.join(name));
        fs::rename(aside.join(name), images.join(name)).context("moving the image into the cache")
    });
    fs::remove_dir_all(&aside)?;
    moved
}

fn prune(images: &Path) -> Result<()> {
    let mut all: Vec<(SystemTime, PathBuf)> = fs::read_dir(images)?
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    all.sort();
    let surplus = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(path);
    }
    Ok(())
}
