//! A node in namespaces of its own: containerd, registry and network for tests and demo.

fn main() {}
