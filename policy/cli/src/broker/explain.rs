//! `kata-cc broker explain`: the last refusals, and the head of the audit log.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use policy_broker::audit::{self, AuditError, Line, Read};
use serde_json::json;

use crate::verify::escaped;

/// Exit code for a log that was changed.
const CHANGED: u8 = 3;

/// Say what was refused lately, by which check, and what the owner would change.
#[derive(Args)]
pub(crate) struct Options {
    /// The broker's directory
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// How many of the last decisions to look at
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    last: usize,
    /// Print the decisions as JSON, also those that gave something
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<u8> {
    let read = match audit::read(&options.directory, options.last) {
        Err(error @ AuditError::Broken { .. }) => {
            eprintln!("kata-cc: {error}");
            return Ok(CHANGED);
        }
        read => read?,
    };
    let first = read.lines.len().saturating_sub(options.last);
    let lines = read.lines.get(first..).unwrap_or_default();
    if options.json {
        let text = json!({"decisions": lines, "count": read.count, "head": read.head});
        println!("{}", serde_json::to_string_pretty(&text)?);
    } else {
        show(lines, &read);
    }
    Ok(0)
}

fn show(lines: &[Line], read: &Read) {
    for line in lines.iter().filter(|line| !line.given) {
        let resource = line.resource.as_deref().unwrap_or("a token");
        let (time, peer) = (line.time, &line.peer);
        println!(
            "{}",
            escaped(&format!("{time} {peer} did not get {resource}"))
        );
        if line.times > 1 {
            println!("  {} times within an hour", line.times);
        }
        if let Some(guest) = &line.guest {
            println!("  {}", escaped(guest));
        }
        for refusal in &line.refusals {
            println!("  {}", escaped(&format!("check     {}", refusal.check)));
            println!("  {}", escaped(&format!("expected  {}", refusal.expected)));
            println!("  {}", escaped(&format!("received  {}", refusal.received)));
            println!("  {}", escaped(&format!("to change {}", refusal.advice)));
        }
    }
    println!("{} decisions, head {}", read.count, read.head);
}
