//! What differs between a plain node and ours, held against what may.

use std::collections::BTreeMap;

use crate::{
    facts::{Differing, Facts, matches},
    table::{DIFFERENCES, DIFFERENCES_OF_1_7, FAULTS, Here, SAME},
};

/// What a replay shows.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong with the product, or with the table.
    pub wrong: Vec<String>,
    /// The known faults that were seen, a sentence each.
    pub faults: Vec<&'static str>,
}

/// What has to differ, or is in the table without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// Every row and fault: all pods were played on the release of the recordings.
    Everything,
    /// What only containerd 1.7 does otherwise.
    OfOldest,
    /// Nothing: only some pods were played.
    Nothing,
}

/// Holds what differs against the table, and the table against what must differ.
#[must_use]
pub fn verdict(differing: &[Differing], must: Must) -> Verdict {
    let mut verdict = Verdict::default();
    let known = |facts: &[&str], one: &Differing| {
        let mut all = facts.iter();
        all.any(|pattern| matches(pattern, &one.name))
    };
    for one in differing {
        let mut rows = DIFFERENCES.iter().chain(DIFFERENCES_OF_1_7);
        let (plain, ours) = (&one.plain, &one.ours);
        match rows.find(|row| known(row.facts, one)).map(|row| row.here) {
            Some(Here::Refused(sentence)) if !ours.contains(sentence) => {
                let wrong = format!("{}: {ours:?}, not {sentence:?}", one.name);
                verdict.wrong.push(wrong);
            }
            Some(_) => {}
            None if FAULTS.iter().any(|fault| known(fault.facts, one)) => {}
            None => {
                let wrong = format!("{}: {plain:?} on a plain node, here {ours:?}", one.name);
                verdict.wrong.push(wrong);
            }
        }
    }
    let seen = |facts: &[&str]| differing.iter().any(|one| known(facts, one));
    let (with, without): (Vec<_>, Vec<_>) = FAULTS.iter().partition(|fault| seen(fault.facts));
    verdict.faults = with.iter().map(|fault| fault.sentence).collect();
    let (rows, faults) = match must {
        Must::Everything => (DIFFERENCES, without),
        Must::OfOldest => (DIFFERENCES_OF_1_7, Vec::new()),
        Must::Nothing => (&[][..], Vec::new()),
    };
    let faults = faults.iter();
    verdict.wrong.extend(
        faults.map(|fault| format!("mended, but still listed as a fault: {}", fault.sentence)),
    );
    let rows = rows.iter().filter(|row| !seen(row.facts));
    verdict
        .wrong
        .extend(rows.map(|row| format!("differs no more, but is in the table: {}", row.what)));
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
        let found = verdict(&[one("plain/main/no-such-fact", "b")], Must::Nothing);
        assert_eq!(found.wrong.len(), 1);
        assert!(verdict(&[], Must::Nothing).wrong.is_empty());
    }

    #[test]
    fn a_row_that_differs_no_more_is_wrong_once_everything_was_played() {
        let wrong = verdict(&[], Must::Everything).wrong;
        assert_eq!(wrong.len(), DIFFERENCES.len() + FAULTS.len());
    }

    #[test]
    fn a_refusal_with_another_sentence_is_wrong() {
        let refused = |row: &&crate::table::Difference| matches!(row.here, Here::Refused(_));
        let row = DIFFERENCES.iter().find(refused).unwrap();
        let name = row.facts[0].replace('*', "x");
        assert_eq!(
            verdict(&[one(&name, "cannot")], Must::Nothing).wrong.len(),
            1
        );
        let Here::Refused(sentence) = row.here else {
            return;
        };
        assert!(
            verdict(&[one(&name, sentence)], Must::Nothing)
                .wrong
                .is_empty()
        );
    }
}
