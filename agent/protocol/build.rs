//! Generates the RPC from `proto/` without an external compiler.

use std::{env, fs, path::Path};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const SCHEMA_FILES: [&str; 6] = [
    "proto/agent.proto",
    "proto/csi.proto",
    "proto/empty.proto",
    "proto/health.proto",
    "proto/oci.proto",
    "proto/types.proto",
];

/// What the generators write, one Rust module a file.
const MODULES: [&str; 8] = [
    "agent",
    "agent_ttrpc",
    "csi",
    "empty",
    "health",
    "health_ttrpc",
    "oci",
    "types",
];

fn main() {
    for file in SCHEMA_FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    Codegen::new()
        .out_dir(&out)
        .inputs(SCHEMA_FILES)
        .include("proto")
        .rust_protobuf()
        .customize(Customize {
            async_all: true,
            ..Customize::default()
        })
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .run()
        .expect("the schema in proto/ is valid");
    let modules: String = MODULES
        .iter()
        .map(|name| format!("pub mod {name};\n"))
        .collect();
    fs::write(Path::new(&out).join("modules.rs"), modules).expect("OUT_DIR can be written");
}
