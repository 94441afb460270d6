//! The part of X.509 (RFC 5280) that AMD's certificates and revocation lists use, and
//! those under which UVM endorsements are signed.
//!
//! Written for these alone instead of taking a general library: the whole reading
//! fits on a few pages, an unknown critical extension or a second way to write a
//! value is refused, and there is no path building beyond leaf, issuer, root.

mod certificate;
mod crl;
mod der;
mod key;
mod signature;

pub use self::{
    certificate::{Certificate, CertificateError, MAX_CERTIFICATE_LEN},
    crl::{Crl, CrlError, MAX_CRL_LEN},
    der::DerError,
};
pub(crate) use self::{
    der::{Der, IA5_STRING, OCTET_STRING},
    key::PublicKey,
    signature::Scheme,
};
