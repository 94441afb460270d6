//! JSON Patch (RFC 6902), confined to what lies below `/pstate`.
//!
//! The operations are the policy's own, made of what the host sent: an identifier can be in a
//! path. A patch applies as a whole or not at all.

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// The most operations of one decision.
const OPERATIONS_MAX: usize = 256;
const PARTS_MAX: usize = 16;
const ROOT: &str = "pstate";

/// Why a patch cannot be applied. The policy is at fault, or what it was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatchError {
    /// Not operations of RFC 6902, or too many.
    #[error("its changes of state have no known form")]
    Form,
    /// A path that does not lie below `/pstate`.
    #[error("its changes of state are not below /pstate")]
    Outside,
    /// A path to nothing.
    #[error("its changes of state are about something that is not there")]
    Missing,
    /// A `test` that does not hold.
    #[error("a test among its changes of state does not hold")]
    Test,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

/// The state with the operations applied.
///
/// # Errors
///
/// [`PatchError`]; nothing is applied then.
pub(super) fn apply(
    state: &Map<String, Value>,
    ops: Value,
) -> Result<Map<String, Value>, PatchError> {
    let ops = Vec::<Operation>::deserialize(ops).map_err(|_| PatchError::Form)?;
    if ops.len() > OPERATIONS_MAX {
        return Err(PatchError::Form);
    }
    let mut changed = Value::Object(state.clone());
    for op in ops {
        operate(&mut changed, op)?;
    }
    match changed {
        Value::Object(state) => Ok(state),
        _ => Err(PatchError::Form),
    }
}

fn operate(state: &mut Value, op: Operation) -> Result<(), PatchError> {
    match op {
        Operation::Add { path, value } => add(state, &pointer(&path)?, value),
        Operation::Remove { path } => remove(state, &pointer(&path)?).map(drop),
        Operation::Replace { path, value } => {
            *found(state, &pointer(&path)?)? = value;
            Ok(())
        }
        Operation::Move { from, path } => {
            let (from, path) = (pointer(&from)?, pointer(&path)?);
            if path.starts_with(&from) {
                return Err(PatchError::Form);
            }
            let value = remove(state, &from)?;
            add(state, &path, value)
        }
        Operation::Copy { from, path } => {
            let value = found(state, &pointer(&from)?)?.clone();
            add(state, &pointer(&path)?, value)
        }
        Operation::Test { path, value } => match *found(state, &pointer(&path)?)? == value {
            true => Ok(()),
            false => Err(PatchError::Test),
        },
    }
}

/// The parts of a path below the root, of which there is at least one.
fn pointer(path: &str) -> Result<Vec<String>, PatchError> {
    let mut parts = path.split('/');
    if parts.next() != Some("") || parts.next() != Some(ROOT) {
        return Err(PatchError::Outside);
    }
    let parts: Vec<String> = parts
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect();
    match parts.len() {
        0 => Err(PatchError::Outside),
        1..=PARTS_MAX => Ok(parts),
        _ => Err(PatchError::Form),
    }
}

fn found<'a>(value: &'a mut Value, parts: &[String]) -> Result<&'a mut Value, PatchError> {
    parts.iter().try_fold(value, |value, part| {
        let inner = match value {
            Value::Object(members) => members.get_mut(part),
            Value::Array(items) => position(part, items.len()).and_then(|at| items.get_mut(at)),
            _ => None,
        };
        inner.ok_or(PatchError::Missing)
    })
}

fn add(state: &mut Value, parts: &[String], new: Value) -> Result<(), PatchError> {
    let (last, parents) = parts.split_last().ok_or(PatchError::Outside)?;
    match found(state, parents)? {
        Value::Object(members) => {
            members.insert(last.clone(), new);
            Ok(())
        }
        Value::Array(items) => {
            let end = items.len();
            let at = match last.as_str() {
                "-" => end,
                _ => position(last, end.saturating_add(1)).ok_or(PatchError::Missing)?,
            };
            items.insert(at, new);
            Ok(())
        }
        _ => Err(PatchError::Missing),
    }
}

fn remove(state: &mut Value, parts: &[String]) -> Result<Value, PatchError> {
    let (last, parents) = parts.split_last().ok_or(PatchError::Outside)?;
    match found(state, parents)? {
        Value::Object(members) => members.remove(last).ok_or(PatchError::Missing),
        Value::Array(items) => {
            let at = position(last, items.len()).ok_or(PatchError::Missing)?;
            Ok(items.remove(at))
        }
        _ => Err(PatchError::Missing),
    }
}

/// An index as RFC 6901 spells it, if it is within the length.
fn position(part: &str, len: usize) -> Option<usize> {
    let plain = part == "0" || !part.starts_with('0');
    let digits = part.bytes().all(|byte| byte.is_ascii_digit());
    let at = part.parse().ok().filter(|_| plain && digits)?;
    (at < len).then_some(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(state: Value, ops: Value) -> Result<Value, PatchError> {
        let state = state.as_object().unwrap().clone();
        apply(&state, ops).map(Value::Object)
    }

    #[test]
    fn each_operation_does_what_the_rfc_says() {
        for (before, op, after) in [
            (
                json!({}),
                json!({"op": "add", "path": "/pstate/a", "value": 1}),
                json!({"a": 1}),
            ),
            (
                json!({"a": 1}),
                json!({"op": "add", "path": "/pstate/a", "value": 2}),
                json!({"a": 2}),
            ),
            (
                json!({"a": [1, 3]}),
                json!({"op": "add", "path": "/pstate/a/1", "value": 2}),
                json!({"a": [1, 2, 3]}),
            ),
            (
                json!({"a": [1]}),
                json!({"op": "add", "path": "/pstate/a/-", "value": 2}),
                json!({"a": [1, 2]}),
            ),
            (
                json!({"a": 1}),
                json!({"op": "remove", "path": "/pstate/a"}),
                json!({}),
            ),
            (
                json!({"a": [1, 2]}),
                json!({"op": "remove", "path": "/pstate/a/0"}),
                json!({"a": [2]}),
            ),
            (
                json!({"a": 1}),
                json!({"op": "replace", "path": "/pstate/a", "value": {}}),
                json!({"a": {}}),
            ),
            (
                json!({"a": 1}),
                json!({"op": "move", "from": "/pstate/a", "path": "/pstate/b"}),
                json!({"b": 1}),
            ),
            (
                json!({"a": 1}),
                json!({"op": "copy", "from": "/pstate/a", "path": "/pstate/b"}),
                json!({"a": 1, "b": 1}),
            ),
            (
                json!({"a/b": 1}),
                json!({"op": "test", "path": "/pstate/a~1b", "value": 1}),
                json!({"a/b": 1}),
            ),
        ] {
            assert_eq!(patched(before, json!([op])), Ok(after), "{op}");
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_an_error() {
        use PatchError::{Form, Missing, Test};
        for (op, error) in [
            (json!({"op": "remove", "path": "/pstate/b"}), Missing),
            (
                json!({"op": "replace", "path": "/pstate/b", "value": 1}),
                Missing,
            ),
            (
                json!({"op": "add", "path": "/pstate/b/c", "value": 1}),
                Missing,
            ),
            (
                json!({"op": "add", "path": "/pstate/l/3", "value": 1}),
                Missing,
            ),
            (json!({"op": "remove", "path": "/pstate/l/01"}), Missing),
            (
                json!({"op": "move", "from": "/pstate/a", "path": "/pstate/a/b"}),
                Form,
            ),
            (json!({"op": "test", "path": "/pstate/a", "value": 2}), Test),
            (json!({"op": "spin", "path": "/pstate/a"}), Form),
            (json!("add"), Form),
        ] {
            assert_eq!(
                patched(json!({"a": 1, "l": [1, 2]}), json!([op])),
                Err(error),
                "{op}"
            );
        }
        let many: Vec<Value> = (0..=OPERATIONS_MAX)
            .map(|n| json!({"op": "add", "path": format!("/pstate/{n}"), "value": n}))
            .collect();
        assert_eq!(patched(json!({}), Value::Array(many)), Err(Form));
    }

    #[test]
    fn only_what_lies_below_pstate_is_changed() {
        for path in [
            "",
            "/",
            "/pstate",
            "pstate/a",
            "/policy_data/a",
            "/pstatex/a",
            "/pstate~1a",
        ] {
            let op = json!([{"op": "add", "path": path, "value": 1}]);
            assert_eq!(patched(json!({}), op), Err(PatchError::Outside), "{path}");
        }
    }

    #[test]
    fn a_patch_that_fails_half_way_changes_nothing() {
        let ops = json!([
            {"op": "add", "path": "/pstate/b", "value": 1},
            {"op": "remove", "path": "/pstate/c"},
        ]);
        let state = json!({"a": 1}).as_object().unwrap().clone();
        assert!(apply(&state, ops).is_err());
        assert_eq!(Value::Object(state), json!({"a": 1}));
    }
}
