//! `-info`: what containerd's introspection shows of this runtime.

use std::io::{self, Write};

use anyhow::{Context, Result};
use containerd_shim_protos::{
    protobuf::Message,
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

/// Prints `containerd.types.RuntimeInfo`.
pub(crate) fn print() -> Result<()> {
    let info = RuntimeInfo {
        name: "io.containerd.kata-cc.v2".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        })
        .into(),
        ..RuntimeInfo::default()
    };
    let bytes = info.write_to_bytes().context("cannot encode RuntimeInfo")?;
    io::stdout()
        .write_all(&bytes)
        .context("cannot print RuntimeInfo")
}
