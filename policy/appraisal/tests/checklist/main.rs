//! Every check has one scene that it accepts and one that only it refuses.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod certificates;
mod every_byte;
mod owner;
mod report;
#[path = "../support/mod.rs"]
mod support;

use policy_appraisal::Check;
use support::{refusals, scene::Scene};

/// A change to a scene, and the checks that must refuse it; none for acceptance.
type Case = (&'static str, fn(&mut Scene), &'static [Check]);

fn judge(cases: &[Case]) {
    for (what, change, wanted) in cases {
        let mut scene = Scene::genoa();
        change(&mut scene);
        let verdict = scene.judge();
        assert_eq!(refusals(&verdict), *wanted, "{what}:\n{verdict}");
        assert_eq!(
            verdict.is_accepted(),
            wanted.is_empty(),
            "{what}:\n{verdict}"
        );
    }
}
