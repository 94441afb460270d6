//! How long an owner waits for a policy: of a Deployment with ten containers, each with an image of
//! its own in a registry beside it, and nothing kept from the time before.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    bed::Bed,
    demo_policy::add_policy,
    images::{Image, busybox},
    measurement::{Measurement, median},
    tools::Prefix,
};

const DEPLOYMENT: &str = "/run/bed/ten-containers.yaml";
const BUDGET_SECONDS: f64 = 2.0;
const NAMES: [&str; 10] = [
    "gen-0:1", "gen-1:1", "gen-2:1", "gen-3:1", "gen-4:1", "gen-5:1", "gen-6:1", "gen-7:1",
    "gen-8:1", "gen-9:1",
];

/// Makes the policy `repeat` times.
pub(crate) fn measure(bed: &Bed, prefix: &Prefix, repeat: usize) -> Result<Measurement> {
    let mut containers = String::new();
    for name in NAMES {
        let image = Image {
            name,
            config: &["--config.cmd=/bin/sh", "--config.env=PATH=/bin"],
            layers: &[busybox, some_file],
            copy: &[],
        };
        image.push(bed.node(), bed.registry())?;
        let (container, _) = name.split_once(':').context("a name with its tag")?;
        let image = image.reference();
        containers.push_str(&format!(
            "      - {{ name: {container}, image: \"{image}\" }}\n"
        ));
    }
    bed.node().write(
        DEPLOYMENT,
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: ten }}\nspec:\n  \
             selector: {{ matchLabels: {{ app: ten }} }}\n  template:\n    \
             metadata: {{ labels: {{ app: ten }} }}\n    spec:\n      \
             runtimeClassName: kata-cc\n      containers:\n{containers}"
        ),
    )?;
    let mut seconds = Vec::new();
    for _ in 0..repeat {
        let start = Instant::now();
        let made = add_policy(bed, prefix, DEPLOYMENT)?;
        seconds.push(start.elapsed().as_secs_f64());
        ensure!(made.contains("cc_init_data"), "no policy was made");
    }
    Ok(Measurement::alone(
        "policy.generation_of_ten",
        "s",
        median(&mut seconds),
        Some(BUDGET_SECONDS),
    ))
}

fn some_file(root: &Path) -> Result<()> {
    fs::write(root.join("some-file"), "of the second layer").context("writing a layer's file")
}
