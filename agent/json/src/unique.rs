//! Maps whose members are unique.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

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
