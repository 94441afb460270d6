//! Generates the gRPC service from its methods, spelled here: the messages are
//! plain Rust in `src/wire.rs`, so that no protoc is needed to build this crate.

use tonic_build::manual::{Builder, Method, Service};

/// Package, service and method names as in containerd's `snapshots.proto`.
const METHODS: [(&str, &str, &str, &str); 10] = [
    ("prepare", "Prepare", "PrepareRequest", "MountsResponse"),
    ("view", "View", "PrepareRequest", "MountsResponse"),
    ("mounts", "Mounts", "KeyRequest", "MountsResponse"),
    ("commit", "Commit", "CommitRequest", "Empty"),
    ("remove", "Remove", "KeyRequest", "Empty"),
    ("stat", "Stat", "KeyRequest", "InfoResponse"),
    ("update", "Update", "UpdateRequest", "InfoResponse"),
    ("list", "List", "ListRequest", "ListResponse"),
    ("usage", "Usage", "KeyRequest", "UsageResponse"),
    ("cleanup", "Cleanup", "CleanupRequest", "Empty"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut service = Service::builder()
        .name("Snapshots")
        .package("containerd.services.snapshots.v1");
    for (name, route, input, output) in METHODS {
        let mut method = Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::wire::{input}"))
            .output_type(format!("crate::wire::{output}"))
            .codec_path("tonic_prost::ProstCodec");
        if name == "list" {
            method = method.server_streaming();
        }
        service = service.method(method.build());
    }
    Builder::new().compile(&[service.build()]);
}
