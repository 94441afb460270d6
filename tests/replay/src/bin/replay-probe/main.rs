//! What a container sees: one fact a line, `name=value`; the replay runs it in every container.
//!
//! Called `agnhost`, it is the server of that name instead, as far as the recorded pods use it.

mod files;
mod kernel;
mod mounts;
mod serve;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

/// Facts by name; what cannot be read says why instead.
type Facts = BTreeMap<String, String>;

fn main() -> io::Result<()> {
    let mut words = std::env::args();
    let name = words.next().unwrap_or_default();
    if Path::new(&name).ends_with("agnhost") {
        return serve::serve(words);
    }
    let mut facts = Facts::new();
    kernel::process(&mut facts);
    kernel::first_process(&mut facts);
    kernel::processes(&mut facts);
    kernel::settings(&mut facts);
    kernel::network(&mut facts);
    let volumes = mounts::mounts(&mut facts);
    files::volumes(&volumes, &mut facts);
    files::devices(&mut facts);
    kernel::user_namespace(&mut facts);
    let mut out = io::stdout().lock();
    for (name, value) in facts {
        writeln!(out, "{name}={}", value.replace('\n', "\\n"))?;
    }
    out.flush()
}

/// The text of a file, or why there is none.
fn read(path: &str) -> String {
    std::fs::read(path).map_or_else(said, |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The reason as a user would see it, without the number.
fn said(error: impl Into<io::Error>) -> String {
    let text = error.into().to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}
