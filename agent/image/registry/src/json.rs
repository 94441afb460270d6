//! What `serde_json` is too lenient in for documents that strangers write.
//!
//! It limits depth (128), but not in members that nobody reads; and it refuses a
//! repeated member of a struct, but in a map the last one would win silently, while
//! other readers take the first.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// As for the members that are read.
const DEPTH_MAX: usize = 128;

/// Parses a document that is nowhere nested too deep.
///
/// # Errors
/// It is nested too deep, no JSON, or not what is wanted.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, serde_json::Error> {
    if is_too_deep(bytes) {
        let error = format_args!("it is nested more than {DEPTH_MAX} deep");
        return Err(de::Error::custom(error));
    }
    serde_json::from_slice(bytes)
}

fn is_too_deep(bytes: &[u8]) -> bool {
    let mut depth: usize = 0;
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut rest),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

fn skip_string(rest: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                rest.next();
            }
            _ => {}
        }
    }
}

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
