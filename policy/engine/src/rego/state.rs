//! What a policy remembers of what it allowed: its `pstate`.
//!
//! A change is made when it is decided, so that the next request is judged by it, and is undone
//! if what was allowed then fails.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::patch::{self, PatchError};

/// The longest state, as text.
const STATE_BYTES_MAX: usize = 1 << 20;

/// What a policy remembers, by key.
#[derive(Debug, Default)]
pub(super) struct State {
    members: Map<String, Value>,
    version: u64,
    changes: u64,
    /// Changes that are neither kept for good nor undone.
    open: BTreeSet<u64>,
    /// The last change that is kept for good.
    kept: u64,
}

/// One change, to be undone or kept.
#[derive(Debug)]
pub(super) struct Change {
    number: u64,
    /// The key that belongs to the request's container, and to no other request.
    own: Option<String>,
    /// Each key that it touched, with its value before and after.
    touched: Vec<Touched>,
}

#[derive(Debug)]
struct Touched {
    key: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl State {
    /// The document in which a policy finds the state.
    pub(super) fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("pstate".to_owned(), Value::Object(self.members.clone()));
        Value::Object(document)
    }

    /// Counts up whenever the document changes.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Makes the changes of a decision about a request for this container.
    pub(super) fn change(&mut self, ops: Value, own: Option<&str>) -> Result<Change, PatchError> {
        let after = patch::apply(&self.members, ops)?;
        if length(&after) > STATE_BYTES_MAX {
            return Err(PatchError::Form);
        }
        let keys: BTreeSet<&String> = self.members.keys().chain(after.keys()).collect();
        let differs = |key: &&String| self.members.get(*key) != after.get(*key);
        let touched = keys.into_iter().filter(differs);
        let touched = touched
            .map(|key| Touched {
                key: key.clone(),
                before: self.members.get(key).cloned(),
                after: after.get(key).cloned(),
            })
            .collect();
        self.members = after;
        self.version = self.version.saturating_add(1);
        self.changes = self.changes.saturating_add(1);
        self.open.insert(self.changes);
        Ok(Change {
            number: self.changes,
            own: own.map(str::to_owned),
            touched,
        })
    }

    /// Keeps a change for good.
    pub(super) fn keep(&mut self, change: &Change) {
        self.open.remove(&change.number);
        self.kept = self.kept.max(change.number);
    }

    /// Takes a change back. A key of the whole pod stays if another request was judged by it
    /// since: it was allowed because the key is what it is.
    pub(super) fn undo(&mut self, change: Change) {
        self.open.remove(&change.number);
        let later = self.open.last().copied().unwrap_or_default().max(self.kept);
        let last = change.number > later;
        for touched in change.touched {
            let own = change.own.as_ref() == Some(&touched.key);
            let unchanged = self.members.get(&touched.key) == touched.after.as_ref();
            if !unchanged || !(own || last) {
                continue;
            }
            match touched.before {
                Some(before) => self.members.insert(touched.key, before),
                None => self.members.remove(&touched.key),
            };
        }
        self.version = self.version.saturating_add(1);
    }
}

fn length(members: &Map<String, Value>) -> usize {
    serde_json::to_vec(members).map_or(usize::MAX, |text| text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn created(state: &mut State, container: &str, pins: bool) -> Change {
        let mut ops =
            vec![json!({"op": "add", "path": format!("/pstate/{container}"), "value": 1})];
        if pins {
            ops.push(json!({"op": "add", "path": "/pstate/name", "value": "pod"}));
        }
        state.change(Value::Array(ops), Some(container)).unwrap()
    }

    fn document(state: &State) -> Value {
        state.document()["pstate"].clone()
    }

    #[test]
    fn a_change_that_is_undone_leaves_the_state_as_it_was() {
        let mut state = State::default();
        created(&mut state, "a", true);
        let before = document(&state);
        let change = created(&mut state, "b", false);
        assert_ne!(document(&state), before);
        state.undo(change);
        assert_eq!(document(&state), before);
        let removed = state
            .change(json!([{"op": "remove", "path": "/pstate/a"}]), Some("a"))
            .unwrap();
        assert_eq!(document(&state), json!({"name": "pod"}));
        state.undo(removed);
        assert_eq!(document(&state), before);
    }

    #[test]
    fn a_key_of_the_pod_stays_if_another_request_was_judged_by_it() {
        let mut state = State::default();
        let first = created(&mut state, "a", true);
        let second = created(&mut state, "b", false);
        state.keep(&second);
        state.undo(first);
        assert_eq!(document(&state), json!({"b": 1, "name": "pod"}));
    }

    #[test]
    fn what_failed_later_is_no_reason_to_keep_a_key_of_the_pod() {
        for last_first in [true, false] {
            let mut state = State::default();
            let first = created(&mut state, "a", true);
            let second = created(&mut state, "b", false);
            let order = match last_first {
                true => [second, first],
                false => [first, second],
            };
            order.into_iter().for_each(|change| state.undo(change));
            let left = if last_first {
                json!({})
            } else {
                json!({"name": "pod"})
            };
            assert_eq!(document(&state), left);
        }
    }

    #[test]
    fn the_version_follows_every_change() {
        let mut state = State::default();
        let none = state.version();
        let change = created(&mut state, "a", false);
        let one = state.version();
        state.undo(change);
        assert!(none < one && one < state.version());
    }

    #[test]
    fn a_state_that_grows_without_end_is_refused() {
        let mut state = State::default();
        let big = "x".repeat(STATE_BYTES_MAX);
        let op = json!([{"op": "add", "path": "/pstate/a", "value": big}]);
        assert!(state.change(op, None).is_err());
        assert_eq!(document(&state), json!({}));
    }
}
