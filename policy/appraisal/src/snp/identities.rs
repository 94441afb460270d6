//! What a guest may be, and whether one is.

use std::collections::BTreeSet;

use agent_evidence::LaunchMeasurement;
use serde::{Deserialize, Serialize};

use super::{
    fields::Fields,
    ids::{BlockId, KeyDigest},
};
use crate::uvm::DidX509;

/// What a guest may be: one of the measurements, signed by a trusted key, or endorsed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// Launch measurements.
    #[serde(default)]
    pub measurements: BTreeSet<LaunchMeasurement>,
    /// Guests accepted for their ID block.
    #[serde(default)]
    pub signed: Vec<SignedIdentity>,
    /// Guests accepted for everything that an entry names together.
    #[serde(default)]
    pub combined: Vec<CombinedIdentity>,
    /// Guests accepted for the UVM endorsement of their measurement. With any here an
    /// endorsement must be given and hold, whatever else is listed.
    #[serde(default)]
    pub endorsed: Vec<EndorsedIdentity>,
}

/// A guest accepted because a trusted key signed its ID block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedIdentity {
    /// Digest of the ID key.
    pub id_key_digest: KeyDigest,
    /// Digest of the author key, where one must have signed the ID key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_key_digest: Option<KeyDigest>,
    /// Family id in the ID block.
    pub family_id: BlockId,
    /// Image id in the ID block.
    pub image_id: BlockId,
    /// Lowest guest security version.
    pub guest_svn: u32,
}

/// A guest accepted because its maker endorsed its launch measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsedIdentity {
    /// Who must have signed; names the root to trust.
    pub issuer: DidX509,
    /// The product line that the measurement must be of, exactly.
    pub feed: String,
    /// Lowest security version. Old endorsements stay valid, so only this retires them.
    pub minimum_svn: u64,
}

/// A guest accepted for a launch measurement, a signed ID block, or both together. What an
/// entry leaves out is not asked for; what it names must all hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenCombinedIdentity")]
pub struct CombinedIdentity {
    /// The launch measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurement: Option<LaunchMeasurement>,
    /// Digest of the ID key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_key_digest: Option<KeyDigest>,
    /// Digest of the author key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_key_digest: Option<KeyDigest>,
    /// Family id in the ID block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_id: Option<BlockId>,
    /// Image id in the ID block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<BlockId>,
    /// Lowest guest security version. Whoever makes the ID block writes it, so that without
    /// a key digest it is the host's to choose.
    pub guest_svn: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCombinedIdentity {
    measurement: Option<LaunchMeasurement>,
    id_key_digest: Option<KeyDigest>,
    author_key_digest: Option<KeyDigest>,
    family_id: Option<BlockId>,
    image_id: Option<BlockId>,
    #[serde(default)]
    guest_svn: u32,
}

impl TryFrom<WrittenCombinedIdentity> for CombinedIdentity {
    type Error = &'static str;

    fn try_from(written: WrittenCombinedIdentity) -> Result<Self, Self::Error> {
        if written.measurement.is_none() && written.id_key_digest.is_none() {
            return Err("a combined identity names a measurement or an id_key_digest");
        }
        Ok(Self {
            measurement: written.measurement,
            id_key_digest: written.id_key_digest,
            author_key_digest: written.author_key_digest,
            family_id: written.family_id,
            image_id: written.image_id,
            guest_svn: written.guest_svn,
        })
    }
}

impl Identities {
    /// Whether the launch measurement or the ID block makes a guest one of these.
    pub(super) fn has(&self, fields: &Fields) -> bool {
        self.measurements.contains(&fields.measurement)
            || self
                .signed
                .iter()
                .any(|identity| identity.is_met_by(fields))
            || self
                .combined
                .iter()
                .any(|identity| identity.is_met_by(fields))
    }

    /// What is accepted, in words.
    pub(super) fn describe(&self) -> String {
        let (measurements, signed) = (self.measurements.len(), self.signed.len());
        match (
            measurements,
            signed,
            self.combined.len(),
            self.endorsed.len(),
        ) {
            (0, 0, 0, 0) => {
                "a measurement or signed identity among the reference values".to_owned()
            }
            (0, 0, 0, _) => "a measurement that an accepted UVM endorsement names".to_owned(),
            (_, _, combined, _) => {
                let listed: Vec<String> = self
                    .measurements
                    .iter()
                    .take(4)
                    .map(ToString::to_string)
                    .collect();
                format!(
                    "one of {measurements} measurements [{}], of {signed} signed or of {combined} combined identities",
                    listed.join(", ")
                )
            }
        }
    }
}

impl SignedIdentity {
    fn is_met_by(&self, fields: &Fields) -> bool {
        let author = self
            .author_key_digest
            .is_none_or(|digest| is_key(digest, fields.author_key_digest));
        is_key(self.id_key_digest, fields.id_key_digest)
            && author
            && self.family_id == fields.family_id
            && self.image_id == fields.image_id
            && self.guest_svn <= fields.guest_svn
    }
}

impl CombinedIdentity {
    fn is_met_by(&self, fields: &Fields) -> bool {
        let Self {
            measurement,
            id_key_digest,
            author_key_digest,
            family_id,
            image_id,
            guest_svn,
        } = *self;
        let names_any = measurement.is_some() || id_key_digest.is_some();
        names_any
            && measurement.is_none_or(|wanted| wanted == fields.measurement)
            && id_key_digest.is_none_or(|wanted| is_key(wanted, fields.id_key_digest))
            && author_key_digest.is_none_or(|wanted| is_key(wanted, fields.author_key_digest))
            && family_id.is_none_or(|wanted| wanted == fields.family_id)
            && image_id.is_none_or(|wanted| wanted == fields.image_id)
            && guest_svn <= fields.guest_svn
    }
}

/// A zero digest means that nobody signed, and matches nothing.
fn is_key(wanted: KeyDigest, found: KeyDigest) -> bool {
    wanted != KeyDigest::ZERO && wanted == found
}
