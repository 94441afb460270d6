//! UVM endorsements: a cloud's word on which image a launch measurement is.
//!
//! The nodes of AKS and ACI boot images that only their maker can rebuild, so a tenant
//! cannot compute the launch measurement. Instead the node hands out a `COSE_Sign1`
//! message (RFC 9052, 4.2) in which the maker signed measurement and security version.
//! It comes through the host like everything else: [`UnverifiedEndorsement`] has no
//! field to read, [`UnverifiedEndorsement::authenticate`] makes the
//! [`AuthenticEndorsement`] that has, and only for an issuer that the owner named.
//!
//! An issuer is a [`DidX509`]: it names the root by fingerprint, which pins it, and the
//! extended key usage that the signing certificate must have. No root is compiled in.
//!
//! Written for these messages alone. CBOR is read strictly, because what cannot be
//! read in two ways cannot be judged in one and used in the other.

mod cbor;
mod cose;
mod did;
mod endorsement;
mod header;

pub use self::{
    cbor::CborError,
    did::{DidX509, DidX509Error},
    endorsement::{AuthenticEndorsement, EndorsementError, UnverifiedEndorsement},
    header::{EndorsementFormError, MAX_ENDORSEMENT_LEN},
};
