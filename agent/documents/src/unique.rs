//! Maps whose members are unique.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// A map whose keys are unique in the document.
#[derive(Debug, Clone)]
pub struct UniqueMap<V = String, K = String>(
    /// Its members.
    pub BTreeMap<K, V>,
);

impl<V, K> Default for UniqueMap<V, K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V, K> Deserialize<'de> for UniqueMap<V, K>
where
    V: Deserialize<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Unique(PhantomData))
    }
}

/// For a field that is the plain map.
///
/// # Errors
/// It is no map, or a key is given twice.
pub fn unique<'de, D, V, K>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
{
    UniqueMap::deserialize(deserializer).map(|UniqueMap(members)| members)
}

struct Unique<V, K>(PhantomData<(V, K)>);

impl<'de, V, K> Visitor<'de> for Unique<V, K>
where
    V: Deserialize<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
{
    type Value = UniqueMap<V, K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMap<V, K>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<K, V>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "member `{key}` is given twice"
                )));
            }
            map.insert(key, value);
        }
        Ok(UniqueMap(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_given_twice_is_refused_by_name() {
        let parse = |text| serde_json::from_str::<UniqueMap>(text);
        assert_eq!(parse(r#"{"a":"1","b":"2"}"#).unwrap().0.len(), 2);
        let error = parse(r#"{"a":"1","\u0061":"1"}"#).unwrap_err();
        assert!(
            error.to_string().contains("member `a` is given twice"),
            "{error}"
        );
    }
}
