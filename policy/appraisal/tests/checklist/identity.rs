//! What the guest is and who signed for it, against the owner's reference values.

use std::collections::BTreeSet;

use policy_appraisal::{
    Check,
    snp::{CombinedIdentity, Identities, KeyDigest, Product, SigningKey},
};
use serde_json::{Value, json};

use super::{
    judge,
    support::{refusals, scene::*},
};

#[test]
fn identity_is_a_reference_value() {
    judge(&[
        (
            "another measurement",
            |s| s.put(0x90, &[0]),
            &[Check::GuestIdentity],
        ),
        (
            "no reference value",
            |s| s.references.identities = Identities::default(),
            &[Check::GuestIdentity],
        ),
        ("signed", only_signed, &[]),
        (
            "signed, newer",
            |s| {
                only_signed(s);
                s.put(0x04, &[0x81]);
            },
            &[],
        ),
        (
            "signed, older",
            |s| {
                only_signed(s);
                s.put(0x04, &[0x7F]);
            },
            &[Check::GuestIdentity],
        ),
        (
            "signed by nobody, as the reference value absurdly says",
            |s| {
                only_signed(s);
                s.references.identities.signed[0].id_key_digest = KeyDigest::ZERO;
                s.put(0xE0, &[0; 48]);
            },
            &[Check::GuestIdentity],
        ),
    ]);
}

pub(super) fn only_signed(scene: &mut Scene) {
    scene.references.identities = Identities {
        measurements: BTreeSet::new(),
        signed: vec![signed_identity()],
        ..Identities::default()
    };
}

#[test]
fn author_key_is_there_if_key_info_says_so() {
    judge(&[
        (
            "digest without flag",
            |s| s.put(KEY_INFO, &[0]),
            &[Check::AuthorKey],
        ),
        (
            "flag without digest",
            |s| s.put(AUTHOR_KEY, &[0; 48]),
            &[Check::AuthorKey],
        ),
        (
            "neither",
            |s| {
                s.put(KEY_INFO, &[0]);
                s.put(AUTHOR_KEY, &[0; 48]);
            },
            &[],
        ),
    ]);
}

/// Everything that a combined identity names is asked for together.
#[test]
fn combined_identities_ask_for_everything_that_they_name() {
    let all = json!({
        "measurement": "a1".repeat(48),
        "id_key_digest": "a2".repeat(48),
        "author_key_digest": "a3".repeat(48),
        "family_id": "f1".repeat(16),
        "image_id": "f2".repeat(16),
        "guest_svn": 0x80,
    });
    let only = |names: &[&str]| {
        let mut entry = all.clone();
        let members = entry.as_object_mut().unwrap();
        members.retain(|name, _| names.contains(&name.as_str()));
        entry
    };
    let judged = |entry: &Value, change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::genoa();
        scene.references.identities = serde_json::from_value(json!({"combined": [entry]})).unwrap();
        change(&mut scene);
        refusals(&scene.judge())
    };
    let both = ["measurement", "id_key_digest"];
    for accepted in [
        &both[..],
        &both[..1],
        &both[1..],
        &["measurement", "guest_svn"],
        &["id_key_digest", "guest_svn"],
        &[
            "measurement",
            "id_key_digest",
            "author_key_digest",
            "family_id",
            "image_id",
            "guest_svn",
        ],
    ] {
        assert_eq!(judged(&only(accepted), &|_| {}), [], "{accepted:?}");
        assert_eq!(
            judged(&only(accepted), &|s| s.put(0x04, &[0x81])),
            [],
            "{accepted:?}, newer"
        );
        for (named, offset) in [
            ("measurement", 0x90),
            ("id_key_digest", 0xE0),
            ("author_key_digest", AUTHOR_KEY),
            ("family_id", 0x10),
            ("image_id", 0x20),
            ("guest_svn", 0x04),
        ] {
            let refused = judged(&only(accepted), &|s| s.put(offset, &[0x7F]));
            let wanted: &[Check] = match accepted.contains(&named) {
                true => &[Check::GuestIdentity],
                false => &[],
            };
            assert_eq!(refused, wanted, "{accepted:?}, another {named}");
        }
    }
    let mut nobody = only(&both);
    nobody["id_key_digest"] = "00".repeat(48).into();
    let unsigned = judged(&nobody, &|s| s.put(0xE0, &[0; 48]));
    assert_eq!(unsigned, [Check::GuestIdentity], "signed by nobody");
    for wrong in [
        json!({}),
        only(&["guest_svn"]),
        only(&["author_key_digest", "family_id", "image_id"]),
        json!({"measurement": "a1".repeat(48), "svn": 1}),
        json!({"measurement": "a1".repeat(47)}),
    ] {
        assert!(
            serde_json::from_value::<CombinedIdentity>(wrong.clone()).is_err(),
            "{wrong}"
        );
    }
}

/// The owner copies the provider from the certificate; no other spelling is the same.
#[test]
fn providers_are_spelt_as_their_certificate_spells_them() {
    for (spelt, wanted) in [
        (PROVIDER, &[][..]),
        ("cc.example.com", &[Check::SigningKey]),
        ("cn=cc.example.com", &[Check::SigningKey]),
        ("CN=CC.example.com", &[Check::SigningKey]),
        ("CN=cc.example.com ", &[Check::SigningKey]),
        ("CN=cc.example.co", &[Check::SigningKey]),
        ("CN=cc.example.com,O=Example", &[Check::SigningKey]),
        ("", &[Check::SigningKey]),
    ] {
        let mut scene = Scene::new(Product::Genoa, SigningKey::Vlek);
        scene.references.vlek_providers = BTreeSet::from([spelt.to_owned()]);
        let verdict = scene.judge();
        assert_eq!(refusals(&verdict), wanted, "{spelt}\n{verdict}");
    }
}
