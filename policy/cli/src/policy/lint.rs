//! `kata-cc policy lint`: what in a policy deserves a second look.

use std::path::{Path, PathBuf};

use clap::Args;
use policy_engine::document::{Container, Document, Origin, Variable};
use policy_generator::{Text, images_by_tag};

use super::load::{Found, LoadError, Policy, load};

/// Exit code where something was found.
const FINDINGS: u8 = 1;
/// Words in names of variables whose values are mostly secret.
const SECRET_WORDS: [&str; 6] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY", "API_KEY"];
const SHELLS: [&str; 5] = ["sh", "bash", "ash", "dash", "zsh"];
/// Capabilities with which a container can change much of the guest.
const STRONG: [&str; 6] = [
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_NET_ADMIN",
    "CAP_SYS_TIME",
    "CAP_DAC_READ_SEARCH",
    "CAP_CHECKPOINT_RESTORE",
];
/// What the rules that Kata's generator writes do not look at, whatever the policy says.
const LEFT_BY_KATA: [&str; 12] = [
    "which image is pulled: the reference in the request is not compared",
    "environment variables that are missing, repeated, or in another order",
    "mounts that are missing or in another order",
    "the contents of ConfigMaps, Secrets, tokens, /etc/hosts and /etc/resolv.conf",
    "modes and owners of files that the host copies, and changes after the start",
    "how many containers run of one entry, in which order, and whether all of them do",
    "signals, and which process gets them",
    "limits of processes, the OOM score, and resources",
    "the cgroup of a container",
    "the ports of standard input and output",
    "a failed request: what it changed in the policy's state stays",
    "the values of annotations that begin with io.kubernetes.cri.",
];

/// Say what in a policy deserves a second look; exit code 1 if there is anything.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Policy document, initdata in any form, or YAML with a policy in its annotations; `-` is
    /// standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints the findings.
pub(super) fn run(options: &Options) -> Result<u8, LoadError> {
    let mut count = 0;
    for Found { name, policy, .. } in load(&options.file)? {
        let findings = match policy {
            Policy::Document(document) => findings(&document),
            Policy::Rego(text) => of_rego(&text),
        };
        count += findings.len();
        for finding in findings {
            println!("{name}: {finding}");
        }
    }
    for finding in tags(&options.file) {
        count += 1;
        println!("{finding}");
    }
    Ok(if count == 0 { 0 } else { FINDINGS })
}

/// Images that the YAML names by tag: the policy allows what the tag meant when it was made.
fn tags(file: &Path) -> Vec<String> {
    let texts = match file == Path::new("-") {
        true => Vec::new(),
        false => Text::read(file).unwrap_or_default(),
    };
    let images = texts.iter().flat_map(images_by_tag);
    let say = |(workload, image): (String, String)| {
        format!(
            "{workload}: image {image} is named by a tag: when the tag means another image, the \
             pod does not start until a new policy is made"
        )
    };
    images.map(say).collect()
}

fn findings(document: &Document) -> Vec<String> {
    let mut all = Vec::new();
    if document.pod.name.is_none() {
        all.push("any name of the pod is allowed".to_owned());
    }
    if document.pod.namespace.is_none() {
        all.push("any namespace is allowed: set metadata.namespace".to_owned());
    }
    if document.pod.share_processes {
        all.push("its containers can look into each other (shareProcessNamespace)".to_owned());
    }
    for container in document.containers.iter().chain(&document.ephemeral) {
        let of = |finding: String| format!("container {}: {finding}", container.name);
        all.extend(of_container(container).into_iter().map(of));
    }
    for container in &document.ephemeral {
        all.push(format!(
            "container {} can be added while the pod runs",
            container.name
        ));
    }
    let grants = &document.grants;
    for (there, words) in [
        (
            grants.host_files_cover,
            "files of the host may cover an image's own",
        ),
        (
            grants.host_files_change,
            "files of the host may change while the pod runs",
        ),
        (
            grants.vsock,
            "containers may talk to the host through AF_VSOCK",
        ),
        (
            grants.statistics,
            "the host may ask what the containers use",
        ),
    ] {
        if there {
            all.push(format!("grant: {words}"));
        }
    }
    all
}

fn of_container(container: &Container) -> Vec<String> {
    let mut all = Vec::new();
    if container.rights.privileged {
        all.push("privileged: it has all rights that a guest gives".to_owned());
    }
    let capabilities = container.rights.capabilities.iter().flatten();
    for name in capabilities.filter(|name| STRONG.contains(&name.as_str())) {
        all.push(format!("has {name}"));
    }
    if container.rights.unmasked {
        all.push("sees all of /proc".to_owned());
    }
    if container.logs {
        all.push("the host can read its output: --no-logs closes that".to_owned());
    }
    if container.stdin {
        all.push("the host can write to its input".to_owned());
    }
    for (name, variable) in &container.env {
        all.extend(of_variable(name, variable));
    }
    for mount in &container.mounts {
        let is_open = mount.volume.is_none() && mount.digest.is_none() && !mount.of_image;
        if is_open && !mount.read_only {
            all.push(format!(
                "the files at {} come from the host, and are writable",
                mount.at
            ));
        } else if is_open && !mount.at.starts_with("/var/run/secrets/") {
            all.push(format!(
                "any content of the files at {} is allowed",
                mount.at
            ));
        }
    }
    for command in &container.exec {
        let program = command.first().map_or("", String::as_str);
        let name = program.rsplit('/').next().unwrap_or_default();
        if SHELLS.contains(&name) && command.len() == 1 {
            all.push(format!("the host may start a shell in it ({program})"));
        }
    }
    all
}

fn of_variable(name: &str, variable: &Variable) -> Option<String> {
    let upper = name.to_uppercase();
    let secret = SECRET_WORDS.iter().any(|word| upper.contains(word));
    match variable {
        // The name of a file with the secret is none.
        Variable::Is(value) if secret && !value.is_empty() && !value.starts_with('/') => Some(
            format!("{name} looks like a secret, and the policy has it in clear: use a Secret"),
        ),
        Variable::From(Origin::Any) => Some(format!("any value of {name} is allowed")),
        _ => None,
    }
}

fn of_rego(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let compact: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |rule: &str| {
        let forms = [":= true", "= true"];
        forms
            .iter()
            .any(|form| compact.contains(&format!("{rule} {form}")))
    };
    if says("default AllowRequestsFailingPolicy") || says("AllowRequestsFailingPolicy") {
        all.push("AllowRequestsFailingPolicy: whatever it denies is allowed".to_owned());
    }
    for rule in [
        "CreateContainerRequest",
        "ExecProcessRequest",
        "SetPolicyRequest",
    ] {
        if says(&format!("default {rule}")) {
            all.push(format!("{rule} is always allowed"));
        }
    }
    if says("default ReadStreamRequest") {
        all.push("ReadStreamRequest: the host can read the output of all containers".to_owned());
    }
    if text.contains("policy_data") {
        let left = LEFT_BY_KATA.iter();
        all.extend(left.map(|words| format!("Kata's rules leave open: {words}")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        Container {
            name: "c".into(),
            ..Container::default()
        }
    }

    #[test]
    fn what_deserves_a_look_is_found_and_the_rest_is_not() {
        assert!(of_container(&container()).is_empty());
        type Change = fn(&mut Container);
        let cases: [(Change, &str); 7] = [
            (|c| c.rights.privileged = true, "privileged"),
            (|c| c.logs = true, "the host can read"),
            (
                |c| c.rights.capabilities = Some(["CAP_SYS_ADMIN".into()].into()),
                "has CAP_SYS_ADMIN",
            ),
            (
                |c| {
                    let _ = c.env.insert("DB_PASSWORD".into(), Variable::Is("x".into()));
                },
                "DB_PASSWORD looks like a secret",
            ),
            (
                |c| {
                    let _ = c.env.insert("X".into(), Variable::From(Origin::Any));
                },
                "any value of X",
            ),
            (
                |c| {
                    let _ = c.exec.insert(vec!["/bin/bash".into()]);
                },
                "the host may start a shell",
            ),
            (|c| c.stdin = true, "the host can write"),
        ];
        for (change, words) in cases {
            let mut changed = container();
            change(&mut changed);
            let found = of_container(&changed);
            assert!(
                found.iter().any(|one| one.starts_with(words)),
                "{words}: {found:?}"
            );
        }
        let file = Variable::Is("/run/token".into());
        assert_eq!(of_variable("TOKEN_FILE", &file), None);
    }

    #[test]
    fn katas_policies_are_told_what_their_rules_leave() {
        let text =
            "package agent_policy\ndefault AllowRequestsFailingPolicy := true\npolicy_data := {}\n";
        let found = of_rego(text);
        assert!(found[0].starts_with("AllowRequestsFailingPolicy"));
        assert!(found.len() > LEFT_BY_KATA.len());
        assert!(of_rego("package agent_policy\ndefault ExecProcessRequest := false\n").is_empty());
    }
}
