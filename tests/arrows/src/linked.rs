//! Which crates of others a program links: one provider of cryptography, and one version of each.
//!
//! `deny.toml` judges the workspace as a whole and cannot tell the parties apart: the node may
//! hash with `sha2`, the guest and the owner's tools may not.

use std::collections::{BTreeMap, BTreeSet};

/// Providers of cryptography other than aws-lc-rs, and what they are made of.
pub const OTHER_PROVIDERS: &[&str] = &[
    "aead",
    "aes",
    "aes-gcm",
    "argon2",
    "blake2",
    "blake3",
    "block-padding",
    "boring",
    "boring-sys",
    "cbc",
    "chacha20",
    "chacha20poly1305",
    "cipher",
    "crypto-common",
    "ctr",
    "curve25519-dalek",
    "digest",
    "dsa",
    "ecdsa",
    "ed25519",
    "ed25519-dalek",
    "elliptic-curve",
    "ghash",
    "gcrypt",
    "graviola",
    "hkdf",
    "hmac",
    "k256",
    "libsodium-sys",
    "md-5",
    "md5",
    "mbedtls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "orion",
    "p256",
    "p384",
    "p521",
    "pbkdf2",
    "poly1305",
    "ring",
    "ripemd",
    "rsa",
    "schannel",
    "scrypt",
    "secp256k1",
    "sequoia-openpgp",
    "pgp",
    "sha-1",
    "sha1",
    "sha1_smol",
    "sha2",
    "sha3",
    "sm3",
    "sm4",
    "snow",
    "sodiumoxide",
    "wolfssl",
    "x25519-dalek",
];

/// Crates that the guest links in several versions, and why it must. `ttrpc`, `libcontainer` and
/// `protobuf` are the newest there are.
pub const SEVERAL_VERSIONS: &[(&str, &str)] = &[
    ("base64", "ureq asks for a newer one than all else"),
    ("bitflags", "of ttrpc's nix"),
    ("memoffset", "of ttrpc's nix"),
    ("netlink-packet-core", "of libcontainer's netlink"),
    (
        "netlink-packet-route",
        "libcontainer reads routes with an older one than rtnetlink",
    ),
    ("netlink-sys", "of libcontainer's netlink"),
    ("nix", "ttrpc and libcontainer each ask for an older one"),
    ("thiserror", "ttrpc and protobuf ask for the first version"),
    (
        "untrusted",
        "rustls-webpki and aws-lc-rs ask for different ones",
    ),
];

/// Each crate with its versions, from what `cargo tree --prefix none --format {p}` prints.
#[must_use]
pub fn crates(tree: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut crates: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            crates.entry(name).or_default().insert(version);
        }
    }
    crates
}

/// The other providers among `crates`.
#[must_use]
pub fn other_providers<'a>(crates: &BTreeMap<&'a str, BTreeSet<&str>>) -> Vec<&'a str> {
    let names = crates.keys().copied();
    names
        .filter(|name| OTHER_PROVIDERS.contains(name))
        .collect()
}

/// Crates in several versions that [`SEVERAL_VERSIONS`] does not excuse.
#[must_use]
pub fn unexcused<'a>(crates: &BTreeMap<&'a str, BTreeSet<&str>>) -> Vec<&'a str> {
    let excused = |name: &str| SEVERAL_VERSIONS.iter().any(|(excused, _)| *excused == name);
    crates
        .iter()
        .filter(|(name, versions)| versions.len() > 1 && !excused(name))
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "agent v0.1.0 (/w/agent)\nsha2 v0.10.9\nnix v0.29.0\nnix v0.31.3 (*)\n\nrand v0.8.5\nrand v0.9.0\n";

    #[test]
    fn another_provider_is_named() {
        assert_eq!(other_providers(&crates(TREE)), ["sha2"]);
        assert!(other_providers(&crates("aws-lc-rs v1.19.0")).is_empty());
    }

    #[test]
    fn a_second_version_without_a_reason_is_named() {
        assert_eq!(unexcused(&crates(TREE)), ["rand"]);
        assert!(unexcused(&crates("rand v0.9.0\nrand v0.9.0 (*)")).is_empty());
    }
}
