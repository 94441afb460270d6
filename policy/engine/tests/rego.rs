//! Kata-style policies: what loads, what a rule's value means, and what is remembered.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use agent_protocol::rpc::{agent as wire, oci};
use policy_engine::rego::{
    Failure, Fields, Interpreter, LoadError, PatchError, Policy, RULES, Why, input,
};
use protobuf::MessageDyn;
use serde_json::{Value, json};

const ALLOW_ALL: &str = include_str!("policies/allow-all.rego");
const NO_EXEC: &str = include_str!("policies/allow-all-except-exec.rego");
const SET_POLICY: &str = include_str!("policies/allow-set-policy.rego");

fn policy(rules: &str) -> Policy {
    load(&format!("package agent_policy\n\n{rules}\n")).unwrap()
}

fn load(text: &str) -> Result<Policy, LoadError> {
    Policy::load(text, Interpreter::load)
}

/// Why a request is denied, or nothing if it is allowed and done.
fn why(policy: &Policy, rule: &'static str, message: &dyn MessageDyn) -> Option<Why> {
    match policy.decide(rule, message) {
        Ok(allowed) => {
            allowed.commit();
            None
        }
        Err(refusal) => Some(refusal.why),
    }
}

fn start(container: &str) -> wire::StartContainerRequest {
    wire::StartContainerRequest {
        container_id: container.to_owned(),
        ..Default::default()
    }
}

fn create(container: &str) -> wire::CreateContainerRequest {
    wire::CreateContainerRequest {
        container_id: container.to_owned(),
        ..Default::default()
    }
}

fn remove(container: &str) -> wire::RemoveContainerRequest {
    wire::RemoveContainerRequest {
        container_id: container.to_owned(),
        ..Default::default()
    }
}

fn document(message: &dyn MessageDyn) -> Value {
    serde_json::from_str(&input(message, &Fields::All).unwrap()).unwrap()
}

/// The rules that a sample leaves out are denied even under allow-all.
#[test]
fn the_samples_decide_as_the_spec_says() {
    let missing = [
        "AddSwapPathRequest",
        "GetIPTablesRequest",
        "SetIPTablesRequest",
        "ResizeVolumeRequest",
        "VolumeStatsRequest",
        "AllowRequestsFailingPolicy",
    ];
    let (all, no_exec, set) = (
        load(ALLOW_ALL).unwrap(),
        load(NO_EXEC).unwrap(),
        load(SET_POLICY).unwrap(),
    );
    for &rule in RULES {
        let message = start("c1");
        let undefined = missing.contains(&rule).then_some(Why::Undefined);
        assert_eq!(why(&all, rule, &message), undefined, "{rule}");
        let denied = (rule == "ExecProcessRequest").then_some(Why::Denied);
        assert_eq!(
            why(&no_exec, rule, &message),
            undefined.or(denied),
            "{rule}"
        );
        let denied = (rule != "SetPolicyRequest").then_some(Why::Undefined);
        assert_eq!(why(&set, rule, &message), denied, "{rule}");
    }
}

#[test]
fn a_rule_that_gives_no_decision_denies() {
    for (rules, expected) in [
        (
            "StartContainerRequest { input.container_id == \"c1\" }",
            None,
        ),
        (
            "StartContainerRequest { input.container_id == \"c2\" }",
            Some(Why::Undefined),
        ),
        (
            "default StartContainerRequest := false\nStartContainerRequest { input.container_id == \"c2\" }",
            Some(Why::Denied),
        ),
        ("StartContainerRequest := {\"allowed\": true}", None),
        (
            "StartContainerRequest := {\"allowed\": false, \"ops\": []}",
            Some(Why::Denied),
        ),
        ("StartContainerRequest := \"true\"", Some(Why::NoDecision)),
        ("StartContainerRequest := [true]", Some(Why::NoDecision)),
        ("StartContainerRequest := {}", Some(Why::NoDecision)),
        ("StartContainerRequest := null", Some(Why::NoDecision)),
        (
            "StartContainerRequest := true { true }\nStartContainerRequest := false { true }",
            Some(Why::Failure(Failure::Rule)),
        ),
        (
            "StartContainerRequest { nowhere.called(1) }",
            Some(Why::Failure(Failure::Rule)),
        ),
        ("default StopContainerRequest := true", Some(Why::Undefined)),
        ("", Some(Why::Undefined)),
        ("# StartContainerRequest := true", Some(Why::Undefined)),
        (
            "x := \"StartContainerRequest := true\"",
            Some(Why::Undefined),
        ),
    ] {
        let policy = load(&format!("package agent_policy\n\nx0 := 1\n{rules}\n"));
        let policy = match policy {
            Ok(policy) => policy,
            Err(error) => {
                assert!(rules.contains("nowhere"), "{rules}: {error:?}");
                continue;
            }
        };
        assert_eq!(
            why(&policy, "StartContainerRequest", &start("c1")),
            expected,
            "{rules}"
        );
    }
}

#[test]
fn a_name_that_is_no_rule_of_the_protocol_is_not_asked() {
    let policy = policy("Secret := true");
    assert_eq!(why(&policy, "Secret", &start("c1")), Some(Why::Undefined));
}

#[test]
fn a_denial_s_text_is_fixed_and_begins_as_tools_expect() {
    let policy = policy(
        "StartContainerRequest { print(\"marker-7163\", input); input.container_id == \"marker-7163\" }",
    );
    let refusal = policy
        .decide("StartContainerRequest", &start("c1"))
        .unwrap_err();
    let text = refusal.to_string();
    assert!(
        text.starts_with("StartContainerRequest is blocked by policy"),
        "{text}"
    );
    assert!(!text.contains("marker-7163"), "{text}");
}

const REMEMBERS: &str = r#"
CreateContainerRequest := {"allowed": true, "ops": [op]} {
    not data.pstate[input.container_id]
    op := {"op": "add", "path": concat("", ["/pstate/", input.container_id]), "value": 1}
}
RemoveContainerRequest := {"allowed": true, "ops": [op]} {
    op := {"op": "remove", "path": concat("", ["/pstate/", input.container_id])}
}
StartContainerRequest { data.pstate[input.container_id] == 1 }
"#;

#[test]
fn what_is_remembered_decides_what_follows() {
    let policy = policy(REMEMBERS);
    assert_eq!(
        why(&policy, "StartContainerRequest", &start("c1")),
        Some(Why::Undefined)
    );
    assert_eq!(why(&policy, "CreateContainerRequest", &create("c1")), None);
    assert_eq!(why(&policy, "StartContainerRequest", &start("c1")), None);
    assert_eq!(
        why(&policy, "CreateContainerRequest", &create("c1")),
        Some(Why::Undefined)
    );
    assert_eq!(why(&policy, "RemoveContainerRequest", &remove("c1")), None);
    assert_eq!(
        why(&policy, "RemoveContainerRequest", &remove("c1")),
        Some(Why::State(PatchError::Missing))
    );
    assert_eq!(
        why(&policy, "StartContainerRequest", &start("c1")),
        Some(Why::Undefined)
    );
}

#[test]
fn a_request_that_fails_after_it_was_allowed_leaves_the_state_as_it_was() {
    let policy = policy(REMEMBERS);
    let allowed = policy
        .decide("CreateContainerRequest", &create("c1"))
        .unwrap();
    // The change holds while the request is under way: a second one is judged by it.
    assert_eq!(
        why(&policy, "CreateContainerRequest", &create("c1")),
        Some(Why::Undefined)
    );
    drop(allowed);
    assert_eq!(
        why(&policy, "StartContainerRequest", &start("c1")),
        Some(Why::Undefined)
    );
    assert_eq!(why(&policy, "CreateContainerRequest", &create("c1")), None);
    drop(
        policy
            .decide("RemoveContainerRequest", &remove("c1"))
            .unwrap(),
    );
    assert_eq!(why(&policy, "StartContainerRequest", &start("c1")), None);
}

#[test]
fn a_policy_that_is_loaded_again_remembers_nothing() {
    let first = policy(REMEMBERS);
    assert_eq!(why(&first, "CreateContainerRequest", &create("c1")), None);
    let second = policy(REMEMBERS);
    assert_eq!(
        why(&second, "StartContainerRequest", &start("c1")),
        Some(Why::Undefined)
    );
}

#[test]
fn state_is_changed_below_pstate_only_and_only_by_what_is_allowed() {
    for (rule, expected) in [
        (
            r#"CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/agent_policy", "value": {}}]}"#,
            Some(Why::State(PatchError::Outside)),
        ),
        (
            r#"CreateContainerRequest := {"allowed": true, "ops": 1}"#,
            Some(Why::State(PatchError::Form)),
        ),
        (
            r#"CreateContainerRequest := {"allowed": false, "ops": [{"op": "add", "path": "/pstate/c1", "value": 1}]}"#,
            Some(Why::Denied),
        ),
    ] {
        let policy = policy(&format!(
            "{rule}\nStartContainerRequest {{ data.pstate.c1 }}"
        ));
        assert_eq!(
            why(&policy, "CreateContainerRequest", &create("c1")),
            expected
        );
        assert_eq!(
            why(&policy, "StartContainerRequest", &start("c1")),
            Some(Why::Undefined)
        );
    }
}

#[test]
fn a_text_that_is_not_rego_says_where() {
    let error = load("package agent_policy\n\nA {\n  x := \n}\n").unwrap_err();
    assert!(
        matches!(&error, LoadError::Syntax { line: 3..=5, .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("line "), "{text}");
}

#[test]
fn the_switch_that_turns_denials_off_is_refused() {
    for (value, loads) in [("true", false), ("false", true)] {
        let text =
            format!("package agent_policy\n\ndefault AllowRequestsFailingPolicy := {value}\n");
        let loaded = load(&text);
        assert_eq!(loaded.is_ok(), loads, "{value}");
        if let Err(error) = loaded {
            assert_eq!(error, LoadError::IgnoresFailures);
        }
    }
    let hidden = "package agent_policy\n\nAllowRequestsFailingPolicy { count(input) == 0 }\n";
    assert_eq!(load(hidden).unwrap_err(), LoadError::IgnoresFailures);
}

#[test]
fn functions_that_look_beyond_the_request_do_not_load_or_do_not_answer() {
    for function in [
        "time.now_ns()",
        "rand.intn(\"x\", 2)",
        "http.send({\"method\": \"get\", \"url\": \"http://host\"})",
        "opa.runtime()",
        "uuid.rfc4122(\"x\")",
        "net.lookup_ip_addr(\"host\")",
    ] {
        let text = format!("package agent_policy\n\nStartContainerRequest {{ {function} }}\n");
        assert!(
            matches!(load(&text), Err(LoadError::Impure { .. })),
            "{function}"
        );
    }
    for function in [
        "time.date(1)",
        "net.cidr_contains(\"10.0.0.0/8\", \"10.0.0.1\")",
    ] {
        let text = format!("package agent_policy\n\nStartContainerRequest {{ {function} }}\n");
        let allowed =
            load(&text).map(|policy| why(&policy, "StartContainerRequest", &start("c1")).is_none());
        assert_ne!(allowed, Ok(true), "{function}");
    }
}

#[test]
fn regular_expressions_have_the_dialect_of_kata_s_agent() {
    for (pattern, text, matches) in [
        ("b", "abc", true),
        ("^b", "abc", false),
        (r"^\\d+$", "123", true),
        (r"^\\w+$", "aé_1", true),
        ("^(?i)ABC$", "abc", true),
        (r"^[a-z0-9]{64}$", &"a".repeat(64), true),
        (r"^\\p{Lu}$", "É", true),
        (r"(a)\\1", "aa", false),
        ("(?=a)", "a", false),
    ] {
        let rule =
            format!("StartContainerRequest {{ regex.match(\"{pattern}\", input.container_id) }}");
        let allowed = why(&policy(&rule), "StartContainerRequest", &start(text)).is_none();
        assert_eq!(allowed, matches, "{pattern}");
    }
}

#[test]
fn the_input_has_kata_s_shape() {
    let mut request = create("c1");
    request.devices.push(wire::Device {
        type_: "blk".to_owned(),
        ..Default::default()
    });
    request.storages.push(wire::Storage {
        fs_group: Some(wire::FSGroup {
            group_id: 7,
            group_change_policy: agent_protocol::rpc::types::FSGroupChangePolicy::OnRootMismatch
                .into(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    });
    request.OCI = Some(oci::Spec {
        Version: "1.2.1".to_owned(),
        Annotations: [("a/b".to_owned(), "\"c\"".to_owned())].into(),
        ..Default::default()
    })
    .into();
    assert_eq!(
        document(&request),
        json!({
            "container_id": "c1", "exec_id": "", "string_user": null,
            "devices": [{"id": "", "type_": "blk", "vm_path": "", "container_path": "", "options": []}],
            "storages": [{
                "driver": "", "driver_options": [], "source": "", "fstype": "", "options": [],
                "mount_point": "", "fs_group": {"group_id": 7, "group_change_policy": 1}, "shared": false,
            }],
            "OCI": {
                "Version": "1.2.1", "Process": null, "Root": null, "Hostname": "", "Mounts": [],
                "Hooks": null, "Annotations": {"a/b": "\"c\""}, "Linux": null, "Solaris": null, "Windows": null,
            },
            "sandbox_pidns": false, "shared_mounts": [], "stdin_port": 0, "stdout_port": 0, "stderr_port": 0,
        })
    );
    let route = wire::UpdateRoutesRequest {
        routes: Some(wire::Routes {
            Routes: vec![Default::default()],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    assert_eq!(
        document(&route),
        json!({"routes": {"Routes": [{
            "dest": "", "gateway": "", "device": "", "source": "", "scope": 0, "family": 0, "flags": 0, "mtu": 0,
        }]}})
    );
    let written = wire::WriteStreamRequest {
        data: vec![0, 255],
        ..Default::default()
    };
    assert_eq!(document(&written)["data"], json!([0, 255]));
    let memory = wire::MemAgentMemcgConfig {
        swap: Some(false),
        ..Default::default()
    };
    assert_eq!(document(&memory)["swap"], json!(false));
    assert_eq!(document(&memory)["disabled"], json!(null));
    let number = wire::ResizeVolumeRequest {
        size: u64::MAX,
        ..Default::default()
    };
    assert_eq!(document(&number)["size"], json!(u64::MAX));
    let choice = oci::LinuxSyscall {
        ErrnoRet: Some(oci::linux_syscall::ErrnoRet::Errnoret(38)),
        ..Default::default()
    };
    assert_eq!(document(&choice)["ErrnoRet"], json!({"errnoret": 38}));
    assert_eq!(
        document(&oci::LinuxSyscall::default())["ErrnoRet"],
        json!(null)
    );
}

#[test]
fn a_copied_file_is_judged_without_its_content() {
    for (mode, data, kind, target) in [
        (0o100_644, &b"secret"[..], "Regular", json!(null)),
        (0o040_755, b"", "Directory", json!(null)),
        (0o120_777, b"..data/x", "Symlink", json!("..data/x")),
        (0o010_644, b"", "Unknown", json!(null)),
    ] {
        let request = wire::CopyFileRequest {
            path: "/run/x".to_owned(),
            file_mode: mode,
            data: data.to_vec(),
            uid: -1,
            ..Default::default()
        };
        assert_eq!(
            document(&request),
            json!({
                "path": "/run/x", "file_type": kind, "symlink_target": target, "file_size": 0,
                "file_mode": mode, "dir_mode": 0, "uid": -1, "gid": 0, "offset": 0,
            })
        );
    }
    let no_text = wire::CopyFileRequest {
        file_mode: 0o120_777,
        data: vec![0xff],
        ..Default::default()
    };
    assert!(input(&no_text, &Fields::All).is_err());
    let policy = policy("CopyFileRequest { input.path }");
    assert_eq!(why(&policy, "CopyFileRequest", &no_text), Some(Why::Input));
}

#[test]
fn what_a_policy_does_not_name_is_not_made_into_a_document() {
    let policy = policy("WriteStreamRequest { input.container_id == \"c1\" }");
    let mut request = wire::WriteStreamRequest {
        container_id: "c1".to_owned(),
        data: vec![7; 4 << 20],
        ..Default::default()
    };
    assert_eq!(why(&policy, "WriteStreamRequest", &request), None);
    let named = Fields::Named(["container_id".to_owned()].into());
    assert_eq!(input(&request, &named).unwrap(), r#"{"container_id":"c1"}"#);
    request.container_id = "c2".to_owned();
    assert_eq!(
        why(&policy, "WriteStreamRequest", &request),
        Some(Why::Undefined)
    );
}

#[test]
fn an_evaluation_that_does_not_end_is_ended() {
    let policy = policy(
        "n := numbers.range(1, 3000)\nStartContainerRequest { count([1 | n[_]; n[_]; n[_]]) == input.container_id }",
    );
    assert_eq!(
        why(&policy, "StartContainerRequest", &start("c1")),
        Some(Why::Failure(Failure::Time))
    );
}
