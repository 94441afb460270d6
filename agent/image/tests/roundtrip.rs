//! A random tree packed by tools that are not ours comes out identical.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lgetxattr,
    llistxattr, lsetxattr, mknodat, utimensat,
};
use support::*;

/// One thing in a tree; the number picks a directory made before it.
#[derive(Debug, Clone)]
struct Thing {
    parent: usize,
    name: String,
    kind: Kind,
    mode: u16,
    ids: (u32, u32),
    mtime: (i64, u32),
    xattr: Option<(String, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    Hardlink(usize),
    Fifo,
    Device(bool, u32, u32),
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(Kind::File),
        1 => (500_000usize..700_000).prop_map(|length| Kind::File(vec![0x5a; length])),
        3 => Just(Kind::Directory),
        2 => "[a-z/.]{1,120}".prop_map(Kind::Symlink),
        1 => (0usize..40).prop_map(Kind::Hardlink),
        1 => Just(Kind::Fifo),
        1 => (any::<bool>(), 1u32..4096, 0u32..65536).prop_map(|(block, major, minor)| Kind::Device(block, major, minor)),
    ]
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let name = prop_oneof![8 => "[A-Za-z0-9 _.äß€=-]{1,20}", 1 => "[a-z]{120,200}"];
    let name = name.prop_filter("no name is `.` or `..` or a whiteout's", |name| {
        !matches!(name.as_str(), "." | "..") && !name.starts_with(".wh.")
    });
    let ids = prop_oneof![
        Just((0, 0)),
        (0u32..100_000, 0u32..100_000),
        Just((3_000_000, 4_294_967_294))
    ];
    let xattr = prop::option::weighted(
        0.3,
        (
            "user\\.[a-z]{1,9}",
            prop::collection::vec(any::<u8>(), 0..60),
        ),
    );
    let mtime = (-1000i64..4_000_000_000, 0u32..1_000_000_000);
    let thing = (0usize..40, name, kinds(), 0u16..0o10000, ids, mtime, xattr).prop_map(
        |(parent, name, kind, mode, ids, mtime, xattr)| Thing {
            parent,
            name,
            kind,
            mode,
            ids,
            mtime,
            xattr,
        },
    );
    prop::collection::vec(thing, 0..40)
}

fn build(root: &Path, things: &[Thing]) {
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Thing)> = Vec::new();
    for thing in things {
        let path = directories[thing.parent % directories.len()].join(&thing.name);
        if path.symlink_metadata().is_ok() || path.as_os_str().len() > 3000 {
            continue;
        }
        match &thing.kind {
            Kind::File(content) => fs::write(&path, content).unwrap(),
            Kind::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            Kind::Symlink(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            Kind::Hardlink(which) if !files.is_empty() => {
                fs::hard_link(&files[which % files.len()], &path).unwrap();
                continue;
            }
            Kind::Hardlink(_) => continue,
            Kind::Fifo => mknodat(CWD, &path, FileType::Fifo, Mode::empty(), 0).unwrap(),
            Kind::Device(block, major, minor) => {
                let kind = if *block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                mknodat(
                    CWD,
                    &path,
                    kind,
                    Mode::empty(),
                    rustix::fs::makedev(*major, *minor),
                )
                .unwrap();
            }
        }
        if matches!(thing.kind, Kind::File(_)) {
            files.push(path.clone());
        }
        made.push((path, thing));
    }
    for (path, thing) in made.iter().rev() {
        decorate(path, thing);
    }
}

fn decorate(path: &Path, thing: &Thing) {
    let (uid, gid) = (Uid::from_raw(thing.ids.0), Gid::from_raw(thing.ids.1));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if !matches!(thing.kind, Kind::Symlink(_)) {
        let mode = Mode::from_raw_mode(thing.mode.into());
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).unwrap();
    }
    if let (Some((key, value)), Kind::File(_) | Kind::Directory) = (&thing.xattr, &thing.kind) {
        lsetxattr(path, key.as_str(), value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec {
        tv_sec: thing.mtime.0,
        tv_nsec: thing.mtime.1.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// All that can be seen of a file, but for its inode number.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    ids: (u32, u32),
    device: u64,
    mtime: (i64, i64),
    content: Vec<u8>,
    xattrs: BTreeMap<CString, Vec<u8>>,
    links: Vec<PathBuf>,
}

fn look(root: &Path, clock: Clock) -> BTreeMap<PathBuf, Look> {
    let mut looks = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if meta.is_dir() {
            ahead.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            inodes.entry(meta.ino()).or_default().push(name.clone());
        }
        let content = match () {
            () if meta.is_symlink() => fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
            () if meta.is_file() => fs::read(&path).unwrap(),
            () => Vec::new(),
        };
        let is_node = !meta.is_file() && !meta.is_dir() && !meta.is_symlink();
        looks.insert(
            name,
            Look {
                mode: meta.mode(),
                ids: (meta.uid(), meta.gid()),
                device: if is_node { meta.rdev() } else { 0 },
                mtime: clock.keep((meta.mtime(), meta.mtime_nsec())),
                content,
                xattrs: xattrs(&path),
                links: Vec::new(),
            },
        );
    }
    for mut names in inodes.into_values() {
        names.sort();
        for name in names.clone() {
            looks.get_mut(&name).unwrap().links.clone_from(&names);
        }
    }
    looks
}

fn xattrs(path: &Path) -> BTreeMap<CString, Vec<u8>> {
    let mut list = vec![0; 4096];
    let length = llistxattr(path, &mut list[..]).unwrap();
    let keys = list[..length]
        .split(|byte| *byte == 0)
        .filter(|key| key.starts_with(b"user."));
    keys.map(|key| {
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, key, &mut value[..]).unwrap();
        value.truncate(length);
        (CString::new(key).unwrap(), value)
    })
    .collect()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const PYTHON: &str = "import os,sys,tarfile
def xattrs(t):
    p = os.path.join(sys.argv[1], t.name)
    if t.isreg() or t.isdir():
        for k in os.listxattr(p):
            if k.startswith('user.'):
                t.pax_headers['SCHILY.xattr.' + k] = os.getxattr(p, k).decode('utf-8', 'surrogateescape')
    return t
f = {'pax': tarfile.PAX_FORMAT, 'gnu': tarfile.GNU_FORMAT}[sys.argv[3]]
with tarfile.open(sys.argv[2], 'w', format=f, encoding='utf-8', errors='surrogateescape') as t:
    t.add(sys.argv[1], '.', filter=xattrs if sys.argv[3] == 'pax' else None)
";

/// What becomes of times.
#[derive(Clone, Copy, PartialEq)]
enum Clock {
    Nanoseconds,
    /// Cut off, or off by a few hundred nanoseconds.
    Seconds,
    /// Go's `archive/tar` rounds to the nearest.
    Rounded,
}

impl Clock {
    /// The time as it is expected to come out, or as far as it can be compared.
    fn keep(self, (seconds, nanoseconds): (i64, i64)) -> (i64, i64) {
        match self {
            Self::Nanoseconds => (seconds, nanoseconds),
            Self::Rounded if nanoseconds >= 500_000_000 => (seconds + 1, 0),
            Self::Seconds | Self::Rounded => (seconds, 0),
        }
    }
}

/// Which extended attributes come through.
#[derive(Clone, Copy)]
enum Xattrs {
    All,
    /// Go's `archive/tar` takes an empty value for none.
    WithValue,
    None,
}

/// How an archive is made, and what its format can keep.
struct Packer {
    name: &'static str,
    pack: fn(&Path, &Path),
    clock: Clock,
    xattrs: Xattrs,
}

const PACKERS: [Packer; 5] = [
    Packer {
        name: "GNU tar, pax",
        pack: |tree, archive| {
            let mut command = Command::new("tar");
            command.args([
                "--format=pax",
                "--xattrs",
                "--xattrs-include=user.*",
                "--numeric-owner",
                "-cf",
            ]);
            run(command.arg(archive).arg("-C").arg(tree).arg("."));
        },
        clock: Clock::Nanoseconds,
        xattrs: Xattrs::All,
    },
    Packer {
        name: "GNU tar, gnu",
        pack: |tree, archive| {
            let mut command = Command::new("tar");
            run(command
                .args(["--format=gnu", "--numeric-owner", "-cf"])
                .arg(archive)
                .arg("-C")
                .arg(tree)
                .arg("."));
        },
        clock: Clock::Seconds,
        xattrs: Xattrs::None,
    },
    Packer {
        name: "Python, pax",
        pack: |tree, archive| {
            run(Command::new("python3")
                .args(["-c", PYTHON])
                .arg(tree)
                .arg(archive)
                .arg("pax"))
        },
        // Its floating-point times are a few hundred nanoseconds off.
        clock: Clock::Seconds,
        xattrs: Xattrs::All,
    },
    Packer {
        name: "Python, gnu",
        pack: |tree, archive| {
            run(Command::new("python3")
                .args(["-c", PYTHON])
                .arg(tree)
                .arg(archive)
                .arg("gnu"))
        },
        clock: Clock::Seconds,
        xattrs: Xattrs::None,
    },
    Packer {
        name: "umoci",
        pack: umoci,
        clock: Clock::Rounded,
        xattrs: Xattrs::WithValue,
    },
];

/// Inserts the tree as the one layer of a new image, and takes that layer out of it.
fn umoci(tree: &Path, archive: &Path) {
    let layout = archive.with_extension("layout");
    let _ = fs::remove_dir_all(&layout);
    let (layout_is, image) = (
        format!("--layout={}", layout.display()),
        format!("--image={}:x", layout.display()),
    );
    run(Command::new("umoci").args(["init", &layout_is]));
    run(Command::new("umoci").args(["new", &image]));
    run(Command::new("umoci")
        .args(["insert", &image])
        .arg(tree)
        .arg("/"));
    let blob = |digest: &serde_json::Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        fs::read(layout.join("blobs/sha256").join(hex)).unwrap()
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let index = json(&fs::read(layout.join("index.json")).unwrap());
    let manifest = json(&blob(&index["manifests"][0]["digest"]));
    let layer = blob(&manifest["layers"][0]["digest"]);
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::bufread::MultiGzDecoder::new(&layer[..]),
        &mut bytes,
    )
    .unwrap();
    fs::write(archive, bytes).unwrap();
}

fn check(things: &[Thing]) {
    let directory = directory();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    build(&tree, things);
    let root = Thing {
        parent: 0,
        name: String::new(),
        kind: Kind::Directory,
        mode: 0o1751,
        ids: (1, 2),
        mtime: (12345, 0),
        xattr: None,
    };
    decorate(&tree, &root);
    for packer in &PACKERS {
        let archive = directory.path().join("archive");
        (packer.pack)(&tree, &archive);
        let mut files = Files::default();
        files.image(&[gzip(&fs::read(&archive).unwrap())]);
        let registry = Registry::serving(files);
        let puller = registry.puller(&directory.path().join(packer.name));
        let image = puller
            .pull(&registry.reference("x"))
            .unwrap_or_else(|error| panic!("{}", error.sentence()));
        let rootfs = puller
            .assemble(&image, &directory.path().join("bundle"))
            .unwrap();
        let mut expected = look(&tree, packer.clock);
        for look in expected.values_mut() {
            match packer.xattrs {
                Xattrs::All => {}
                Xattrs::WithValue => look.xattrs.retain(|_, value| !value.is_empty()),
                Xattrs::None => look.xattrs.clear(),
            }
        }
        let found = look(rootfs.path(), packer.clock);
        for (name, look) in &expected {
            assert_eq!(
                found.get(name),
                Some(look),
                "{}: {}",
                packer.name,
                name.display()
            );
        }
        assert_eq!(found.len(), expected.len(), "{}", packer.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_out_identical(things in things()) {
        check(&things);
    }
}
