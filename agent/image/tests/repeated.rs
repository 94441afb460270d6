//! A layer that an image has more than once: it is fetched once, and right in each place.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use agent_image_registry::Digest;
use support::{refusals::*, *};

/// Pulls an image of these layers, with all of them wanted at once.
fn pulled(archives: &[&[u8]], look: impl FnOnce(&Registry, &std::path::Path)) {
    let layers: Vec<Layer> = archives.iter().map(|archive| gzip(archive)).collect();
    let mut files = Files::default();
    files.image(&layers);
    let registry = Registry::serving(files);
    let directory = directory();
    let mut config = registry.config(&directory.path().join("store"));
    config.parallel_layers = Some(4);
    let puller = agent_image::Puller::build(config).unwrap();
    let image = puller.pull(&registry.reference("x")).unwrap();
    let rootfs = puller
        .assemble(&image, &directory.path().join("bundle"))
        .unwrap();
    look(&registry, rootfs.path());
    rootfs.unmount().unwrap();
}

fn fetched(registry: &Registry, archive: &[u8]) -> usize {
    let digest = Digest::sha256(&gzip(archive).stored).to_string();
    let seen = registry.seen();
    let fetched = seen.iter().filter(|seen| seen.path.contains(&digest));
    fetched.count()
}

#[test]
fn layer_that_is_right_anywhere_is_fetched_once_though_wanted_twice_at_once() {
    let twice = archive();
    let between = Tar::new().dir("d").file("d/g", b"x").end();
    pulled(&[&twice, &between, &twice, &twice], |registry, root| {
        assert_eq!(fetched(registry, &twice), 1);
        assert_eq!(root.join("d/f").metadata().unwrap().len(), 300_000);
        assert_eq!(read(root.join("d/g")), "x");
    });
}

#[test]
fn layer_that_depends_on_those_below_is_fetched_once_and_settled_in_each_place() {
    // Implies `d`, hides `gone`, links to a file below, and has an opaque directory of its own.
    let twice = Tar::new()
        .file("d/new", b"twice")
        .file(".wh.gone", b"")
        .hardlink("link", "target")
        .entry("o", b'5', 0o711, "", b"")
        .file("o/.wh..wh..opq", b"")
        .pax(&[("SCHILY.xattr.user.k", "v")])
        .dir("o/deep")
        .symlink("o/deep/s", "../..")
        .end();
    let bottom = Tar::new()
        .entry("d", b'5', 0o700, "", b"")
        .file("gone", b"1")
        .file("target", b"old")
        .end();
    let between = Tar::new()
        .entry("d", b'5', 0o750, "", b"")
        .file("d/new", b"between")
        .file("gone", b"2")
        .file("target", b"new")
        .dir("o")
        .file("o/hidden", b"")
        .end();
    let layers: [&[u8]; 5] = [&bottom, &twice, &between, &twice, &twice];
    pulled(&layers, |registry, root| {
        assert_eq!(fetched(registry, &twice), 1);
        assert_eq!(read(root.join("d/new")), "twice");
        let mode = root.join("d").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "that of the layer right below");
        assert!(!root.join("gone").exists());
        assert_eq!(read(root.join("link")), "new");
        let inode = |name| root.join(name).metadata().unwrap().ino();
        assert_eq!(inode("link"), inode("target"));
        let opaque = root.join("o");
        assert_eq!(
            opaque.metadata().unwrap().permissions().mode() & 0o7777,
            0o711
        );
        assert_eq!(opaque.metadata().unwrap().mtime(), 1_000_000);
        assert!(!opaque.join("hidden").exists());
        let mut value = [0; 1];
        rustix::fs::getxattr(opaque.join("deep"), "user.k", &mut value[..]).unwrap();
        assert_eq!(&value, b"v");
        assert!(opaque.join("deep/s").is_symlink());
    });
}

#[test]
fn several_pulls_of_an_image_with_a_repeated_layer_fetch_it_once() {
    let twice = Tar::new().file("d/f", b"x").end();
    let layers = [&twice, &Tar::new().dir("d").end(), &twice].map(|archive| gzip(archive));
    let mut files = Files::default();
    files.image(&layers);
    let registry = Registry::serving(files);
    let directory = directory();
    let puller = registry.puller(&directory.path().join("store"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| puller.pull(&registry.reference("x")).unwrap());
        }
    });
    assert_eq!(fetched(&registry, &twice), 1);
}

#[test]
fn repeated_layer_that_is_broken_is_refused_in_its_first_place() {
    let mut layers = [
        gzip(&archive()),
        gzip(&Tar::new().dir("e").end()),
        gzip(&archive()),
    ];
    let wrong = Digest::sha256(b"wrong").to_string();
    layers[0].diff_id.clone_from(&wrong);
    layers[2].diff_id = wrong;
    let mut files = Files::default();
    files.image(&layers);
    let sentence = refusal(&Registry::serving(files));
    assert_names(&sentence, &["layer 1 of 3", "diff id does not match"]);
}
