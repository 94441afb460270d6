//! One form for the results of all benches, for people and for programs.
//!
//! Ratios are ours ÷ the peer's, lower is better.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

/// One line of a result.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// What was measured, in parts joined by points.
    pub name: String,
    /// The median of ours.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// Whom it is compared with.
    pub peer: Option<String>,
    /// The median of theirs.
    pub peer_value: Option<f64>,
    /// The median of the ratios of each repetition.
    pub ratio: Option<f64>,
    /// What the value, or where there is a peer, the ratio should not exceed.
    pub budget: Option<f64>,
    /// Whether it does not; `None` where this machine cannot tell.
    pub within: Option<bool>,
    /// Why it cannot, where there is a budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unjudged: Option<&'static str>,
}

impl Measurement {
    /// A value by itself.
    #[must_use]
    pub fn alone(
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        budget: Option<f64>,
    ) -> Self {
        Self {
            name: name.into(),
            value: rounded(value),
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            budget,
            within: budget.map(|budget| value <= budget),
            unjudged: None,
        }
    }

    /// Takes the judgement back.
    pub fn leave_unjudged(&mut self, why: &'static str) {
        self.within = None;
        self.unjudged = self.budget.map(|_| why);
    }

    /// What the table says after the figures.
    fn remark(&self) -> String {
        match (self.within, self.unjudged) {
            (Some(false), _) => "  over budget".to_owned(),
            (None, Some(why)) => format!("  not judged: {why}"),
            _ => String::new(),
        }
    }
}

/// Prints a table, and writes JSON where asked to.
///
/// # Errors
/// When the file cannot be written.
pub fn write(measurements: &[Measurement], peer: &str, json: Option<&Path>) -> Result<()> {
    print(measurements, peer);
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(measurements)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn print(measurements: &[Measurement], peer: &str) {
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value}"));
    println!(
        "{:<44} {:>10} {:>10} {:>8} {:>8}",
        "", "kata-cc", peer, "ratio", "budget"
    );
    for one in measurements {
        let name = match one.peer.as_deref().filter(|name| *name != peer) {
            Some(peer) => format!("{} ÷ {peer} [{}]", one.name, one.unit),
            None => format!("{} [{}]", one.name, one.unit),
        };
        let remark = one.remark();
        println!(
            "{name:<44} {:>10} {:>10} {:>8} {:>8}{remark}",
            one.value,
            show(one.peer_value),
            show(one.ratio),
            show(one.budget),
        );
    }
}

/// Rounds to two decimal places.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The middle of the values, or the upper one of two; NaN if there are none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_with_a_budget_is_judged_or_says_why_not() {
        let figure = |budget, within| Measurement {
            name: "x".to_owned(),
            value: 1.0,
            unit: "s",
            peer: None,
            peer_value: None,
            ratio: None,
            budget,
            within,
            unjudged: None,
        };
        let mut over = figure(Some(0.5), Some(false));
        assert_eq!(over.remark(), "  over budget");
        assert!(!serde_json::to_string(&over).unwrap().contains("unjudged"));
        over.leave_unjudged("others keep this machine busy");
        assert_eq!(over.remark(), "  not judged: others keep this machine busy");
        let mut free = figure(None, None);
        free.leave_unjudged("others keep this machine busy");
        assert_eq!(free.remark(), "");
        assert_eq!(figure(Some(2.0), Some(true)).remark(), "");
    }
}
