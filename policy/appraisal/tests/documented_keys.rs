//! `docs/verify.md` lists every key of the files that an owner writes, and no other; and
//! says rightly of each whether it may be left out.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use policy_appraisal::{Workload, snp::ReferenceValues};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// No key of ours.
const UNKNOWN: &str = "?";

/// Every key that can be given; where one can be written in several ways, as an object.
fn all_references() -> Value {
    let (digest, id) = ("11".repeat(48), "22".repeat(16));
    json!({
        "products": {"Turin": {
            "tcb": {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 1, "microcode": 1},
            "firmware": "1.55.40",
        }},
        "refused_products": ["Milan"],
        "revocation": {"required": {"max_age_seconds": 1}},
        "vlek_providers": ["CN=cc.example.com"],
        "masked_chip_id": false,
        "guest_policy": {
            "abi_major": 1, "abi_minor": 1, "smt_allowed": true, "cxl_allowed": true,
            "single_socket": true, "aes_256_xts": true, "rapl_disabled": true,
            "ciphertext_hiding": true, "page_swap_disabled": true,
        },
        "vmpl": [0],
        "identities": {
            "measurements": [digest],
            "signed": [{
                "id_key_digest": digest, "author_key_digest": digest, "family_id": id,
                "image_id": id, "guest_svn": 1,
            }],
            "combined": [{
                "measurement": digest, "id_key_digest": digest, "author_key_digest": digest,
                "family_id": id, "image_id": id, "guest_svn": 1,
            }],
            "endorsed": [{
                "issuer": "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.5",
                "feed": "ConfAKS-AMD-UVM",
                "minimum_svn": 1,
            }],
        },
        "platform": {
            "smt": "either", "smt_disabled": false, "tsme": "either", "ecc": "either",
            "rapl_disabled": "either", "ciphertext_hiding": "either",
            "alias_check_complete": "either", "tio": "either",
        },
        "mitigations": {"launch": 1, "current": 1},
    })
}

fn all_of_a_workload() -> Value {
    let digest = "00".repeat(32);
    json!({
        "settings": digest,
        "containers": [{
            "image": "sha256:11",
            "digests": {
                "process": digest,
                "environment": digest,
                "mounts": digest,
                "rights": digest,
                "settings": digest,
            },
            "marks": ["host content covers /x"],
            "at_most": 2,
        }],
        "execs": [{"process": digest, "environment": digest, "rights": digest}],
    })
}

/// Whether each key must be given, by its name in the page.
type Keys = BTreeMap<String, bool>;

/// The keys that a parser knows, asked by giving it one that it does not know.
fn known<T: DeserializeOwned>(complete: &Value) -> Keys {
    serde_json::from_value::<T>(complete.clone()).unwrap_or_else(|error| panic!("{error}"));
    let mut keys = Keys::new();
    let mut places = vec![(String::new(), String::new())];
    while let Some((pointer, shown)) = places.pop() {
        match complete.pointer(&pointer).unwrap() {
            Value::Array(entries) if entries.first().is_some_and(Value::is_object) => {
                places.push((format!("{pointer}/0"), format!("{shown}[]")));
            }
            Value::Object(members) => {
                let names: BTreeSet<&str> = members.keys().map(String::as_str).collect();
                let mut with_unknown = complete.clone();
                with_unknown.pointer_mut(&pointer).unwrap()[UNKNOWN] = json!(null);
                let error = serde_json::from_value::<T>(with_unknown).err();
                let error = error
                    .unwrap_or_else(|| panic!("{shown} takes any key"))
                    .to_string();
                let (_, expected) = error
                    .split_once("expected")
                    .unwrap_or_else(|| panic!("{error}"));
                let products = ["Milan", "Genoa", "Turin"];
                let is_by_product = expected.contains("`Milan`");
                for name in expected.split('`').skip(1).step_by(2) {
                    if is_by_product && products.contains(&name) {
                        continue;
                    }
                    // Of an enumeration there is one alternative at a time.
                    if pointer == "/revocation" && name == "optional" {
                        continue;
                    }
                    assert!(
                        names.contains(name),
                        "{shown}.{name} is not in the complete document"
                    );
                }
                for name in names {
                    let pointer = format!("{pointer}/{name}");
                    let shown_name = if is_by_product { "PRODUCT" } else { name };
                    let shown = format!("{shown}.{shown_name}")
                        .trim_start_matches('.')
                        .to_owned();
                    if !is_by_product {
                        keys.insert(shown.clone(), must_be_given::<T>(complete, &pointer));
                    }
                    places.push((pointer, shown));
                }
            }
            _ => {}
        }
    }
    keys
}

fn must_be_given<T: DeserializeOwned>(complete: &Value, pointer: &str) -> bool {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut without = complete.clone();
    without
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(name);
    serde_json::from_value::<T>(without).is_err()
}

/// The keys in the tables of one section of the page; an empty third cell says nothing.
fn documented(section: &str) -> (Keys, BTreeSet<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, text) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let text = text.split("\n## ").next().unwrap();
    let mut keys = Keys::new();
    let mut unsaid = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, key, value, left_out, meaning, _] = cells[..] else {
            panic!("not four cells: {line}")
        };
        assert!(!value.is_empty() && !meaning.is_empty(), "{line}");
        let key = key.trim_matches('`').to_owned();
        if left_out.is_empty() {
            unsaid.insert(key.clone());
        }
        let twice = keys.insert(key, left_out == "error");
        assert_eq!(twice, None, "{line}");
    }
    (keys, unsaid)
}

fn compare<T: DeserializeOwned>(section: &str, complete: &Value) {
    let mut known = known::<T>(complete);
    let (mut documented, unsaid) = documented(section);
    for key in unsaid {
        assert!(known.contains_key(&key), "{key}");
        known.insert(key.clone(), false);
        documented.insert(key, false);
    }
    assert_eq!(documented, known);
}

#[test]
fn the_page_lists_every_reference_value_and_whether_it_may_be_left_out() {
    compare::<ReferenceValues>("Reference values", &all_references());
}

#[test]
fn the_page_lists_every_key_of_a_workload() {
    compare::<Workload>("What may have run", &all_of_a_workload());
}

/// The defaults in the table are those of the parser.
#[test]
fn what_is_left_out_is_what_the_page_says() {
    let short = |more: Value| {
        let mut values = json!({
            "products": {},
            "revocation": "optional",
            "guest_policy": {"abi_major": 1, "abi_minor": 1, "smt_allowed": true},
            "identities": {},
        });
        let more: serde_json::Map<String, Value> = serde_json::from_value(more).unwrap();
        values.as_object_mut().unwrap().extend(more);
        serde_json::from_value::<ReferenceValues>(values).unwrap()
    };
    let spelt_out = json!({
        "refused_products": ["Milan"],
        "vlek_providers": [],
        "masked_chip_id": false,
        "guest_policy": {
            "abi_major": 1, "abi_minor": 1, "smt_allowed": true, "cxl_allowed": false,
            "single_socket": false, "aes_256_xts": false, "rapl_disabled": false,
            "ciphertext_hiding": false, "page_swap_disabled": false,
        },
        "vmpl": 0,
        "identities": {"measurements": [], "signed": [], "combined": [], "endorsed": []},
        "platform": {
            "smt": "either", "smt_disabled": false, "tsme": "either", "ecc": "either",
            "rapl_disabled": "either", "ciphertext_hiding": "either",
            "alias_check_complete": "required", "tio": "either",
        },
        "mitigations": 0,
    });
    assert_eq!(short(json!({})), short(spelt_out));
}

/// The page's own example is one.
#[test]
fn the_example_of_the_page_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("## Reference values").unwrap();
    let example = rest
        .split("```json")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    serde_json::from_str::<ReferenceValues>(example).unwrap();
}
