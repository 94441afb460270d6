//! Encrypts a secret for the holders of private keys, as JWE, which the guest opens
//! ([`agent_keys::Jwe`]).
//!
//! Written is what go-jose writes, so that skopeo opens it: for one recipient the
//! flattened serialisation with all headers protected, for several the general one with
//! `enc` alone protected; RSA keys get `RSA-OAEP`, elliptic curves `ECDH-ES+A256KW`.

use agent_keys::{
    Jwe,
    ecdh::{Curve, Parties, derive},
};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement,
    error::Unspecified,
    key_wrap::{AES_256, AesKek, KeyWrap},
    rand,
    rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::{
    SealError,
    public_key::{PublicKey, PublicKind},
};

const ENC: &str = "A256GCM";
const RSA_OAEP: &str = "RSA-OAEP";
const ECDH_ES_A256KW: &str = "ECDH-ES+A256KW";
/// Length of a content key of A256GCM.
const CONTENT_KEY_BYTES: usize = 32;
/// RFC 3394 adds one block of 8 bytes.
const WRAPPED_KEY_BYTES: usize = CONTENT_KEY_BYTES + 8;

/// What encrypts the secret itself.
type ContentKey = Zeroizing<[u8; CONTENT_KEY_BYTES]>;

/// One recipient's header and wrapped key.
struct Sealed {
    header: Map<String, Value>,
    key: String,
}

/// Encrypts a secret under a fresh key; gives the JWE's JSON.
///
/// # Errors
/// See [`SealError`].
pub fn seal(plain: &[u8], recipients: &[PublicKey]) -> Result<Vec<u8>, SealError> {
    if recipients.is_empty() || recipients.len() > Jwe::RECIPIENTS_MAX {
        return Err(SealError::Recipients(recipients.len()));
    }
    let content_key = random().map_err(|_| SealError::Random)?;
    let sealed = recipients.iter().map(|key| wrap(key, &content_key));
    let mut sealed: Vec<Sealed> = sealed
        .collect::<Result<_, _>>()
        .map_err(|_| SealError::Random)?;
    let mut protected = Map::new();
    if let [one] = &mut *sealed {
        protected.append(&mut one.header);
    }
    protected.insert("enc".to_owned(), ENC.into());
    let protected = encode(Value::Object(protected).to_string().as_bytes());
    let mut jwe = encrypt(plain, &protected, &content_key).map_err(|_| SealError::Random)?;
    jwe.insert("protected".to_owned(), protected.into());
    match <[Sealed; 1]>::try_from(sealed) {
        Ok([one]) => drop(jwe.insert("encrypted_key".to_owned(), one.key.into())),
        Err(all) => {
            let all = all
                .into_iter()
                .map(|one| json!({"header": one.header, "encrypted_key": one.key}));
            jwe.insert("recipients".to_owned(), all.collect());
        }
    }
    Ok(Value::Object(jwe).to_string().into_bytes())
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Unspecified> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(&mut *bytes)?;
    Ok(bytes)
}

fn encrypt(
    plain: &[u8],
    protected: &str,
    content_key: &ContentKey,
) -> Result<Map<String, Value>, Unspecified> {
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &**content_key)?);
    let iv = *random::<NONCE_LEN>()?;
    // Encrypted in place: what it grows into is no secret any more.
    let mut text = Vec::with_capacity(plain.len());
    text.extend_from_slice(plain);
    let tag = cipher.seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(iv),
        Aad::from(protected),
        &mut text,
    )?;
    let members = [
        ("iv", encode(&iv)),
        ("ciphertext", encode(&text)),
        ("tag", encode(tag.as_ref())),
    ];
    let members = members.map(|(name, text)| (name.to_owned(), text.into()));
    Ok(members.into_iter().collect())
}

fn wrap(key: &PublicKey, content_key: &ContentKey) -> Result<Sealed, Unspecified> {
    match &key.0 {
        PublicKind::Rsa(key) => wrap_oaep(key, content_key),
        PublicKind::Ec(curve, key) => wrap_ecdh(*curve, key, content_key),
    }
}

fn wrap_oaep(
    key: &OaepPublicEncryptingKey,
    content_key: &ContentKey,
) -> Result<Sealed, Unspecified> {
    let mut wrapped = vec![0; key.ciphertext_size()];
    let wrapped = key.encrypt(&OAEP_SHA1_MGF1SHA1, &**content_key, &mut wrapped, None)?;
    Ok(Sealed {
        header: [("alg".to_owned(), RSA_OAEP.into())].into_iter().collect(),
        key: encode(wrapped),
    })
}

fn wrap_ecdh(
    curve: Curve,
    key: &agreement::ParsedPublicKey,
    content_key: &ContentKey,
) -> Result<Sealed, Unspecified> {
    let own = agreement::PrivateKey::generate(curve.algorithm())?;
    let public = own.compute_public_key()?;
    let (_form, point) = public.as_ref().split_first().ok_or(Unspecified)?;
    let (x, y) = point
        .split_at_checked(curve.coordinate_bytes())
        .ok_or(Unspecified)?;
    let kek = derive::<32>(&own, key.as_ref(), ECDH_ES_A256KW, &Parties::default());
    let kek = AesKek::new(&AES_256, &*kek.ok_or(Unspecified)?)?;
    let mut wrapped = [0; WRAPPED_KEY_BYTES];
    kek.wrap(&**content_key, &mut wrapped)?;
    let epk = json!({"kty": "EC", "crv": curve.name(), "x": encode(x), "y": encode(y)});
    let header = [
        ("alg".to_owned(), ECDH_ES_A256KW.into()),
        ("epk".to_owned(), epk),
    ];
    Ok(Sealed {
        header: header.into_iter().collect(),
        key: encode(&wrapped),
    })
}
