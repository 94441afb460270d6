//! The store on a disk of somebody else's.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use agent_keys_protocol::ResourceName;
use policy_broker::{
    identity::{self, IdentityError},
    store::Store,
    store_key::{StoreKey, StoreKeyError},
};

const MARKER: &[u8] = b"the marker of a secret";

fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

fn store(place: &Path) -> Store {
    let directory = place.join("broker");
    fs::create_dir_all(&directory).unwrap();
    let path = place.join("key");
    let key = StoreKey::open(&path, &directory);
    let key = key
        .or_else(|_| StoreKey::create(&path, &directory))
        .unwrap();
    Store::open(&directory.join("store"), key).unwrap()
}

#[test]
fn whoever_reads_the_disk_reads_no_resource_and_moves_none() {
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    store.put(&name("a/b/one"), MARKER).unwrap();
    store.put(&name("a/b/two"), b"other").unwrap();
    let files = place.path().join("broker/store");
    for entry in fs::read_dir(&files).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        assert!(!content.windows(MARKER.len()).any(|part| part == MARKER));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
    }
    let [one, two] = ["one", "two"].map(|tag| files.join(format!("resource,a,b,{tag}.sealed")));
    fs::copy(&one, &two).unwrap();
    assert!(store.find(&name("a/b/two")).is_err());
    let mut changed = fs::read(&one).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&one, changed).unwrap();
    assert!(store.find(&name("a/b/one")).is_err());
}

#[test]
fn a_write_that_was_cut_off_leaves_what_was_there() {
    let place = tempfile::tempdir().unwrap();
    let opened = store(place.path());
    opened.put(&name("a/b/c"), MARKER).unwrap();
    // What a broker that was killed in between leaves behind.
    let files = place.path().join("broker/store");
    fs::write(files.join(".aside-0011223344556677"), b"kcb1 half").unwrap();
    let again = store(place.path());
    assert_eq!(again.names().unwrap(), ["a/b/c"]);
    assert_eq!(*again.find(&name("a/b/c")).unwrap().unwrap(), MARKER);
}

#[test]
fn a_store_that_cannot_be_written_says_so_and_keeps_what_it_has() {
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    store.put(&name("a/b/c"), MARKER).unwrap();
    let files = place.path().join("broker/store");
    let kept = place.path().join("kept");
    fs::rename(&files, &kept).unwrap();
    // Root writes to a read-only directory, but nobody into a file.
    fs::write(&files, b"").unwrap();
    let error = store.put(&name("a/b/c"), b"other").unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    fs::remove_file(&files).unwrap();
    fs::rename(&kept, &files).unwrap();
    assert_eq!(*store.find(&name("a/b/c")).unwrap().unwrap(), MARKER);
}

#[test]
fn a_key_beside_the_store_or_one_that_others_read_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("broker");
    fs::create_dir(&directory).unwrap();
    let beside = StoreKey::create(&directory.join("key"), &directory);
    assert!(matches!(beside, Err(StoreKeyError::Beside(_))));
    let path = place.path().join("key");
    drop(StoreKey::create(&path, &directory).ok().unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let readable = StoreKey::open(&path, &directory);
    assert!(matches!(readable, Err(StoreKeyError::Readable(_))));
}

#[test]
fn a_mistake_with_the_store_key_leaves_a_place_where_a_broker_can_be_made() {
    let place = tempfile::tempdir().unwrap();
    let (directory, key) = (place.path().join("broker"), place.path().join("key"));
    let beside = identity::create(&directory, &directory.join("key"), "broker");
    assert!(matches!(
        beside,
        Err(IdentityError::StoreKey(StoreKeyError::Beside(_)))
    ));
    fs::write(&key, "somebody else's").unwrap();
    assert!(identity::create(&directory, &key, "broker").is_err());
    assert_eq!(fs::read_to_string(&key).unwrap(), "somebody else's");
    let other = place.path().join("other-key");
    identity::create(&directory, &other, "broker").unwrap();
    let again = identity::create(&directory, &place.path().join("third-key"), "broker");
    assert!(matches!(again, Err(IdentityError::Exists(_))));
    assert!(!place.path().join("third-key").exists());
}
