//! Certificates from the chip up to the root, and the lists that revoke them.

use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use policy_appraisal::{
    Check, Endorsements, Outcome,
    snp::{Product, Revocation, Roots, SigningKey},
};

use super::{
    judge,
    support::{
        authority::{self, CrlSpec, Signer},
        refusals,
        scene::*,
    },
};
#[test]
fn every_product_and_key_kind_is_accepted() {
    for product in Product::ALL {
        for kind in [SigningKey::Vcek, SigningKey::Vlek] {
            let verdict = Scene::new(product, kind).judge();
            assert!(verdict.is_accepted(), "{product} {kind}\n{verdict}");
        }
    }
}

#[test]
fn chain_ends_at_a_pinned_root() {
    judge(&[
        (
            "leaf by a key nobody trusts",
            |s| s.leaf.certificate.signer = Signer::Other,
            &[Check::Chain],
        ),
        (
            "intermediate by a key nobody trusts",
            |s| s.issuer.signer = Signer::Other,
            &[Check::Chain],
        ),
        (
            "leaf by the root itself",
            |s| s.leaf.certificate.signer = Signer::Root,
            &[Check::Chain],
        ),
        (
            "intermediate that is no authority",
            |s| s.issuer.extensions.clear(),
            &[Check::Chain],
        ),
        (
            "intermediate named for another kind",
            |s| s.issuer.subject = "SEV-VLEK-Genoa".into(),
            &[Check::Chain],
        ),
        (
            "leaf and intermediate named for another product",
            |s| {
                s.issuer.subject = "SEV-Turin".into();
                s.leaf.certificate.issuer = "SEV-Turin".into();
            },
            &[Check::Chain],
        ),
        (
            "root missing for the product",
            |s| s.product = Product::Turin,
            &[Check::Chain],
        ),
    ]);
}

/// AMD's root and intermediates have RSA keys of 4096 bits; a shorter one is easier to
/// come by, whoever signed it.
#[test]
fn root_and_intermediates_have_rsa_keys_of_4096_bits() {
    for kind in [SigningKey::Vcek, SigningKey::Vlek] {
        for (size, wanted) in [
            (KeySize::Rsa2048, &[Check::Chain][..]),
            (KeySize::Rsa3072, &[Check::Chain]),
            (KeySize::Rsa4096, &[]),
        ] {
            let key = Signer::Given(Box::leak(Box::new(RsaKeyPair::generate(size).unwrap())));
            let mut scene = Scene::new(Product::Genoa, kind);
            scene.issuer = authority::issuer_of(scene.product, kind, key);
            scene.leaf.certificate.signer = key;
            assert_eq!(refusals(&scene.judge()), wanted, "{kind} {size:?}");

            let mut scene = Scene::new(Product::Genoa, kind);
            let root = authority::root_of(scene.product, key).build();
            scene.issuer.signer = key;
            scene.crl.as_mut().unwrap().signer = key;
            let verdict = scene.judge_with(&scene.endorsements(), &Roots::parse(&root).unwrap());
            assert_eq!(refusals(&verdict), wanted, "root, {kind} {size:?}");
        }
    }
}

#[test]
fn an_empty_set_of_roots_accepts_nothing() {
    let scene = Scene::genoa();
    let verdict = scene.judge_with(&scene.endorsements(), &Roots::default());
    assert_eq!(refusals(&verdict), [Check::Chain]);
    assert_eq!(verdict.outcome(Check::Debug), Some(Outcome::NotReached));
}

#[test]
fn amd_roots_do_not_accept_a_test_chip() {
    let scene = Scene::genoa();
    let mut carried = scene.endorsements();
    carried
        .add(&authority::root(Product::Genoa).build())
        .unwrap();
    assert_eq!(
        refusals(&scene.judge_with(&carried, &Roots::amd())),
        [Check::Chain]
    );
}

#[test]
fn no_certificate_is_refused_by_name() {
    let scene = Scene::genoa();
    let verdict = scene.judge_with(&Endorsements::default(), &scene.roots());
    assert_eq!(refusals(&verdict), [Check::Certificate]);
}

#[test]
fn every_certificate_of_the_chain_must_be_valid() {
    judge(&[
        (
            "last second",
            |s| s.at = "2031-01-01T00:00:00Z".parse().unwrap(),
            &[Check::Revocation],
        ),
        (
            "leaf expired",
            |s| s.leaf.certificate.validity.1 = "20250531235959Z",
            &[Check::Validity],
        ),
        (
            "leaf not yet valid",
            |s| s.leaf.certificate.validity.0 = "20250601000001Z",
            &[Check::Validity],
        ),
        (
            "leaf valid from now",
            |s| s.leaf.certificate.validity.0 = "20250601000000Z",
            &[],
        ),
        (
            "intermediate expired",
            |s| s.issuer.validity.1 = "20250531235959Z",
            &[Check::Validity],
        ),
    ]);
}

#[test]
fn revocation_needs_a_fresh_list_of_the_root() {
    judge(&[
        ("no list", |s| s.crl = None, &[Check::Revocation]),
        (
            "no list, none required",
            |s| {
                s.crl = None;
                s.references.revocation = Revocation::Optional;
            },
            &[],
        ),
        (
            "older than the limit",
            |s| s.crl.as_mut().unwrap().updates.0 = "20250524235959Z",
            &[Check::Revocation],
        ),
        (
            "as old as the limit",
            |s| s.crl.as_mut().unwrap().updates.0 = "20250525000000Z",
            &[],
        ),
        (
            "from the future",
            |s| s.crl.as_mut().unwrap().updates.0 = "20250601000001Z",
            &[Check::Revocation],
        ),
        (
            "superseded",
            |s| s.crl.as_mut().unwrap().updates.1 = "20250531235959Z",
            &[Check::Revocation],
        ),
        (
            "by another key",
            |s| s.crl.as_mut().unwrap().signer = Signer::Other,
            &[Check::Revocation],
        ),
        (
            "of another root",
            |s| s.crl.as_mut().unwrap().issuer = "ARK-Milan".into(),
            &[Check::Revocation],
        ),
        (
            "naming the intermediate",
            |s| s.crl.as_mut().unwrap().revoked = vec![7, 0x22],
            &[Check::Revocation],
        ),
        (
            "naming the intermediate, none required",
            |s| {
                s.crl.as_mut().unwrap().revoked = vec![0x22];
                s.references.revocation = Revocation::Optional;
            },
            &[Check::Revocation],
        ),
        (
            "naming a leaf's serial number, which is not the root's to name",
            |s| s.crl.as_mut().unwrap().revoked = vec![0],
            &[],
        ),
    ]);
}

#[test]
fn an_older_list_that_names_the_issuer_still_counts() {
    let mut scene = Scene::genoa();
    let mut endorsements = scene.endorsements();
    scene.crl = Some(CrlSpec {
        updates: ("20250101000000Z", "20260101000000Z"),
        revoked: vec![0x22],
        ..CrlSpec::of(Product::Genoa)
    });
    endorsements
        .add_crl(&scene.crl.as_ref().unwrap().build())
        .unwrap();
    assert_eq!(
        refusals(&scene.judge_with(&endorsements, &scene.roots())),
        [Check::Revocation]
    );
}
