//! Sigstore bundles: a signature with what it takes to verify it, as cosign 3 writes them.
//!
//! Format: Sigstore bundle 0.3 (`sigstore_bundle.proto` as JSON), the DSSE envelope
//! 1.0, and the in-toto statement 1. Of what a bundle may carry, only the signature
//! by a key of the policy is believed; entries of transparency logs are not looked
//! at. A statement counts only if it was made to sign an image: the same key may
//! have attested that the image is vulnerable.

use agent_documents::parse_json;
use agent_image_registry::{Original, UniqueMap};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::IgnoredAny};

use super::{public_key::PublicKey, shown::shown};

pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPES: [&str; 2] = [
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
];
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
const SUBJECTS_MAX: usize = 64;

/// Why a bundle is no signature of an image.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    /// Not JSON of the right shape.
    #[error("it is not a Sigstore bundle")]
    Json(#[source] serde_json::Error),
    /// A bundle of another version.
    #[error("its media type is `{0}` instead of `{MEDIA_TYPE}`")]
    MediaType(String),
    /// Signed with a certificate instead of a key.
    #[error(
        "it is signed with a certificate, not with a key; keyless signatures are not supported"
    )]
    Keyless,
    /// Neither an envelope nor a signature, or both.
    #[error("it must hold one envelope or one signature")]
    Content,
    /// An envelope around something else.
    #[error("its envelope has the payload type `{0}` instead of `{PAYLOAD_TYPE}`")]
    PayloadType(String),
    /// No signature, or several.
    #[error("its envelope has {0} signatures instead of one")]
    Signatures(usize),
    /// Not base64.
    #[error("its {0} is not base64")]
    Base64(&'static str),
    /// None of the policy's keys.
    #[error("none of the requirement's keys made its signature")]
    Unverified,
    /// A signed text that is no statement.
    #[error("what it signs is not an in-toto statement")]
    Statement(#[source] serde_json::Error),
    /// A statement that is not about a signature.
    #[error("it states `{0}`, which is not that the image is signed")]
    Predicate(String),
    /// A statement about another image.
    #[error("it is not about this image's manifest")]
    Subject,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<IgnoredAny>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: UniqueMap,
}

/// Finds the key that signed one of the documents, which are an image's manifest and index.
pub(super) fn verify<'k>(
    bytes: &[u8],
    keys: &'k [PublicKey],
    documents: &[Original],
) -> Result<&'k PublicKey, BundleError> {
    let bundle: Bundle = parse_json(bytes).map_err(BundleError::Json)?;
    if bundle.media_type != MEDIA_TYPE {
        return Err(BundleError::MediaType(shown(&bundle.media_type)));
    }
    let material = bundle.verification_material;
    if material.certificate.is_some()
        || material.x509_certificate_chain.is_some()
        || material.public_key.is_none()
    {
        return Err(BundleError::Keyless);
    }
    match (bundle.dsse_envelope, bundle.message_signature) {
        (Some(envelope), None) => verify_envelope(&envelope, keys, documents),
        (None, Some(message)) => {
            let signature = decode(&message.signature, "signature")?;
            keys.iter()
                .find(|key| {
                    documents
                        .iter()
                        .any(|document| key.verifies(&document.bytes, &signature))
                })
                .ok_or(BundleError::Unverified)
        }
        _ => Err(BundleError::Content),
    }
}

fn verify_envelope<'k>(
    envelope: &Envelope,
    keys: &'k [PublicKey],
    documents: &[Original],
) -> Result<&'k PublicKey, BundleError> {
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(BundleError::PayloadType(shown(&envelope.payload_type)));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(BundleError::Signatures(envelope.signatures.len()));
    };
    let signature = decode(&signature.sig, "signature")?;
    let payload = decode(&envelope.payload, "payload")?;
    let message = authenticated(&envelope.payload_type, &payload);
    let key = keys
        .iter()
        .find(|key| key.verifies(&message, &signature))
        .ok_or(BundleError::Unverified)?;
    let statement: Statement = parse_json(&payload).map_err(BundleError::Statement)?;
    if !STATEMENT_TYPES.contains(&statement.kind.as_str()) {
        return Err(BundleError::Predicate(shown(&statement.kind)));
    }
    if statement.predicate_type != SIGNED {
        return Err(BundleError::Predicate(shown(&statement.predicate_type)));
    }
    let is_named = |document: &Original| {
        let (algorithm, hex) = document.digest.as_str().split_once(':').unwrap_or_default();
        statement.subject.iter().take(SUBJECTS_MAX).any(|subject| {
            subject
                .digest
                .0
                .get(algorithm)
                .is_some_and(|found| found == hex)
        })
    };
    documents
        .iter()
        .any(is_named)
        .then_some(key)
        .ok_or(BundleError::Subject)
}

/// What DSSE signs: type and payload with their lengths.
fn authenticated(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, BundleError> {
    STANDARD.decode(text).map_err(|_| BundleError::Base64(what))
}

#[cfg(test)]
mod tests {
    use agent_image_registry::Digest;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
    };

    use super::*;

    struct Signer {
        pair: EcdsaKeyPair,
        keys: Vec<PublicKey>,
    }

    fn signer() -> Signer {
        let random = SystemRandom::new();
        let scheme = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref()).unwrap();
        let keys = vec![PublicKey::of_p256(pair.public_key().as_ref())];
        Signer { pair, keys }
    }

    fn documents() -> Vec<Original> {
        let bytes = b"a manifest".to_vec();
        vec![Original {
            digest: Digest::sha256(&bytes),
            bytes,
        }]
    }

    impl Signer {
        fn sign(&self, message: &[u8]) -> String {
            STANDARD.encode(self.pair.sign(&SystemRandom::new(), message).unwrap())
        }

        fn envelope(&self, statement: &str) -> String {
            let signature = self.sign(&authenticated(PAYLOAD_TYPE, statement.as_bytes()));
            let payload = STANDARD.encode(statement);
            bundle(&format!(
                r#""dsseEnvelope":{{"payload":"{payload}","payloadType":"{PAYLOAD_TYPE}","signatures":[{{"sig":"{signature}"}}]}}"#
            ))
        }

        fn verify(&self, bundle: &str) -> Result<(), BundleError> {
            verify(bundle.as_bytes(), &self.keys, &documents()).map(|_| ())
        }
    }

    fn bundle(content: &str) -> String {
        format!(
            r#"{{"mediaType":"{MEDIA_TYPE}","verificationMaterial":{{"publicKey":{{"hint":"h"}}}},{content}}}"#
        )
    }

    fn statement(kind: &str, predicate: &str, digest: &str) -> String {
        format!(
            r#"{{"_type":"{kind}","subject":[{{"digest":{{"sha512":"00"}}}},{{"digest":{{"sha256":"{digest}"}}}}],
            "predicateType":"{predicate}","predicate":{{}}}}"#
        )
    }

    #[test]
    fn an_envelope_about_the_image_is_accepted_and_no_other() {
        let signer = signer();
        let digest = documents()[0].digest.hex().to_owned();
        let good = statement(STATEMENT_TYPES[0], SIGNED, &digest);
        signer.verify(&signer.envelope(&good)).unwrap();
        let vulnerable = statement(
            STATEMENT_TYPES[0],
            "https://cosign.sigstore.dev/attestation/vuln/v1",
            &digest,
        );
        assert!(matches!(
            signer.verify(&signer.envelope(&vulnerable)),
            Err(BundleError::Predicate(_))
        ));
        let other_kind = statement("https://other.example", SIGNED, &digest);
        assert!(matches!(
            signer.verify(&signer.envelope(&other_kind)),
            Err(BundleError::Predicate(_))
        ));
        let other_image = statement(STATEMENT_TYPES[0], SIGNED, &"0".repeat(64));
        assert!(matches!(
            signer.verify(&signer.envelope(&other_image)),
            Err(BundleError::Subject)
        ));
        let twice = good.replace(r#""sha256":"#, r#""sha256":"00","sha256":"#);
        assert!(matches!(
            signer.verify(&signer.envelope(&twice)),
            Err(BundleError::Statement(_))
        ));
    }

    #[test]
    fn a_signature_covers_payload_and_type() {
        let (signer, other) = (signer(), signer());
        let digest = documents()[0].digest.hex().to_owned();
        let good = signer.envelope(&statement(STATEMENT_TYPES[0], SIGNED, &digest));
        assert!(matches!(other.verify(&good), Err(BundleError::Unverified)));
        let typed = good.replace(PAYLOAD_TYPE, "text/plain");
        assert!(matches!(
            signer.verify(&typed),
            Err(BundleError::PayloadType(_))
        ));
        let changed = STANDARD.encode(statement(STATEMENT_TYPES[1], SIGNED, &digest));
        let start = good.find(r#""payload":""#).unwrap() + 11;
        let end = start + good[start..].find('"').unwrap();
        let swapped = format!("{}{changed}{}", &good[..start], &good[end..]);
        assert!(matches!(
            signer.verify(&swapped),
            Err(BundleError::Unverified)
        ));
    }

    #[test]
    fn ed25519_is_verified_over_the_manifest_only() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let keys = [PublicKey::of_ed25519(pair.public_key().as_ref())];
        let message = |text: &[u8]| {
            let signature = STANDARD.encode(pair.sign(text));
            let bundle = bundle(&format!(
                r#""messageSignature":{{"signature":"{signature}"}}"#
            ));
            verify(bundle.as_bytes(), &keys, &documents()).map(|_| ())
        };
        message(b"a manifest").unwrap();
        assert!(matches!(message(b"a digest"), Err(BundleError::Unverified)));
    }

    #[test]
    fn a_message_signature_must_be_over_the_manifest() {
        let signer = signer();
        let message = |text: &[u8]| {
            bundle(&format!(
                r#""messageSignature":{{"signature":"{}"}}"#,
                signer.sign(text)
            ))
        };
        signer.verify(&message(b"a manifest")).unwrap();
        assert!(matches!(
            signer.verify(&message(b"another")),
            Err(BundleError::Unverified)
        ));
    }

    #[test]
    fn keyless_old_and_ambiguous_bundles_are_refused_by_name() {
        let signer = signer();
        let digest = documents()[0].digest.hex().to_owned();
        let good = signer.envelope(&statement(STATEMENT_TYPES[0], SIGNED, &digest));
        let keyless = good.replace(
            r#""publicKey":{"hint":"h"}"#,
            r#""certificate":{"rawBytes":""}"#,
        );
        let both = good.replace(r#"{"hint":"h"}"#, r#"{"hint":"h"},"certificate":{}"#);
        let none = good.replace(r#""publicKey":{"hint":"h"}"#, "");
        for bundle in [keyless, both, none] {
            assert!(
                matches!(signer.verify(&bundle), Err(BundleError::Keyless)),
                "{bundle}"
            );
        }
        let old = good.replace(
            MEDIA_TYPE,
            "application/vnd.dev.sigstore.bundle+json;version=0.2",
        );
        assert!(matches!(
            signer.verify(&old),
            Err(BundleError::MediaType(_))
        ));
        assert!(matches!(
            signer.verify(&bundle(r#""x":1"#)),
            Err(BundleError::Content)
        ));
        let ambiguous = good.replace(
            r#""dsseEnvelope""#,
            r#""messageSignature":{"signature":""},"dsseEnvelope""#,
        );
        assert!(matches!(
            signer.verify(&ambiguous),
            Err(BundleError::Content)
        ));
        let many = good.replace(r#""signatures":["#, r#""signatures":[{"sig":""},"#);
        assert!(matches!(
            signer.verify(&many),
            Err(BundleError::Signatures(2))
        ));
        let broken = good.replace(r#"[{"sig":""#, r#"[{"sig":"?"#);
        assert!(matches!(
            signer.verify(&broken),
            Err(BundleError::Base64("signature"))
        ));
        assert!(matches!(signer.verify("[]"), Err(BundleError::Json(_))));
    }
}
