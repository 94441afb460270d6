//! Whose images may run: signatures, judged by the owner's `policy.json`.
//!
//! The policy ([`SignaturePolicy`]) comes from the owner, by a way that is measured.
//! Signatures come from registries and lookaside stores, which are hostile, and
//! prove only what a key of the policy signed: that a manifest digest is the image of
//! a name. They are judged on the reference as the user wrote it, whichever mirror
//! it came from, at every pull, before any layer is fetched.
//!
//! `judge` turns a resolved image into [`Accepted`], which the layers need: without a
//! decision there is no pull. Below it, each in a place of its own:
//!
//! * `policy` and `identity`: what is demanded, of which names;
//! * `simple` with `lookaside` and `openpgp`: "simple signing", as GnuPG and skopeo do;
//! * `attached` with `payload`, `bundle` and `public_key`: cosign's signatures, in
//!   tags beside the image and in Sigstore bundles that refer to it.
//!
//! Keyless signatures (certificates of Fulcio, the log Rekor) are refused with a
//! reason: they need trust in a service and in a clock that the host sets.
//!
//! Formats: `containers-policy.json(5)`, `containers-signature(5)`,
//! `containers-registries.d(5)`, cosign's `SIGNATURE_SPEC.md`, the Sigstore bundle,
//! DSSE and in-toto version 1.

mod attached;
mod bundle;
mod case;
mod ed25519ph;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod judge;
mod lookaside;
mod material;
mod openpgp;
mod payload;
mod policy;
mod public_key;
mod referrers;
mod settings_file;
mod shown;
mod simple;

pub use case::AcceptedSignature;
pub use error::{Refused, RequirementFailure, SignatureError};
pub use judge::{Accepted, Judge};
pub use lookaside::{Lookaside, LookasideError};
pub use policy::{PolicyError, SignaturePolicy};
