//! containerd 2.1, the release of the recordings: every pod.

use anyhow::{Result, ensure};
use tests_harness::{Handler, Release};
use tests_replay::{
    Must, PODS, Stage, VARIANTS, judge, normal, recorded, unlike_recorded, unspoken,
};

/// Pods without VMs at once; those with share the processors that emulate.
const PLAIN_AT_ONCE: usize = 4;
const OURS_AT_ONCE: usize = 2;

#[test]
fn recorded_pods_are_as_on_a_plain_node_but_for_what_the_table_says() -> Result<()> {
    let Some(stage) = Stage::set(Release::V2_1)? else {
        return Ok(());
    };
    let pods: Vec<_> = PODS
        .into_iter()
        .chain(VARIANTS.map(|(name, ..)| name))
        .collect();
    let pods = wanted(&pods);
    let plain = stage.play(Handler::Runc, &pods, PLAIN_AT_ONCE)?;
    let mut untrue = Vec::new();
    for (pod, outcome) in plain.iter().filter(|(pod, _)| PODS.contains(*pod)) {
        untrue.extend(unlike_recorded(pod, &outcome.facts)?);
        for (container, spec) in recorded("2.1", pod)? {
            let live = outcome.bundles.get(&container).map(normal);
            if live.as_ref() != Some(&spec) {
                untrue.push(format!("{pod}/{container}: recorded {spec}, here {live:?}"));
            }
        }
    }
    ensure!(
        untrue.is_empty(),
        "not as a kubelet does it:\n{}",
        untrue.join("\n")
    );
    let ours = stage.play(Handler::KataCc, &pods, OURS_AT_ONCE)?;
    let facts = plain.iter();
    let unspoken = unspoken(&facts.map(|(pod, played)| (*pod, &played.facts)).collect());
    ensure!(
        unspoken.is_empty(),
        "no line of the page speaks of {unspoken:?}"
    );
    let must = if pods.len() == PODS.len() + VARIANTS.len() {
        Must::Everything
    } else {
        Must::Nothing
    };
    judge(&plain, &ours, must)
}

/// `REPLAY_PODS=plain,users` plays only some, while somebody works on them.
fn wanted<'a>(pods: &[&'a str]) -> Vec<&'a str> {
    let wanted = std::env::var("REPLAY_PODS").unwrap_or_default();
    let is_wanted = |pod: &&&str| wanted.is_empty() || wanted.split(',').any(|one| one == **pod);
    pods.iter().filter(is_wanted).copied().collect()
}
