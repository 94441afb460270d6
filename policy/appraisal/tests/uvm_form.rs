//! UVM endorsements that are not in form: each is refused when it is read.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use policy_appraisal::{
    Endorsements,
    uvm::{CborError, EndorsementFormError, MAX_ENDORSEMENT_LEN, UnverifiedEndorsement},
};
use support::{
    scene::Scene,
    uvm::{
        EndorsementSpec, Entries, array, bytes, entry, head, in_pss, integer, judge, text,
        unknown_critical, with_two_algorithms,
    },
};

/// What the signer does to the header.
type Change = fn(&mut Entries);

fn drop_entry(entries: &mut Entries, label: &[u8]) {
    entries.retain(|(each, _)| each != label);
}

fn form_error(change: fn(&mut EndorsementSpec)) -> EndorsementFormError {
    let mut spec = EndorsementSpec::new();
    change(&mut spec);
    UnverifiedEndorsement::parse(&spec.build()).unwrap_err()
}

fn in_header(change: Change) -> EndorsementFormError {
    let mut spec = EndorsementSpec::new();
    spec.header = change;
    UnverifiedEndorsement::parse(&spec.build()).unwrap_err()
}

#[test]
fn each_header_entry_must_be_there_and_known() {
    use EndorsementFormError as E;
    let absent: [(Change, &str); 6] = [
        (|h| drop_entry(h, &integer(1)), "algorithm"),
        (|h| drop_entry(h, &integer(3)), "content type"),
        (|h| drop_entry(h, &integer(33)), "x5chain"),
        (|h| drop_entry(h, &text("iss")), "iss"),
        (|h| drop_entry(h, &text("feed")), "feed"),
        (|h| drop_entry(h, &text("signingtime")), "signingtime"),
    ];
    for (change, name) in absent {
        assert_eq!(in_header(change), E::Missing(name));
    }
    let set: [(Change, E); 12] = [
        (|h| *entry(h, &integer(1)) = integer(-37), E::Algorithm(-37)),
        (
            |h| *entry(h, &integer(1)) = integer(-257),
            E::Algorithm(-257),
        ),
        (
            |h| *entry(h, &integer(3)) = text("application/cbor"),
            E::ContentType,
        ),
        (
            |h| *entry(h, &integer(33)) = bytes(&[0x30]),
            E::ChainLength(1),
        ),
        (|h| *entry(h, &integer(33)) = array(&[]), E::ChainLength(0)),
        (
            |h| *entry(h, &integer(33)) = array(&[&head(2, 0)[..]; 4]),
            E::ChainLength(4),
        ),
        (
            |h| *entry(h, &integer(34)) = array(&[&integer(-43), &bytes(&[0; 48])]),
            E::Thumbprint,
        ),
        (
            |h| *entry(h, &integer(34)) = array(&[&integer(-16), &bytes(&[0; 31])]),
            E::Thumbprint,
        ),
        (
            |h| *entry(h, &text("signingtime")) = [head(6, 0), text("2024")].concat(),
            E::SigningTime,
        ),
        (
            |h| *entry(h, &text("signingtime")) = [head(6, 1), integer(-1)].concat(),
            E::SigningTime,
        ),
        (
            |h| h.push((integer(2), array(&[&text("iss")]))),
            E::Critical,
        ),
        (|h| h.push((integer(15), head(5, 0))), E::CwtClaims),
    ];
    for (change, error) in set {
        assert_eq!(in_header(change), error);
    }
    let mut unlisted = EndorsementSpec::new();
    unlisted.header = |h| h.push((text("other"), array(&[&integer(1)])));
    assert!(
        judge(&unlisted).is_accepted(),
        "an unlisted entry means nothing"
    );
    unlisted.header = |h| drop_entry(h, &integer(34));
    assert!(judge(&unlisted).is_accepted(), "the thumbprint is optional");
}

#[test]
fn cbor_that_can_be_read_in_two_ways_is_refused_by_name() {
    use EndorsementFormError::{Header, Message};
    let twice = in_header(|h| h.push((text("feed"), text("ConfAKS-AMD-UVM-Debug"))));
    assert_eq!(twice, Header(CborError::DoubledKey));
    let unsigned_twice: fn(&mut EndorsementSpec) = |e| {
        e.tamper = |m| {
            m.unprotected = [head(5, 2), integer(1), integer(1), integer(1), integer(1)].concat()
        };
    };
    assert_eq!(form_error(unsigned_twice), Message(CborError::DoubledKey));
    let indefinite = in_header(|h| *entry(h, &text("feed")) = vec![0x7F, 0x61, b'a', 0xFF]);
    assert_eq!(indefinite, Header(CborError::Indefinite));
    let long_head = in_header(|h| *entry(h, &text("feed")) = vec![0x78, 1, b'a']);
    assert_eq!(long_head, Header(CborError::Head));
    let deep = in_header(|h| h.push((text("x"), [vec![0x81; 5], vec![0]].concat())));
    assert_eq!(deep, Header(CborError::TooDeep));
    let many = in_header(|h| h.extend((100..126).map(|label| (integer(label), integer(0)))));
    assert_eq!(many, Header(CborError::TooMany(33)));
    let longer = form_error(|e| e.tamper = |m| m.protected.push(0));
    assert_eq!(longer, Header(CborError::Trailing(1)));
    let detached = UnverifiedEndorsement::parse(&[0xD2, 0x84, 0x41, 0xA0, 0xA0, 0xF6, 0x40]);
    assert!(matches!(detached, Err(Message(CborError::Kind { .. }))));

    let whole = EndorsementSpec::new().build();
    let parse = |bytes: &[u8]| UnverifiedEndorsement::parse(bytes).unwrap_err();
    let mut changed = whole.clone();
    changed.push(0);
    assert_eq!(parse(&changed), Message(CborError::Trailing(1)));
    changed = whole.clone();
    changed[1] = 0x9F;
    changed.push(0xFF);
    assert_eq!(parse(&changed), Message(CborError::Indefinite));
    assert_eq!(parse(&whole[1..]), EndorsementFormError::Base64);
    assert_eq!(parse(b"not base64"), EndorsementFormError::Base64);
    assert!(matches!(
        parse(STANDARD.encode(&whole[1..]).as_bytes()),
        Message(CborError::Kind { .. })
    ));
    let long = vec![0xD2; MAX_ENDORSEMENT_LEN + 1];
    assert_eq!(parse(&long), EndorsementFormError::TooLong(long.len()));
}

#[test]
fn certificates_of_another_form_are_refused() {
    fn chain_of(leaf: &[u8]) -> Vec<u8> {
        let issuer = EndorsementSpec::new().issuer.build_pkcs1();
        array(&[&bytes(leaf), &bytes(&issuer), &bytes(&issuer)])
    }
    let changes: [Change; 4] = [
        |h| *entry(h, &integer(33)) = chain_of(&in_pss(&EndorsementSpec::new().leaf)),
        |h| *entry(h, &integer(33)) = chain_of(&with_two_algorithms(&EndorsementSpec::new().leaf)),
        |h| {
            let mut leaf = EndorsementSpec::new().leaf;
            leaf.extensions.push(unknown_critical());
            *entry(h, &integer(33)) = chain_of(&leaf.build_pkcs1());
        },
        |h| *entry(h, &integer(33)) = chain_of(b"no certificate"),
    ];
    for change in changes {
        let error = in_header(change);
        assert!(
            matches!(error, EndorsementFormError::Certificate(_)),
            "{error:?}"
        );
    }
}

#[test]
fn a_report_s_chain_has_no_certificate_signed_as_an_endorsement_is() {
    let scene = Scene::genoa();
    let leaf = scene.leaf.certificate.build_pkcs1();
    assert!(Endorsements::parse(&leaf).is_err());
}
