//! Key rings: which keys may sign, now (RFC 9580, section 10.1).
//!
//! A primary key is followed by its direct signatures, its user ids and its subkeys,
//! each with signatures of their own. What ties them together is judged as strictly
//! as possible: a revocation counts without a look at its signature, because the ring
//! is the owner's, and nobody adds revocations for fun; of the signatures that bind
//! a user id or subkey, the newest alone decides.

use super::{
    armor,
    crypto::Public,
    error::{Day, KeyFlaw, OpenPgpError},
    key::Key,
    packet::{
        PUBLIC_KEY, PUBLIC_SUBKEY, Packets, SECRET_KEY, SECRET_SUBKEY, SIGNATURE, TRUST,
        USER_ATTRIBUTE, USER_ID,
    },
    signature::{
        CERTIFICATION_REVOCATION, CERTIFICATIONS, DIRECT_KEY, Issuer, KEY_REVOCATION,
        PRIMARY_BINDING, SUBKEY_BINDING, SUBKEY_REVOCATION, Signature, version_3_issuer,
    },
};

/// Popular keys carry thousands of other people's signatures.
const PACKETS_MAX: usize = 20_000;
const KEYS_MAX: usize = 256;
const ARMOR: &str = "PGP PUBLIC KEY BLOCK";
/// GnuPG's own file format, which is not for exchange.
const KEYBOX_MAGIC: (usize, &[u8]) = (8, b"KBXf");

/// A key, and whether it may sign.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) key: Key,
    pub(super) flaw: Option<KeyFlaw>,
}

/// The keys of a ring.
#[derive(Debug)]
pub(crate) struct Keyring {
    pub(super) signers: Vec<Signer>,
}

impl Keyring {
    /// Reads a ring, binary or armored, and judges its keys at a time in seconds since 1970.
    ///
    /// # Errors
    /// See [`OpenPgpError`]. A key that may not sign is no error: it is told when it does.
    pub(crate) fn parse(bytes: &[u8], now: u64) -> Result<Self, OpenPgpError> {
        let (at, magic) = KEYBOX_MAGIC;
        if bytes.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            return Err(OpenPgpError::Unsupported(
                "GnuPG's keybox format (export the key with `gpg --export`)".to_owned(),
            ));
        }
        let unarmored = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN PGP") => Some(armor::body(text, ARMOR).ok_or(
                OpenPgpError::Malformed("it is not one armored public key block"),
            )?),
            _ => None,
        };
        let mut signers = Vec::new();
        for certificate in certificates(unarmored.as_deref().unwrap_or(bytes))? {
            certificate.judge(now, &mut signers)?;
            if signers.len() > KEYS_MAX {
                return Err(OpenPgpError::Unsupported(format!(
                    "more than {KEYS_MAX} keys"
                )));
            }
        }
        if signers.is_empty() {
            return Err(OpenPgpError::Malformed("it holds no key"));
        }
        Ok(Self { signers })
    }

    /// The keys that may have made a signature.
    pub(super) fn of(&self, issuer: Issuer) -> impl Iterator<Item = &Signer> {
        self.signers
            .iter()
            .filter(move |signer| signer.key.may_have_made(issuer))
    }
}

/// A part of a certificate with the signatures that follow it.
#[derive(Debug)]
struct Component {
    tag: u8,
    body: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

/// A primary key with all that belongs to it.
#[derive(Debug)]
struct Certificate {
    primary: Component,
    others: Vec<Component>,
}

fn certificates(bytes: &[u8]) -> Result<Vec<Certificate>, OpenPgpError> {
    let mut packets = Packets::new(bytes);
    let mut found: Vec<Certificate> = Vec::new();
    let mut count = 0;
    while let Some(packet) = packets.next()? {
        count += 1;
        if count > PACKETS_MAX {
            return Err(OpenPgpError::Unsupported(format!(
                "more than {PACKETS_MAX} packets"
            )));
        }
        let tag = packet.tag;
        let component = |body| Component {
            tag,
            body,
            signatures: Vec::new(),
        };
        match (tag, found.last_mut()) {
            (PUBLIC_KEY, _) => found.push(Certificate {
                primary: component(packet.body.into_owned()),
                others: Vec::new(),
            }),
            (SECRET_KEY | SECRET_SUBKEY, _) => return Err(OpenPgpError::SecretKey),
            // GnuPG's notes to itself.
            (TRUST, _) => {}
            (USER_ID | USER_ATTRIBUTE | PUBLIC_SUBKEY, Some(certificate)) => {
                certificate.others.push(component(packet.body.into_owned()));
            }
            (SIGNATURE, Some(certificate)) => {
                let component = certificate
                    .others
                    .last_mut()
                    .unwrap_or(&mut certificate.primary);
                component.signatures.push(packet.body.into_owned());
            }
            _ => {
                return Err(OpenPgpError::Malformed(
                    "a packet does not belong into a key ring",
                ));
            }
        }
    }
    Ok(found)
}

impl Certificate {
    fn judge(&self, now: u64, signers: &mut Vec<Signer>) -> Result<(), OpenPgpError> {
        let primary = Key::parse(&self.primary.body)?;
        let own = self.own_signatures_in_force(&primary, now);
        let flaw = match &own {
            Err(flaw) => Some(flaw.clone()),
            Ok(own) => own
                .iter()
                .find_map(|own| lifetime(&primary, own.key_expires, now).err()),
        };
        for component in self
            .others
            .iter()
            .filter(|other| other.tag == PUBLIC_SUBKEY)
        {
            let key = Key::parse(&component.body)?;
            let flaw = flaw
                .clone()
                .or_else(|| judge_subkey(&primary, &key, component, now).err());
            signers.push(Signer { key, flaw });
        }
        let forbidden = own
            .iter()
            .flatten()
            .any(|own| own.allows_signing() == Some(false));
        let flaw = flaw.or_else(|| forbidden.then_some(KeyFlaw::NotForSigning));
        signers.push(Signer { key: primary, flaw });
        Ok(())
    }

    /// What the primary key says about itself: its newest signature about a user id,
    /// and its newest one about the key alone. Programs differ in which of the two they
    /// follow, so here each may forbid, and neither may allow what the other forbids.
    fn own_signatures_in_force(&self, key: &Key, now: u64) -> Result<Vec<Signature>, KeyFlaw> {
        let mut newest: [Option<Signature>; 2] = [None, None];
        let mut flaw = KeyFlaw::Unbound("it has no signature by itself".to_owned());
        let parts = std::iter::once(&self.primary).chain(&self.others);
        for component in parts.filter(|component| component.tag != PUBLIC_SUBKEY) {
            let [of_key, of_user] = &mut newest;
            let newest = match component.tag {
                PUBLIC_KEY => of_key,
                _ => of_user,
            };
            match self_signature(key, component, now) {
                Ok(Some(own))
                    if newest
                        .as_ref()
                        .is_none_or(|newest| newest.created <= own.created) =>
                {
                    *newest = Some(own);
                }
                Ok(_) => {}
                Err(KeyFlaw::Revoked) => return Err(KeyFlaw::Revoked),
                Err(other) => flaw = other,
            }
        }
        let own: Vec<Signature> = newest.into_iter().flatten().collect();
        if own.is_empty() { Err(flaw) } else { Ok(own) }
    }
}

/// The newest signature by the key itself about a user id, or about itself; `None`
/// if there is none, or the user id is revoked.
fn self_signature(
    key: &Key,
    component: &Component,
    now: u64,
) -> Result<Option<Signature>, KeyFlaw> {
    let signatures = own_signatures(key, component)?;
    let is_primary = component.tag == PUBLIC_KEY;
    let prefix = match component.tag {
        PUBLIC_KEY => Vec::new(),
        tag => {
            let length = u32::try_from(component.body.len()).unwrap_or(u32::MAX);
            let mark = if tag == USER_ID { 0xb4 } else { 0xd1 };
            [&[mark][..], &length.to_be_bytes(), &component.body].concat()
        }
    };
    if signatures
        .iter()
        .any(|signature| signature.kind == CERTIFICATION_REVOCATION)
    {
        return Ok(None);
    }
    let binds = |signature: &Signature| {
        if is_primary {
            signature.kind == DIRECT_KEY
        } else {
            CERTIFICATIONS.contains(&signature.kind)
        }
    };
    let newest = signatures
        .into_iter()
        .filter(binds)
        .max_by_key(|signature| signature.created);
    newest
        .map(|newest| {
            check(&newest, &key.public, &[&key.hashed, &prefix], now)?;
            Ok(newest)
        })
        .transpose()
}

/// The signatures that the key made about a part of its own certificate. Other
/// people's are of no interest, except where they revoke the key.
fn own_signatures(key: &Key, component: &Component) -> Result<Vec<Signature>, KeyFlaw> {
    let mut own = Vec::new();
    for body in &component.signatures {
        match (body.first(), Signature::parse(body)) {
            (_, Ok(signature)) => {
                if matches!(signature.kind, KEY_REVOCATION | SUBKEY_REVOCATION) {
                    return Err(KeyFlaw::Revoked);
                }
                if key.may_have_made(signature.issuer) {
                    own.push(signature);
                }
            }
            (Some(3), _) if version_3_issuer(body) != Some(key.id()) => {}
            (Some(5..), _) => {}
            (_, Err(error)) => return Err(KeyFlaw::Unbound(error.to_string())),
        }
    }
    Ok(own)
}

/// Whether a subkey is its primary key's, and the primary key the subkey's.
fn judge_subkey(primary: &Key, key: &Key, component: &Component, now: u64) -> Result<(), KeyFlaw> {
    let signatures = own_signatures(primary, component)?;
    let bindings = signatures
        .into_iter()
        .filter(|signature| signature.kind == SUBKEY_BINDING);
    let binding = bindings
        .max_by_key(|signature| signature.created)
        .ok_or_else(|| KeyFlaw::Unbound("its primary key did not sign it".to_owned()))?;
    let parts: [&[u8]; 2] = [&primary.hashed, &key.hashed];
    check(&binding, &primary.public, &parts, now)?;
    if binding.allows_signing() != Some(true) {
        return Err(KeyFlaw::NotForSigning);
    }
    // Without it, anybody could claim somebody else's key as a subkey of their own.
    let back = binding
        .embedded
        .as_deref()
        .map(Signature::parse)
        .transpose()
        .ok()
        .flatten()
        .filter(|back| back.kind == PRIMARY_BINDING)
        .ok_or_else(|| KeyFlaw::Unbound("it did not sign its primary key in return".to_owned()))?;
    check(&back, &key.public, &parts, now)?;
    lifetime(key, binding.key_expires, now)
}

/// A signature about a key must verify, and be in force.
fn check(signature: &Signature, key: &Public, parts: &[&[u8]], now: u64) -> Result<(), KeyFlaw> {
    if let Public::Unsupported(name) = key {
        return Err(KeyFlaw::Algorithm(name));
    }
    let verified = signature
        .verify(key, parts)
        .map_err(|error| KeyFlaw::Unbound(error.to_string()))?;
    if !verified {
        return Err(KeyFlaw::Unbound(
            "a signature about it does not verify".to_owned(),
        ));
    }
    if signature.valid_until().is_some_and(|until| until <= now) {
        return Err(KeyFlaw::Unbound(
            "the signature about it expired".to_owned(),
        ));
    }
    Ok(())
}

fn lifetime(key: &Key, expires: Option<u32>, now: u64) -> Result<(), KeyFlaw> {
    let created = u64::from(key.created);
    if created > now.saturating_add(super::clock::CLOCK_SKEW_SECONDS) {
        return Err(KeyFlaw::Future(Day(created)));
    }
    match expires.map(|seconds| created + u64::from(seconds)) {
        Some(until) if until <= now => Err(KeyFlaw::Expired(Day(until))),
        _ => Ok(()),
    }
}
