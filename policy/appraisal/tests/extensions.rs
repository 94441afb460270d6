//! Every extension of a leaf missing, doubled, too long, of another kind; and every
//! form that AMD really issues, accepted.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use policy_appraisal::{
    Certificate, CertificateError, Check, Crl, CrlError, Endorsements,
    snp::{Product, SigningKey},
};
use support::{
    authority::{self, pss},
    der::{self, IA5_STRING, INTEGER, OCTET_STRING, element, extension, small_integer},
    refusals,
    scene::Scene,
};

const KINDS: [(Product, SigningKey); 4] = [
    (Product::Genoa, SigningKey::Vcek),
    (Product::Turin, SigningKey::Vcek),
    (Product::Genoa, SigningKey::Vlek),
    (Product::Turin, SigningKey::Vlek),
];

#[test]
fn a_missing_extension_is_refused() {
    for (product, kind) in KINDS {
        let scene = Scene::new(product, kind);
        for missing in 0..scene.leaf.amd.len() {
            let mut scene = Scene::new(product, kind);
            let (arcs, _) = scene.leaf.amd.remove(missing);
            assert_eq!(
                refusals(&scene.judge()),
                [Check::Certificate],
                "{product} {kind} {arcs:?}"
            );
        }
    }
}

#[test]
fn a_doubled_extension_is_no_certificate() {
    for (product, kind) in KINDS {
        let scene = Scene::new(product, kind);
        for doubled in &scene.leaf.amd {
            let mut leaf = scene.leaf.clone();
            leaf.amd.push(doubled.clone());
            assert_eq!(
                Certificate::parse(&leaf.build()).unwrap_err(),
                CertificateError::DoubledExtension
            );
        }
    }
}

#[test]
fn an_extension_with_more_than_its_value_is_refused() {
    for (product, kind) in KINDS {
        for place in 0..Scene::new(product, kind).leaf.amd.len() {
            for longer in [&[0][..], &[5, 0], &[0; 64]] {
                let mut scene = Scene::new(product, kind);
                let (arcs, value) = &mut scene.leaf.amd[place];
                value.extend(longer);
                let arcs = *arcs;
                assert_eq!(
                    refusals(&scene.judge()),
                    [Check::Certificate],
                    "{product} {kind} {arcs:?}"
                );
            }
        }
    }
}

#[test]
fn an_integer_beyond_a_byte_or_in_another_form_is_refused() {
    for value in [
        element(INTEGER, &[1, 0]),
        element(INTEGER, &[0, 10]),
        element(INTEGER, &[0xD9]),
        element(INTEGER, &[]),
        element(OCTET_STRING, &[10]),
        vec![10],
        vec![INTEGER, 1],
        Vec::new(),
    ] {
        for arcs in [
            &[3, 1][..],
            &[3, 2],
            &[3, 3],
            &[3, 8],
            &[3, 4],
            &[3, 7],
            &[1],
        ] {
            let mut scene = Scene::genoa();
            scene.leaf.amd(arcs).clone_from(&value);
            assert_eq!(
                refusals(&scene.judge()),
                [Check::Certificate],
                "{arcs:?} {value:?}"
            );
        }
    }
}

#[test]
fn reserved_components_must_be_zero() {
    for arcs in [&[3, 4][..], &[3, 5], &[3, 6], &[3, 7]] {
        let mut scene = Scene::genoa();
        *scene.leaf.amd(arcs) = small_integer(1);
        assert_eq!(refusals(&scene.judge()), [Check::Certificate], "{arcs:?}");
    }
}

#[test]
fn each_certified_component_is_compared_with_the_report() {
    for (product, components) in [
        (
            Product::Genoa,
            &[&[3, 1][..], &[3, 2], &[3, 3], &[3, 8]][..],
        ),
        (
            Product::Turin,
            &[&[3, 1][..], &[3, 2], &[3, 3], &[3, 8], &[3, 9]],
        ),
    ] {
        for arcs in components {
            let mut scene = Scene::new(product, SigningKey::Vcek);
            *scene.leaf.amd(arcs) = small_integer(0x7E);
            assert_eq!(
                refusals(&scene.judge()),
                [Check::TcbBinding],
                "{product} {arcs:?}"
            );
        }
    }
}

#[test]
fn hardware_id_is_raw_or_wrapped() {
    let mut wrapped = Scene::genoa();
    let id = wrapped.leaf.amd(&[4]).clone();
    *wrapped.leaf.amd(&[4]) = element(OCTET_STRING, &id);
    assert!(wrapped.judge().is_accepted());
    for wrong in [
        id[..63].to_vec(),
        element(OCTET_STRING, &id[..63]),
        element(IA5_STRING, &id),
    ] {
        let mut scene = Scene::genoa();
        *scene.leaf.amd(&[4]) = wrong;
        assert_eq!(refusals(&scene.judge()), [Check::Certificate]);
    }
    let mut other = Scene::genoa();
    other.leaf.amd(&[4])[0] ^= 1;
    assert_eq!(refusals(&other.judge()), [Check::ChipId]);
}

#[test]
fn extensions_of_the_other_kind_are_refused() {
    let mut vcek = Scene::genoa();
    vcek.leaf
        .amd
        .push((&[5], element(IA5_STRING, b"CN=cc.example.com")));
    assert_eq!(refusals(&vcek.judge()), [Check::Certificate]);
    let mut vlek = Scene::new(Product::Genoa, SigningKey::Vlek);
    vlek.leaf.amd.push((&[4], vec![0; 64]));
    assert_eq!(refusals(&vlek.judge()), [Check::Certificate]);
    let mut genoa = Scene::genoa();
    genoa.leaf.amd.push((&[3, 9], small_integer(0)));
    assert_eq!(refusals(&genoa.judge()), [Check::Certificate]);
    let mut turin = Scene::new(Product::Turin, SigningKey::Vcek);
    turin.leaf.amd.push((&[3, 4], small_integer(0)));
    assert_eq!(refusals(&turin.judge()), [Check::Certificate]);
}

#[test]
fn product_name_structure_and_chain_agree() {
    for name in ["Venice", "genoa", "Genoa\0", "", "Genoa-B0x"] {
        let mut scene = Scene::genoa();
        *scene.leaf.amd(&[2]) = element(IA5_STRING, name.as_bytes());
        assert_eq!(refusals(&scene.judge()), [Check::Certificate], "{name:?}");
    }
    let mut milan = Scene::genoa();
    *milan.leaf.amd(&[2]) = element(IA5_STRING, b"Milan-B0");
    assert_eq!(refusals(&milan.judge()), [Check::Chain]);
    let mut version = Scene::genoa();
    *version.leaf.amd(&[1]) = small_integer(1);
    assert_eq!(refusals(&version.judge()), [Check::Certificate]);
}

#[test]
fn both_encodings_of_the_algorithm_are_accepted() {
    for spelt_out in [false, true] {
        let mut scene = Scene::genoa();
        scene.leaf.certificate.spelt_out = spelt_out;
        scene.issuer.spelt_out = spelt_out;
        assert!(scene.judge().is_accepted());
    }
}

#[test]
fn any_other_algorithm_is_no_certificate() {
    let scene = Scene::genoa();
    let mut mixed = scene.leaf.clone();
    mixed.certificate.inner_algorithm = Some(pss(true));
    assert_eq!(
        Certificate::parse(&mixed.build()).unwrap_err(),
        CertificateError::Algorithm
    );
    let mut salt = pss(false);
    *salt.last_mut().unwrap() = 32;
    mixed.certificate.inner_algorithm = Some(salt);
    assert_eq!(
        Certificate::parse(&mixed.build()).unwrap_err(),
        CertificateError::Algorithm
    );
}

#[test]
fn an_unknown_critical_extension_is_no_certificate() {
    let scene = Scene::genoa();
    let mut leaf = scene.leaf.clone();
    leaf.certificate
        .extensions
        .push(extension(&[0x2A, 0x03], true, &[5, 0]));
    assert_eq!(
        Certificate::parse(&leaf.build()).unwrap_err(),
        CertificateError::CriticalExtension
    );
    leaf.certificate.extensions = vec![extension(&[0x2A, 0x03], false, &[5, 0])];
    assert!(Certificate::parse(&leaf.build()).is_ok());
}

#[test]
fn a_leaf_that_cannot_be_read_does_not_hide_one_that_can() {
    let scene = Scene::genoa();
    let mut broken = scene.leaf.clone();
    broken.amd.pop();
    let mut endorsements = Endorsements::parse(&broken.build()).unwrap();
    endorsements.add(&scene.leaf.build()).unwrap();
    endorsements.add(&scene.issuer.build()).unwrap();
    endorsements
        .add_crl(&scene.crl.as_ref().unwrap().build())
        .unwrap();
    assert!(
        scene
            .judge_with(&endorsements, &scene.roots())
            .is_accepted()
    );
}

#[test]
fn a_partial_revocation_list_is_none() {
    let mut crl = authority::CrlSpec::of(Product::Genoa);
    crl.extensions = vec![extension(&[0x55, 0x1D, 0x14], false, &small_integer(7))];
    assert!(Crl::parse(&crl.build()).is_ok());
    crl.extensions = vec![extension(&[0x55, 0x1D, 0x1C], true, &der::sequence(&[]))];
    assert_eq!(
        Crl::parse(&crl.build()).unwrap_err(),
        CrlError::CriticalExtension
    );
}
