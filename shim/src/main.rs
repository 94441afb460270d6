//! The containerd shim: starts the pod's VM on the node and forwards requests to the guest.

fn main() {}
