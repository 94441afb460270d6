//! What a container sees of layers that remove what lower layers have, and of links between layers.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt as _},
};

use support::{mounted::*, *};

#[test]
fn whiteouts_hide_lower_layers_only_wherever_they_stand() {
    let lower = tar()
        .dir("a")
        .file("a/one", b"1")
        .file("a/two", b"2")
        .dir("b")
        .file("b/old", b"")
        .file("c", b"")
        .end();
    let upper = tar()
        .dir("a")
        .file("a/new", b"n")
        .file("a/.wh..wh..opq", b"")
        .file("a/late", b"l")
        .file(".wh.b", b"")
        .dir("b")
        .file("b/fresh", b"")
        .file(".wh.c", b"")
        .file(".wh.never-there", b"")
        .end();
    let mounted = mount(&[lower.clone(), upper]);
    assert_eq!(mounted.names("a"), ["late", "new"]);
    assert_eq!(mounted.names("b"), ["fresh"]);
    assert_eq!(mounted.names(""), ["a", "b"]);

    let reversed = tar()
        .dir("b")
        .file("b/fresh", b"")
        .file(".wh.b", b"")
        .file("c", b"kept")
        .file(".wh.c", b"")
        .end();
    let mounted = mount(&[lower, reversed]);
    assert_eq!(mounted.names("b"), ["fresh"]);
    assert_eq!(read(mounted.path("c")), "kept");
}

#[test]
fn whiteout_of_nothing_leaves_nothing_visible() {
    let lower = tar().dir("a").file("a/x", b"").end();
    let upper = tar()
        .dir("fresh")
        .file("fresh/.wh.gone", b"")
        .file("fresh/here", b"")
        .file("other/.wh.y", b"")
        .end();
    let mounted = mount(&[lower.clone(), upper.clone()]);
    assert_eq!(mounted.names("fresh"), ["here"]);
    assert_eq!(mounted.names(""), ["a", "fresh"]);
    assert_eq!(
        fs::metadata(mounted.path("fresh")).unwrap().mtime(),
        1_000_000,
        "removing it leaves no trace"
    );
    let mounted = mount(&[upper, lower]);
    assert_eq!(
        (mounted.names("fresh"), mounted.names("a")),
        (vec!["here".to_owned()], vec!["x".to_owned()])
    );
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        assert!(
            refused(tar().file(name, b"")).contains("names no file"),
            "{name}"
        );
    }
}

/// Layers below, a layer with markers, and what the image then has at its root.
fn root_after(lower: Tar, upper: Tar) -> Vec<String> {
    mount(&[lower.end(), upper.end()]).names("")
}

#[test]
fn markers_below_what_is_no_directory_leave_it_as_it_is() {
    let lower = || tar().file("f", b"kept").symlink("dangling", "to/nowhere");
    for marker in [".wh.x", ".wh..wh..opq", "deeper/.wh.x"] {
        let upper = tar()
            .file(&format!("f/{marker}"), b"")
            .file(&format!("dangling/{marker}"), b"")
            .file(&format!("nothing/{marker}"), b"");
        let mounted = mount(&[lower().end(), upper.end()]);
        assert_eq!(mounted.names(""), ["dangling", "f"], "{marker}");
        assert_eq!(read(mounted.path("f")), "kept");
        assert!(mounted.path("dangling").is_symlink());
    }
}

#[test]
fn markers_through_a_dangling_link_of_the_same_layer_leave_nothing() {
    let lower = tar().dir("a").file("a/x", b"");
    let upper = tar()
        .symlink("link", "nowhere")
        .file("link/.wh.x", b"")
        .file("link/.wh..wh..opq", b"");
    assert_eq!(root_after(lower, upper), ["a", "link"]);
}

#[test]
fn markers_below_a_directory_that_is_removed_do_not_bring_it_back() {
    let lower = || tar().dir("d").file("d/x", b"").file("stays", b"");
    for order in [
        [".wh.d", "d/.wh.x"],
        ["d/.wh.x", ".wh.d"],
        [".wh.d", "d/.wh..wh..opq"],
        ["d/.wh..wh..opq", ".wh.d"],
    ] {
        let upper = tar().file(order[0], b"").file(order[1], b"");
        assert_eq!(root_after(lower(), upper), ["stays"], "{order:?}");
    }
}

#[test]
fn markers_hide_through_links_of_this_layer_and_of_those_below() {
    let lower = tar()
        .entry("usr", b'5', 0o711, "", b"")
        .file("usr/x", b"")
        .file("usr/y", b"")
        .symlink("below", "usr");
    let upper = tar()
        .symlink("own", "/usr")
        .file("own/.wh.x", b"")
        .file("below/.wh.y", b"");
    let mounted = mount(&[lower.end(), upper.end()]);
    assert_eq!(mounted.names("usr"), Vec::<String>::new());
    assert_eq!(mounted.names(""), ["below", "own", "usr"]);
    let usr = fs::metadata(mounted.path("usr")).unwrap();
    assert_eq!((usr.mode() & 0o7777, usr.mtime()), (0o711, 1_000_000));
}

#[test]
fn an_opaque_marker_empties_a_directory_that_the_layer_does_not_state() {
    let lower = || tar().entry("d", b'5', 0o700, "", b"").file("d/x", b"");
    let mounted = mount(&[lower().end(), tar().file("d/.wh..wh..opq", b"").end()]);
    assert_eq!(mounted.names("d"), Vec::<String>::new());
    let mode = fs::metadata(mounted.path("d")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o700);
    let through = tar().symlink("root", "/").file("root/.wh..wh..opq", b"");
    assert_eq!(root_after(lower(), through), ["root"]);
}

#[test]
fn a_hard_link_to_a_file_below_is_the_same_file() {
    let lower = || {
        tar()
            .entry("f", b'0', 0o4711, "", b"content")
            .entry("d", b'5', 0o1777, "", b"")
            .file("d/g", b"other")
            .symlink("s", "f")
    };
    let upper = tar()
        .hardlink("h", "f")
        .hardlink("t", "s")
        .hardlink("z", "d/g")
        .hardlink("a", "z");
    let mounted = mount(&[lower().end(), upper.end()]);
    let of = |name: &str| fs::symlink_metadata(mounted.path(name)).unwrap();
    for (name, target) in [("h", "f"), ("t", "f"), ("z", "d/g"), ("a", "d/g")] {
        assert_eq!(of(name).ino(), of(target).ino(), "{name}");
        assert_eq!(read(mounted.path(name)), read(mounted.path(target)));
    }
    assert_eq!((of("h").mode() & 0o7777, of("h").nlink()), (0o4711, 3));
    assert_eq!(
        (of("d").mode() & 0o7777, of("d").mtime()),
        (0o1777, 1_000_000)
    );
}

#[test]
fn hard_links_keep_the_file_below_that_the_layer_replaces() {
    let lower = tar().file("f", b"old").end();
    let upper = tar()
        .hardlink("h", "f")
        .hardlink("i", "f")
        .file("f", b"new")
        .end();
    let mounted = mount(&[lower, upper]);
    let of = |name: &str| fs::metadata(mounted.path(name)).unwrap().ino();
    assert_eq!(
        (read(mounted.path("h")), read(mounted.path("f"))),
        ("old".into(), "new".into())
    );
    assert_eq!(of("h"), of("i"));
}

#[test]
fn hard_links_to_what_no_layer_has_are_refused() {
    for upper in [
        tar().hardlink("h", "g"),
        tar().hardlink("h", "d"),
        tar().file(".wh.f", b"").hardlink("h", "f"),
        tar().hardlink("h", "i").hardlink("i", "h"),
    ] {
        let lower = tar().dir("d").file("f", b"");
        let Err(sentence) = try_mount(&[lower.end(), upper.end()]) else {
            panic!("it was not refused")
        };
        assert!(sentence.contains("is a hard link to"), "{sentence}");
    }
}

#[test]
fn a_later_entry_replaces_a_hard_link_to_a_file_below() {
    let lower = tar().file("f", b"below").end();
    let upper = tar().hardlink("h", "f").file("h", b"own").end();
    assert_eq!(read(mount(&[lower, upper]).path("h")), "own");
}
