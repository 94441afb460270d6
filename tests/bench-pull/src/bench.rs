//! The order of measuring.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tests_harness::write_measurements;

use crate::{
    RunOptions,
    images::{self, Image},
    ours, peers,
    place::{Place, path},
    process::Cost,
    stages::{self, Stages},
    table::{self, Samples},
};

/// What one repetition found out about one image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) stages: Stages,
    pub(crate) ours: Cost,
    pub(crate) ours_on_one: Option<Cost>,
    /// Of an encrypted image: the same one before encryption.
    pub(crate) in_clear: Option<Cost>,
    pub(crate) requests: u64,
    pub(crate) skopeo: Option<Cost>,
    pub(crate) ctr: Option<Cost>,
    pub(crate) calls: Option<f64>,
    pub(crate) shaped: Option<Cost>,
    pub(crate) shaped_skopeo: Option<Cost>,
    pub(crate) shaped_ctr: Option<Cost>,
}

/// With a load above this, others take turns on the CPUs that wall times suppose to be ours.
const IDLE: f64 = 0.5;

/// How many programs wanted to run in the last minute, on average (proc_loadavg(5)).
fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split_whitespace().next();
    first
        .and_then(|word| word.parse().ok())
        .context("the kernel tells the load")
}

/// Measures everything; prints it and writes it where asked to.
pub(crate) fn run(options: &RunOptions) -> Result<()> {
    let load = load()?;
    let idle = load < IDLE;
    if !idle {
        eprintln!(
            "bench-pull: others keep this machine busy (load {load}): wall times are not judged"
        );
    }
    let place = Place::make()?;
    // Base64 of 32 bytes; it protects nothing.
    fs::write(
        path("keys.json"),
        r#"{"default/bench/1":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#,
    )?;
    let all = images::all(options.quick);
    let chosen = |image: &&Image| image.name.contains(&options.only);
    let wanted: Vec<&Image> = all.iter().filter(chosen).collect();
    ensure!(
        !wanted.is_empty(),
        "no image's name contains {}",
        options.only
    );
    for image in &all {
        let is_basis = wanted.iter().any(|one| one.encrypts == Some(image.name));
        if is_basis || wanted.iter().any(|one| one.name == image.name) {
            eprintln!("bench-pull: making {}", image.name);
            image.provide(&place)?;
        }
    }
    let mut samples: Vec<Samples<'_>> = wanted.iter().map(|image| Samples::new(image)).collect();
    for round in 1..=options.repeat {
        for one in &mut samples {
            eprintln!(
                "bench-pull: round {round} of {}: {}",
                options.repeat, one.image.name
            );
            let sample = measure(&place, one.image, options)
                .with_context(|| format!("pulling {}", one.image.name))?;
            one.samples.push(sample);
        }
    }
    let measurements = table::summarize(&samples, idle);
    write_measurements(&measurements, "stages", options.json.as_deref())
}

fn measure(place: &Place, image: &Image, options: &RunOptions) -> Result<Sample> {
    let (ours, requests) = ours::measure(image, "0,1")?;
    let mut sample = Sample {
        ours,
        requests,
        stages: stages::of_image(image)?,
        ..Sample::default()
    };
    if image.files == 0 {
        sample.ours_on_one = Some(ours::measure(image, "0")?.0);
    } else {
        sample.calls = said(ours::system_calls(&image.reference()));
    }
    // Peers do not decrypt with key providers' keys.
    if let Some(name) = image.encrypts {
        let plain = Image {
            name,
            encrypts: None,
            ..image.clone()
        };
        sample.in_clear = Some(ours::measure(&plain, "0,1")?.0);
        return Ok(sample);
    }
    sample.skopeo = peers::skopeo_and_umoci(place, image)?;
    sample.ctr = peers::ctr(place, image)?;
    if image.files == 0 {
        place.shape(Some(options.link))?;
        let shaped = shaped(place, image, &mut sample);
        place.shape(None)?;
        shaped?;
    }
    // Whatever was removed is given back before the next one begins.
    std::thread::sleep(Duration::from_millis(200));
    Ok(sample)
}

fn shaped(place: &Place, image: &Image, sample: &mut Sample) -> Result<()> {
    sample.shaped = Some(ours::measure(image, "0,1")?.0);
    sample.shaped_skopeo = peers::skopeo_and_umoci(place, image)?;
    sample.shaped_ctr = peers::ctr(place, image)?;
    Ok(())
}

fn said(calls: Result<f64>) -> Option<f64> {
    calls
        .inspect_err(|error| eprintln!("bench-pull: system calls are not counted: {error:#}"))
        .ok()
}
