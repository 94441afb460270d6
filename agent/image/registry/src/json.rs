//! What registries leave lenient: members that are `null` where they should be empty.

use std::collections::BTreeMap;

pub use agent_documents::UniqueMap;
use serde::de::{Deserialize, Deserializer};

/// For members that some tools write as `null` when they are empty.
pub(crate) fn unique_map_or_null<'de, D>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::<UniqueMap<String>>::deserialize(deserializer)?
        .unwrap_or_default()
        .0)
}

/// As above, for any value that has a default.
pub(crate) fn default_or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
