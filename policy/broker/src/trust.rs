//! The trust vector of an attestation policy, and its tier (RATS AR4SI).
//!
//! Claims outside a signed byte are refused, not cut to fit, and names that no vector has are
//! errors: a misspelt claim must not be one that counts for nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// The names of a trust vector.
pub const NAMES: [&str; 8] = [
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
];

/// How good evidence is, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing is claimed, or the verifier failed.
    None,
    /// As it should be.
    Affirming,
    /// Not as it should be.
    Warning,
    /// As it must not be.
    Contraindicated,
}

/// What a policy says is no trust vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Not an object.
    #[error("trust_claims is undefined or no object")]
    Form,
    /// A name that no vector has.
    #[error("trust_claims has {0:?}, which no trust vector has")]
    Name(String),
    /// Not a signed byte.
    #[error("trust claim {name} is {value}, not a whole number from -128 to 127")]
    Range {
        /// The claim.
        name: String,
        /// What it is.
        value: String,
    },
}

/// Claims by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustVector(BTreeMap<String, i8>);

impl TrustVector {
    /// Reads what a policy says.
    ///
    /// # Errors
    ///
    /// [`TrustError`] names the claim.
    pub fn parse(value: &Value) -> Result<Self, TrustError> {
        let Value::Object(members) = value else {
            return Err(TrustError::Form);
        };
        let mut claims = BTreeMap::new();
        for (name, value) in members {
            if !NAMES.contains(&name.as_str()) {
                return Err(TrustError::Name(name.clone()));
            }
            let claim = value.as_i64().and_then(|number| i8::try_from(number).ok());
            let claim = claim.ok_or_else(|| TrustError::Range {
                name: name.clone(),
                value: value.to_string(),
            })?;
            claims.insert(name.clone(), claim);
        }
        Ok(Self(claims))
    }

    /// The worst of all claims. A claim of 1 or -1 says that appraising it failed, and counts
    /// as a warning.
    pub fn tier(&self) -> Tier {
        let tiers = self.0.values().map(|claim| tier_of(*claim));
        tiers.max().unwrap_or(Tier::None)
    }

    /// The claims.
    pub fn claims(&self) -> &BTreeMap<String, i8> {
        &self.0
    }
}

fn tier_of(claim: i8) -> Tier {
    match claim.unsigned_abs() {
        0 => Tier::None,
        2..=31 => Tier::Affirming,
        1 | 32..=95 => Tier::Warning,
        _ => Tier::Contraindicated,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trust_claim_beyond_its_range_is_refused_and_does_not_wrap() {
        for value in [
            json!(128),
            json!(258),
            json!(-129),
            json!(2.5),
            json!("2"),
            json!(null),
        ] {
            let refused = TrustVector::parse(&json!({"hardware": value}));
            assert!(matches!(refused, Err(TrustError::Range { .. })), "{value}");
        }
        let low = TrustVector::parse(&json!({"hardware": -128})).unwrap();
        assert_eq!(low.tier(), Tier::Contraindicated);
    }

    #[test]
    fn an_unknown_claim_is_an_error() {
        let refused = TrustVector::parse(&json!({"hardware": 2, "executable": 2}));
        assert_eq!(refused, Err(TrustError::Name("executable".to_owned())));
    }

    #[test]
    fn the_worst_claim_is_the_tier() {
        for (claims, tier) in [
            (json!({}), Tier::None),
            (json!({"hardware": 0}), Tier::None),
            (json!({"hardware": 2, "executables": 0}), Tier::Affirming),
            (json!({"hardware": 31}), Tier::Affirming),
            (json!({"hardware": 2, "executables": 1}), Tier::Warning),
            (json!({"hardware": 2, "executables": 32}), Tier::Warning),
            (json!({"hardware": 2, "executables": -95}), Tier::Warning),
            (
                json!({"hardware": 97, "executables": 2}),
                Tier::Contraindicated,
            ),
        ] {
            assert_eq!(
                TrustVector::parse(&claims).unwrap().tier(),
                tier,
                "{claims}"
            );
        }
    }
}
