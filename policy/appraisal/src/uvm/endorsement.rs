//! From an unverified to an authentic endorsement.
//!
//! Certificates are judged at the **signing time** that the signed header names, not at
//! the time of the verifier. Leaf certificates live one year, an image is booted for
//! longer, and what its maker said stays true after the certificate ran out. The price:
//! whoever steals an expired key can date a message back. The RFC 3161 time stamp beside
//! the signature would tell, and is not judged; revocation lists of these authorities
//! are not asked for either. What retires an image, or a stolen key's, is the lowest
//! security version among the owner's reference values, and in the end the issuer's name.

use std::fmt;

use agent_evidence::{LaunchMeasurement, Sha256Digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    cose::{Sign1, is_tagged},
    did::DidX509,
    header::{Chain, EndorsementFormError, Header, MAX_ENDORSEMENT_LEN},
};
use crate::{time::Timestamp, x509::Certificate};

/// An endorsement is not what an accepted issuer signed.
#[derive(Debug, thiserror::Error)]
pub enum EndorsementError {
    /// Nobody accepts its issuer.
    #[error("the endorsement is of the issuer {0:?}, which is not accepted")]
    Issuer(String),
    /// Another root than the issuer's.
    #[error("the endorsement's root has the fingerprint {0}, which is not the issuer's")]
    Root(Sha256Digest),
    /// Certificates do not vouch for each other.
    #[error("the endorsement's leaf, issuer and root do not sign each other")]
    Chain,
    /// The leaf may not sign for this issuer.
    #[error("the endorsement's leaf has not the issuer's extended key usage")]
    Usage,
    /// The leaf may not sign messages.
    #[error("the endorsement's leaf is no certificate for signatures")]
    Leaf,
    /// The thumbprint is of another certificate.
    #[error("the endorsement's thumbprint is not its leaf's")]
    Thumbprint,
    /// A certificate was not valid when the endorsement says it was signed.
    #[error("{name} is valid from {from} to {to}, not at the signing time {signed}")]
    Validity {
        /// Common name of the certificate.
        name: String,
        /// Its first second.
        from: Timestamp,
        /// Its last second.
        to: Timestamp,
        /// When the endorsement says that it was signed.
        signed: Timestamp,
    },
    /// Signed after the time at which it is judged.
    #[error("the endorsement's signing time {0} is in the future")]
    Future(Timestamp),
    /// The leaf's key did not sign this.
    #[error("the endorsement is not signed by its leaf")]
    Signature,
    /// The signed payload is not the JSON of an endorsement.
    #[error("the endorsement's payload cannot be read")]
    Payload(#[source] serde_json::Error),
    /// The security version is not a number, or is two.
    #[error("the endorsement's svn is not one decimal number")]
    Svn,
}

/// An endorsement in form. It has no fields to read.
#[derive(Clone, PartialEq, Eq)]
pub struct UnverifiedEndorsement {
    message: Sign1,
    header: Header,
}

impl fmt::Debug for UnverifiedEndorsement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnverifiedEndorsement(..)")
    }
}

/// What an accepted issuer says of a launch measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an authentic endorsement may be of another guest"]
pub struct AuthenticEndorsement {
    issuer: DidX509,
    feed: String,
    svn: u64,
    measurement: LaunchMeasurement,
    signed: Timestamp,
}

/// The payload. Members that are not listed mean nothing here.
#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "x-ms-sevsnpvm-launchmeasurement")]
    measurement: LaunchMeasurement,
    #[serde(rename = "x-ms-sevsnpvm-guestsvn")]
    svn: String,
    /// The same as a number, in later endorsements.
    #[serde(rename = "x-ms-sevsnpvm-guestsvn-int")]
    svn_number: Option<u64>,
}

impl UnverifiedEndorsement {
    /// Reads an endorsement, raw or in base64 as a node's `reference-info-base64` is.
    ///
    /// # Errors
    ///
    /// [`EndorsementFormError`] names what is wrong with its form.
    pub fn parse(bytes: &[u8]) -> Result<Self, EndorsementFormError> {
        if bytes.len() > MAX_ENDORSEMENT_LEN {
            return Err(EndorsementFormError::TooLong(bytes.len()));
        }
        let decoded;
        let message = if is_tagged(bytes) {
            bytes
        } else {
            let text = STANDARD.decode(bytes.trim_ascii());
            decoded = text.map_err(|_| EndorsementFormError::Base64)?;
            &decoded
        };
        let message = Sign1::parse(message).map_err(EndorsementFormError::Message)?;
        let header = Header::read(&message)?;
        Ok(Self { message, header })
    }

    /// Proves that one of these issuers signed it, before the time given.
    ///
    /// # Errors
    ///
    /// [`EndorsementError`] names the first proof that fails.
    pub fn authenticate<'a>(
        &self,
        issuers: impl IntoIterator<Item = &'a DidX509>,
        at: Timestamp,
    ) -> Result<AuthenticEndorsement, EndorsementError> {
        let header = &self.header;
        let issuer = issuers
            .into_iter()
            .find(|issuer| issuer.as_str() == header.issuer)
            .ok_or_else(|| EndorsementError::Issuer(header.issuer.clone()))?;
        let signer = header.chain.signer_for(issuer)?;
        if let Some(thumbprint) = header.thumbprint
            && thumbprint != Sha256Digest::of(&[signer.as_der()])
        {
            return Err(EndorsementError::Thumbprint);
        }
        header.chain.judge_validity(header.signing_time)?;
        if header.signing_time > at {
            return Err(EndorsementError::Future(header.signing_time));
        }
        if !self.message.is_signed_by(signer) {
            return Err(EndorsementError::Signature);
        }
        let statement: Statement = agent_documents::parse_json(&self.message.payload)
            .map_err(EndorsementError::Payload)?;
        Ok(AuthenticEndorsement {
            issuer: issuer.clone(),
            feed: header.feed.clone(),
            svn: statement.svn().ok_or(EndorsementError::Svn)?,
            measurement: statement.measurement,
            signed: header.signing_time,
        })
    }
}

impl Chain {
    /// The leaf, if the chain proves it to be the issuer's.
    fn signer_for(&self, issuer: &DidX509) -> Result<&Certificate, EndorsementError> {
        let fingerprint = Sha256Digest::of(&[self.root.as_der()]);
        if fingerprint != issuer.root {
            return Err(EndorsementError::Root(fingerprint));
        }
        if !self.issuer.is_issued_by(&self.root) || !self.leaf.is_issued_by(&self.issuer) {
            return Err(EndorsementError::Chain);
        }
        if !self.leaf.is_message_signer() {
            return Err(EndorsementError::Leaf);
        }
        if !self.leaf.is_for(&issuer.usage) {
            return Err(EndorsementError::Usage);
        }
        Ok(&self.leaf)
    }

    fn judge_validity(&self, signed: Timestamp) -> Result<(), EndorsementError> {
        let stale = [&self.leaf, &self.issuer, &self.root]
            .into_iter()
            .find(|certificate| !certificate.is_valid_at(signed));
        match stale {
            None => Ok(()),
            Some(certificate) => Err(EndorsementError::Validity {
                name: certificate.common_name().to_owned(),
                from: certificate.not_before,
                to: certificate.not_after,
                signed,
            }),
        }
    }
}

impl Statement {
    /// The security version: one number, in one way to write it.
    fn svn(&self) -> Option<u64> {
        let svn: u64 = self.svn.parse().ok()?;
        let is_one = svn.to_string() == self.svn && self.svn_number.is_none_or(|int| int == svn);
        is_one.then_some(svn)
    }
}

impl AuthenticEndorsement {
    /// Who signed it.
    pub fn issuer(&self) -> &DidX509 {
        &self.issuer
    }

    /// The line of images that the measurement is of.
    pub fn feed(&self) -> &str {
        &self.feed
    }

    /// Security version of the image; higher is later.
    pub fn svn(&self) -> u64 {
        self.svn
    }

    /// Launch measurement of the image.
    pub fn measurement(&self) -> LaunchMeasurement {
        self.measurement
    }

    /// When the issuer says that it was signed.
    pub fn signed(&self) -> Timestamp {
        self.signed
    }
}

impl fmt::Display for AuthenticEndorsement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            issuer,
            feed,
            svn,
            measurement,
            signed,
        } = self;
        write!(
            f,
            "{feed} by {issuer}, svn {svn}, measurement {measurement}, signed {signed}"
        )
    }
}
