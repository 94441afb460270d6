//! Claims about which modules a guest gets, on trees of small made-up modules.

use std::io::Read;

use super::{tree::BUILTIN_LIST, *};

#[path = "../../tests/elf/mod.rs"]
mod elf;

const RELEASE: &str = "6.12-test";

fn tree(modules: &[(&str, &str)], builtin: &str) -> ModuleTree {
    let mut tree = ModuleTree::default();
    for (name, depends) in modules {
        tree.add(&format!("kernel/{name}.ko"), elf::module(depends, RELEASE));
    }
    tree.add(BUILTIN_LIST, builtin.as_bytes().to_vec());
    tree
}

const BOOTABLE: [(&str, &str); 6] = [
    ("vsock", ""),
    ("vmw_vsock_virtio_transport_common", "vsock"),
    (
        "vmw_vsock_virtio_transport",
        "vmw_vsock_virtio_transport_common,vsock",
    ),
    ("virtio_net", "net-failover"),
    ("net_failover", ""),
    ("virtio_blk", ""),
];
const BUILTIN: &str = "kernel/fs/overlay.ko\nkernel/net/af_packet.ko\n";

fn bootable_with(modules: &[(&str, &str)]) -> ModuleTree {
    tree(&[&BOOTABLE, modules].concat(), BUILTIN)
}

fn names(paths: &[String]) -> Vec<&str> {
    paths
        .iter()
        .map(|path| path.trim_start_matches("kernel/").trim_end_matches(".ko"))
        .collect()
}

#[test]
fn dependencies_come_first_and_built_in_ones_are_left_out() {
    let selection = select(&bootable_with(&[]), RELEASE, &[]).unwrap();
    let expected = [
        "vsock",
        "vmw_vsock_virtio_transport_common",
        "vmw_vsock_virtio_transport",
        "net_failover",
        "virtio_net",
        "virtio_blk",
    ];
    assert_eq!(names(&selection.boot), expected);
    assert!(selection.builtin.contains("overlay"));
    assert_eq!(selection.modules.len(), expected.len());
}

#[test]
fn features_without_their_driver_are_missing_and_without_helpers_are_not() {
    let modules = [("dm-crypt", "dm-mod"), ("dm-mod", ""), ("erofs", "vsock")];
    let selection = select(&bootable_with(&modules), RELEASE, &[]).unwrap();
    let feature = |name: &str| selection.on_demand.get(name).map(|paths| names(paths));
    assert_eq!(feature("dm-crypt"), Some(vec!["dm-mod", "dm-crypt"]));
    assert_eq!(
        feature("erofs"),
        Some(vec!["erofs"]),
        "vsock is loaded at boot"
    );
    assert_eq!(feature("dm-verity"), None);
    assert!(selection.missing.contains("dm-verity"));
    assert!(selection.missing.contains("xts"));
}

#[test]
fn modules_of_the_owners_own_become_features() {
    let tree = bootable_with(&[("wireguard", "udp_tunnel"), ("udp_tunnel", "")]);
    let selection = select(&tree, RELEASE, &["wireguard".to_owned()]).unwrap();
    let paths = selection.on_demand.get("wireguard").unwrap();
    assert_eq!(names(paths), ["udp_tunnel", "wireguard"]);
    let refused = select(&tree, RELEASE, &["nonesuch".to_owned()]);
    assert!(matches!(refused, Err(ModuleError::Required(name)) if name == "nonesuch"));
}

#[test]
fn a_kernel_without_a_module_to_start_with_is_refused() {
    let refused = select(&tree(&BOOTABLE, ""), RELEASE, &[]);
    assert!(matches!(refused, Err(ModuleError::Required(name)) if name == "overlay"));
}

#[test]
fn broken_trees_are_refused_by_name() {
    let cases: [(&[(&str, &str)], &str); 2] = [
        (
            &[("erofs", "gone")],
            "module \"erofs\" depends on \"gone\", which the kernel does not have",
        ),
        (
            &[("erofs", "a"), ("a", "b"), ("b", "a")],
            "module \"a\" depends on itself",
        ),
    ];
    for (modules, sentence) in cases {
        let refused = select(&bootable_with(modules), RELEASE, &[]).unwrap_err();
        assert_eq!(refused.to_string(), sentence);
    }
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let refused = select(&bootable_with(&[]), "6.1-other", &[]);
    assert!(matches!(refused, Err(ModuleError::Release { .. })));
}

#[test]
fn files_that_are_no_modules_are_refused() {
    let mut tree = bootable_with(&[]);
    tree.add("kernel/erofs.ko", b"not elf".to_vec());
    let refused = select(&tree, RELEASE, &[]);
    assert!(matches!(refused, Err(ModuleError::NotModule(_))));
    tree.add("kernel/erofs.ko.xz", b"not xz".to_vec());
    let refused = select(&tree, RELEASE, &[]);
    assert!(matches!(refused, Err(ModuleError::Decompress { .. })));
}

#[test]
fn compressed_modules_are_stored_plain() {
    let plain = elf::module("", RELEASE);
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(plain.as_slice(), 6)
        .read_to_end(&mut xz)
        .unwrap();
    for (suffix, stored) in [("", plain.clone()), (".zst", zstd), (".xz", xz)] {
        let (path, content) = decompress(&format!("kernel/a.ko{suffix}"), &stored).unwrap();
        assert_eq!((path.as_str(), &content), ("kernel/a.ko", &plain));
    }
}
