//! `kata-cc policy` as its user meets it: files in, text and exit codes out.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../generator/tests/support/mod.rs"]
mod support;

use std::{
    fs,
    process::{Command, Output},
};

use agent_keys_broker::Addresses;
use agent_protocol::initdata::Initdata;
use policy_engine::document::Document;
use support::Layout;

struct Owner {
    layout: Layout,
    folder: tempfile::TempDir,
}

impl Owner {
    fn new() -> Self {
        Self {
            layout: Layout::make(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn kata_cc(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kata-cc"))
            .arg("policy")
            .args(arguments)
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .output()
            .unwrap()
    }

    fn generate(&self, arguments: &[&str]) -> Output {
        let layout = self.layout.directory.path().display().to_string();
        let all = [&["gen", "--layout", &layout], arguments].concat();
        self.kata_cc(&all)
    }

    fn pod(&self, name: &str) -> String {
        let text = self.layout.pod(name).text;
        let file = format!("{name}.yaml");
        fs::write(self.folder.path().join(&file), text).unwrap();
        file
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

fn out(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `HOST_DATA` as `gen` tells it.
fn host_data(output: &Output) -> String {
    let text = errors(output);
    let (_, rest) = text.split_once("HOST_DATA ").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_pod_gets_its_policy_in_place_and_the_policy_is_shown_explained_and_digested() {
    let owner = Owner::new();
    let file = owner.pod("nginx");
    let made = owner.generate(&["--in-place", &file]);
    assert_eq!(out(&made), "");
    let told = errors(&made);
    assert!(
        told.contains("image nginx:1.27 is docker.io/library/nginx@sha256:"),
        "{told}"
    );
    assert!(
        told.contains("the host can read what nginx write"),
        "{told}"
    );
    let text = owner.read(&file);
    assert!(
        text.starts_with("# A web server as the tutorials have it.\n"),
        "{text}"
    );
    let shown = out(&owner.kata_cc(&["show", &file]));
    let document = Document::parse(shown.as_bytes()).unwrap();
    assert!(document.rules.contains(&policy_engine::rules_digest_hex()));
    let digest = out(&owner.kata_cc(&["digest", &file]));
    assert_eq!(digest, format!("{}  Deployment nginx\n", host_data(&made)));
    let longer = out(&owner.kata_cc(&["digest", "--platform", "tdx", &file]));
    assert!(longer.starts_with(&host_data(&made)));
    assert_eq!(
        owner
            .kata_cc(&["digest", "--platform", "aks", &file])
            .status
            .code(),
        Some(1)
    );
    let words = out(&owner.kata_cc(&["explain", &file]));
    for line in [
        "runs \"/docker-entrypoint.sh\" \"nginx\"",
        "the host may still choose:",
        "the token of its service account",
    ] {
        assert!(words.contains(line), "{line} in {words}");
    }
}

#[test]
fn the_same_files_give_the_same_bytes_whatever_is_kept() {
    let owner = Owner::new();
    let file = owner.pod("postgres");
    let first = owner.generate(&[&file]);
    let second = owner.generate(&[&file]);
    let third = owner.generate(&[&file, "--no-cache"]);
    assert_eq!(out(&first), out(&second));
    assert_eq!(out(&first), out(&third));
    assert!(!out(&first).contains("SALT"));
    let salted = owner.generate(&[&file, "--salt", "of the office"]);
    assert_ne!(host_data(&first), host_data(&salted));
}

#[test]
fn the_digests_that_the_guest_logs_are_told() {
    let owner = Owner::new();
    let file = owner.pod("security");
    let told = errors(&owner.generate(&["--digests", "-o", "document", &file]));
    for part in ["process", "environment", "mounts", "rights", "settings"] {
        let line = told
            .lines()
            .find(|line| line.starts_with(&format!("Pod locked-down: app: {part} ")));
        let digest = line
            .unwrap_or_else(|| panic!("{part} in {told}"))
            .rsplit(' ')
            .next()
            .unwrap();
        assert_eq!(digest.len(), 64, "{part}: {told}");
    }
}

#[test]
fn initdata_is_made_in_one_step() {
    let owner = Owner::new();
    let file = owner.pod("job");
    fs::write(owner.folder.path().join("signed.json"), "{\"default\": []}").unwrap();
    let made = owner.generate(&[&file, "-o", "initdata", "--image-policy", "signed.json"]);
    let text = out(&made);
    for part in [
        "\"pod-policy.json\" = '''",
        "\"image-policy.json\"",
        "image_security_policy_uri",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    fs::write(owner.folder.path().join("initdata.toml"), &text).unwrap();
    let again = owner.generate(&[&file, "-o", "initdata", "--initdata", "initdata.toml"]);
    assert_eq!(out(&again), text);
}

/// A self-signed certificate as `kata-cc broker init` prints one, of which only the form counts here.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n";

#[test]
fn initdata_names_the_key_broker_as_a_guest_reads_it() {
    let owner = Owner::new();
    let file = owner.pod("job");
    let write = |name: &str, text: &str| fs::write(owner.folder.path().join(name), text).unwrap();
    write("kbs.pem", CERTIFICATE);
    let url = "https://kbs.example:8080";
    let make = |arguments: &[&str]| {
        let made = owner.generate(&[&[&file, "-o", "initdata"], arguments].concat());
        let initdata = Initdata::parse(out(&made).as_bytes()).unwrap();
        let host_data = hex::encode(initdata.digest().host_data());
        assert!(errors(&made).contains(&host_data), "{}", errors(&made));
        initdata
    };
    let address = |initdata: &Initdata| {
        Addresses::parse(&initdata.entries()["aa.toml"])
            .unwrap()
            .default
    };
    let named = make(&["--kbs", url, "--kbs-certificate", "kbs.pem"]);
    assert!(address(&named).is_some());
    assert!(named.entries()["aa.toml"].contains(CERTIFICATE));
    assert!(named.entries()["cdh.toml"].contains("cc_kbc"));
    // What the broker printed is taken as it is, and means the same.
    write("aa.toml", &named.entries()["aa.toml"]);
    let given = make(&["--aa", "aa.toml"]);
    assert_eq!(address(&given), address(&named));
    assert!(!given.entries().contains_key("cdh.toml"));
    // The owner's own cdh.toml stays what it is.
    write("cdh.toml", "[kbc]\nname = \"cc_kbc\"\n");
    let own = make(&["--kbs", url, "--cdh", "cdh.toml"]);
    assert_eq!(own.entries()["cdh.toml"], "[kbc]\nname = \"cc_kbc\"\n");
}

#[test]
fn a_key_broker_that_no_guest_would_take_is_refused() {
    let owner = Owner::new();
    let file = owner.pod("job");
    let write = |name: &str, text: &str| fs::write(owner.folder.path().join(name), text).unwrap();
    write(
        "aa.toml",
        "[token_configs.kbs]\nurl = \"http://kbs.example\"\n",
    );
    write(
        "misspelt.toml",
        "[token_config.kbs]\nurl = \"https://kbs.example\"\n",
    );
    write("no.pem", "MIIB");
    write("escape.pem", &format!("{CERTIFICATE}\"\"\"\nurl = 1\n"));
    let url = "https://kbs.example";
    for (arguments, words) in [
        (&["--kbs", "http://kbs.example"][..], "no guest would take"),
        (&["--kbs", "kbs\"\n"], "cannot be written down"),
        (&["--aa", "aa.toml"], "no guest would take"),
        (&["--aa", "misspelt.toml"], "no guest would take"),
        (
            &["--kbs", url, "--kbs-certificate", "no.pem"],
            "no certificate in PEM",
        ),
        (
            &["--kbs", url, "--kbs-certificate", "escape.pem"],
            "no certificate in PEM",
        ),
    ] {
        let refused = owner.generate(&[&[file.as_str()], arguments].concat());
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(refused.stdout.is_empty(), "{arguments:?}");
        assert!(errors(&refused).contains(words), "{}", errors(&refused));
    }
    let both = owner.generate(&[&file, "--kbs", url, "--aa", "aa.toml"]);
    assert_eq!(both.status.code(), Some(2));
    let alone = owner.generate(&[&file, "--kbs-certificate", "no.pem"]);
    assert_eq!(alone.status.code(), Some(2));
}

#[test]
fn a_difference_is_told_with_exit_code_2_and_less_is_none() {
    let owner = Owner::new();
    let file = owner.pod("redis");
    for (name, more) in [("a.json", &["--no-logs"][..]), ("b.json", &[])] {
        let arguments = [&["-o", "document", file.as_str()], more].concat();
        fs::write(
            owner.folder.path().join(name),
            out(&owner.generate(&arguments)),
        )
        .unwrap();
    }
    let more = owner.kata_cc(&["diff", "a.json", "b.json"]);
    assert_eq!(more.status.code(), Some(2));
    let text = String::from_utf8_lossy(&more.stdout);
    assert!(
        text.contains("container redis: the host can read its output"),
        "{text}"
    );
    assert_eq!(out(&owner.kata_cc(&["diff", "b.json", "a.json"])), "");
}

#[test]
fn what_deserves_a_look_is_found() {
    let owner = Owner::new();
    let file = owner.pod("privileged");
    owner.generate(&["-i", &file]);
    let found = owner.kata_cc(&["lint", &file]);
    assert_eq!(found.status.code(), Some(1));
    let text = String::from_utf8_lossy(&found.stdout);
    for words in [
        "privileged:",
        "any namespace",
        "named by a tag",
        "can read its output",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    fs::write(owner.folder.path().join("clean.json"), clean()).unwrap();
    assert_eq!(out(&owner.kata_cc(&["lint", "clean.json"])), "");
}

/// A policy in which there is nothing to look at.
fn clean() -> String {
    let rules = policy_engine::rules_digest_hex();
    let image = format!("r.example/a@sha256:{}", "0".repeat(64));
    format!(
        r#"{{"containers":[{{"args":["/a"],"image":"{image}","name":"a"}}],"pod":{{"name":{{"is":"p"}},"namespace":"n"}},"rules":["{rules}"]}}"#
    )
}

/// Ten mistakes that people make, and what they are told (`docs/policy-owner.md`).
#[test]
fn mistakes_name_file_line_and_field_and_say_what_to_do() {
    let owner = Owner::new();
    let page = include_str!("../../../docs/policy-owner.md");
    for (lines, message) in [
        (
            "    imgae: x\n",
            "pod.yaml:10: spec.containers[0].imgae: there is no field imgae here; did you mean image?",
        ),
        (
            "    env: [{name: A, value: 1}]\n",
            "pod.yaml:10: spec.containers[0].env[0].value: 1 is a number and has to be a text: put it in quotes",
        ),
        (
            "    envFrom: [{secretRef: {name: keys}}]\n",
            "pod.yaml:10: spec.containers[0].envFrom[0].secretRef: Secret keys is not in the files: give the one that has it with --config-file, or leave values of Secrets open with --secrets open",
        ),
        (
            "    volumeMounts: [{name: data, mountPath: /data}]\n",
            "pod.yaml:10: spec.containers[0].volumeMounts[0].name: the pod has no volume data",
        ),
        (
            "  volumes: [{name: data, persistentVolumeClaim: {claimName: d}}]\n",
            "pod.yaml:10: spec.volumes[0].persistentVolumeClaim: is of a kind that a confidential pod cannot use",
        ),
        (
            "  hostNetwork: true\n",
            "pod.yaml:10: spec.hostNetwork: cannot be given to a pod in a VM of its own: remove it",
        ),
        (
            "    securityContext: {capabilities: {add: [NET_ADMINN]}}\n",
            "pod.yaml:10: spec.containers[0].securityContext.capabilities.add[0]: NET_ADMINN is no capability of Linux",
        ),
        (
            "    securityContext: {runAsNonRoot: true}\n",
            "pod.yaml:10: spec.containers[0].securityContext: runAsNonRoot is set, and it would run as root: set runAsUser",
        ),
        (
            "    args: [\"$(IP)\"]\n    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]\n",
            "pod.yaml:10: spec.containers[0].args[0]: refers to $(IP), which is not known before the pod runs",
        ),
        (
            "  - {name: c, image: 'nothing:1'}\n",
            "pod.yaml:10: spec.containers[1].command: the image says no program, so the pod must: set command",
        ),
    ] {
        let pod = support::pod_with(lines);
        fs::write(owner.folder.path().join(&pod.name), pod.text).unwrap();
        let refused = owner.generate(&["pod.yaml"]);
        assert_eq!(refused.status.code(), Some(1), "{lines}");
        assert!(refused.stdout.is_empty(), "{lines}");
        let told = errors(&refused);
        assert!(told.contains(message), "{message}\nis not in\n{told}");
        let (_, told) = message.split_once(": ").unwrap();
        assert!(
            page.contains(told),
            "docs/policy-owner.md does not show: {told}"
        );
        assert!(told.len() < 400 && !told.contains("kata-cc:"), "{told}");
    }
}

/// The guest would refuse the container; told here, before it does.
#[test]
fn a_capability_that_the_guest_refuses_is_refused_here() {
    let owner = Owner::new();
    for (capability, spec, allowed) in [
        ("SYS_PTRACE", "", true),
        ("SYS_PTRACE", "  shareProcessNamespace: true\n", false),
        ("NET_ADMIN", "  shareProcessNamespace: true\n", true),
        ("SYS_MODULE", "", false),
        ("SYS_TIME", "", true),
    ] {
        let lines =
            format!("    securityContext: {{capabilities: {{add: [{capability}]}}}}\n{spec}");
        fs::write(
            owner.folder.path().join("pod.yaml"),
            support::pod_with(&lines).text,
        )
        .unwrap();
        let made = owner.generate(&["pod.yaml"]);
        let told = errors(&made);
        assert_eq!(made.status.success(), allowed, "{lines}: {told}");
        let refusal = format!("add[0]: {capability} is not given to such a container: remove it");
        assert_eq!(told.contains(&refusal), !allowed, "{lines}: {told}");
    }
}

#[test]
fn all_mistakes_come_at_once_and_lenient_lets_unknown_fields_be() {
    let owner = Owner::new();
    let pod = support::pod_with("    imgae: x\n    ttty: 1\n");
    fs::write(owner.folder.path().join("pod.yaml"), pod.text).unwrap();
    let told = errors(&owner.generate(&["pod.yaml"]));
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.ends_with("kata-cc: no policy was made\n"), "{told}");
    let lenient = owner.generate(&["pod.yaml", "--lenient"]);
    assert!(out(&lenient).contains("cc_init_data"));
    assert!(errors(&lenient).contains("nothing of it is in the policy"));
}

#[test]
fn what_is_no_policy_is_refused() {
    let owner = Owner::new();
    let file = owner.pod("job");
    fs::write(owner.folder.path().join("text"), "words").unwrap();
    fs::write(
        owner.folder.path().join("old.rego"),
        "package agent_policy\n",
    )
    .unwrap();
    for (command, file, words) in [
        ("show", file.as_str(), "no policy in its annotations"),
        ("show", "text", "is no policy"),
        ("show", "none", "cannot read none"),
        ("explain", "old.rego", "a policy in Rego"),
    ] {
        let refused = owner.kata_cc(&[command, file]);
        assert_eq!(refused.status.code(), Some(1), "{file}");
        assert!(errors(&refused).contains(words), "{}", errors(&refused));
    }
}

#[test]
fn a_pod_is_not_run_when_its_policy_cannot_be_had() {
    let owner = Owner::new();
    let pod = owner.pod("nginx");
    for (policy, expected) in [
        ("no-such-file", "cannot read no-such-file"),
        (pod.as_str(), "has no policy in its annotations"),
        // Names a registry that nobody has.
        ("auto", "no policy was made"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_kata-cc"))
            .args(["run", &pod, "--policy", policy])
            .args(["--runtime-endpoint", "unix:///nowhere/containerd.sock"])
            .args(["--http-proxy", "http://127.0.0.1:1"])
            .args(["--https-proxy", "http://127.0.0.1:1"])
            .current_dir(owner.folder.path())
            .env("XDG_CACHE_HOME", owner.folder.path().join("cache"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(expected), "{policy}: {errors}");
        assert_eq!(output.status.code(), Some(125), "{policy}: {errors}");
    }
}
