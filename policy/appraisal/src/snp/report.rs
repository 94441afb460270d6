//! A report as received: 1184 bytes that nobody may read yet.

use agent_evidence::{
    LaunchMeasurement,
    bytes::{Reader, Truncated, all_zero},
    snp::{REPORT_LEN, ReportLengthError},
};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use super::{
    endorser::{Leaf, SigningKey},
    fields::Fields,
    ids::ChipId,
    layout::{RESERVED_TAIL_LEN, SCALAR_FIELD_LEN, SCALAR_LEN, SIGNED_LEN},
    product::Product,
};

/// A report that anyone may have made. It has no fields to read.
#[derive(Clone, PartialEq, Eq)]
pub struct UnverifiedReport(Box<[u8; REPORT_LEN]>);

/// Where a report's certificate may be found, as an unverified report claims.
///
/// A lie here finds a certificate that does not verify the report, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndorsementLocator {
    /// The product, if the report names its CPU (version 3 and later).
    pub product: Option<Product>,
    /// The kind of key, if it is a known one.
    pub signing_key: Option<SigningKey>,
    /// The chip; zero if masked.
    pub chip_id: ChipId,
    /// The reported TCB in the product's layout.
    pub tcb: [u8; 8],
}

/// A signature in bytes the way ECDSA code takes them: R and S, big-endian.
pub(crate) struct Scalars([u8; 2 * SCALAR_LEN]);

impl std::fmt::Debug for UnverifiedReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnverifiedReport(..)")
    }
}

impl UnverifiedReport {
    /// Takes the bytes of a report, exactly as many as it has.
    ///
    /// # Errors
    ///
    /// [`ReportLengthError`] if they are more or fewer.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportLengthError> {
        match <[u8; REPORT_LEN]>::try_from(bytes) {
            Ok(bytes) => Ok(Self::of(bytes)),
            Err(_) => Err(ReportLengthError(bytes.len())),
        }
    }

    /// A report of these bytes.
    pub fn of(bytes: [u8; REPORT_LEN]) -> Self {
        Self(Box::new(bytes))
    }

    /// The bytes as received, to be passed on.
    pub fn as_bytes(&self) -> &[u8; REPORT_LEN] {
        &self.0
    }

    /// What to look for in a certificate cache. Proves nothing.
    pub fn locator(&self) -> EndorsementLocator {
        let fields = self.unproven_fields();
        EndorsementLocator {
            product: (fields.version >= 3)
                .then(|| Product::of_cpu(fields.cpu.0, fields.cpu.1))
                .flatten(),
            signing_key: SigningKey::of_selector(fields.key_info >> 2 & 7),
            chip_id: fields.chip_id,
            tcb: fields.reported_tcb,
        }
    }

    /// The launch measurement that the report claims. It is true only if a verdict accepts the
    /// evidence.
    pub fn claimed_measurement(&self) -> LaunchMeasurement {
        self.unproven_fields().measurement
    }

    /// The fields, for authentication and transport only.
    pub(super) fn unproven_fields(&self) -> Fields {
        Fields::read(&self.0)
    }

    /// R and S as they lie in the report: little-endian, at full width.
    pub(super) fn signature_fields(&self) -> ([u8; SCALAR_FIELD_LEN], [u8; SCALAR_FIELD_LEN]) {
        let mut signature = Reader::new(&*self.0);
        let mut fields = || {
            signature.take(SIGNED_LEN)?;
            Ok::<_, Truncated>((signature.array()?, signature.array()?))
        };
        fields().expect("a report's length is that of its layout")
    }

    /// R and S, unless one does not fit the curve's width.
    pub(super) fn scalars(&self) -> Option<Scalars> {
        let (r, s) = self.signature_fields();
        let mut scalars = [0; 2 * SCALAR_LEN];
        for (field, scalar) in [r, s].iter().zip(scalars.chunks_exact_mut(SCALAR_LEN)) {
            let (low, high) = field.split_at_checked(SCALAR_LEN)?;
            if !all_zero(high) {
                return None;
            }
            scalar
                .iter_mut()
                .rev()
                .zip(low)
                .for_each(|(to, from)| *to = *from);
        }
        Some(Scalars(scalars))
    }

    /// Whether the leaf's key signed the bytes as received.
    pub(super) fn is_signed_by(&self, leaf: &Leaf, scalars: &Scalars) -> bool {
        let Some((signed, _)) = self.0.split_at_checked(SIGNED_LEN) else {
            return false;
        };
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &leaf.key)
            .verify(signed, &scalars.0)
            .is_ok()
    }

    /// Whether the bytes after the signature, which it does not cover, are zero.
    pub(super) fn has_zero_tail(&self) -> bool {
        self.0
            .split_at_checked(REPORT_LEN - RESERVED_TAIL_LEN)
            .is_some_and(|(_, tail)| all_zero(tail))
    }
}
