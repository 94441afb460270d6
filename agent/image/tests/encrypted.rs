//! Encrypted layers: all six media types, mixed with plain ones, and their tampered variants.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use agent_image::Puller;
use agent_image_registry::Digest;
use agent_keys::{Cached, KeyError, KeyProvider, OfflineKeys, ResourceUri, Secret};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey},
    iv::FixedLength,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use support::*;

const KEK: [u8; 32] = [0x42; 32];
const PREFIX: &str = "org.opencontainers.image.enc.";

/// A layer encrypted as the key provider's producer side does it.
#[derive(Clone)]
struct Encrypted {
    layer: Layer,
    annotations: BTreeMap<String, String>,
}

fn encrypt(layer: &Layer, seed: u8, change: impl FnOnce(&mut [u8; 32], &mut String)) -> Encrypted {
    let (symkey, nonce) = ([seed; 32], [seed ^ 0xff; 16]);
    let mut inner = Digest::sha256(&layer.stored).to_string();
    let context = EncryptionContext::Iv128(FixedLength::from(nonce));
    let key = UnboundCipherKey::new(&AES_256, &symkey).unwrap();
    let mut cipher = StreamingEncryptingKey::less_safe_ctr(key, context).unwrap();
    let mut stored = vec![0; layer.stored.len() + 16];
    let written = cipher.update(&layer.stored, &mut stored).unwrap();
    let length = written.written().len();
    stored.truncate(length);
    let mut mac = [0; 32];
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &symkey);
    mac.copy_from_slice(aws_lc_rs::hmac::sign(&key, &stored).as_ref());
    change(&mut mac, &mut inner);
    let public = format!(
        r#"{{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"{}","cipheroptions":{{}}}}"#,
        STANDARD.encode(mac)
    );
    let private = format!(
        r#"{{"symkey":"{}","cipheroptions":{{"nonce":"{}"}},"digest":"{inner}"}}"#,
        STANDARD.encode(symkey),
        STANDARD.encode(nonce)
    );
    let mut wrapped = private.into_bytes();
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEK).unwrap())
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key([seed; 12]),
            Aad::empty(),
            &mut wrapped,
        )
        .unwrap();
    let packet = format!(
        r#"{{"kid":"kbs:///default/key/1","wrapped_data":"{}","iv":"{}","wrap_type":"A256GCM"}}"#,
        STANDARD.encode(wrapped),
        STANDARD.encode([seed; 12])
    );
    let annotations = BTreeMap::from([
        (format!("{PREFIX}pubopts"), STANDARD.encode(public)),
        (
            format!("{PREFIX}keys.provider.attestation-agent"),
            STANDARD.encode(packet),
        ),
    ]);
    let media_type = format!("{}+encrypted", layer.media_type);
    Encrypted {
        layer: Layer {
            media_type,
            stored,
            ..layer.clone()
        },
        annotations,
    }
}

const PRIVATE_KEY: &str = include_str!("../../keys/tests/vectors/jwe/p521.pem");
/// Keys and nonces of layers with the seeds 1, 2 and 3, sealed by `policy-images` for the
/// public key that belongs to [`PRIVATE_KEY`].
const JWES: [&str; 3] = [
    include_str!("vectors/jwe/layer-1.json"),
    include_str!("vectors/jwe/layer-2.json"),
    include_str!("vectors/jwe/layer-3.json"),
];

/// The same layer with its key wrapped for a public key instead, as JWE.
fn for_public_key(layer: &Layer, seed: u8) -> Encrypted {
    let mut encrypted = encrypt(layer, seed, |_, _| {});
    let of_packet = format!("{PREFIX}keys.provider.attestation-agent");
    encrypted.annotations.remove(&of_packet);
    let jwe = STANDARD.encode(JWES[usize::from(seed) - 1].trim_end());
    let name = format!("{PREFIX}keys.jwe");
    encrypted.annotations.insert(name, jwe);
    encrypted
}

/// Puts the nonce where everybody can change it, so that only the wrapped digest proves it.
fn with_open_nonce(mut encrypted: Encrypted, nonce: [u8; 16]) -> Encrypted {
    let options = encrypted.annotations.get_mut(&format!("{PREFIX}pubopts"));
    let options = options.unwrap();
    let text = String::from_utf8(STANDARD.decode(&*options).unwrap()).unwrap();
    let nonce = format!(r#"{{"nonce":"{}"}}"#, STANDARD.encode(nonce));
    *options = STANDARD.encode(text.replace("{}", &nonce));
    encrypted
}

fn registry(layers: &[Encrypted]) -> Registry {
    let mut files = Files::default();
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("\"{}\"", layer.layer.diff_id))
        .collect();
    let config = config_json("amd64", &diff_ids.join(","));
    let config_digest = files.blob("x", config.as_bytes());
    let mut descriptors = Vec::new();
    for Encrypted { layer, annotations } in layers {
        let digest = files.blob("x", &layer.stored);
        let annotations = serde_json::to_string(annotations).unwrap();
        descriptors.push(format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":{},"annotations":{annotations}}}"#,
            layer.media_type,
            layer.stored.len()
        ));
    }
    let manifest = manifest_json(&config_digest, config.len(), &descriptors.join(","));
    files.manifest("x", "latest", OCI_MANIFEST, manifest.as_bytes());
    Registry::serving(files)
}

struct Counting {
    keys: OfflineKeys,
    asked: Arc<AtomicUsize>,
}

impl KeyProvider for Counting {
    fn fetch(&self, uri: &ResourceUri) -> Result<Secret, KeyError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.keys.fetch(uri)
    }
}

const PRIVATE_PATH: &str = "default/private-key/1";

fn puller(
    registry: &Registry,
    store: &std::path::Path,
    kek: [u8; 32],
) -> (Puller, Arc<AtomicUsize>) {
    puller_with(registry, store, kek, &[])
}

fn puller_with(
    registry: &Registry,
    store: &std::path::Path,
    kek: [u8; 32],
    private_keys: &[ResourceUri],
) -> (Puller, Arc<AtomicUsize>) {
    let mut keys = OfflineKeys::default();
    keys.add(format!(r#"{{"default/key/1":"{}"}}"#, STANDARD.encode(kek)).as_bytes())
        .unwrap();
    keys.add(format!(r#"{{"{PRIVATE_PATH}":"{}"}}"#, STANDARD.encode(PRIVATE_KEY)).as_bytes())
        .unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut config = registry.config(store);
    config.keys = Some(Arc::new(Cached::new(Counting {
        keys,
        asked: asked.clone(),
    })));
    config.private_keys = private_keys.to_vec();
    (Puller::build(config).unwrap(), asked)
}

fn archive(name: &str) -> Vec<u8> {
    let content: Vec<u8> = (0..600_000u32)
        .map(|n| u8::try_from(n.wrapping_mul(n) >> 13 & 0xff).unwrap())
        .collect();
    Tar::new().file(name, &content).end()
}

#[test]
fn all_encrypted_types_mixed_with_plain_ones_are_pulled_with_one_key_request() {
    let mut layers = Vec::new();
    for (index, make) in [plain, gzip, zstd, plain, gzip, zstd]
        .into_iter()
        .enumerate()
    {
        let mut layer = make(&archive(&format!("f{index}")));
        if index > 2 {
            layer.media_type = layer.media_type.replace(".v1.", ".nondistributable.v1.");
        }
        layers.push(encrypt(&layer, u8::try_from(index).unwrap() + 1, |_, _| {}));
    }
    layers.push(Encrypted {
        layer: gzip(&archive("plain")),
        annotations: BTreeMap::new(),
    });
    let registry = registry(&layers);
    let directory = directory();
    let (puller, asked) = puller(&registry, &directory.path().join("store"), KEK);
    let image = puller
        .pull(&registry.reference("x"))
        .unwrap_or_else(|error| panic!("{}", error.sentence()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let rootfs = puller
        .assemble(&image, &directory.path().join("bundle"))
        .unwrap();
    assert_eq!(std::fs::read_dir(rootfs.path()).unwrap().count(), 7);
}

#[test]
fn layers_for_a_public_key_are_pulled_with_one_request_for_the_private_key() {
    let layers = [1, 2, 3].map(|n| for_public_key(&gzip(&archive(&format!("f{n}"))), n));
    let registry = registry(&layers);
    let directory = directory();
    let uri = ResourceUri::parse(&format!("kbs:///{PRIVATE_PATH}")).unwrap();
    let (with_key, asked) = puller_with(&registry, &directory.path().join("store"), KEK, &[uri]);
    let image = with_key
        .pull(&registry.reference("x"))
        .unwrap_or_else(|error| panic!("{}", error.sentence()));
    assert_eq!((image.reports.len(), asked.load(Ordering::SeqCst)), (3, 1));
    // The provider has it, but nobody says that it is a private key.
    let (without, asked) = puller(&registry, &directory.path().join("other"), KEK);
    let sentence = without
        .pull(&registry.reference("x"))
        .unwrap_err()
        .sentence();
    assert!(sentence.contains("`layer_private_key_uris`"), "{sentence}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

fn refusal(layer: Encrypted, kek: [u8; 32]) -> String {
    let registry = registry(&[layer]);
    let directory = directory();
    let store = directory.path().join("store");
    let (puller, _) = puller(&registry, &store, kek);
    let sentence = puller
        .pull(&registry.reference("x"))
        .unwrap_err()
        .sentence();
    assert_eq!(std::fs::read_dir(store.join("layers")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(store.join("staging")).unwrap().count(), 0);
    sentence
}

#[test]
fn tampered_layers_are_refused_with_the_name_of_the_check() {
    for make in [plain, gzip, zstd] {
        let layer = make(&archive("f"));
        let wrong_mac = refusal(encrypt(&layer, 1, |mac, _| mac[0] ^= 1), KEK);
        assert!(wrong_mac.contains("HMAC does not match"), "{wrong_mac}");
        let wrong_digest = refusal(
            encrypt(&layer, 1, |_, inner| {
                *inner = Digest::sha256(b"other").to_string()
            }),
            KEK,
        );
        assert!(
            wrong_digest.contains("does not decrypt to what was encrypted"),
            "{wrong_digest}"
        );
        let right = encrypt(&layer, 1, |_, _| {});
        let other_nonce = refusal(with_open_nonce(right, [0xff; 16]), KEK);
        assert!(
            other_nonce.contains("does not decrypt to what was encrypted"),
            "{other_nonce}"
        );
        let wrong_key = refusal(encrypt(&layer, 1, |_, _| {}), [0; 32]);
        assert!(
            wrong_key.contains("key `kbs:///default/key/1` does not open it"),
            "{wrong_key}"
        );
        // Changed with its digest, as somebody who owns the registry would.
        let mut changed = encrypt(&layer, 1, |_, _| {});
        let middle = changed.layer.stored.len() / 2;
        changed.layer.stored[middle] ^= 4;
        let changed = refusal(changed, KEK);
        assert!(changed.contains("HMAC does not match"), "{changed}");
        let mut foreign = encrypt(&layer, 1, |_, _| {});
        foreign.annotations = encrypt(&layer, 2, |_, _| {}).annotations;
        let foreign = refusal(foreign, KEK);
        assert!(foreign.contains("HMAC does not match"), "{foreign}");
    }
}

#[test]
fn encrypted_layers_without_keys_or_annotations_are_refused() {
    let layer = encrypt(&gzip(&archive("f")), 1, |_, _| {});
    let bare = refusal(
        Encrypted {
            annotations: BTreeMap::new(),
            ..layer.clone()
        },
        KEK,
    );
    assert!(
        bare.contains("annotation `org.opencontainers.image.enc.pubopts` is missing"),
        "{bare}"
    );
    let registry = registry(&[layer]);
    let directory = directory();
    let keyless = registry
        .puller(&directory.path().join("store"))
        .pull(&registry.reference("x"))
        .unwrap_err();
    assert!(keyless.sentence().contains("this pull has no keys"));
}
