//! The protected header of an endorsement: who signed, by which certificates, when,
//! and for which line of images.
//!
//! | label | content |
//! |---|---|
//! | 1 | algorithm, −38 (PS384) |
//! | 3 | content type of the payload, `application/json` |
//! | 33 | `x5chain` (RFC 9360): leaf, issuer, root |
//! | 34 | `x5t`: SHA-256 of the leaf; optional |
//! | `iss`, `feed` | issuer and line of images |
//! | `signingtime` | seconds since 1970, under tag 1 |
//!
//! Labels that are not listed mean nothing here, as RFC 9052 has it, except those that
//! say that they must be understood.

use agent_evidence::Sha256Digest;

use super::{
    cbor::{Cbor, CborError, Label},
    cose::Sign1,
};
use crate::{
    time::Timestamp,
    x509::{Certificate, CertificateError, Scheme},
};

/// Longest endorsement read, in bytes, raw or as text; those seen have 11 KiB raw.
pub const MAX_ENDORSEMENT_LEN: usize = 64 * 1024;

const ALGORITHM: Label<'static> = Label::Integer(1);
const CRITICAL: Label<'static> = Label::Integer(2);
const CONTENT_TYPE: Label<'static> = Label::Integer(3);
const CWT_CLAIMS: Label<'static> = Label::Integer(15);
const X5CHAIN: Label<'static> = Label::Integer(33);
const X5T: Label<'static> = Label::Integer(34);
const ISSUER: Label<'static> = Label::Text("iss");
const FEED: Label<'static> = Label::Text("feed");
const SIGNING_TIME: Label<'static> = Label::Text("signingtime");

const PS384: i64 = -38;
const SHA_256: i64 = -16;
const EPOCH_TIME: u64 = 1;
/// 9999-12-31T23:59:59Z, the last second that a certificate can name.
const LAST_SECOND: i64 = 253_402_300_799;

/// Bytes are not an endorsement in form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementFormError {
    /// More bytes than any endorsement has.
    #[error("an endorsement of {0} bytes is longer than {MAX_ENDORSEMENT_LEN}")]
    TooLong(usize),
    /// Neither a tagged message nor the base64 of one.
    #[error("the endorsement is neither a tagged message nor base64")]
    Base64,
    /// Not a `COSE_Sign1`.
    #[error("the endorsement is not a COSE_Sign1 message")]
    Message(#[source] CborError),
    /// The protected header is not the CBOR that it should be.
    #[error("the endorsement's protected header cannot be read")]
    Header(#[from] CborError),
    /// An entry that must be there is not.
    #[error("the endorsement's protected header has no {0}")]
    Missing(&'static str),
    /// Entries that must be understood.
    #[error("the endorsement's protected header lists critical entries")]
    Critical,
    /// Claims as a CWT (RFC 9597), which later endorsements may use.
    #[error("the endorsement's protected header has its claims as a cwt, which is not supported")]
    CwtClaims,
    /// Not signed with PS384.
    #[error("the endorsement is signed with algorithm {0}, not with ps384 (-38)")]
    Algorithm(i64),
    /// The payload is something else than JSON.
    #[error("the endorsement's payload is not application/json")]
    ContentType,
    /// The chain is not leaf, issuer and root.
    #[error("the endorsement has a chain of {0} certificates, not of leaf, issuer and root")]
    ChainLength(u64),
    /// A certificate is malformed.
    #[error("a certificate of the endorsement is malformed")]
    Certificate(#[from] CertificateError),
    /// The thumbprint is not a SHA-256.
    #[error("the endorsement's thumbprint is not a sha-256")]
    Thumbprint,
    /// The signing time is no number of seconds since 1970.
    #[error("the endorsement's signing time is not in seconds since 1970")]
    SigningTime,
}

/// What the header says; nothing of it is proven.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) chain: Chain,
    pub(super) thumbprint: Option<Sha256Digest>,
    pub(super) issuer: String,
    pub(super) feed: String,
    pub(super) signing_time: Timestamp,
}

/// Certificates that are said to vouch for each other.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) leaf: Certificate,
    pub(super) issuer: Certificate,
    pub(super) root: Certificate,
}

struct Entries<'a>(Vec<(Label<'a>, Cbor<'a>)>);

impl Header {
    pub(super) fn read(message: &Sign1) -> Result<Self, EndorsementFormError> {
        let entries = Entries(whole(Cbor::new(&message.protected), Cbor::map)?);
        if entries.find(CRITICAL).is_some() {
            return Err(EndorsementFormError::Critical);
        }
        if entries.find(CWT_CLAIMS).is_some() {
            return Err(EndorsementFormError::CwtClaims);
        }
        match whole(entries.required(ALGORITHM, "algorithm")?, Cbor::integer)? {
            PS384 => {}
            other => return Err(EndorsementFormError::Algorithm(other)),
        }
        let content_type = entries.required(CONTENT_TYPE, "content type")?;
        if whole(content_type, Cbor::text)? != "application/json" {
            return Err(EndorsementFormError::ContentType);
        }
        Ok(Self {
            chain: Chain::read(entries.required(X5CHAIN, "x5chain")?)?,
            thumbprint: entries.find(X5T).map(read_thumbprint).transpose()?,
            issuer: whole(entries.required(ISSUER, "iss")?, Cbor::text)?.to_owned(),
            feed: whole(entries.required(FEED, "feed")?, Cbor::text)?.to_owned(),
            signing_time: read_time(entries.required(SIGNING_TIME, "signingtime")?)?,
        })
    }
}

impl<'a> Entries<'a> {
    fn find(&self, label: Label<'_>) -> Option<Cbor<'a>> {
        let found = self.0.iter().find(|(each, _)| *each == label)?;
        Some(found.1)
    }

    fn required(
        &self,
        label: Label<'_>,
        name: &'static str,
    ) -> Result<Cbor<'a>, EndorsementFormError> {
        self.find(label).ok_or(EndorsementFormError::Missing(name))
    }
}

impl Chain {
    /// A single certificate is encoded without the array (RFC 9360, 2).
    fn read(mut chain: Cbor<'_>) -> Result<Self, EndorsementFormError> {
        if !chain.next_is_array() {
            return Err(EndorsementFormError::ChainLength(1));
        }
        match chain.array()? {
            3 => {}
            other => return Err(EndorsementFormError::ChainLength(other)),
        }
        let mut certificate = || -> Result<Certificate, EndorsementFormError> {
            let der = chain.bytes()?;
            Ok(Certificate::parse_signed_by(Scheme::Pkcs1, der)?)
        };
        let read = Self {
            leaf: certificate()?,
            issuer: certificate()?,
            root: certificate()?,
        };
        chain.finish()?;
        Ok(read)
    }
}

/// `COSE_CertHash` (RFC 9360, 2): hash algorithm and value.
fn read_thumbprint(mut pair: Cbor<'_>) -> Result<Sha256Digest, EndorsementFormError> {
    if pair.array()? != 2 || pair.integer()? != SHA_256 {
        return Err(EndorsementFormError::Thumbprint);
    }
    let digest = whole(pair, Cbor::bytes)?.try_into();
    digest
        .map(Sha256Digest)
        .map_err(|_| EndorsementFormError::Thumbprint)
}

fn read_time(mut time: Cbor<'_>) -> Result<Timestamp, EndorsementFormError> {
    if time.tag()? != EPOCH_TIME {
        return Err(EndorsementFormError::SigningTime);
    }
    match whole(time, Cbor::integer)? {
        seconds @ 0..=LAST_SECOND => Ok(Timestamp::from_unix_seconds(seconds)),
        _ => Err(EndorsementFormError::SigningTime),
    }
}

/// What `read` makes of a value, which must be all of it.
fn whole<'a, T>(
    mut value: Cbor<'a>,
    read: impl FnOnce(&mut Cbor<'a>) -> Result<T, CborError>,
) -> Result<T, CborError> {
    let content = read(&mut value)?;
    value.finish().map(|()| content)
}
