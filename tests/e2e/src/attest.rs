//! What an owner gives to a pod, and what the pod can prove.

use std::collections::{BTreeMap, HashMap};

use agent_protocol::initdata::{
    ANNOTATION, Algorithm, POLICY_ANNOTATION,
    packed::{pack, to_annotation},
    write,
};
use anyhow::{Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tests_harness::{ContainerRequest, Pod, PodRequest};

use crate::Stage;

const POLICY: &str = "package agent_policy\n\ndefault AllowRequestsFailingPolicy := false\n";

/// The annotation's value for initdata with one entry.
fn initdata(name: &str, text: &str) -> Result<String> {
    let entries = BTreeMap::from([(name.to_owned(), text.to_owned())]);
    Ok(to_annotation(&pack(&write(Algorithm::Sha256, &entries)?)?))
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
///
/// # Errors
/// When the claim does not hold.
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
///
/// # Errors
/// When the claim does not hold.
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
        (&[(ANNOTATION, &with_policy)], "does not evaluate policies"),
        (
            &[(POLICY_ANNOTATION, &policy)],
            "does not evaluate policies",
        ),
    ] {
        match pod(stage, annotations) {
            Ok(_) => bail!("a pod runs that should fail with {words:?}"),
            Err(error) => ensure!(format!("{error:#}").contains(words), "{error:#}"),
        }
    }
    Ok(())
}
