//! Where the parts of a report lie (AMD 56860, `ATTESTATION_REPORT`).

use agent_evidence::snp::REPORT_LEN;

/// The signature covers the bytes before this offset.
pub(super) const SIGNED_LEN: usize = 0x2A0;
/// R and S: little-endian, in a field wider than the curve.
pub(super) const SCALAR_FIELD_LEN: usize = 72;
/// Width of the curve, in bytes.
pub(super) const SCALAR_LEN: usize = 48;
/// What follows the signature.
pub(super) const RESERVED_TAIL_LEN: usize = 368;

const _: () = assert!(SIGNED_LEN + 2 * SCALAR_FIELD_LEN + RESERVED_TAIL_LEN == REPORT_LEN);
