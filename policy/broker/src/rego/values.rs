//! Reference values by name, for policies that ask as Trustee's do.

use std::collections::BTreeMap;

use anyhow::{Error, anyhow};
use policy_appraisal::Timestamp;
use regorus::Value as Rego;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::now;

/// A value and until when it holds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedValue {
    /// Any JSON.
    pub(crate) value: Value,
    /// Asked for after that, it is an error.
    pub(crate) expires: Timestamp,
}

/// Values by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct NamedValues(
    #[serde(deserialize_with = "agent_documents::unique")] BTreeMap<String, NamedValue>,
);

impl NamedValues {
    /// Answers `query_reference_value(name)`. A name that is not there, or whose value is past
    /// its time, ends the evaluation.
    pub(super) fn answer(&self, arguments: &[Rego]) -> Result<Rego, Error> {
        let name = match arguments {
            [Rego::String(name)] => name.as_ref(),
            _ => return Err(anyhow!("query_reference_value takes a name")),
        };
        let Some(named) = self.0.get(name) else {
            return Err(anyhow!("there is no reference value {name:?}"));
        };
        match now() {
            Some(now) if Timestamp::from_unix_seconds(now) < named.expires => {
                Rego::from_json_str(&named.value.to_string())
            }
            _ => {
                let expires = named.expires;
                Err(anyhow!("the reference value {name:?} held until {expires}"))
            }
        }
    }
}
