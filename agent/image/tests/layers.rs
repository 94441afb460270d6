//! What a container sees of layers that change, hide and refer to each other.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
};

use support::{mounted::*, *};

#[test]
fn names_that_leave_the_root_are_refused() {
    for archive in [
        tar().file("../f", b""),
        tar().file("a/../../f", b""),
        tar().file("/../f", b""),
    ] {
        assert!(refused(archive).contains("has a `..` in its name"));
    }
    let mounted = mount(&[tar().file("/abs/f", b"x").end()]);
    assert_eq!(read(mounted.path("abs/f")), "x");
}

#[test]
fn links_never_lead_outside() {
    let outside = directory();
    let target = outside.path().to_str().unwrap();
    for link in [
        target.to_owned(),
        format!("../../../../../../../../../../..{target}"),
    ] {
        let mounted = mount(&[tar().symlink("l", &link).file("l/f", b"x").end()]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(
            read(mounted.path(&format!("{}/f", target.trim_start_matches('/')))),
            "x"
        );
    }
    for link in [
        "/etc/passwd",
        "../../../../../../../../../../etc/passwd",
        "etc/passwd",
    ] {
        let sentence = refused(tar().hardlink("h", link));
        assert!(
            sentence.contains("hard link") || sentence.contains("`..`"),
            "{sentence}"
        );
    }
    let sentence = refused(tar().symlink("a", "b").symlink("b", "a").file("a/f", b""));
    assert!(sentence.contains("too many symbolic links"), "{sentence}");
    let sentence = refused(tar().file("f", b"").file("f/g", b""));
    assert!(sentence.contains("not a directory"), "{sentence}");
}

#[test]
fn link_through_links_ends_inside() {
    let archive = tar()
        .dir("real")
        .symlink("one", "two")
        .symlink("two", "/real")
        .file("one/f", b"x")
        .hardlink("h", "one/f")
        .hardlink("abs", "/real/f")
        .file("dangling/../g", b"");
    assert!(refused(archive).contains("`..`"));
    let archive = tar()
        .dir("real")
        .symlink("one", "two")
        .symlink("two", "/real")
        .file("one/f", b"x")
        .hardlink("h", "one/f")
        .hardlink("abs", "/real/f")
        .symlink("deep", "new/place")
        .file("deep/g", b"y");
    let mounted = mount(&[archive.end()]);
    assert_eq!(fs::metadata(mounted.path("real/f")).unwrap().nlink(), 3);
    assert_eq!(read(mounted.path("new/place/g")), "y");
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let archive = tar()
        .file("f", b"one")
        .file("f", b"two")
        .dir("d")
        .file("d/x", b"")
        .file("d/y/z", b"")
        .file("d", b"file now")
        .file("e", b"")
        .dir("e")
        .file("e/x", b"in")
        .symlink("s", "f")
        .file("s", b"no link")
        .dir("k")
        .file("k/x", b"")
        .symlink("k", "e")
        .file("k/through", b"");
    let mounted = mount(&[archive.end()]);
    assert_eq!(
        (read(mounted.path("f")), read(mounted.path("d"))),
        ("two".into(), "file now".into())
    );
    assert_eq!(
        (read(mounted.path("s")), mounted.names("e")),
        ("no link".into(), vec!["through".into(), "x".into()])
    );
}

#[test]
fn root_is_a_directory_like_any_other() {
    let lower = tar()
        .entry("./", b'5', 0o711, "", b"")
        .file("old", b"")
        .end();
    let upper = tar().file("new", b"").end();
    let mounted = mount(&[lower.clone(), upper.clone()]);
    let root = fs::metadata(mounted.path("")).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o711, 1_000_000));
    let opaque = tar().file(".wh..wh..opq", b"").file("new", b"").end();
    let mounted = mount(&[lower, opaque]);
    assert_eq!(mounted.names(""), ["new"]);
    let unstated = mount(&[upper]);
    assert_eq!(
        fs::metadata(unstated.path("")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn unstated_parents_keep_the_attributes_they_have_below() {
    let lower = tar()
        .pax(&[
            ("uid", "70000"),
            ("gid", "80000"),
            ("SCHILY.xattr.user.k", "v"),
        ])
        .entry("data/", b'5', 0o1777, "", b"")
        .entry("data/deep", b'5', 0o500, "", b"")
        .end();
    let upper = tar().file("data/deep/er/f", b"x").end();
    let mounted = mount(&[lower, tar().file("between", b"").end(), upper]);
    let data = fs::metadata(mounted.path("data")).unwrap();
    assert_eq!(
        (data.mode() & 0o7777, data.uid(), data.gid(), data.mtime()),
        (0o1777, 70_000, 80_000, 1_000_000)
    );
    assert_eq!(
        fs::metadata(mounted.path("data/deep")).unwrap().mode() & 0o7777,
        0o500
    );
    assert_eq!(
        fs::metadata(mounted.path("data/deep/er")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn parents_that_are_links_below_are_followed() {
    let lower = tar()
        .dir("usr")
        .entry("usr/lib", b'5', 0o750, "", b"")
        .file("usr/lib/old", b"")
        .file("usr/lib/hidden", b"")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("chain", "abs")
        .symlink("dangling", "to/nowhere")
        .end();
    let upper = tar()
        .file("lib/a", b"a")
        .file("abs/b", b"b")
        .file("chain/sub/c", b"c")
        .file("usr/lib/d", b"d")
        .file("lib/.wh.hidden", b"")
        .file("dangling/e", b"e")
        .end();
    let mounted = mount(&[lower, upper]);
    assert_eq!(mounted.names("usr/lib"), ["a", "b", "d", "old", "sub"]);
    assert!(
        ["lib", "abs", "chain"]
            .iter()
            .all(|name| mounted.path(name).is_symlink())
    );
    assert_eq!(
        (
            read(mounted.path("usr/lib/sub/c")),
            read(mounted.path("to/nowhere/e"))
        ),
        ("c".into(), "e".into())
    );
    let lib = fs::metadata(mounted.path("usr/lib")).unwrap();
    assert_eq!((lib.mode() & 0o7777, lib.mtime()), (0o750, 1_000_000));
}

#[test]
fn same_thing_by_its_name_and_through_a_link_below_is_refused() {
    let lower = tar().dir("usr").symlink("lib", "usr").end();
    let upper = tar().file("lib/a", b"1").file("usr/a", b"2").end();
    let Err(sentence) = try_mount(&[lower, upper]) else {
        panic!("it was not refused")
    };
    assert!(sentence.contains("is there twice"), "{sentence}");
}

#[test]
fn repeated_layers_keep_their_place() {
    let a = tar().dir("d").file("d/f", b"a").end();
    let b = tar().dir("d").file("d/f", b"b").file("d/g", b"b").end();
    let remove = tar().file("d/.wh.f", b"").end();
    assert_eq!(
        read(mount(&[a.clone(), b.clone(), a.clone()]).path("d/f")),
        "a"
    );
    assert_eq!(read(mount(&[a.clone(), b.clone()]).path("d/f")), "b");
    let mounted = mount(&[a.clone(), remove.clone(), a, remove]);
    assert_eq!(mounted.names("d"), Vec::<String>::new());
}

#[test]
fn overlay_s_own_marks_do_not_come_from_images() {
    for name in [
        "trusted.overlay.opaque",
        "user.overlay.opaque",
        "trusted.overlay.redirect",
    ] {
        let key = format!("SCHILY.xattr.{name}");
        let lower = tar().dir("d").file("d/below", b"").end();
        let upper = tar().pax(&[(&key, "y")]).dir("d").end();
        assert_eq!(mount(&[lower, upper]).names("d"), ["below"]);
    }
    let sentence = refused(tar().device("d", b'3', 0, 0));
    assert!(sentence.contains("device 0:0"), "{sentence}");
    assert!(
        mount(&[tar().device("d", b'4', 0, 0).end()])
            .path("d")
            .exists()
    );
}

#[test]
fn attributes_are_exact_whatever_the_umask() {
    let archive = tar()
        .pax(&[
            ("uid", "4294967294"),
            ("gid", "2097152"),
            ("mtime", "-1.25"),
        ])
        .entry("suid", b'0', 0o6777, "", b"x")
        .device("disk", b'4', 259, 70_000)
        .entry("pipe", b'6', 0o666, "", b"")
        .pax(&[(
            "SCHILY.xattr.security.capability",
            "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        )])
        .pax(&[
            ("uid", "5"),
            (
                "SCHILY.xattr.security.capability",
                "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
        ])
        .entry("capable", b'0', 0o755, "", b"x");
    let mounted = mount(&[archive.end()]);
    let suid = fs::metadata(mounted.path("suid")).unwrap();
    assert_eq!(
        (suid.mode() & 0o7777, suid.uid(), suid.gid()),
        (0o6777, 4_294_967_294, 2_097_152)
    );
    assert_eq!((suid.mtime(), suid.mtime_nsec()), (-2, 750_000_000));
    let disk = fs::metadata(mounted.path("disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!(
        (
            rustix::fs::major(disk.rdev()),
            rustix::fs::minor(disk.rdev())
        ),
        (259, 70_000)
    );
    assert_eq!(
        fs::metadata(mounted.path("pipe"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o666
    );
    let mut value = [0u8; 64];
    let length = rustix::fs::lgetxattr(
        mounted.path("capable"),
        "security.capability",
        &mut value[..],
    )
    .unwrap();
    assert_eq!(length, 20, "file capabilities survive the change of owner");
}

#[test]
fn numbers_that_linux_has_not_are_refused() {
    for (key, value) in [
        ("uid", "4294967296"),
        ("gid", "4294967295"),
        ("uid", "-1"),
        ("size", "-5"),
    ] {
        let sentence = refused(tar().pax(&[(key, value)]).file("f", b""));
        assert!(
            sentence.contains("out of range"),
            "{key}={value}: {sentence}"
        );
    }
    let sentence = refused(tar().pax(&[("GNU.sparse.major", "1")]).file("f", b""));
    assert!(sentence.contains("sparse"), "{sentence}");
}

#[test]
fn an_image_of_127_layers_is_mounted() {
    let archives: Vec<Vec<u8>> = (0..127)
        .map(|n| {
            tar()
                .dir("d")
                .file(&format!("d/{n}"), b"")
                .file("last", n.to_string().as_bytes())
                .end()
        })
        .collect();
    let mounted = mount(&archives);
    assert_eq!(
        (mounted.names("d").len(), read(mounted.path("last"))),
        (127, "126".to_owned())
    );
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    assert_eq!(mount(&[]).names(""), Vec::<String>::new());
}

#[test]
fn deep_trees_are_made_and_removed() {
    let deep = "d/".repeat(1500);
    let archive = tar()
        .pax(&[("path", &format!("{deep}f"))])
        .file("x", b"")
        .pax(&[("path", "d")])
        .file("x", b"now");
    let mounted = mount(&[archive.end()]);
    assert_eq!(read(mounted.path("d")), "now");
    let mounted = mount(&[tar()
        .pax(&[("path", &format!("{deep}f"))])
        .file("x", b"")
        .end()]);
    assert!(mounted.path("d/d/d").is_dir());
}
