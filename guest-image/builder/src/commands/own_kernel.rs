//! `kernel` and `kernel-config`: our own kernel, and what a source makes of its features.

use std::{num::NonZero, path::PathBuf, thread};

use anyhow::Context;
use clap::Args;
use guest_image_builder::{
    fetch,
    kernel::Kernel,
    own_kernel::{Order, open},
};

use super::default_cache;
use crate::Outcome;

/// Which source our kernel is built from.
#[derive(Args)]
pub(crate) struct SourceArgs {
    /// Source of our own kernel: a linux-source package, or a .tar.xz [default: Debian's newest 6.12, downloaded with apt]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "modules"])]
    source: Option<PathBuf>,
    /// Version of Debian's linux-source-6.12, as a manifest names it
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["kernel", "modules", "source"])]
    source_version: Option<String>,
}

/// Arguments of `kernel`.
#[derive(Args)]
pub(crate) struct KernelArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Directory to keep sources and kernels in [default: $KATA_CC_CACHE/kernel or ~/.cache/kata-cc/kernel]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How many processes compile at once [default: one for each processor]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZero<usize>>,
    /// Build nothing: exit code 3 if the kernel is not built
    #[arg(long)]
    if_built: bool,
}

/// Arguments of `kernel-config`.
#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    source: SourceArgs,
}

impl SourceArgs {
    fn order(&self) -> anyhow::Result<Order> {
        let source = match &self.source {
            Some(source) => source.clone(),
            None => fetch::source_package(&default_cache()?, self.source_version.as_deref())?,
        };
        let order = Order::new(&source);
        order.with_context(|| format!("the kernel of {}", source.display()))
    }

    /// The kernel, from the cache or built now.
    pub(crate) fn kernel(&self) -> anyhow::Result<Kernel> {
        let (order, cache) = (self.order()?, default_cache()?);
        if !order.is_built(&cache) {
            eprintln!("kata-cc-image: the guest's kernel is built once, which takes minutes");
        }
        Ok(open(&order.build(&cache, processors())?)?)
    }
}

pub(crate) fn build(arguments: &KernelArgs) -> anyhow::Result<Outcome> {
    let cache = match &arguments.cache {
        Some(cache) => cache.clone(),
        None => default_cache()?,
    };
    let order = arguments.source.order()?;
    if arguments.if_built && !order.is_built(&cache) {
        return Ok(Outcome::Different);
    }
    let jobs = arguments.jobs.map_or_else(processors, NonZero::get);
    println!("{}", order.build(&cache, jobs)?.display());
    Ok(Outcome::Done)
}

pub(crate) fn configure(arguments: &ConfigArgs) -> anyhow::Result<Outcome> {
    let order = arguments.source.order()?;
    print!("{}", order.configuration(&default_cache()?)?);
    Ok(Outcome::Done)
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
