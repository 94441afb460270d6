//! A Kata-style policy behind the engine: what its denial says, and what a permit keeps.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use agent_protocol::rpc::agent::{CreateContainerRequest, StartContainerRequest};
use policy_engine::{
    Code, DENIED_BYTES_MAX, Engine, Request,
    rego::{Interpreter, Policy, Prepared},
};

const REMEMBERS: &str = r#"package agent_policy

import future.keywords.if

CreateContainerRequest := {"allowed": true, "ops": [op]} if {
	not data.pstate[input.container_id]
	op := {"op": "add", "path": concat("", ["/pstate/", input.container_id]), "value": 1}
}

StartContainerRequest if {
	print("marker-5521", input.container_id)
	data.pstate[input.container_id] != "marker-5521"
}
"#;

/// Nothing that the engine looks at: the message is judged.
#[derive(Debug)]
struct Create;

impl Request for Create {
    const RULE: &'static str = "CreateContainerRequest";
}

#[derive(Debug)]
struct Start;

impl Request for Start {
    const RULE: &'static str = "StartContainerRequest";
}

fn engine() -> Engine {
    Engine::of_kata_policy(Policy::load(REMEMBERS, Interpreter::load).unwrap())
}

fn prepared_create(engine: &Engine) -> Prepared {
    engine.prepare::<Create>(&CreateContainerRequest {
        container_id: "c1".to_owned(),
        ..Default::default()
    })
}

fn prepared_start(engine: &Engine) -> Prepared {
    engine.prepare::<Start>(&StartContainerRequest {
        container_id: "c1".to_owned(),
        ..Default::default()
    })
}

#[test]
fn a_permit_that_is_committed_is_remembered_and_one_that_is_not_is_undone() {
    let engine = engine();
    let permit = engine
        .judge_prepared(Create, prepared_create(&engine))
        .unwrap();
    drop(permit);
    assert!(
        engine
            .judge_prepared(Start, prepared_start(&engine))
            .is_err()
    );
    let permit = engine
        .judge_prepared(Create, prepared_create(&engine))
        .unwrap();
    let _ = permit.into_parts().1.commit();
    assert!(
        engine
            .judge_prepared(Start, prepared_start(&engine))
            .is_ok()
    );
    assert!(
        engine
            .judge_prepared(Create, prepared_create(&engine))
            .is_err()
    );
}

#[test]
fn a_denial_has_a_code_and_nothing_of_the_policy_or_what_it_prints() {
    let engine = engine();
    let denied = engine
        .judge_prepared(Start, prepared_start(&engine))
        .unwrap_err();
    assert_eq!(denied.finding.code, Code::KataPolicy);
    let text = denied.to_string();
    assert!(
        text.starts_with("StartContainerRequest is blocked by policy: KATA_POLICY"),
        "{text}"
    );
    assert!(
        !text.contains("marker-5521") && !text.contains("c1"),
        "{text}"
    );
    assert!(text.len() <= DENIED_BYTES_MAX);
}

#[test]
fn what_nobody_prepared_or_another_policy_or_for_another_rule_is_denied() {
    let (engine, other) = (engine(), engine());
    assert!(engine.judge(Create).is_err());
    assert!(
        engine
            .judge_prepared(Create, prepared_create(&other))
            .is_err()
    );
    assert!(
        engine
            .judge_prepared(Create, prepared_start(&engine))
            .is_err()
    );
    let open = Engine::allow_all();
    assert!(
        engine
            .judge_prepared(Create, prepared_create(&open))
            .is_err()
    );
    assert!(
        open.judge_prepared(Create, prepared_create(&engine))
            .is_ok()
    );
    assert!(
        engine
            .judge_prepared(Create, prepared_create(&engine))
            .is_ok()
    );
}

#[test]
fn only_what_needs_rego_waits() {
    let engine = engine();
    assert!(prepared_create(&engine).waits());
    assert!(!prepared_create(&Engine::allow_all()).waits());
    let constant = "package agent_policy\n\ndefault CreateContainerRequest := true\n";
    let constant = Engine::of_kata_policy(Policy::load(constant, Interpreter::load).unwrap());
    assert!(!prepared_create(&constant).waits());
    assert!(
        constant
            .judge_prepared(Create, prepared_create(&constant))
            .is_ok()
    );
}
