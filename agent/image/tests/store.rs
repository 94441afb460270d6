//! A store that another process holds, and one that is full.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::path::Path;

use support::*;

#[test]
fn a_second_process_may_not_open_the_store() {
    let registry = Registry::serving(Files::default());
    let directory = directory();
    let store: &Path = &directory.path().join("store");
    let _first = registry.puller(store);
    let error = agent_image::Puller::build(registry.config(store))
        .map(|_| ())
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("in use by another process"), "{source}");
}

/// A small file system of its own; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let directory = directory();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", flags, c"size=1m").unwrap();
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn full_store_is_said_and_leaves_room_for_the_next_pull() {
    let mut files = Files::default();
    let big: Vec<u8> = (0..3_000_000u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    files.image(&[gzip(&Tar::new().file("big", &big).end())]);
    let registry = Registry::serving(files);
    let small = Small::mount();
    let puller = registry.puller(&small.0.path().join("store"));
    let sentence = puller
        .pull(&registry.reference("x"))
        .unwrap_err()
        .sentence();
    assert!(
        sentence.contains("cannot write `big`: the image store is full; give it more space"),
        "{sentence}"
    );

    let mut files = Files::default();
    files.image(&[gzip(&Tar::new().file("f", b"fits").end())]);
    let other = Registry::serving(files);
    let mut config = other.config(&small.0.path().join("store"));
    drop(puller);
    config.parallel_layers = Some(1);
    let puller = agent_image::Puller::build(config).unwrap();
    let image = puller.pull(&other.reference("x")).unwrap();
    let rootfs = puller
        .assemble(&image, &small.0.path().join("bundle"))
        .unwrap();
    assert_eq!(
        read(rootfs.path().join("f")),
        "fits",
        "overlay on tmpfs works"
    );
}
