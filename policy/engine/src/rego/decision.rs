//! What a rule's value means.

use serde_json::Value;

/// A rule's value, understood.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// The request is denied.
    Denied,
    /// The request is allowed, and the state changes by these operations.
    Allowed(Option<Value>),
}

impl Decision {
    /// Of a value; `None` for one that no rule may have.
    pub(super) fn of(value: Value) -> Option<Self> {
        let mut members = match value {
            Value::Bool(true) => return Some(Self::Allowed(None)),
            Value::Bool(false) => return Some(Self::Denied),
            Value::Object(members) => members,
            _ => return None,
        };
        let allowed = members.remove("allowed")?.as_bool()?;
        let ops = members.remove("ops");
        match (allowed, ops) {
            (false, _) => Some(Self::Denied),
            (true, None | Some(Value::Null)) => Some(Self::Allowed(None)),
            (true, Some(Value::Array(ops))) if ops.is_empty() => Some(Self::Allowed(None)),
            (true, Some(ops)) => Some(Self::Allowed(Some(ops))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_boolean_or_an_object_with_allowed_is_a_decision() {
        let ops = json!([{"op": "add", "path": "/pstate/a", "value": 1}]);
        for (value, decision) in [
            (json!(true), Decision::Allowed(None)),
            (json!(false), Decision::Denied),
            (json!({"allowed": true}), Decision::Allowed(None)),
            (json!({"allowed": true, "ops": []}), Decision::Allowed(None)),
            (
                json!({"allowed": true, "ops": ops}),
                Decision::Allowed(Some(ops.clone())),
            ),
            (json!({"allowed": false, "ops": ops}), Decision::Denied),
            (json!({"allowed": true, "more": 1}), Decision::Allowed(None)),
        ] {
            assert_eq!(Decision::of(value.clone()), Some(decision), "{value}");
        }
    }

    #[test]
    fn every_other_value_is_none() {
        for value in [
            json!(null),
            json!(1),
            json!("true"),
            json!([true]),
            json!({}),
            json!({"allowed": 1}),
            json!({"allowed": "true"}),
            json!({"ops": []}),
        ] {
            assert_eq!(Decision::of(value.clone()), None, "{value}");
        }
    }
}
