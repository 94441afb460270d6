use super::*;

const CHAIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Path::new("/nowhere")).unwrap();
    (directory, store)
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn add(store: &Store, key: &str, role: Role, parent: &str) -> Result<Vec<Mount>, StoreError> {
    store.add(key, role, parent, BTreeMap::new())
}

#[test]
fn every_chain_id_is_committed_and_nothing_else_is() {
    let (_directory, store) = store();
    let info = store.stat(&format!("k8s.io/7/{CHAIN}")).unwrap();
    assert_eq!(info.kind(), Kind::Committed);
    assert!(matches!(
        store.stat("k8s.io/7/x"),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn a_record_outlives_the_process_and_dies_with_its_removal() {
    let (directory, store) = store();
    let mounts = add(&store, "k8s.io/8/c", Role::Container, CHAIN).unwrap();
    let before = store.stat("k8s.io/8/c").unwrap();
    drop(store);

    let store = Store::open(directory.path(), Path::new("/nowhere")).unwrap();
    assert_eq!(store.stat("k8s.io/8/c").unwrap(), before);
    assert_eq!(store.mounts("k8s.io/8/c").unwrap(), mounts);
    store.remove("k8s.io/8/c").unwrap();
    drop(store);

    let store = Store::open(directory.path(), Path::new("/nowhere")).unwrap();
    assert!(matches!(
        store.stat("k8s.io/8/c"),
        Err(StoreError::NotFound(_))
    ));
    assert!(store.list().is_empty());
}

#[test]
fn a_wiped_directory_loses_nothing_while_the_process_runs() {
    let (directory, store) = store();
    add(&store, "k8s.io/8/c", Role::Container, CHAIN).unwrap();
    fs::remove_dir_all(directory.path()).unwrap();

    let mounts = store.mounts("k8s.io/8/c").unwrap();
    assert!(Path::new(&mounts[0].source).is_dir());
    add(&store, "k8s.io/9/d", Role::View, CHAIN).unwrap();
    store.remove("k8s.io/8/c").unwrap();
}

#[test]
fn a_record_that_does_not_parse_is_dropped() {
    let (directory, store) = store();
    drop(store);
    let torn = directory.path().join("active/torn.json");
    fs::write(&torn, b"{\"key\":").unwrap();
    let store = Store::open(directory.path(), Path::new("/nowhere")).unwrap();
    assert!(store.list().is_empty());
    assert!(!torn.exists());
}

#[test]
fn one_process_has_the_directory() {
    let (directory, store) = store();
    assert!(matches!(
        Store::open(directory.path(), Path::new("/nowhere")),
        Err(OpenError::InUse { .. })
    ));
    drop(store);
    Store::open(directory.path(), Path::new("/nowhere")).unwrap();
}

#[test]
fn a_key_is_used_once() {
    let (_directory, store) = store();
    add(&store, "k", Role::Container, CHAIN).unwrap();
    let again = add(&store, "k", Role::Container, CHAIN);
    assert!(matches!(again, Err(StoreError::Exists(_))));
}

#[test]
fn only_committed_snapshots_are_parents() {
    let (_directory, store) = store();
    add(&store, "k8s.io/1/a", Role::Container, "").unwrap();
    let child = add(&store, "k8s.io/2/b", Role::Container, "k8s.io/1/a");
    assert!(matches!(child, Err(StoreError::Parent { .. })));
}

#[test]
fn a_parent_is_listed_and_stays_until_its_children_go() {
    let (_directory, store) = store();
    add(&store, "k8s.io/1/a", Role::Container, CHAIN).unwrap();
    add(&store, "k8s.io/2/b", Role::View, CHAIN).unwrap();
    let mut listed: Vec<_> = store
        .list()
        .into_iter()
        .map(|i| (i.kind(), i.name, i.parent))
        .collect();
    listed.sort();
    let owned = |kind, name: &str, parent: &str| (kind, name.to_owned(), parent.to_owned());
    assert_eq!(
        listed,
        [
            owned(Kind::View, "k8s.io/2/b", CHAIN),
            owned(Kind::Active, "k8s.io/1/a", CHAIN),
            owned(Kind::Committed, CHAIN, ""),
        ]
    );

    assert!(matches!(store.remove(CHAIN), Err(StoreError::InUse(..))));
    store.remove("k8s.io/1/a").unwrap();
    store.remove("k8s.io/2/b").unwrap();
    store.remove(CHAIN).unwrap();
}

#[test]
fn an_unpacked_layer_is_discarded_by_commit_and_by_removal() {
    let (directory, store) = store();
    for (key, commit) in [("a", true), ("b", false)] {
        let mounts = add(&store, key, Role::Unpack, "").unwrap();
        let scratch = PathBuf::from(&mounts[0].source);
        fs::write(scratch.join("file"), b"plain text").unwrap();
        if commit {
            store.commit(&format!("k8s.io/5/{CHAIN}"), key).unwrap();
        } else {
            store.remove(key).unwrap();
        }
        assert!(!scratch.exists());
        assert!(matches!(store.mounts(key), Err(StoreError::NotFound(_))));
    }
    let left = fs::read_dir(directory.path().join("scratch")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn only_an_unpacked_layer_commits_and_only_as_a_chain_id() {
    let (_directory, store) = store();
    add(&store, "c", Role::Container, CHAIN).unwrap();
    add(&store, "u", Role::Unpack, "").unwrap();
    assert!(matches!(
        store.commit(CHAIN, "c"),
        Err(StoreError::NotAnUnpack(_))
    ));
    assert!(matches!(
        store.commit("mine", "u"),
        Err(StoreError::CommitName { .. })
    ));
    assert!(matches!(
        store.commit(CHAIN, "none"),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn the_sweep_deletes_layers_without_a_record_and_keeps_the_others() {
    let (directory, store) = store();
    let mounts = add(&store, "u", Role::Unpack, "").unwrap();
    let stray = directory.path().join("scratch/stray");
    fs::create_dir(&stray).unwrap();
    store.sweep();
    assert!(!stray.exists());
    assert!(Path::new(&mounts[0].source).exists());
}

#[test]
fn labels_are_replaced_or_set_by_name() {
    let (_directory, store) = store();
    let first = labels(&[("a", "1"), ("b", "2")]);
    store.add("k", Role::Container, "", first).unwrap();

    let named = ["b".to_owned()];
    let update = labels(&[("a", "x"), ("b", "3")]);
    let info = store.update("k", update, Some(&named)).unwrap();
    assert_eq!(info.labels, labels(&[("a", "1"), ("b", "3")]));

    let info = store.update("k", labels(&[("c", "4")]), None).unwrap();
    assert_eq!(info.labels, labels(&[("c", "4")]));
    assert_eq!(store.stat("k").unwrap().labels, info.labels);

    let committed = store.update(CHAIN, labels(&[("d", "5")]), None).unwrap();
    assert_eq!(committed.kind(), Kind::Committed);
    assert!(store.update("none", BTreeMap::new(), None).is_err());
}
