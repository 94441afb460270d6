//! The pods of `tests/pods` in VMs, each under the strict policy that was generated from its YAML.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, ensure};
use serde_json::{Value, json};
use tests_harness::Release;
use tests_replay::{
    Stage, at_once,
    pods::{EXPECTED, Expected, Life, Owner, is_denied},
};

/// They share the processors that emulate.
const AT_ONCE: usize = 2;
const SOON: Duration = Duration::from_secs(60);

/// A node with the owner's images, for one test at a time; `None` where it cannot be made.
fn node() -> Result<
    Option<(
        MutexGuard<'static, ()>,
        &'static Stage,
        &'static Owner<'static>,
    )>,
> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    static STAGE: OnceLock<Option<Stage>> = OnceLock::new();
    static OWNER: OnceLock<Owner<'static>> = OnceLock::new();
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if STAGE.get().is_none() {
        let _ = STAGE.set(Stage::set(Release::V2_1)?);
    }
    let Some(stage) = STAGE.get().and_then(Option::as_ref) else {
        return Ok(None);
    };
    if OWNER.get().is_none() {
        let _ = OWNER.set(Owner::prepare(stage.bed())?);
    }
    Ok(OWNER.get().map(|owner| (turn, stage, owner)))
}

fn expected(pod: &str) -> Result<&'static Expected> {
    let mut all = EXPECTED.iter();
    all.find(|one| one.pod == pod).context("a pod of the table")
}

fn play(stage: &Stage, owner: &Owner<'_>, pod: &'static str) -> Result<()> {
    let before = Instant::now();
    let yaml = owner.with_policy(pod, &[])?;
    let mut life = Life::begin(stage.bed(), &yaml, |_| ())?.map_err(Error::msg)?;
    let played = life.play(expected(pod)?);
    // Other pods share the node.
    let ended = life.end();
    eprintln!("{pod}: {:.1} s", before.elapsed().as_secs_f64());
    played.and(ended)
}

/// `REPLAY_PODS=nginx,redis` plays only some, while somebody works on them.
fn wanted() -> Vec<&'static str> {
    let wanted = std::env::var("REPLAY_PODS").unwrap_or_default();
    let is_wanted = |pod: &&str| wanted.is_empty() || wanted.split(',').any(|one| one == *pod);
    EXPECTED
        .iter()
        .map(|one| one.pod)
        .filter(is_wanted)
        .collect()
}

#[test]
fn every_pod_of_the_folder_is_expected_to_come_to_something() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../pods");
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        there.extend(name.strip_suffix(".yaml").map(str::to_owned));
    }
    let named: BTreeSet<_> = EXPECTED.iter().map(|one| one.pod.to_owned()).collect();
    assert_eq!(named, there);
    Ok(())
}

#[test]
fn each_pod_runs_under_the_policy_of_its_yaml_and_denies_the_node_each_change() -> Result<()> {
    let Some((_turn, stage, owner)) = node()? else {
        return Ok(());
    };
    let played = at_once(AT_ONCE, &wanted(), |pod| {
        Ok(play(stage, owner, pod).map_err(|error| format!("{pod}: {error:#}")))
    })?;
    let wrong: Vec<_> = played.into_values().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

type Attack = fn(&Stage, &Owner<'_>) -> Result<()>;

/// What a node can do beyond changing what it asks for one container.
const ATTACKS: [(&str, Attack); 5] = [
    ("order", a_container_before_those_that_come_first),
    ("content", another_content_of_a_config_map),
    ("while it runs", what_the_policy_has_not_while_it_runs),
    ("logs", output_that_the_policy_does_not_give),
    ("pod", another_pod),
];

#[test]
fn a_node_denied_order_content_signals_logs_and_names_has_the_pod_run_as_it_is() -> Result<()> {
    let Some((_turn, stage, owner)) = node()? else {
        return Ok(());
    };
    let names = ATTACKS.map(|(name, _)| name);
    let played = at_once(AT_ONCE, &names, |name| {
        let attack = ATTACKS.iter().find(|(other, _)| *other == name);
        let (_, attack) = attack.context("an attack")?;
        Ok(attack(stage, owner).map_err(|error| format!("{name}: {error:#}")))
    })?;
    let wrong: Vec<_> = played.into_values().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The refusal of a container that must not start.
fn refused(life: &Life<'_>, config: &Value) -> Result<String> {
    life.start(config)?.err().context("it was started")
}

fn begin<'a>(stage: &'a Stage, owner: &Owner<'_>, pod: &str, options: &[&str]) -> Result<Life<'a>> {
    let yaml = owner.with_policy(pod, options)?;
    Life::begin(stage.bed(), &yaml, |_| ())?.map_err(Error::msg)
}

fn a_container_before_those_that_come_first(stage: &Stage, owner: &Owner<'_>) -> Result<()> {
    let mut life = begin(stage, owner, "init", &[])?;
    let web = life.config("web")?;
    is_denied(&refused(&life, &web)?, "CONTAINER_ORDER", "")?;
    life.play(expected("init")?)?;
    life.end()
}

fn another_content_of_a_config_map(stage: &Stage, owner: &Owner<'_>) -> Result<()> {
    let mut life = begin(stage, owner, "config-sub-path", &[])?;
    let app = life.config("app")?;
    life.spoil("settings", "app.conf", "port = 8080\ndebug = true\n")?;
    let refusal = refused(&life, &app)?;
    is_denied(&refusal, "FILES_CONTENT", "/mounts/~1etc~1app.conf")?;
    life.spoil("settings", "app.conf", "port = 8080\ndebug = false\n")?;
    life.play(expected("config-sub-path")?)?;
    life.end()
}

fn what_the_policy_has_not_while_it_runs(stage: &Stage, owner: &Owner<'_>) -> Result<()> {
    let mut life = begin(stage, owner, "redis", &[])?;
    let config = life.config("redis")?;
    let id = life.start(&config)?.map_err(Error::msg)?;
    let mut second = config.clone();
    second["metadata"]["attempt"] = json!("1");
    second["log_path"] = json!("redis/1.log");
    is_denied(&refused(&life, &second)?, "CONTAINER_RUNS_ALREADY", "")?;
    let sent = stage
        .bed()
        .ctr(&["task", "kill", "-s", "SIGUSR2", &id], SOON)?;
    ensure!(sent.code != Some(0), "the signal was taken");
    is_denied(&sent.output(), "SIGNAL_NOT_DECLARED", "")?;
    let ran = stage.bed().ctr(
        &[
            "task",
            "exec",
            "--exec-id",
            "evil",
            "--user",
            "65534",
            &id,
            "redis-cli",
            "ping",
        ],
        SOON,
    )?;
    ensure!(ran.code != Some(0), "the command ran as another user");
    is_denied(&ran.output(), "EXEC_PROCESS", "")?;
    let ping = life.exec(&id, &["redis-cli", "ping"].map(str::to_owned))?;
    let ping = ping.map_err(Error::msg)?;
    ensure!(ping.stdout == b"PONG\n", "{ping:?}");
    life.end()
}

fn output_that_the_policy_does_not_give(stage: &Stage, owner: &Owner<'_>) -> Result<()> {
    let mut life = begin(stage, owner, "termination", &["--no-logs"])?;
    let mut config = life.config("main")?;
    let id = life.start(&config)?.map_err(Error::msg)?;
    tests_harness::wait_until("it ends", SOON, || Ok(life.status(&id)?.finished_at != 0))?;
    ensure!(life.status(&id)?.exit_code == 3, "{:?}", life.status(&id)?);
    ensure!(life.message("main")?.is_empty(), "the message was read");
    config["metadata"]["attempt"] = json!("1");
    ensure!(life.output("main")?.is_empty(), "output was read");
    life.end()
}

type Change = fn(&mut Value);

fn another_pod(stage: &Stage, owner: &Owner<'_>) -> Result<()> {
    let yaml = owner.with_policy("security", &[])?;
    let asked: [(&str, Change); 2] = [
        ("POD_NAME", |pod| pod["metadata"]["name"] = json!("other")),
        ("SYSCTL", |pod| {
            pod["linux"]["sysctls"] = json!({"net.core.somaxconn": "1"})
        }),
    ];
    for (code, change) in asked {
        let begun = Life::begin(stage.bed(), &yaml, change)?;
        let refusal = begun.err().with_context(|| format!("{code}: it runs"))?;
        is_denied(&refusal, code, "")?;
    }
    Ok(())
}
