use super::*;
use crate::{JweError, KeyError, OfflineKeys, PrivateKeyError, packet::PacketError};

/// Made for this project; Apache-2.0 like the rest of it.
const VECTOR: &str = include_str!("../../tests/vectors/layer-key-annotation.json");

#[derive(Deserialize)]
struct Vector {
    kek_hex: String,
    packet_v1: serde_json::Value,
    packet_v2: serde_json::Value,
    annotation_value_v1: String,
    unwrapped_utf8: String,
}

fn vector() -> Vector {
    serde_json::from_str(VECTOR).unwrap()
}

fn keys(kek: &[u8]) -> OfflineKeys {
    let mut keys = OfflineKeys::default();
    keys.add(format!(r#"{{"default/key/1":"{}"}}"#, STANDARD.encode(kek)).as_bytes())
        .unwrap();
    keys
}

fn kek() -> Vec<u8> {
    hex::decode(vector().kek_hex).unwrap()
}

fn annotations(packets: &str) -> BTreeMap<String, String> {
    let hmac = STANDARD.encode([7; 32]);
    let public = format!(r#"{{"cipher":"{CIPHER}","hmac":"{hmac}","cipheroptions":{{}}}}"#);
    BTreeMap::from([
        (PUBLIC_OPTIONS.to_owned(), STANDARD.encode(public)),
        (
            format!("{PROVIDER_PREFIX}attestation-agent"),
            packets.to_owned(),
        ),
    ])
}

fn encoded(packet: &serde_json::Value) -> String {
    STANDARD.encode(packet.to_string())
}

/// The packet of version 1 with one member changed or, for `null`, removed.
fn changed(member: &str, value: serde_json::Value) -> String {
    let mut packet = vector().packet_v1;
    let members = packet.as_object_mut().unwrap();
    match value {
        serde_json::Value::Null => drop(members.remove(member)),
        value => drop(members.insert(member.to_owned(), value)),
    }
    encoded(&packet)
}

fn failure(packets: &str) -> PacketError {
    match LayerKey::unwrap(&annotations(packets), &keys(&kek()), &[]) {
        Err(LayerKeyError::Packets { last, .. }) => last,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it unwrapped"),
    }
}

#[test]
fn packets_of_both_versions_unwrap_to_the_known_options() {
    let vector = vector();
    let expected: PrivateOptions = serde_json::from_str(&vector.unwrapped_utf8).unwrap();
    for packet in [
        vector.annotation_value_v1,
        encoded(&vector.packet_v1),
        encoded(&vector.packet_v2),
    ] {
        let key = LayerKey::unwrap(&annotations(&packet), &keys(&kek()), &[]).unwrap();
        assert_eq!(STANDARD.encode(*key.symkey), expected.symkey);
        assert_eq!((key.nonce, key.hmac), ([0x11; 16], [7; 32]));
        assert_eq!(key.digest, expected.digest);
    }
}

#[test]
fn every_packet_is_tried_and_every_form_of_key_id_is_read() {
    let good = encoded(&vector().packet_v1);
    for packets in [
        format!("AAAA,{good}"),
        format!("{good},AAAA"),
        format!("{}, {good}", changed("kid", "/a/b/c".into())),
    ] {
        assert!(LayerKey::unwrap(&annotations(&packets), &keys(&kek()), &[]).is_ok());
    }
    for kid in [
        "/default/key/1",
        "kbs://h:1/default/key/1",
        "h:1/default/key/1",
        "kbs+resource:///default/key/1",
    ] {
        let packet = changed("kid", kid.into());
        assert!(
            LayerKey::unwrap(&annotations(&packet), &keys(&kek()), &[]).is_ok(),
            "{kid}"
        );
    }
}

#[test]
fn unauthenticated_and_unknown_wrappings_are_refused_by_name() {
    assert!(
        matches!(failure(&changed("wrap_type", "A256CTR".into())), PacketError::WrapType(name) if name == "A256CTR")
    );
    assert!(
        matches!(failure(&changed("provider", "aliyun".into())), PacketError::Provider(name) if name == "aliyun")
    );
    assert!(matches!(
        failure(&changed("version", "0.2.0".into())),
        PacketError::Version(_)
    ));
    assert!(matches!(
        failure(&changed("wrap_type", serde_json::Value::Null)),
        PacketError::Member("wrap_type")
    ));
    for (iv, words) in [
        ("AAAA", "`iv` has 3 bytes instead of 12"),
        ("?", "lacks a valid `iv`"),
    ] {
        let error = failure(&changed("iv", iv.into())).to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = failure(&changed("kid", serde_json::Value::Null));
    assert!(matches!(error, PacketError::NoKeyId));
    assert!(matches!(
        failure(&changed("kid", "nothing".into())),
        PacketError::KeyId(_)
    ));
    assert!(matches!(
        failure(&changed("kid", "/a/b/c".into())),
        PacketError::Key(KeyError::Absent(_))
    ));
    assert!(matches!(failure("AAAA"), PacketError::Json(_)));
    assert!(matches!(failure("A"), PacketError::Base64));
    let deep = format!("{}{}", r#"{"x":"#.repeat(200_000), "}".repeat(200_000));
    let PacketError::Json(cause) = failure(&STANDARD.encode(&deep[..50_000])) else {
        panic!("not the error");
    };
    assert!(
        cause.to_string().contains("nested more than 128"),
        "{cause}"
    );
}

#[test]
fn wrong_keys_and_changed_packets_do_not_open() {
    let packet = encoded(&vector().packet_v1);
    for (kek, is_length) in [(vec![0; 32], false), (vec![0; 16], true)] {
        let result = LayerKey::unwrap(&annotations(&packet), &keys(&kek), &[]).err();
        match result {
            Some(LayerKeyError::Packets {
                last: PacketError::Authentication(_),
                ..
            }) => assert!(!is_length),
            Some(LayerKeyError::Packets {
                last: PacketError::KeyLength(_),
                ..
            }) => assert!(is_length),
            _ => panic!("not the error"),
        }
    }
    let mut wrapped = STANDARD
        .decode(vector().packet_v1["wrapped_data"].as_str().unwrap())
        .unwrap();
    wrapped[10] ^= 1;
    assert!(matches!(
        failure(&changed("wrapped_data", STANDARD.encode(wrapped).into())),
        PacketError::Authentication(_)
    ));
}

#[test]
fn options_without_mac_or_with_another_cipher_are_refused() {
    let packet = encoded(&vector().packet_v1);
    let with_public = |json: &str| {
        let mut annotations = annotations(&packet);
        annotations.insert(PUBLIC_OPTIONS.to_owned(), STANDARD.encode(json));
        LayerKey::unwrap(&annotations, &keys(&kek()), &[])
            .err()
            .unwrap()
    };
    let no_mac = format!(r#"{{"cipher":"{CIPHER}","cipheroptions":{{}}}}"#);
    assert!(matches!(
        with_public(&no_mac),
        LayerKeyError::Option("hmac")
    ));
    let short = format!(r#"{{"cipher":"{CIPHER}","hmac":"AAAA","cipheroptions":{{}}}}"#);
    let short = with_public(&short).to_string();
    assert!(
        short.contains("`hmac` has 3 bytes instead of 32"),
        "{short}"
    );
    assert!(matches!(
        with_public(r#"{"cipher":"ROT13"}"#),
        LayerKeyError::Cipher(_)
    ));
    assert!(matches!(with_public("x"), LayerKeyError::Annotation(_)));
    let mut jwe = annotations(&packet);
    jwe.remove(&format!("{PROVIDER_PREFIX}attestation-agent"));
    assert!(matches!(
        LayerKey::unwrap(&jwe, &keys(&kek()), &[]),
        Err(LayerKeyError::Missing(_))
    ));
    jwe.insert(format!("{KEYS_PREFIX}pgp"), "x".to_owned());
    assert!(
        matches!(LayerKey::unwrap(&jwe, &keys(&kek()), &[]), Err(LayerKeyError::Wrapping(name)) if name == "pgp")
    );
}

#[test]
fn a_nonce_in_the_open_is_used() {
    let packet = encoded(&vector().packet_v1);
    let public = format!(
        r#"{{"cipher":"{CIPHER}","hmac":"{0}","cipheroptions":{{"nonce":"{1}"}}}}"#,
        STANDARD.encode([7; 32]),
        STANDARD.encode([8; 16])
    );
    let mut annotations = annotations(&packet);
    annotations.insert(PUBLIC_OPTIONS.to_owned(), STANDARD.encode(public));
    let key = LayerKey::unwrap(&annotations, &keys(&kek()), &[]).unwrap();
    assert_eq!(key.nonce, [8; 16]);
}

const BY_SKOPEO: &str = include_str!("../../tests/vectors/jwe/layer-rsa-2048.json");
const TWO: &str = include_str!("../../tests/vectors/jwe/two.json");
const RSA: &str = include_str!("../../tests/vectors/jwe/rsa-2048.pem");
const P256: &str = include_str!("../../tests/vectors/jwe/p256.pem");

/// Annotations of a layer that skopeo encrypted for the RSA key.
fn by_skopeo() -> BTreeMap<String, String> {
    serde_json::from_str(BY_SKOPEO).unwrap()
}

/// Resources `default/private-key/N`, from 1.
fn private_keys(pems: &[&str]) -> (OfflineKeys, Vec<ResourceUri>) {
    let (mut keys, mut uris) = (keys(&kek()), Vec::new());
    for (index, pem) in pems.iter().enumerate() {
        let path = format!("default/private-key/{}", index + 1);
        uris.push(ResourceUri::parse(&format!("kbs:///{path}")).unwrap());
        keys.add(format!(r#"{{"{path}":"{}"}}"#, STANDARD.encode(pem)).as_bytes())
            .unwrap();
    }
    (keys, uris)
}

fn jwe_refusal(annotations: &BTreeMap<String, String>, pems: &[&str]) -> LayerKeyError {
    let (keys, uris) = private_keys(pems);
    match LayerKey::unwrap(annotations, &keys, &uris) {
        Err(error) => error,
        Ok(_) => panic!("it unwrapped"),
    }
}

#[test]
fn a_layer_that_skopeo_encrypted_for_a_public_key_unwraps_with_its_private_key() {
    for pems in [&[RSA][..], &[P256, RSA]] {
        let (keys, uris) = private_keys(pems);
        let key = LayerKey::unwrap(&by_skopeo(), &keys, &uris).unwrap();
        assert!(key.digest.unwrap().starts_with("sha256:5c5f6820"));
    }
    // Every JWE of the list is tried.
    let mut annotations = by_skopeo();
    let list = annotations.get_mut(JWE).unwrap();
    *list = format!("AAAA,{}, {list}", STANDARD.encode(r#"{"protected":"e30"}"#));
    let (keys, uris) = private_keys(&[RSA]);
    assert!(LayerKey::unwrap(&annotations, &keys, &uris).is_ok());
}

#[test]
fn packets_come_before_private_keys_which_are_a_second_chance() {
    let vector = vector();
    let mut both = annotations(&vector.annotation_value_v1);
    both.insert(JWE.to_owned(), by_skopeo()[JWE].clone());
    // This private key is not even there.
    let uri = ResourceUri::parse("kbs:///default/private-key/9").unwrap();
    let key = LayerKey::unwrap(&both, &keys(&kek()), &[uri]).unwrap();
    assert_eq!(key.nonce, [0x11; 16]);
    both.insert(format!("{PROVIDER_PREFIX}attestation-agent"), "AAAA".into());
    let (keys, uris) = private_keys(&[RSA]);
    assert!(LayerKey::unwrap(&both, &keys, &uris).is_ok());
    let error = jwe_refusal(&both, &[P256]);
    let text = error.to_string();
    assert!(matches!(error, LayerKeyError::Both { .. }));
    for part in [
        "none of its 1 wrapped keys",
        "not a key provider's packet",
        "by JWE neither",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(matches!(
        jwe_refusal(&both, &[]),
        LayerKeyError::Packets { count: 1, .. }
    ));
}

#[test]
fn jwe_without_a_private_key_names_the_setting() {
    let error = jwe_refusal(&by_skopeo(), &[]);
    assert!(matches!(error, LayerKeyError::NoPrivateKeys));
    assert!(error.to_string().contains("layer_private_key_uris"));
}

#[test]
fn wrong_absent_and_broken_private_keys_are_told_apart() {
    let cause = |pems: &[&str], annotations: &BTreeMap<String, String>| match jwe_refusal(
        annotations,
        pems,
    ) {
        LayerKeyError::Jwe {
            count: 1, cause, ..
        } => cause,
        error => panic!("{error}"),
    };
    assert!(matches!(
        cause(&[P256], &by_skopeo()),
        JweKeyError::Jwe(JweError::Closed)
    ));
    // The broken key explains it, though another was tried and did not open it.
    for pems in [&["x", P256][..], &[P256, "x"]] {
        assert!(matches!(
            cause(pems, &by_skopeo()),
            JweKeyError::Key {
                source: PrivateKeyError::Rejected,
                ..
            }
        ));
    }
    let uri = ResourceUri::parse("kbs:///default/private-key/9").unwrap();
    let absent = LayerKey::unwrap(&by_skopeo(), &keys(&kek()), &[uri]).err();
    assert!(matches!(
        absent,
        Some(LayerKeyError::Jwe {
            cause: JweKeyError::Fetch(KeyError::Absent(_)),
            ..
        })
    ));
    let mut odd = by_skopeo();
    odd.insert(JWE.to_owned(), "?".to_owned());
    assert!(matches!(cause(&[RSA], &odd), JweKeyError::Base64));
    odd.insert(JWE.to_owned(), STANDARD.encode("{}"));
    assert!(matches!(
        cause(&[RSA], &odd),
        JweKeyError::Jwe(JweError::Member("protected"))
    ));
}

#[test]
fn recipients_of_every_kind_are_told() {
    let mut annotations = annotations("AAAA");
    annotations.insert(JWE.to_owned(), format!("x,{}", STANDARD.encode(TWO)));
    annotations.insert(format!("{KEYS_PREFIX}pgp"), "x".to_owned());
    let jwe = |algorithm: &str| Recipient::Jwe {
        algorithm: algorithm.to_owned(),
        id: None,
    };
    assert_eq!(
        Recipient::of(&annotations),
        [
            Recipient::Other("jwe".to_owned()),
            jwe("ECDH-ES+A256KW"),
            jwe("RSA-OAEP"),
            Recipient::Other("pgp".to_owned()),
            Recipient::Unreadable("attestation-agent".to_owned()),
        ]
    );
    assert!(Recipient::of(&BTreeMap::new()).is_empty());
}
