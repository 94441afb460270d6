//! Pulls an image into a store outside of any guest: `pull STORE REFERENCE [INSECURE-PREFIX…]`.
//!
//! The file that `KATA_CC_KEYS` names holds the keys of encrypted layers.

use std::{sync::Arc, time::Instant};

use agent_image::{Config, Puller};
use agent_image_registry::{Reference, Registry};
use agent_keys::{Cached, OfflineKeys};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, reference, insecure @ ..] = arguments.as_slice() else {
        eprintln!("usage: pull STORE REFERENCE [INSECURE-PREFIX]");
        std::process::exit(2);
    };
    let mut config = Config::default();
    config.store = store.into();
    config.registries = insecure
        .iter()
        .map(|prefix| Registry {
            prefix: prefix.clone(),
            insecure: true,
            ..Registry::default()
        })
        .collect();
    if let Err(sentence) = pull(config, reference) {
        eprintln!("{sentence}");
        std::process::exit(1);
    }
}

fn pull(mut config: Config, reference: &str) -> Result<(), String> {
    let begin = Instant::now();
    if let Some(path) = std::env::var_os("KATA_CC_KEYS") {
        let mut keys = OfflineKeys::default();
        let json = std::fs::read(path).map_err(|error| error.to_string())?;
        keys.add(&json).map_err(|error| error.to_string())?;
        config.keys = Some(Arc::new(Cached::new(keys)));
    }
    let puller = Puller::build(config).map_err(|error| error.to_string())?;
    let reference = Reference::parse(reference).map_err(|error| error.to_string())?;
    let image = puller.pull(&reference).map_err(|error| error.sentence())?;
    println!(
        "{} in {:.3} s",
        image.manifest_digest,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}
