//! How the agent is linked.

fn main() {
    // The guest's memory holds this file, and 1.6 MiB of it are the addresses that a program
    // which may lie anywhere corrects at its start: written as a bitmap they take 20 KiB.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rerun-if-changed=build.rs");
}
