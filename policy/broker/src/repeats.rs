//! Refusals that repeat. Anybody can be refused without end, and every line of the audit log
//! takes room on the disk: one refusal again and again is written down at the powers of two,
//! with how often there was one like it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{audit::Line, refusal::names};

/// How long refusals are counted together.
const WINDOW: Duration = Duration::from_secs(3600);
/// Different ones that are told apart; all others are counted as one.
const KINDS_MAX: usize = 256;

/// How often each refusal was seen in this window.
#[derive(Default)]
pub(crate) struct Repeats {
    began: Option<Instant>,
    counts: HashMap<String, u64>,
}

impl Repeats {
    /// How often a refusal like this was seen, if it is to be written down this time.
    pub(crate) fn count(&mut self, line: &Line, now: Instant) -> Option<u64> {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= WINDOW {
            self.began = Some(now);
            self.counts.clear();
        }
        let mut kind = kind(line);
        if self.counts.len() >= KINDS_MAX && !self.counts.contains_key(&kind) {
            kind = String::new();
        }
        let count = self.counts.entry(kind).or_default();
        *count = count.saturating_add(1);
        count.is_power_of_two().then_some(*count)
    }
}

fn kind(line: &Line) -> String {
    let resource = line.resource.as_deref().unwrap_or_default();
    let checks = names(&line.refusals);
    format!("{} {} {resource} {checks}", line.peer, line.asked)
}

#[cfg(test)]
mod tests {
    use agent_evidence::Sha256Digest;

    use super::*;

    fn line(peer: usize) -> Line {
        Line {
            time: "2026-01-01T00:00:00Z".parse().unwrap(),
            asked: "attest".to_owned(),
            peer: format!("10.0.0.{peer}"),
            resource: None,
            given: false,
            times: 1,
            guest: None,
            refusals: Vec::new(),
            previous: Sha256Digest::ZERO,
        }
    }

    #[test]
    fn one_refusal_without_end_is_written_down_at_powers_of_two() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let told: Vec<u64> = (0..1000)
            .filter_map(|_| repeats.count(&line(1), now))
            .collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(repeats.count(&line(2), now), Some(1));
        assert_eq!(repeats.count(&line(1), now + WINDOW), Some(1));
    }

    #[test]
    fn however_many_are_refused_the_lines_of_an_hour_are_bounded() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let told = (0..100_000).filter_map(|peer| repeats.count(&line(peer), now));
        assert_eq!(told.count(), KINDS_MAX + 17);
        assert!(repeats.counts.len() <= KINDS_MAX + 1);
    }
}
