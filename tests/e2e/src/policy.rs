//! The policy of a pod that `kata-cc run` starts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests_harness::{REGISTRY, Ran, run, run_ok};

use crate::Stage;

const DEADLINE: Duration = Duration::from_secs(180);
const POD: &str = "/run/bed/policy-of-run.yaml";
const POLICY: &str = "/run/bed/policy-of-run.json";
const ROOT: [&str; 2] = ["--extra-root", "/run/bed/trust/ca.crt"];

/// A pod that has what a kubelet makes of a ConfigMap: a file and a variable.
fn pod(words: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: policy-of-run }}
spec:
  restartPolicy: Never
  containers:
    - name: only
      image: {REGISTRY}/busybox:1
      command: [\"sh\", \"-c\", \"{words} $NAME; cat /etc/words/text\"]
      env:
        - name: NAME
          valueFrom: {{ configMapKeyRef: {{ name: words, key: name }} }}
      volumeMounts: [{{ name: words, mountPath: /etc/words }}]
  volumes:
    - name: words
      configMap: {{ name: words }}
---
apiVersion: v1
kind: ConfigMap
metadata: {{ name: words }}
data: {{ name: somebody, text: of-the-file }}
"
    )
}

fn kata_cc_run(stage: &Stage, more: &[&str]) -> Result<Ran> {
    let prefix = stage.bed().prefix().context("the bed has the product")?;
    let mut command = stage.bed().command(prefix.bin("kata-cc"));
    command
        .args(["run", "--handler", "kata-cc", POD])
        .args(more);
    run(command, DEADLINE)
}

fn runs(stage: &Stage, more: &[&str], note: &str) -> Result<()> {
    let ran = kata_cc_run(stage, more)?;
    ensure!(ran.code == Some(0), "{more:?}: {}", ran.output());
    for word in ["hello somebody", "of-the-file"] {
        ensure!(ran.stdout.contains(word), "{more:?}: {}", ran.output());
    }
    ensure!(ran.stderr.contains(note), "{more:?}: {}", ran.output());
    Ok(())
}

/// `--policy auto`, a file and `none` mean what they say; what the file does not allow is denied.
pub fn kata_cc_run_makes_the_pods_policy_or_takes_it_from_a_file(
    stage: &'static Stage,
) -> Result<()> {
    if !stage.has_vms() {
        return Ok(());
    }
    let _turn = stage.together();
    let node = stage.bed().node();
    node.write(POD, pod("echo hello"))?;
    runs(
        stage,
        &["--policy", "auto", ROOT[0], ROOT[1]],
        "policy: the one of --policy",
    )?;

    let prefix = stage.bed().prefix().context("the bed has the product")?;
    let mut command = stage.bed().command(prefix.bin("kata-cc"));
    command
        .args([
            "policy",
            "gen",
            "--no-service-account",
            "--no-cache",
            "-o",
            "document",
        ])
        .args(ROOT)
        .arg(POD);
    node.write(POLICY, run_ok(command, DEADLINE)?)?;
    runs(stage, &["--policy", POLICY], "policy: the one of --policy")?;

    node.write(POD, pod("echo bye"))?;
    let denied = kata_cc_run(stage, &["--policy", POLICY])?;
    let is_denial = denied.stderr.contains("is blocked by policy");
    ensure!(denied.code == Some(125) && is_denial, "{}", denied.output());
    ensure!(!denied.stdout.contains("bye"), "{}", denied.output());

    let open = kata_cc_run(stage, &["--policy", "none"])?;
    ensure!(open.code == Some(0), "{}", open.output());
    ensure!(
        open.stderr.contains("kata-cc: no policy:"),
        "{}",
        open.output()
    );
    Ok(())
}
