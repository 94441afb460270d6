//! What differs between a plain node and ours, held against what may.

use std::collections::BTreeMap;

use crate::{
    facts::{Differing, Facts, matches},
    table::{DIFFERENCES, FAULTS, Here, SAME},
};

/// What a replay shows.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong with the product, or with the table.
    pub wrong: Vec<String>,
    /// The known faults that were seen, a sentence each.
    pub faults: Vec<&'static str>,
}

/// Holds what differs against the table; with `everything` also the table against what
/// differs, because every pod was played.
#[must_use]
pub fn verdict(differing: &[Differing], everything: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let mut used = vec![false; DIFFERENCES.len()];
    let mut seen = vec![0; FAULTS.len()];
    for one in differing {
        let known = |facts: &[&str]| facts.iter().any(|pattern| matches(pattern, &one.name));
        let row = DIFFERENCES.iter().position(|row| known(row.facts));
        let fault = FAULTS.iter().position(|fault| known(fault.facts));
        if let Some(at) = row {
            used[at] = true;
            let Here::Refused(sentence) = DIFFERENCES[at].here else {
                continue;
            };
            if !one.ours.contains(sentence) {
                let wrong = format!("{}: {:?}, not {sentence:?}", one.name, one.ours);
                verdict.wrong.push(wrong);
            }
        } else if let Some(at) = fault {
            seen[at] += 1;
        } else {
            let (plain, ours) = (&one.plain, &one.ours);
            let wrong = format!("{}: {plain:?} on a plain node, here {ours:?}", one.name);
            verdict.wrong.push(wrong);
        }
    }
    for (fault, seen) in FAULTS.iter().zip(seen) {
        if seen > 0 {
            verdict.faults.push(fault.sentence);
        } else if everything {
            verdict.wrong.push(format!(
                "mended, but still listed as a fault: {}",
                fault.sentence
            ));
        }
    }
    let rows = DIFFERENCES
        .iter()
        .zip(used)
        .filter(|(_, used)| everything && !used);
    for (row, _) in rows {
        verdict.wrong.push(format!(
            "differs no more, but is in the table: {}",
            row.what
        ));
    }
    verdict
}

/// Facts that no line of the page speaks of, by name.
#[must_use]
pub fn unspoken(facts: &BTreeMap<&str, &Facts>) -> Vec<String> {
    let names = facts.iter().flat_map(|(pod, facts)| {
        let names = facts.keys();
        names.map(move |name| format!("{pod}/{name}"))
    });
    let spoken = |name: &String| {
        let mut all = SAME.iter().flat_map(|(_, facts)| *facts);
        all.any(|pattern| matches(pattern, name))
    };
    names.filter(|name| !spoken(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, ours: &str) -> Differing {
        Differing {
            name: name.to_owned(),
            plain: "a".to_owned(),
            ours: ours.to_owned(),
        }
    }

    #[test]
    fn a_difference_that_is_not_in_the_table_is_wrong() {
        let found = verdict(&[one("plain/main/no-such-fact", "b")], false);
        assert_eq!(found.wrong.len(), 1);
        assert!(verdict(&[], false).wrong.is_empty());
    }

    #[test]
    fn a_row_that_differs_no_more_is_wrong_once_everything_was_played() {
        let wrong = verdict(&[], true).wrong;
        assert_eq!(wrong.len(), DIFFERENCES.len() + FAULTS.len());
    }

    #[test]
    fn a_refusal_with_another_sentence_is_wrong() {
        let refused = |row: &&crate::table::Difference| matches!(row.here, Here::Refused(_));
        let row = DIFFERENCES.iter().find(refused).unwrap();
        let name = row.facts[0].replace('*', "x");
        assert_eq!(verdict(&[one(&name, "cannot")], false).wrong.len(), 1);
        let Here::Refused(sentence) = row.here else {
            return;
        };
        assert!(verdict(&[one(&name, sentence)], false).wrong.is_empty());
    }
}
