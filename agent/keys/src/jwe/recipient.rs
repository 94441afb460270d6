//! Whom a JWE is for, and how each of them gets at the content key.
//!
//! A recipient's header is what the protected, the shared and its own header say
//! together; a name that two of them have is refused (RFC 7516, section 7.2.1).

use aws_lc_rs::{
    agreement,
    key_wrap::{AES_256, AesKek, KeyWrap},
    rand,
    rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey},
};
use zeroize::Zeroizing;

use super::{
    Jwe, JweError, bytes,
    json::{Members, Node},
    object, required, short, text,
};
use crate::{
    LengthError, PrivateKey,
    ecdh::{Curve, Parties, derive},
    length::exactly,
};

/// Length of a content key of A256GCM.
const CONTENT_KEY_BYTES: usize = 32;
/// RFC 3394 adds one block of 8 bytes.
const WRAPPED_KEY_BYTES: usize = CONTENT_KEY_BYTES + 8;
/// RSA of 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

const RSA_OAEP: &str = "RSA-OAEP";
const RSA_OAEP_256: &str = "RSA-OAEP-256";
const ECDH_ES_A256KW: &str = "ECDH-ES+A256KW";

/// What encrypts the secret itself.
pub(super) type ContentKey = Zeroizing<[u8; CONTENT_KEY_BYTES]>;

/// One that a JWE is encrypted for.
#[derive(Debug, Clone)]
pub struct JweRecipient {
    algorithm: String,
    key_id: Option<String>,
    /// None where the algorithm is not supported.
    pub(super) wrapped: Option<Wrapped>,
}

/// A content key, wrapped.
#[derive(Debug, Clone)]
pub(super) enum Wrapped {
    Rsa {
        algorithm: &'static OaepAlgorithm,
        key: Vec<u8>,
    },
    Ecdh {
        curve: Curve,
        /// The sender's ephemeral one: SEC 1, uncompressed.
        point: Vec<u8>,
        parties: Parties,
        key: [u8; WRAPPED_KEY_BYTES],
    },
}

impl JweRecipient {
    /// Its `alg`, and the curve if it is not one of ours.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// Its `kid`, which the sender may have set to anything.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }
}

impl Wrapped {
    /// What comes out with this key, right or wrong; nothing for a key of another kind.
    /// If nothing comes out it is a random one: only the tag tells.
    pub(super) fn content_key(&self, key: &PrivateKey) -> Option<ContentKey> {
        let unwrapped = match self {
            Self::Rsa { algorithm, key: it } => unwrap_oaep(key.rsa()?, algorithm, it),
            Self::Ecdh {
                curve,
                point,
                parties,
                key: it,
            } => unwrap_ecdh(key.on(*curve)?, point, parties, it),
        };
        let mut random = ContentKey::default();
        rand::fill(&mut *random).ok()?;
        Some(unwrapped.unwrap_or(random))
    }
}

fn unwrap_oaep(
    own: &OaepPrivateDecryptingKey,
    algorithm: &'static OaepAlgorithm,
    wrapped: &[u8],
) -> Option<ContentKey> {
    let mut buffer = Zeroizing::new(vec![0; own.min_output_size()]);
    let plain = own.decrypt(algorithm, wrapped, &mut buffer, None).ok()?;
    <[u8; CONTENT_KEY_BYTES]>::try_from(&*plain)
        .ok()
        .map(Zeroizing::new)
}

fn unwrap_ecdh(
    own: &agreement::PrivateKey,
    point: &[u8],
    parties: &Parties,
    wrapped: &[u8],
) -> Option<ContentKey> {
    let kek = derive::<32>(own, point, ECDH_ES_A256KW, parties)?;
    let kek = AesKek::new(&AES_256, &*kek).ok()?;
    let mut content_key = ContentKey::default();
    kek.unwrap(wrapped, &mut *content_key).ok()?;
    Some(content_key)
}

/// All recipients of a JWE.
pub(super) fn recipients(
    members: &Members,
    protected: &Members,
) -> Result<Vec<JweRecipient>, JweError> {
    let shared = object(members, "unprotected")?;
    let Some(list) = members.get("recipients") else {
        return Ok(vec![recipient(members, protected, shared)?]);
    };
    let Node::Array(list) = list else {
        return Err(JweError::Member("recipients"));
    };
    if list.is_empty() || list.len() > Jwe::RECIPIENTS_MAX {
        return Err(JweError::Recipients(list.len()));
    }
    let list = list.iter().map(|node| match node {
        Node::Object(one) => Ok(one),
        _ => Err(JweError::Member("recipients")),
    });
    let list: Vec<&Members> = list.collect::<Result<_, _>>()?;
    // Go's go-jose repeats the first one's key at the top; it must be just that.
    let first = list.first().map(|one| text(one, "encrypted_key"));
    let repeated = text(members, "encrypted_key")?;
    let is_repeated = repeated.is_none() || Some(repeated) == first.transpose()?;
    if members.contains_key("header") || !is_repeated {
        return Err(JweError::Mixed);
    }
    list.into_iter()
        .map(|one| recipient(one, protected, shared))
        .collect()
}

fn recipient(
    members: &Members,
    protected: &Members,
    shared: Option<&Members>,
) -> Result<JweRecipient, JweError> {
    let header = Header {
        parts: [Some(protected), shared, object(members, "header")?],
    };
    header.check()?;
    let algorithm = header.text("alg")?.ok_or(JweError::Member("alg"))?;
    let key_id = header.text("kid")?.map(short);
    let (wrapped, description) = match algorithm {
        RSA_OAEP => (Some(rsa(members, &OAEP_SHA1_MGF1SHA1)?), None),
        RSA_OAEP_256 => (Some(rsa(members, &OAEP_SHA256_MGF1SHA256)?), None),
        ECDH_ES_A256KW => match ecdh(members, &header)? {
            Ok(wrapped) => (Some(wrapped), None),
            Err(curve) => (None, Some(format!("{algorithm} on {curve}"))),
        },
        _ => (None, None),
    };
    Ok(JweRecipient {
        algorithm: description.unwrap_or_else(|| short(algorithm)),
        key_id,
        wrapped,
    })
}

fn rsa(members: &Members, algorithm: &'static OaepAlgorithm) -> Result<Wrapped, JweError> {
    let key = required(members, "encrypted_key")?;
    if !RSA_BYTES.contains(&key.len()) {
        return Err(JweError::RsaLength(key.len()));
    }
    Ok(Wrapped::Rsa { algorithm, key })
}

/// The wrapped key, or the name of a curve that is not one of ours.
fn ecdh(members: &Members, header: &Header<'_>) -> Result<Result<Wrapped, String>, JweError> {
    let key = header.object("epk")?.ok_or(JweError::Member("epk"))?;
    let name = text(key, "crv")?.ok_or(JweError::Member("crv"))?;
    let Some(curve) = Curve::ALL.into_iter().find(|curve| curve.name() == name) else {
        return Ok(Err(short(name)));
    };
    if text(key, "kty")? != Some("EC") {
        return Err(JweError::Member("kty"));
    }
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = required(key, name)?;
        if coordinate.len() != curve.coordinate_bytes() {
            return Err(JweError::MemberLength(LengthError {
                member: name,
                found: coordinate.len(),
                expected: curve.coordinate_bytes(),
            }));
        }
        point.extend_from_slice(&coordinate);
    }
    let wrapped = required(members, "encrypted_key")?;
    Ok(Ok(Wrapped::Ecdh {
        curve,
        point,
        parties: Parties {
            sender: header.bytes("apu")?,
            receiver: header.bytes("apv")?,
        },
        key: exactly("encrypted_key", &wrapped).map_err(JweError::MemberLength)?,
    }))
}

/// The three parts of a recipient's header.
struct Header<'a> {
    parts: [Option<&'a Members>; 3],
}

impl<'a> Header<'a> {
    fn parts(&self) -> impl Iterator<Item = &'a Members> {
        self.parts.into_iter().flatten()
    }

    /// The part that has a parameter.
    fn part(&self, name: &str) -> Option<&'a Members> {
        self.parts().find(|part| part.contains_key(name))
    }

    fn text(&self, name: &'static str) -> Result<Option<&'a str>, JweError> {
        self.part(name).map_or(Ok(None), |part| text(part, name))
    }

    fn object(&self, name: &'static str) -> Result<Option<&'a Members>, JweError> {
        self.part(name).map_or(Ok(None), |part| object(part, name))
    }

    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, JweError> {
        let found = self.part(name).map_or(Ok(None), |part| bytes(part, name));
        Ok(found?.unwrap_or_default())
    }

    fn check(&self) -> Result<(), JweError> {
        for name in ["crit", "zip"] {
            if self.part(name).is_some() {
                return Err(JweError::Parameter(name));
            }
        }
        let with = |name: &String| self.parts().filter(|part| part.contains_key(name)).count();
        let twice = self
            .parts()
            .flat_map(Members::keys)
            .find(|name| with(name) > 1);
        twice.map_or(Ok(()), |name| Err(JweError::Overlap(short(name))))
    }
}
