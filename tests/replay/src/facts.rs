//! What was seen of a pod, in words without what is chance: ids, addresses.

use std::collections::{BTreeMap, BTreeSet};

/// Facts by name: `container/what`, with `@1` behind the container after a first change.
pub type Facts = BTreeMap<String, String>;

/// Words that are chance, and what stands for each.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(String, String)>);

impl Names {
    pub(crate) fn add(&mut self, word: &str, name: &str) {
        self.0.push((word.to_owned(), name.to_owned()));
    }

    pub(crate) fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, name) in &self.0 {
            text = text.replace(word, name);
        }
        text
    }
}

/// A fact that two plays do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// `pod/container/what`
    pub name: String,
    /// On a plain node.
    pub plain: String,
    /// In a VM.
    pub ours: String,
}

/// What stands for a fact that is not there.
pub const ABSENT: &str = "(absent)";

/// The facts that differ. Of a container that runs on one side only, what was refused, or how
/// it ended, says it all.
#[must_use]
pub fn differing(pod: &str, plain: &Facts, ours: &Facts) -> Vec<Differing> {
    let names: BTreeSet<_> = plain.keys().chain(ours.keys()).collect();
    let of = |facts: &Facts, name: &str| facts.get(name).map_or(ABSENT, |value| value).to_owned();
    names
        .into_iter()
        .filter(|name| plain.get(*name) != ours.get(*name) && counts(name, plain, ours))
        .map(|name| Differing {
            name: format!("{pod}/{name}"),
            plain: of(plain, name),
            ours: of(ours, name),
        })
        .collect()
}

/// Refusals, of the pod or of a container.
const REFUSALS: [&str; 2] = ["refused", "start"];

fn counts(name: &str, plain: &Facts, ours: &Facts) -> bool {
    let Some((container, what)) = name.split_once('/') else {
        return true;
    };
    // After a change the container has another name: `main`, `main@1`.
    let container = container.split('@').next().unwrap_or_default();
    let only_ours = |what: &str| {
        let name = format!("{container}/{what}");
        ours.contains_key(&name) && !plain.contains_key(&name)
    };
    if ours.contains_key("pod.refused") {
        return false;
    }
    if REFUSALS.iter().any(|refusal| only_ours(refusal)) {
        return REFUSALS.contains(&what);
    }
    let seen = format!("{container}/exec.Uid");
    let both = plain.contains_key(&seen) == ours.contains_key(&seen);
    both || what.starts_with("status.") || what.starts_with("log.") || what == "probe"
}

/// Does `name` match `pattern`, whose `*` stands for anything?
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let mut tails = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            tails.any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(all: &[(&str, &str)]) -> Facts {
        let all = all.iter();
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("*/exec.limit.*", "plain/main/exec.limit.core"));
        assert!(matches("a*", "a") && matches("*", "") && matches("a*c", "abcc"));
        assert!(!matches("a*c", "ab") && !matches("a", "ab"));
    }

    #[test]
    fn of_what_is_refused_only_the_refusal_differs() {
        let plain = facts(&[("one/a", "1"), ("one@1/a", "1"), ("two/a", "1")]);
        let ours = facts(&[("one/refused", "no"), ("two/a", "2")]);
        let names: Vec<_> = differing("p", &plain, &ours)
            .into_iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["p/one/refused", "p/two/a"]);
        let ours = facts(&[("pod.refused", "no")]);
        assert_eq!(differing("p", &plain, &ours).len(), 1);
    }

    #[test]
    fn of_what_runs_on_one_side_only_the_end_differs() {
        let plain = facts(&[("c/exec.Uid", "0"), ("c/status.exit", "0")]);
        let ours = facts(&[("c/status.exit", "1")]);
        let found = differing("p", &plain, &ours);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "p/c/status.exit");
    }

    #[test]
    fn what_is_missing_on_either_side_differs() {
        let found = differing("p", &facts(&[("c/a", "1")]), &facts(&[("c/b", "1")]));
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].ours.as_str(), found[1].plain.as_str()),
            (ABSENT, ABSENT)
        );
    }
}
