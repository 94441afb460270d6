//! The part of OpenPGP that simple signing needs: is this message signed by one of these keys?
//!
//! A verifier of our own, because the general ones bring their own cryptography and
//! hundreds of kilobytes of features into the trusted base. It reads version 4 keys
//! and signatures (RFC 9580, which includes RFC 4880): RSA from 2048 bits, ECDSA on
//! P-256 and P-384, Ed25519 in both encodings, with SHA-256, SHA-384 or SHA-512. All
//! mathematics is *aws-lc-rs*'s; SHA-1 only computes fingerprints, which the format wants.
//!
//! Key rings come from the owner's policy, messages from whoever can write to the
//! lookaside store. Neither is believed: everything is bounded, nothing recurses,
//! and what is not understood is refused by name. Where a rule has a lenient and a
//! strict reading, the strict one is taken; the comments at each place say so.
//!
//! Expiry is judged by the guest's clock. The host can set that clock back, and so
//! make an expired key valid again, but not a revoked one.

mod armor;
mod clock;
#[cfg(test)]
mod crafted;
mod crypto;
mod cursor;
mod error;
mod key;
mod keyring;
mod message;
mod packet;
mod signature;
#[cfg(test)]
mod tests;

pub(super) use armor::body as pem_body;
pub(super) use cursor::Cursor;
pub(super) use error::OpenPgpError;
pub(super) use keyring::Keyring;
pub(super) use message::Signed;
