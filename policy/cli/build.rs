//! Generates the key provider's gRPC service from its methods, spelled here: the
//! messages are plain Rust in `src/image/key_provider/wire.rs`, so that no protoc is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut service = Service::builder()
        .name("KeyProviderService")
        .package("keyprovider");
    for (name, route) in [("wrap_key", "WrapKey"), ("un_wrap_key", "UnWrapKey")] {
        let method = Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::image::key_provider::wire::Input")
            .output_type("crate::image::key_provider::wire::Output")
            .codec_path("tonic_prost::ProstCodec");
        service = service.method(method.build());
    }
    Builder::new()
        .build_client(false)
        .compile(&[service.build()]);
}
