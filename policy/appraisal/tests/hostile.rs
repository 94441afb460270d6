//! Lengths that lie and bytes that mean nothing, at every parser: an error, no panic.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::error::Error;

use agent_evidence::{
    MAX_CERTIFICATES_LEN,
    azure::{Attest, HclReport},
};
use policy_appraisal::{
    Certificate, ContainerError, Crl, Endorsements, Evidence, MAX_CERTIFICATE_LEN,
    MAX_CERTIFICATES, MAX_CRL_LEN,
    azure::AzureEvidence,
    replay,
    snp::{JsonEvidence, Product, Roots, ThimCertificates, UnverifiedReport},
};
use proptest::prelude::*;
use support::{authority::CrlSpec, scene::Scene, vector};

const VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";

fn entry(offset: u32, length: u32) -> Vec<u8> {
    [&VCEK[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
}

#[test]
fn a_certificate_cut_off_anywhere_is_refused() {
    let certificate = vector("snp/milan-v2-azure.vcek.der");
    assert!(Certificate::parse(&certificate).is_ok());
    for length in 0..certificate.len() {
        assert!(
            Certificate::parse(&certificate[..length]).is_err(),
            "{length}"
        );
    }
    let mut longer = certificate;
    longer.push(0);
    assert!(Certificate::parse(&longer).is_err());
}

#[test]
fn a_list_cut_off_anywhere_is_refused() {
    let crl = CrlSpec {
        revoked: vec![1, 2],
        ..CrlSpec::of(Product::Genoa)
    }
    .build();
    assert!(Crl::parse(&crl).is_ok());
    for length in 0..crl.len() {
        assert!(Crl::parse(&crl[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_certificate_with_any_byte_changed_endorses_nothing() {
    let scene = Scene::genoa();
    let (leaf, roots) = (scene.leaf.build(), scene.roots());
    let report = UnverifiedReport::parse(&scene.signed()).unwrap();
    let mut rest = Endorsements::parse(&scene.issuer.build()).unwrap();
    rest.add_crl(&scene.crl.as_ref().unwrap().build()).unwrap();
    for place in 0..leaf.len() {
        let mut changed = leaf.clone();
        changed[place] ^= 1;
        let mut endorsements = rest.clone();
        if endorsements.add(&changed).is_ok() {
            let judged =
                report
                    .clone()
                    .authenticate(&endorsements, &roots, &scene.references, scene.at);
            assert!(judged.is_err(), "byte {place}");
        }
    }
}

#[test]
fn a_table_that_lies_is_refused() {
    let leaf = vector("snp/genoa-v3.vcek.der");
    let length = u32::try_from(leaf.len()).unwrap();
    let table = |offset, length| [&entry(offset, length)[..], &[0; 24], &leaf].concat();
    assert!(Endorsements::parse(&table(48, length)).is_ok());
    for (offset, length) in [
        (48, length + 1),
        (48, u32::MAX),
        (u32::MAX, length),
        (u32::MAX, u32::MAX),
        (47, length),
        (0, 48),
        (49, length),
        (48, length - 1),
    ] {
        assert!(
            Endorsements::parse(&table(offset, length)).is_err(),
            "{offset} {length}"
        );
    }
    assert!(matches!(
        Endorsements::parse(&entry(48, 0)),
        Err(ContainerError::Table(_))
    ));
    let endless = entry(0, 0).repeat(MAX_CERTIFICATES + 1);
    assert!(Endorsements::parse(&[&endless[..], &[0; 24]].concat()).is_err());
}

#[test]
fn an_empty_table_is_no_error() {
    assert_eq!(
        Endorsements::parse(&[0; 16384]).unwrap(),
        Endorsements::default()
    );
    assert_eq!(Endorsements::parse(&[]).unwrap(), Endorsements::default());
}

#[test]
fn pem_that_is_not_pem_is_refused() {
    for text in [
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE",
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END X509 CRL-----",
    ] {
        assert!(Endorsements::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn more_than_the_limit_is_refused_unread() {
    assert!(Certificate::parse(&vec![0x30; MAX_CERTIFICATE_LEN + 1]).is_err());
    assert!(Crl::parse(&vec![0x30; MAX_CRL_LEN + 1]).is_err());
    assert!(Endorsements::parse(&vec![0; MAX_CERTIFICATES_LEN + 1]).is_err());
    assert!(HclReport::parse(&vec![0; 64 * 1024 + 1]).is_err());
    assert!(JsonEvidence::parse(&vec![b' '; 1024 * 1024 + 1]).is_err());
}

/// Nesting is limited in members that nobody reads as in those that are read.
#[test]
fn no_document_is_nested_deeper_than_the_limit() {
    let with_unread = |document: &[u8], depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let text = std::str::from_utf8(document).unwrap();
        text.replacen('{', &format!(r#"{{"unread":{open}1{close},"#), 1)
            .into_bytes()
    };
    // What each parser says; nothing if it takes the document.
    type Said = Option<Box<dyn Error>>;
    let any: fn(&[u8]) -> Said = |text| Some(Evidence::parse(text).err()?.into());
    let azure: fn(&[u8]) -> Said = |text| Some(AzureEvidence::parse(text).err()?.into());
    let thim: fn(&[u8]) -> Said = |text| Some(ThimCertificates::parse(text).err()?.into());
    let snp: fn(&[u8]) -> Said = |text| Some(JsonEvidence::parse(text).err()?.into());
    for (name, said) in [
        ("azure-vtpm/evidence-v0.json", any),
        ("azure-vtpm/evidence-v1.json", any),
        ("azure-vtpm/evidence-v2.json", any),
        ("azure-vtpm/evidence-v2.json", azure),
        ("kbs/snp-evidence-genoa.json", any),
        ("kbs/snp-evidence-genoa.json", snp),
        ("azure-aci/uvm_host_amd_certificate.json", thim),
    ] {
        let document = vector(name);
        let taken = said(&with_unread(&document, 127));
        assert!(taken.is_none(), "{name}: {taken:?}");
        for depth in [128, 200_000] {
            let error = said(&with_unread(&document, depth)).expect("it is nested too deep");
            let cause = error.source().expect("the error has its cause").to_string();
            assert_eq!(cause, "it is nested more than 128 deep", "{name}");
        }
    }
}

#[test]
fn a_report_has_exactly_its_length() {
    for length in [0, 1183, 1185, 4000] {
        assert!(UnverifiedReport::parse(&vec![0; length]).is_err());
    }
}

proptest! {
    #[test]
    fn parsers_take_anything(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = Certificate::parse(&bytes);
        let _ = Crl::parse(&bytes);
        let _ = Endorsements::parse(&bytes);
        let _ = Roots::parse(&bytes);
        let _ = HclReport::parse(&bytes);
        let _ = Attest::parse(&bytes);
        let _ = replay(&bytes);
        let _ = Evidence::parse(&bytes);
        let _ = AzureEvidence::parse(&bytes);
        let _ = ThimCertificates::parse(&bytes);
    }

    #[test]
    fn certificates_take_changes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut certificate = vector("snp/turin.vcek.der");
        for (place, byte) in changes {
            let place = place.index(certificate.len());
            certificate[place] = byte;
        }
        let _ = Certificate::parse(&certificate);
    }

    #[test]
    fn any_report_can_be_located_and_written(bytes in prop::collection::vec(any::<u8>(), 1184)) {
        let report = UnverifiedReport::parse(&bytes).unwrap();
        let locator = report.locator();
        for product in Product::ALL {
            let _ = locator.kds_request(product);
        }
        let evidence = JsonEvidence { report, endorsements: Endorsements::default() };
        prop_assert!(JsonEvidence::parse(evidence.to_json().as_bytes()).is_ok());
    }
}
