//! Reference values that can be written in more than one way.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

/// What is asked of one bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// It must be set.
    Required,
    /// It must not be set.
    Forbidden,
    /// It may be either.
    #[default]
    Either,
}

/// Privilege levels that a report may be asked for from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Levels(pub BTreeSet<u32>);

/// Mitigation bits that must be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mitigations {
    /// In LAUNCH_MIT_VECTOR.
    pub launch: u64,
    /// In CURRENT_MIT_VECTOR.
    pub current: u64,
}

impl Rule {
    const NAMES: [(&str, Self); 3] = [
        ("required", Self::Required),
        ("forbidden", Self::Forbidden),
        ("either", Self::Either),
    ];

    /// Whether a bit is as asked.
    pub(super) fn allows(self, is_set: bool) -> bool {
        match self {
            Self::Required => is_set,
            Self::Forbidden => !is_set,
            Self::Either => true,
        }
    }
}

impl Levels {
    /// This level and no other.
    pub fn only(level: u32) -> Self {
        Self(BTreeSet::from([level]))
    }
}

impl Default for Levels {
    /// The most privileged level.
    fn default() -> Self {
        Self::only(0)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels: Vec<String> = self.0.iter().map(u32::to_string).collect();
        match &levels[..] {
            [] => f.write_str("a level among the reference values"),
            [only] => f.write_str(only),
            _ => write!(f, "one of {}", levels.join(", ")),
        }
    }
}

impl Mitigations {
    /// The same bits at launch and now.
    pub fn both(mask: u64) -> Self {
        Self {
            launch: mask,
            current: mask,
        }
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LevelsVisitor)
    }
}

impl<'de> Deserialize<'de> for Mitigations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MitigationsVisitor)
    }
}

struct RuleVisitor;

impl Visitor<'_> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#""required", "forbidden" or "either""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Rule, E> {
        let found = Rule::NAMES.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, rule)| rule)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    /// As these rules were written when a bit could not be forbidden.
    fn visit_bool<E: Error>(self, is_required: bool) -> Result<Rule, E> {
        Ok(if is_required {
            Rule::Required
        } else {
            Rule::Either
        })
    }
}

struct LevelsVisitor;

impl<'de> Visitor<'de> for LevelsVisitor {
    type Value = Levels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a privilege level or a list of them")
    }

    fn visit_u64<E: Error>(self, level: u64) -> Result<Levels, E> {
        let level = u32::try_from(level);
        level
            .map(Levels::only)
            .map_err(|_| E::custom("a privilege level has 32 bits"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Levels, A::Error> {
        let mut levels = BTreeSet::new();
        while let Some(level) = list.next_element()? {
            levels.insert(level);
        }
        Ok(Levels(levels))
    }
}

struct MitigationsVisitor;

impl<'de> Visitor<'de> for MitigationsVisitor {
    type Value = Mitigations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mask, or masks `launch` and `current`")
    }

    fn visit_u64<E: Error>(self, mask: u64) -> Result<Mitigations, E> {
        Ok(Mitigations::both(mask))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Mitigations, A::Error> {
        let Masks { launch, current } = Masks::deserialize(MapAccessDeserializer::new(members))?;
        Ok(Mitigations { launch, current })
    }
}

/// Both must be given: a mask that is left out would ask for nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Masks {
    launch: u64,
    current: u64,
}
