use std::path::Path;

use super::*;

fn layer(name: &str, root_opaque: bool) -> Layer {
    Layer {
        root: name.into(),
        root_stated: false,
        root_opaque,
    }
}

fn names(layers: &[Layer]) -> Vec<&Path> {
    stack(layers)
        .into_iter()
        .map(|layer| layer.root.as_path())
        .collect()
}

#[test]
fn a_chain_id_is_the_digest_of_the_one_below_and_the_diff_id() {
    let [a, b] = [b"a", b"b"].map(|bytes| Digest::sha256(bytes));
    let chain = chain_ids(&[a.clone(), b.clone(), a.clone()]);
    assert_eq!(chain[0], a);
    assert_eq!(chain[1], Digest::sha256(format!("{a} {b}").as_bytes()));
    assert_eq!(
        chain[2],
        Digest::sha256(format!("{} {a}", chain[1]).as_bytes())
    );
}

#[test]
fn of_repeated_layers_the_upper_one_is_mounted() {
    let [a, b] = [layer("a", false), layer("b", false)];
    assert_eq!(
        names(&[a.clone(), b.clone(), a.clone()]),
        [Path::new("a"), Path::new("b")]
    );
    assert_eq!(names(&[b.clone(), a, b]), [Path::new("b"), Path::new("a")]);
}

#[test]
fn nothing_below_an_opaque_root_is_mounted() {
    let layers = [layer("a", false), layer("b", true), layer("c", false)];
    assert_eq!(names(&layers), [Path::new("c"), Path::new("b")]);
}

#[test]
fn wait_for_another_pull_of_the_same_layer_ends_with_the_time_and_does_not_blame_the_network() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let id = Digest::sha256(b"x");
    let find = |limit| store.find_or_claim(&id, &id, &Deadline::within(limit));
    let claim = find(Duration::from_secs(60)).unwrap();
    let error = find(Duration::from_millis(300)).err().unwrap();
    assert!(matches!(error, ClaimError::Over(Over::Late(_))));
    assert!(!error.to_string().contains("network"), "{error}");
    drop(claim);
    assert!(matches!(
        find(Duration::from_secs(60)),
        Ok(Found::Claimed(_))
    ));
}

#[test]
fn what_an_interrupted_pull_left_is_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let staging = store.stage().unwrap();
    std::fs::create_dir_all(staging.root().join("a/b/c")).unwrap();
    std::mem::forget(staging);
    assert!(matches!(
        Store::open(directory.path()),
        Err(StoreError::InUse(_))
    ));
    drop(store);
    Store::open(directory.path()).unwrap();
    assert_eq!(
        std::fs::read_dir(directory.path().join("staging"))
            .unwrap()
            .count(),
        0
    );
}
