//! What an IGVM file reports, as its owner registers it.
//!
//! Other than for an image there is one value: the file holds the firmware and the processors.

use guest_image_measurement::igvm::{IdBlockError, Igvm, IgvmError, Loader, LoaderError};
use serde::Serialize;

use crate::{manifest::FileDigest, measure::ReferenceValues};

/// The expected value of a file, and what it asks of the secure processor.
#[derive(Debug, Serialize)]
pub struct IgvmMeasurement {
    /// Version of this structure.
    pub schema: u32,
    /// The file.
    pub igvm: FileDigest,
    /// Who loads it.
    pub loader: &'static str,
    /// How many processors it starts.
    pub vcpus: u16,
    /// The guest policy.
    pub policy: String,
    /// The value, as a report has it.
    pub launch_digest: String,
    /// The ID block, if the file has one.
    pub id_block: Option<Identity>,
    /// The same value as a verifier takes it.
    pub reference_values: ReferenceValues,
}

/// An authentic ID block, as reports show it.
#[derive(Debug, Serialize)]
pub struct Identity {
    /// `FAMILY_ID`.
    pub family_id: String,
    /// `IMAGE_ID`.
    pub image_id: String,
    /// `GUEST_SVN`.
    pub guest_svn: u32,
    /// `ID_KEY_DIGEST`.
    pub id_key_digest: String,
    /// `AUTHOR_KEY_DIGEST`: zeros without an author's key.
    pub author_key_digest: String,
}

/// Why a file has no measurement.
#[derive(Debug, thiserror::Error)]
pub enum IgvmMeasureError {
    /// It breaks the format.
    #[error(transparent)]
    Format(#[from] IgvmError),
    /// The loader would not load it.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The secure processor would not launch it.
    #[error("is refused by the secure processor when {loader} loads it")]
    IdBlock {
        /// Who loads it.
        loader: Loader,
        /// Why.
        source: IdBlockError,
    },
}

/// The expected value of a file.
///
/// # Errors
///
/// When it breaks the format, or would not be launched.
pub fn measure(file: &[u8], loader: Loader) -> Result<IgvmMeasurement, IgvmMeasureError> {
    let igvm = Igvm::parse(file)?;
    let digest = igvm.digest(loader)?;
    let authentication = igvm
        .authenticate(digest)
        .map_err(|source| IgvmMeasureError::IdBlock { loader, source })?;
    let id_block = igvm.id_block().zip(authentication);
    Ok(IgvmMeasurement {
        schema: 1,
        igvm: FileDigest::of(file),
        loader: loader.name(),
        vcpus: igvm.processors(),
        policy: format!("{:#x}", igvm.policy()),
        launch_digest: digest.to_string(),
        id_block: id_block.map(|(block, authentication)| Identity {
            family_id: hex::encode(block.family_id),
            image_id: hex::encode(block.image_id),
            guest_svn: block.guest_svn,
            id_key_digest: authentication.id_key_digest().to_string(),
            author_key_digest: authentication.author_key_digest().to_string(),
        }),
        reference_values: ReferenceValues::of(digest.to_string()),
    })
}
