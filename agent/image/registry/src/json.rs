//! What `serde_json` is too lenient in for documents that strangers write.
//!
//! It refuses a repeated member of a struct, but in a map the last one would win silently,
//! while other readers take the first.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A map whose keys are unique in the document.
#[derive(Debug, Clone)]
pub struct UniqueMap<V = String>(
    /// Its members.
    pub BTreeMap<String, V>,
);

impl<V> Default for UniqueMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Unique(PhantomData))
    }
}

struct Unique<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMap<V>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, V>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!(
                    "member `{key}` is given twice"
                )));
            }
            map.insert(key, value);
        }
        Ok(UniqueMap(map))
    }
}

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
