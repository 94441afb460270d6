//! The owner's part of the demonstration: a policy for the pod, and what it denies a node that
//! asks for something else.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{
    bed::Bed,
    run::{Ran, run, run_ok},
    tools::Prefix,
};

/// Where the registry's certificate lies in a bed.
const ROOT: &str = "/run/bed/trust/ca.crt";
const POD_OF_NODE: &str = "/run/bed/pod-of-the-node.yaml";
const DEADLINE: Duration = Duration::from_secs(300);
/// What a denial always says.
const BLOCKED: &str = "is blocked by policy";

/// What a node could ask for in place of the example: what it is, and what in the YAML becomes what.
const CHANGES: [(&str, &str, &str); 3] = [
    (
        "another command",
        r#"["uname", "-r"]"#,
        r#"["cat", "/etc/shadow"]"#,
    ),
    (
        "a variable more",
        r#""-r"]"#,
        "\"-r\"]\n      env: [{ name: LD_PRELOAD, value: /tmp/evil.so }]",
    ),
    ("another image", "/busybox:1", "/configured:1"),
];

/// Puts the policy of the pod in the file into its annotation, as its owner would.
///
/// # Errors
/// When no policy can be made of the YAML; the message says why.
pub(crate) fn add_policy(bed: &Bed, prefix: &Prefix, pod: &str) -> Result<String> {
    let mut command = bed.command(prefix.bin("kata-cc"));
    command
        .args([
            "policy",
            "gen",
            "--no-service-account",
            "--open-config-maps",
        ])
        .args(["--no-cache", "--extra-root", ROOT, pod]);
    run_ok(command, DEADLINE)
}

/// Plays the node: asks for the pod with something changed and the policy left as it is.
///
/// # Errors
/// When something is not denied.
pub(crate) fn play_the_node(bed: &Bed, prefix: &Prefix, yaml: &str) -> Result<()> {
    for (what, from, to) in CHANGES {
        if !yaml.contains(from) {
            bail!("the example has no {from}");
        }
        bed.node().write(POD_OF_NODE, yaml.replace(from, to))?;
        let mut command = bed.command(prefix.bin("kata-cc"));
        command.args(["run", "--handler", "kata-cc", POD_OF_NODE]);
        let ran = run(command, DEADLINE)?;
        let denial = denial(&ran).with_context(|| {
            let said = ran.output();
            format!("the node asked for {what}, and was not denied: {said}")
        })?;
        eprintln!("demo: the node asks for {what}: {denial}");
    }
    Ok(())
}

/// The sentence that denies, if the command failed with one.
fn denial(ran: &Ran) -> Option<&str> {
    if ran.code == Some(0) {
        return None;
    }
    let line = ran.stderr.lines().rfind(|line| line.contains(BLOCKED))?;
    let before = line.find(BLOCKED)?;
    let word = line.get(..before)?.trim_end().rfind([' ', '"']);
    line.get(word.map_or(0, |at| at + 1)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_a_failure_that_says_so() {
        let ran = |code, stderr: &str| Ran {
            code: Some(code),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        let told =
            "kata-cc: container hello: rpc: CreateContainerRequest is blocked by policy: ARGUMENTS";
        assert_eq!(
            denial(&ran(1, told)),
            Some("CreateContainerRequest is blocked by policy: ARGUMENTS")
        );
        assert_eq!(denial(&ran(0, told)), None);
        assert_eq!(denial(&ran(1, "no such image")), None);
    }
}
