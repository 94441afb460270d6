//! `kata-cc policy explain`: what a policy allows, in plain words, and what it leaves to the host.

use std::path::PathBuf;

use clap::Args;
use policy_engine::document::{
    Container, Document, GrantList, Mount, Origin, Pod, PodName, Seccomp, Stage, Variable,
};

use super::load::{Found, LoadError, Policy, load};

/// Where Kubernetes mounts the token of a service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Say in plain words what a policy allows, and what the host may still choose.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Policy document, initdata in any form, or YAML with a policy in its annotations; `-` is
    /// standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Explains each policy of the file.
pub(super) fn run(options: &Options) -> Result<u8, LoadError> {
    for Found { name, policy, .. } in load(&options.file)? {
        let Policy::Document(document) = policy else {
            return Err(LoadError::Rego(name));
        };
        println!("{name}");
        for line in explained(&document) {
            println!("  {line}");
        }
    }
    Ok(0)
}

/// All that is said of a document, by line.
pub(super) fn explained(document: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    of_pod(&document.pod, &mut lines);
    for container in &document.containers {
        of_container(container, document, &mut lines);
    }
    for container in &document.ephemeral {
        lines.push(format!(
            "may be added while the pod runs: {}",
            container.name
        ));
        of_container(container, document, &mut lines);
    }
    lines.push("the host may still choose:".to_owned());
    let left = left_to_the_host(document);
    lines.extend(left.into_iter().map(|line| format!("  - {line}")));
    lines
}

fn of_pod(pod: &Pod, lines: &mut Vec<String>) {
    let name = match &pod.name {
        Some(PodName::Is(name)) => format!("called {name}"),
        Some(PodName::StartsWith(base)) => format!("called {base}-…"),
        None => "of any name".to_owned(),
    };
    let namespace = match &pod.namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "any namespace".to_owned(),
    };
    lines.push(format!(
        "a pod {name} in {namespace}, with these containers and no others"
    ));
    if pod.share_processes {
        lines.push("its containers see each other's processes".to_owned());
    }
    for (name, value) in &pod.sysctls {
        lines.push(format!("kernel setting {name} = {value}"));
    }
    for (name, volume) in &pod.volumes {
        let place = if volume.memory {
            "in memory"
        } else {
            "on the encrypted scratch disk"
        };
        let size = volume
            .size
            .map_or(String::new(), |size| format!(", at most {size} bytes"));
        lines.push(format!(
            "volume {name}: made by the guest, empty at first, {place}{size}"
        ));
    }
}

fn of_container(container: &Container, document: &Document, lines: &mut Vec<String>) {
    let stage = match container.stage {
        Stage::App => "container",
        Stage::Init => "init container",
        Stage::Sidecar => "sidecar",
    };
    lines.push(format!("{stage} {}", container.name));
    let mut say = |line: String| lines.push(format!("  {line}"));
    say(format!("image {}", container.image));
    let cwd = container.cwd.as_deref().unwrap_or("/");
    say(format!("runs {} in {cwd}", words(&container.args)));
    say(format!("as {}", user(container)));
    for line in rights(container) {
        say(line);
    }
    for (name, variable) in &container.env {
        say(format!("variable {name} {}", value(variable)));
    }
    for mount in &container.mounts {
        say(format!("at {}: {}", mount.at, mounted(mount, document)));
    }
    for command in &container.exec {
        say(format!("the host may run in it: {}", words(command)));
    }
    if !container.signals.is_empty() {
        let numbers: Vec<_> = container.signals.iter().map(u8::to_string).collect();
        say(format!(
            "the host may send it the signals {}",
            numbers.join(", ")
        ));
    }
    let yes_no = |yes: bool| if yes { "can" } else { "cannot" };
    say(format!(
        "the host {} read its output",
        yes_no(container.logs)
    ));
    if container.stdin {
        say("the host can write to its input".to_owned());
    }
}

fn words(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("{word:?}"));
    quoted.collect::<Vec<_>>().join(" ")
}

fn user(container: &Container) -> String {
    let user = &container.user;
    let mut text = match user.uid {
        0 => "root".to_owned(),
        uid => format!("user {uid}"),
    };
    text.push_str(&format!(", group {}", user.gid));
    if !user.groups.is_empty() {
        let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
        text.push_str(&format!(", further groups {}", groups.join(", ")));
    }
    if !user.strict {
        text.push_str(", and the groups that its image's /etc/group gives this user");
    }
    text
}

fn rights(container: &Container) -> Vec<String> {
    let rights = &container.rights;
    let mut lines = Vec::new();
    if rights.privileged {
        lines.push("privileged: all rights that the guest gives any container".to_owned());
    }
    match &rights.capabilities {
        None => {}
        Some(none) if none.is_empty() => lines.push("without capabilities".to_owned()),
        Some(some) => {
            let names: Vec<_> = some.iter().map(String::as_str).collect();
            lines.push(format!("with the capabilities {}", names.join(", ")));
        }
    }
    if rights.no_new_privileges {
        lines.push("without new privileges".to_owned());
    }
    lines.push(match &rights.seccomp {
        Seccomp::Unconfined => "without a filter of system calls".to_owned(),
        Seccomp::RuntimeDefault => "with the guest's own filter of system calls".to_owned(),
        Seccomp::Digest(digest) => format!("with the filter of system calls {digest}"),
    });
    if rights.unmasked {
        lines.push("with all of /proc".to_owned());
    }
    if container.read_only_root {
        lines.push("its image's files cannot be changed".to_owned());
    }
    if container.terminal {
        lines.push("with a terminal".to_owned());
    }
    lines
}

fn value(variable: &Variable) -> String {
    match variable {
        Variable::Is(value) => format!("is {value:?}"),
        Variable::From(Origin::Field(field)) => format!("is the pod's {field}"),
        Variable::From(Origin::Any) => "may be anything".to_owned(),
        Variable::From(Origin::Digest(_)) => "is one value that the policy hides".to_owned(),
        Variable::From(Origin::Number) => "is some number".to_owned(),
    }
}

fn mounted(mount: &Mount, document: &Document) -> String {
    let mode = if mount.read_only {
        "read-only"
    } else {
        "writable"
    };
    if let Some(volume) = &mount.volume {
        let whole = volume.split('/').next().unwrap_or_default();
        let known = document.pod.volumes.contains_key(whole);
        let kind = if known { "volume" } else { "unknown volume" };
        return format!("{kind} {volume}, {mode}");
    }
    if mount.of_image {
        return format!("a volume of the image, {mode}");
    }
    match &mount.digest {
        Some(_) => format!("files of the host with the content that the owner gave, {mode}"),
        None if mount.at == TOKEN => format!("the token of its service account, {mode}"),
        None => format!("files of the host with any content, {mode}"),
    }
}

/// What a host can decide under this policy.
pub(super) fn left_to_the_host(document: &Document) -> Vec<String> {
    let mut left = vec![
        "when the pod runs, on which node, with how much CPU and memory, and when it ends"
            .to_owned(),
        "the pod's addresses and host name, name servers, /etc/hosts, and who can reach it"
            .to_owned(),
    ];
    if document.pod.name.is_none() {
        left.push("the pod's name".to_owned());
    }
    if document.pod.namespace.is_none() {
        left.push("the pod's namespace".to_owned());
    }
    for container in document.containers.iter().chain(&document.ephemeral) {
        let name = &container.name;
        let links = if container.without_service_links {
            "the address that it has for Kubernetes itself"
        } else {
            "which services it has variables of, and their addresses"
        };
        left.push(format!("{name}: {links}"));
        for (variable, value) in &container.env {
            if matches!(value, Variable::From(Origin::Any | Origin::Number)) {
                left.push(format!("{name}: the value of {variable}"));
            }
        }
        for mount in &container.mounts {
            let is_open = mount.volume.is_none() && mount.digest.is_none();
            if is_open && mount.at == TOKEN {
                left.push(format!("{name}: the token of its service account"));
            } else if is_open && !mount.of_image {
                left.push(format!("{name}: the files at {}", mount.at));
            }
        }
        if !container.exec.is_empty() {
            left.push(format!(
                "{name}: when the commands above run in it, and how often"
            ));
        }
        if container.stdin {
            left.push(format!("{name}: what it reads from its input"));
        }
    }
    left.extend(granted(&document.grants));
    left
}

fn granted(grants: &GrantList) -> Vec<String> {
    let all = [
        (
            grants.host_files_cover,
            "files in the place of an image's own, where it mounts files",
        ),
        (
            grants.host_files_change,
            "new content of its files while the pod runs",
        ),
        (grants.statistics, "to read how much the containers use"),
        (grants.vsock, "to talk to containers through AF_VSOCK"),
    ];
    let there = all.into_iter().filter(|(there, _)| *there);
    there.map(|(_, words)| words.to_owned()).collect()
}
