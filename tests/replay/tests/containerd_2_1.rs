//! containerd 2.1, the release of the recordings: every pod.
use anyhow::Result;
use tests_harness::{Handler, Release};
use tests_replay::{PODS, Stage, differing};

#[test]
fn try_it() -> Result<()> {
    let Some(stage) = Stage::set(Release::V2_1)? else {
        return Ok(());
    };
    let now = std::time::Instant::now();
    let wanted = std::env::var("REPLAY_PODS").unwrap_or_default();
    let pods: Vec<_> = PODS
        .into_iter()
        .filter(|p| wanted.is_empty() || wanted.split(',').any(|w| w == *p))
        .collect();
    let plain = stage.play(Handler::Runc, &pods, 4)?;
    println!("runc took {:?}", now.elapsed());
    for (pod, outcome) in &plain {
        for (name, spec) in tests_replay::recorded("2.1", pod)? {
            let live = outcome.bundles.get(&name).map(tests_replay::normal);
            if live.as_ref() != Some(&spec) {
                println!("BUNDLE {pod}/{name}\n{spec}\n{}", live.unwrap_or_default());
            }
        }
        for s in tests_replay::unlike_recorded(pod, &outcome.facts)? {
            println!("STATUS {s}");
        }
        for (k, v) in &outcome.facts {
            println!("{pod}/{k} = {v}");
        }
        std::fs::create_dir_all(format!("/tmp/replay/{pod}"))?;
        for (k, v) in &outcome.bundles {
            std::fs::write(
                format!("/tmp/replay/{pod}/{k}.json"),
                serde_json::to_string_pretty(v)?,
            )?;
        }
    }
    if std::env::var_os("RUNC_ONLY").is_some() {
        return Ok(());
    }
    let now = std::time::Instant::now();
    let ours = stage.play(Handler::KataCc, &pods, 2);
    std::fs::write("/tmp/replay/containerd.log", stage.bed().containerd_log()?)?;
    let ours = ours?;
    println!("kata took {:?}", now.elapsed());
    for pod in pods {
        for one in differing(pod, &plain[pod].facts, &ours[pod].facts) {
            println!("DIFF {} | {} | {}", one.name, one.plain, one.ours);
        }
    }
    Ok(())
}
