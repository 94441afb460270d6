//! What an owner gives to a pod, and what the pod can prove.

mod owner;

use std::collections::{BTreeMap, HashMap};

use agent_protocol::initdata::{
    ANNOTATION, Algorithm, Initdata, POLICY_ANNOTATION,
    packed::{pack, to_annotation},
    write,
};
use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tests_harness::{ContainerRequest, Pod, PodRequest, SimulatedTee};

use self::owner::{Owner, without_first_event};
use crate::Stage;

const DROP_IN: &str = "/run/bed/kata-cc/config.d/50-attest.toml";
/// How the host lies about what the launch binds: nothing.
const UNBIND: &str = r#"for argument; do
    set -- "$@" "$(sed -E 's|"host-data":"[^"]*"|"host-data":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="|' <<<"$argument")"
    shift
done"#;

const POLICY: &str = "package agent_policy\n\ndefault AllowRequestsFailingPolicy := false\n";

/// Initdata with one entry.
fn document(name: &str, text: &str) -> Result<Initdata> {
    let entries = BTreeMap::from([(name.to_owned(), text.to_owned())]);
    Ok(write(Algorithm::Sha256, &entries)?)
}

/// The annotation's value for initdata with one entry.
fn initdata(name: &str, text: &str) -> Result<String> {
    Ok(to_annotation(&pack(&document(name, text)?)?))
}

fn pod<'bed>(stage: &'bed Stage, annotations: &[(&str, &str)]) -> Result<Pod<'bed>> {
    let pairs = annotations.iter();
    let annotations: HashMap<String, String> = pairs
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let request = PodRequest {
        annotations,
        ..PodRequest::default()
    };
    Pod::run(stage.bed(), stage.handler(), request)
}

/// A pod with initdata runs like any other, and its containers hear that no TEE protects them.
pub fn a_pod_with_initdata_runs(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let value = initdata("aa.toml", "[token_configs]\n")?;
    let pod = pod(stage, &[(ANNOTATION, &value)])?;
    let ask = "wget -qO- http://127.0.0.1:8006/info; \
               wget -O- 'http://127.0.0.1:8006/aa/evidence?runtime_data=n' 2>&1";
    let exit = pod.complete(ContainerRequest::shell(ask))?;
    ensure!(
        exit.stdout.contains(r#""feature":"attestation""#),
        "{exit:?}"
    );
    ensure!(exit.stdout.contains("500 Internal"), "{exit:?}");
    pod.remove()
}

/// What the guest would not take, or cannot honour, ends the pod with a sentence.
pub fn what_the_guest_cannot_take_is_named(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let good = initdata("aa.toml", "")?;
    let with_policy = initdata("policy.rego", POLICY)?;
    let policy = STANDARD.encode(POLICY);
    let both = [(ANNOTATION, good.as_str()), (POLICY_ANNOTATION, &policy)];
    for (annotations, words) in [
        (
            &[(ANNOTATION, "*")][..],
            "initdata annotation is not base64",
        ),
        (&[(ANNOTATION, "YWJj")], "gzip"),
        (&both, "the launch can bind one of them"),
        (&[(ANNOTATION, &with_policy)], "KATA_POLICY"),
        (&[(POLICY_ANNOTATION, &policy)], "KATA_POLICY"),
    ] {
        match pod(stage, annotations) {
            Ok(_) => bail!("a pod runs that should fail with {words:?}"),
            Err(error) => ensure!(format!("{error:#}").contains(words), "{error:#}"),
        }
    }
    Ok(())
}

/// With a simulated secure processor, or not at all: nothing else here makes reports.
fn with_tee(
    stage: &'static Stage,
    script: &str,
    claim: fn(&'static Stage, &SimulatedTee) -> Result<()>,
) -> Result<()> {
    let _turn = stage.alone();
    if !stage.has_simulated_tee() {
        return Ok(());
    }
    let tee = SimulatedTee::install(stage.bed())?;
    tee.wrap(stage.bed(), script)?;
    stage.bed().node().write(DROP_IN, tee.configuration())?;
    let result = claim(stage, &tee);
    std::fs::remove_file(stage.bed().node().path(DROP_IN))?;
    result
}

/// What a pod says of itself when it is asked with the nonce `today`.
fn evidence(pod: &Pod<'_>) -> Result<Value> {
    let ask = "wget -qO- 'http://127.0.0.1:8006/aa/evidence?runtime_data=today'";
    let exit = pod.complete(ContainerRequest::shell(ask))?;
    serde_json::from_str(&exit.stdout).with_context(|| format!("the pod's evidence: {exit:?}"))
}

/// One pod's evidence is accepted by its owner, and refused when anything differs from
/// what the owner expects.
pub fn a_pod_proves_what_ran_and_every_change_is_refused_by_name(
    stage: &'static Stage,
) -> Result<()> {
    with_tee(stage, "", prove)
}

fn prove(stage: &'static Stage, tee: &SimulatedTee) -> Result<()> {
    let initdata = document("aa.toml", "a = 1\n")?;
    let annotation = to_annotation(&pack(&initdata)?);
    let first = pod(stage, &[(ANNOTATION, &annotation)])?;
    let mut owner = Owner::of(stage, tee, initdata.text())?;
    let good = evidence(&first)?;
    owner.expect_what_ran(&good)?;
    let refusals = owner.refusals(&good)?;
    ensure!(
        refusals.is_empty(),
        "genuine evidence is refused: {refusals:?}"
    );

    let second = evidence(&first)?;
    first.remove()?;
    let mut foreign = good.clone();
    foreign["report"] = second["report"].clone();
    for (what, evidence, check) in [
        ("a report of another question", &foreign, "report-data"),
        (
            "an edited log",
            &without_first_event(&good)?,
            "measurement-log",
        ),
        ("an extra container", &second, "workload"),
    ] {
        let refusals = owner.refusals(evidence)?;
        ensure!(
            refusals.iter().any(|each| each == check),
            "{what}: {refusals:?}"
        );
    }
    for (what, change, check) in CHANGED_EXPECTATIONS {
        let mut changed = owner.clone();
        change(&mut changed);
        let refusals = changed.refusals(&good)?;
        ensure!(refusals == [check], "{what}: {refusals:?}");
    }
    Ok(())
}

/// What differs, how, and which check says so.
type Change = (&'static str, fn(&mut Owner), &'static str);

const CHANGED_EXPECTATIONS: [Change; 7] = [
    (
        "a replayed nonce",
        |owner| owner.nonce = "tomorrow",
        "report-data",
    ),
    (
        "other initdata",
        |owner| owner.given.1 = owner.given.1.replace("a = 1", "a = 2"),
        "host-data",
    ),
    (
        "a policy that was not given",
        |owner| owner.given = ("--policy", POLICY.to_owned()),
        "host-data",
    ),
    (
        "an old TCB",
        |owner| owner.references["products"]["Genoa"]["tcb"]["snp"] = 24.into(),
        "tcb-floor",
    ),
    (
        "another guest policy",
        |owner| owner.references["guest_policy"]["single_socket"] = true.into(),
        "guest-policy",
    ),
    (
        "another number of vCPUs",
        |owner| owner.vcpus = 2,
        "guest-identity",
    ),
    ("AMD's roots", |owner| owner.roots = None, "chain"),
];

/// What a host changes at the launch, as a shell script that sees QEMU's arguments.
const CHANGED_LAUNCHES: [(&str, &str, &str); 5] = [
    (
        "another kernel",
        "changed -kernel 'longer \"$argument\"'",
        "guest-identity",
    ),
    (
        "another initrd",
        "changed -initrd 'longer \"$argument\"'",
        "guest-identity",
    ),
    (
        "another command line",
        "changed -append 'argument+=\" quiet\"'",
        "guest-identity",
    ),
    (
        "another number of vCPUs",
        "changed -smp 'argument=2,maxcpus=2,sockets=1,cores=2,threads=1'",
        "guest-identity",
    ),
    (
        "a guest that can be debugged",
        // Bit 19 of what the launch asks for.
        "changed -object 'argument=$(sed s/:196608/:720896/ <<<\"$argument\")'",
        "debug",
    ),
];

const CHANGE_ARGUMENTS: &str = r#"
longer() {
    cp "$1" "/run/bed/longer$option"
    truncate --size +4 "/run/bed/longer$option"
    argument=/run/bed/longer$option
}
changed() {
    arguments=() option=
    for argument in "${all[@]}"; do
        next=$argument
        [[ $option != "$1" ]] || eval "$2"
        arguments+=("$argument") option=$next
    done
}
all=("$@")
"#;

/// A host that launches anything else is refused by name, although the guest runs as well.
pub fn a_changed_launch_is_refused_by_name(stage: &'static Stage) -> Result<()> {
    with_tee(stage, "", |stage, tee| {
        let initdata = document("aa.toml", "a = 1\n")?;
        let annotation = to_annotation(&pack(&initdata)?);
        for (what, change, check) in CHANGED_LAUNCHES {
            let script = format!("{CHANGE_ARGUMENTS}{change}\nset -- \"${{arguments[@]}}\"");
            tee.wrap(stage.bed(), &script)?;
            let pod = pod(stage, &[(ANNOTATION, &annotation)]).context(what)?;
            let evidence = evidence(&pod).context(what)?;
            pod.remove()?;
            let owner = Owner::of(stage, tee, initdata.text())?;
            let refusals = owner.refusals(&evidence)?;
            ensure!(refusals == [check], "{what}: {refusals:?}");
        }
        Ok(())
    })
}

/// The host gives other `HOST_DATA` than the digest of the disk that it delivers.
pub fn a_guest_whose_launch_binds_something_else_refuses_everything(
    stage: &'static Stage,
) -> Result<()> {
    with_tee(stage, UNBIND, |stage, _| {
        let annotation = initdata("aa.toml", "a = 1\n")?;
        for (annotations, words) in [
            (
                &[(ANNOTATION, annotation.as_str())][..],
                "but the launch binds 0101",
            ),
            (&[], "the host delivered neither"),
            (
                &[(POLICY_ANNOTATION, "YWJj")],
                "the policy has the digest ba7816bf",
            ),
        ] {
            match pod(stage, annotations) {
                Ok(_) => bail!("a pod runs that should fail with {words:?}"),
                Err(error) => ensure!(format!("{error:#}").contains(words), "{error:#}"),
            }
        }
        Ok(())
    })
}
