//! An authentic report: its fields, and that there is no other way to one.

use agent_evidence::{HostData, LaunchMeasurement, ReportData};

use super::{
    Product, Tcb,
    endorser::SigningKey,
    fields::{Fields, FirmwareVersion, GuestPolicy, PlatformInfo},
    ids::{BlockId, ChipId, KeyDigest, ReportId},
};
use crate::{uvm::AuthenticEndorsement, verdict::Findings};

/// A report that a chip of AMD signed, endorsed by a chain to a pinned root.
///
/// Its fields are what the chip says. Whether that is good enough is for
/// [`AuthenticReport::appraise`].
#[derive(Clone, Debug)]
#[must_use = "an authentic report may still be of a guest nobody asked for"]
pub struct AuthenticReport {
    pub(super) fields: Fields,
    pub(super) product: Product,
    pub(super) signing_key: SigningKey,
    pub(super) tcbs: Tcbs,
    /// An authentic endorsement that came with the report, of whatever guest.
    pub(super) endorsement: Option<AuthenticEndorsement>,
    pub(super) findings: Findings,
}

/// The four TCB versions of a report, in its product's layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcbs {
    pub(super) reported: Tcb,
    pub(super) committed: Tcb,
    pub(super) current: Tcb,
    pub(super) launch: Tcb,
}

impl Tcbs {
    /// In the layout of the product; `None` if a reserved byte is not zero.
    pub(super) fn read(fields: &Fields, product: Product) -> Option<Self> {
        Some(Self {
            reported: Tcb::parse(product, fields.reported_tcb)?,
            committed: Tcb::parse(product, fields.committed_tcb)?,
            current: Tcb::parse(product, fields.current_tcb)?,
            launch: Tcb::parse(product, fields.launch_tcb)?,
        })
    }
}

macro_rules! claims {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $field:ident),+ $(,)?) => {
        $($(#[$doc])* pub fn $name(&self) -> $type { self.fields.$field })+
    };
}

impl AuthenticReport {
    claims! {
        /// Version of the report's layout.
        version: u32 = version,
        /// Security version of the guest, from its ID block.
        guest_svn: u32 = guest_svn,
        /// Policy the guest was launched under.
        guest_policy: GuestPolicy = policy,
        /// Family id from the ID block.
        family_id: BlockId = family_id,
        /// Image id from the ID block.
        image_id: BlockId = image_id,
        /// Privilege level that asked for the report.
        vmpl: u32 = vmpl,
        /// Features of the platform.
        platform_info: PlatformInfo = platform,
        /// What the guest had signed.
        report_data: ReportData = report_data,
        /// Launch measurement.
        measurement: LaunchMeasurement = measurement,
        /// What the host gave at launch.
        host_data: HostData = host_data,
        /// Digest of the key that signed the ID block.
        id_key_digest: KeyDigest = id_key_digest,
        /// Digest of the key that signed the ID key.
        author_key_digest: KeyDigest = author_key_digest,
        /// Id of this guest, new at each launch.
        report_id: ReportId = report_id,
        /// Id of the guest's migration agent; all ones without one.
        report_id_ma: ReportId = report_id_ma,
        /// The chip, unless masked.
        chip_id: ChipId = chip_id,
        /// Firmware that runs.
        current_firmware: FirmwareVersion = current,
        /// Firmware below which the platform will not go back.
        committed_firmware: FirmwareVersion = committed,
    }

    /// The product.
    pub fn product(&self) -> Product {
        self.product
    }

    /// The kind of key that signed.
    pub fn signing_key(&self) -> SigningKey {
        self.signing_key
    }

    /// The TCB that the signing key is derived from.
    pub fn reported_tcb(&self) -> Tcb {
        self.tcbs.reported
    }
}
