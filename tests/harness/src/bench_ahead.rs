//! What it saves that the guest pulls the images of its policy before it is asked to.
//!
//! A pod with an init container that works for two seconds and two containers, each with an image
//! of its own, under the policy of its YAML; beside it the same pod without one, whose images are
//! pulled when its containers are asked for. Where nothing of a pod waits, as here without the init
//! container, a guest with one processor has nothing to gain.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    bed::Bed,
    demo::{Timing, TimingWatch},
    demo_policy::add_policy,
    images::{Image, busybox},
    run::run_ok,
    tools::Prefix,
};

const POD: &str = "/run/bed/after-init.yaml";
const OWNED: &str = "/run/bed/after-init-with-policy.yaml";
const DEADLINE: Duration = Duration::from_secs(300);
const BALLAST_BYTES: u32 = 12 << 20;
/// From when the pod is asked for until all of its containers run.
const NAME: &str = "cold_start.after_init";
/// What the init container does meanwhile.
const WORK: &str = r#"["sleep", "2"]"#;

const IMAGES: [Image; 3] = [
    image("ahead-1:1", &[busybox, |root| ballast(root, 1)]),
    image("ahead-2:1", &[busybox, |root| ballast(root, 2)]),
    image("ahead-3:1", &[busybox, |root| ballast(root, 3)]),
];

const fn image(name: &'static str, layers: &'static [fn(&Path) -> Result<()>]) -> Image {
    Image {
        name,
        config: &["--config.cmd=/bin/sh", "--config.env=PATH=/bin"],
        layers,
        copy: &[],
    }
}

/// Bytes that compress badly, others for each seed.
fn ballast(root: &Path, seed: u32) -> Result<()> {
    let mut state = seed;
    let words = (0..BALLAST_BYTES / 4).flat_map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.rotate_left(16).to_le_bytes()
    });
    fs::write(root.join("ballast"), words.collect::<Vec<u8>>()).context("writing the ballast")
}

/// Pods with and without the policy, ready to be measured in turn.
pub(crate) struct Ahead<'a> {
    bed: &'a Bed,
    prefix: &'a Prefix,
}

impl<'a> Ahead<'a> {
    /// Pushes the images and makes the policy.
    pub(crate) fn prepare(bed: &'a Bed, prefix: &'a Prefix) -> Result<Self> {
        let entry = |name: &str, image: &Image, command: &str| {
            image.push(bed.node(), bed.registry())?;
            let image = image.reference();
            anyhow::Ok(format!(
                "  - {{ name: {name}, image: \"{image}\", command: {command} }}\n"
            ))
        };
        let [first, one, other] = &IMAGES;
        let init = entry("init", first, WORK)?;
        let containers = entry("one", one, "[\"true\"]")? + &entry("other", other, "[\"true\"]")?;
        bed.node().write(
            POD,
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{ name: after-init }}\nspec:\n  \
                 runtimeClassName: kata-cc\n  restartPolicy: Never\n  initContainers:\n{init}  \
                 containers:\n{containers}"
            ),
        )?;
        bed.node().write(OWNED, add_policy(bed, prefix, POD)?)?;
        Ok(Self { bed, prefix })
    }

    /// The time without and with the policy, in milliseconds, by name.
    pub(crate) fn sample(&self) -> Result<[BTreeMap<&'static str, f64>; 2]> {
        let [without, with] = [self.run(POD)?, self.run(OWNED)?];
        Ok([without, with].map(|time| BTreeMap::from([(NAME, time)])))
    }

    fn run(&self, pod: &str) -> Result<f64> {
        let watch = TimingWatch::start(self.bed.node().path("/run/kata-cc"));
        let mut command = self.bed.command(self.prefix.bin("kata-cc"));
        command.args(["run", "--handler", "kata-cc", pod]);
        let ran = run_ok(command, DEADLINE);
        let timing = watch.stop();
        ran?;
        last_running(&timing).with_context(|| format!("a container did not run: {timing:?}"))
    }
}

/// When the last of the containers ran; none unless all did, and the pause container with them.
fn last_running(timing: &Timing) -> Option<f64> {
    let times = timing.containers.values();
    let running: Option<Vec<u64>> = times.map(|one| one.container_running_ms).collect();
    let running = running.filter(|all| all.len() == IMAGES.len() + 1)?;
    running.into_iter().max().map(|ms| ms as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ContainerTiming;

    #[test]
    fn a_pod_runs_when_the_last_of_its_containers_does() {
        let mut timing = Timing::default();
        let times = [Some(5), Some(10), Some(30), Some(20)];
        for (name, ms) in ["pause", "a", "b", "c"].into_iter().zip(times) {
            assert_eq!(last_running(&timing), None);
            let container_running_ms = ms;
            timing.containers.insert(
                name.to_owned(),
                ContainerTiming {
                    container_running_ms,
                    ..ContainerTiming::default()
                },
            );
        }
        assert_eq!(last_running(&timing), Some(30.0));
    }
}
