//! Initdata from annotation and disk to the document, rule by rule.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::Write as _;

use agent_protocol::{
    documents::TooMuch,
    initdata::{
        Algorithm, DISK_BYTES_MAX, DOCUMENT_BYTES_MAX, DocumentError, ENTRIES_MAX, Initdata,
        NAME_BYTES_MAX,
        disk::{frame, unframe},
        packed::{PackedError, from_annotation, pack, to_annotation, unpack},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

/// A document with every digest and the disk, made with other tools for this project.
fn vector() -> Value {
    serde_json::from_str(include_str!("vectors/initdata.json")).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parse(text: &str) -> Result<Initdata, DocumentError> {
    Initdata::parse(text.as_bytes())
}

fn document(algorithm: &str, data: &str) -> String {
    format!("version = \"0.1.0\"\nalgorithm = \"{algorithm}\"\n[data]\n{data}")
}

#[test]
fn the_vector_has_the_digests_of_other_tools() {
    let vector = vector();
    let text = vector["toml"].as_str().unwrap();
    for algorithm in Algorithm::ALL {
        // The digests are over the very same text, which itself names sha256.
        let digest = Initdata::parse(text.as_bytes())
            .unwrap()
            .digest_by(algorithm);
        let name = algorithm.name();
        assert_eq!(digest.to_string(), vector[name].as_str().unwrap(), "{name}");
        if let Some(expected) = vector[format!("host_data_{name}")].as_str() {
            assert_eq!(hex(&digest.host_data()), expected, "{name}");
        }
        if let Some(expected) = vector[format!("mrconfigid_{name}")].as_str() {
            assert_eq!(hex(&digest.fitted::<48>()), expected, "{name}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_vectors_disk_holds_its_document() {
    let vector = vector();
    let disk = STANDARD
        .decode(vector["initdata_disk_b64"].as_str().unwrap())
        .unwrap();
    let document = unpack(unframe(&disk).unwrap()).unwrap();
    assert_eq!(document.text(), vector["toml"].as_str().unwrap());
    assert_eq!(document.algorithm(), Algorithm::Sha256);
    assert_eq!(
        document.entries().keys().collect::<Vec<_>>(),
        ["aa.toml", "policy.rego"]
    );
}

#[test]
fn a_document_survives_annotation_and_disk() {
    let document = parse(&document("sha384", "\"aa.toml\" = 'x'\n")).unwrap();
    let value = to_annotation(&pack(&document).unwrap());
    let packed = from_annotation(&format!(" {value}\n")).unwrap();
    let disk = frame(&packed).unwrap();
    let read = unpack(unframe(&disk).unwrap()).unwrap();
    assert_eq!(read, document);
    assert_eq!(read.digest().as_bytes().len(), 48);
    assert_eq!(pack(&read).unwrap(), packed);
}

#[test]
fn the_digest_is_over_the_bytes_as_they_came() {
    let one = parse(&document("sha256", "a = 'x'\n")).unwrap();
    let other = parse(&document("sha256", "a = 'x' # same\n")).unwrap();
    assert_eq!(one.entries(), other.entries());
    assert_ne!(one.digest(), other.digest());
}

#[test]
fn each_broken_rule_of_the_document_is_named() {
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let many: String = (0..=ENTRIES_MAX).map(|n| format!("e{n} = ''\n")).collect();
    let kind = |key, expected| DocumentError::Kind { key, expected };
    for (text, error) in [
        (
            "algorithm = 'sha256'\n[data]",
            DocumentError::Missing("version"),
        ),
        (
            "version = '0.1.0'\n[data]",
            DocumentError::Missing("algorithm"),
        ),
        (
            "version = '0.1.0'\nalgorithm = 'sha256'",
            DocumentError::Missing("data"),
        ),
        (
            "version = '0.2.0'\nalgorithm = 'sha256'\n[data]",
            DocumentError::Version("0.2.0".into()),
        ),
        (
            "version = 1\nalgorithm = 'sha256'\n[data]",
            kind("version", "a string"),
        ),
        (
            "version = '0.1.0'\nalgorithm = 'sha256'\ndata = 'x'",
            kind("data", "a table"),
        ),
        (
            "version = '0.1.0'\nalgorithm = 'sha256'\n[data]\n[more]",
            DocumentError::Unknown("more".into()),
        ),
        (&document("sm3", ""), DocumentError::Algorithm("sm3".into())),
        (
            &document("SHA256", ""),
            DocumentError::Algorithm("SHA256".into()),
        ),
        (
            &document("sha256", "a = 1"),
            DocumentError::Entry("a".into()),
        ),
        (
            &document("sha256", "a.b = 'x'"),
            DocumentError::Entry("a".into()),
        ),
        (
            &document("sha256", "'../a' = ''"),
            DocumentError::Name("../a".into()),
        ),
        (
            &document("sha256", "'.a' = ''"),
            DocumentError::Name(".a".into()),
        ),
        (
            &document("sha256", "'' = ''"),
            DocumentError::Name(String::new()),
        ),
        (
            &document("sha256", &format!("{long} = ''")),
            DocumentError::Name(long[..64].into()),
        ),
        (
            &document("sha256", "'initdata.toml' = ''"),
            DocumentError::Name("initdata.toml".into()),
        ),
        (
            &document("sha256", &many),
            DocumentError::Entries(ENTRIES_MAX + 1),
        ),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
    assert_eq!(Initdata::parse(b"\xff"), Err(DocumentError::Text));
    let twice = document("sha256", "a = ''\na = ''");
    assert!(matches!(parse(&twice), Err(DocumentError::Toml(_))));
    let deep = format!("version = {}", "[".repeat(100_000));
    assert_eq!(parse(&deep), Err(DocumentError::TooMuch(TooMuch::Depth)));
    let dotted = format!("{}a = 1", "a.".repeat(200_000));
    assert_eq!(parse(&dotted), Err(DocumentError::TooMuch(TooMuch::Depth)));
}

/// By the limit of all documents, or by the parser's own for one way to write it.
#[test]
fn nesting_is_limited_however_it_is_written() {
    for depth in [100, 200_000] {
        let (lists, keys) = ("[".repeat(depth), vec!["a"; depth].join("."));
        for text in [
            document("sha256", &format!("a = {lists}{}\n", "]".repeat(depth))),
            document("sha256", &format!("{keys} = \"\"\n")),
            document("sha256", &format!("[data.{keys}]\n")),
            document("sha256", &format!("[[data.{keys}]]\n")),
            document(
                "sha256",
                &format!("a = {}1{}\n", "{a=".repeat(depth), "}".repeat(depth)),
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                matches!(
                    error,
                    DocumentError::TooMuch(TooMuch::Depth)
                        | DocumentError::Toml(_)
                        | DocumentError::TooLarge(_)
                ),
                "{depth}: {error}"
            );
        }
    }
}

#[test]
fn the_limits_are_met_exactly() {
    let many: String = (0..ENTRIES_MAX).map(|n| format!("e{n} = ''\n")).collect();
    assert!(parse(&document("sha256", &many)).is_ok());
    let empty = document("sha256", "a = ''").len();
    let full = document(
        "sha256",
        &format!("a = '{}'", "x".repeat(DOCUMENT_BYTES_MAX - empty)),
    );
    assert_eq!(full.len(), DOCUMENT_BYTES_MAX);
    let read = unpack(&gzip(full.as_bytes())).unwrap();
    assert_eq!(read.text().len(), DOCUMENT_BYTES_MAX);
    let over = format!("{full}\n");
    assert!(matches!(
        unpack(&gzip(over.as_bytes())),
        Err(PackedError::Inflated)
    ));
    assert_eq!(
        Initdata::parse(over.as_bytes()),
        Err(DocumentError::TooLarge(DOCUMENT_BYTES_MAX + 1))
    );
}

#[test]
fn only_one_intact_gzip_member_is_taken() {
    let member = gzip(document("sha256", "").as_bytes());
    assert!(unpack(&member).is_ok());
    let two = [member.clone(), member.clone()].concat();
    assert!(matches!(unpack(&two), Err(PackedError::Tail(_))));
    let tail = [member.clone(), vec![0]].concat();
    assert!(matches!(unpack(&tail), Err(PackedError::Tail(1))));
    for cut in 0..member.len() {
        assert!(
            matches!(unpack(&member[..cut]), Err(PackedError::Gzip(_))),
            "{cut}"
        );
    }
    // Checksum and length stand at the end.
    for place in member.len() - 8..member.len() {
        let mut changed = member.clone();
        changed[place] ^= 1;
        assert!(
            matches!(unpack(&changed), Err(PackedError::Gzip(_))),
            "{place}"
        );
    }
    let large = vec![0; DISK_BYTES_MAX];
    assert!(matches!(unpack(&large), Err(PackedError::TooLarge)));
}

#[test]
fn an_annotation_is_plain_base64() {
    for value in ["H4sI=", "H4s I", "H4-_", "*"] {
        assert!(
            matches!(from_annotation(value), Err(PackedError::Base64)),
            "{value}"
        );
    }
    let large = "A".repeat(DISK_BYTES_MAX * 4 / 3);
    assert!(matches!(
        from_annotation(&large),
        Err(PackedError::TooLarge)
    ));
}

#[test]
fn nothing_of_the_content_is_printed() {
    let secret = parse(&document("sha256", "a = 'hunter2'")).unwrap();
    assert!(!format!("{secret:?}").contains("hunter2"));
    let mistake = document("sha256", "a = 'hunter2\n");
    let error = parse(&mistake).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
