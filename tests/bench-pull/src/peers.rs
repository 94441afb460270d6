//! The pulls of others, each into a store of its own.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    images::Image,
    place::{Place, path},
    process::{self, Cost},
};

/// `skopeo copy` and `umoci unpack`, if both are there.
pub(crate) fn skopeo_and_umoci(place: &Place, image: &Image) -> Result<Option<Cost>> {
    let (Some(skopeo), Some(umoci)) = (&place.skopeo, &place.umoci) else {
        return Ok(None);
    };
    let directory = path("peer");
    fs::create_dir_all(&directory)?;
    let layout = directory.join("layout").display().to_string();
    let [program, words @ ..] = skopeo.words();
    let mut copy = Command::new(program);
    copy.args(words)
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
        ])
        .arg(format!("docker://{}", image.reference()))
        .arg(format!("oci:{layout}:x"));
    let copied = process::measure(copy, None, image.fills())?.0;
    let mut unpack = Command::new(umoci);
    unpack
        .args(["unpack", "--image", &format!("{layout}:x")])
        .arg(directory.join("bundle"));
    let unpacked = process::measure(unpack, None, image.fills())?.0;
    remove(&directory)?;
    Ok(Some(copied.then(unpacked)))
}

/// `ctr images pull`, with containerd's share of it.
pub(crate) fn ctr(place: &Place, image: &Image) -> Result<Option<Cost>> {
    let Some((mut pull, daemon)) = place.ctr() else {
        return Ok(None);
    };
    let reference = image.reference();
    pull.args(["images", "pull", "--plain-http", &reference]);
    let cost = process::measure(pull, Some(daemon), image.fills())?.0;
    let (mut clear, _) = place.ctr().context("containerd was here")?;
    clear.args(["images", "rm", "--sync", &reference]);
    process::run(clear, None)?;
    Ok(Some(cost))
}

fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).context("removing a peer's store")
}
