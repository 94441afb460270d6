//! What no policy and no request can do to the guest: take time, memory or depth without end.
//!
//! This program is its own evaluator, as the guest's is.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use agent_evaluator::{Bounded, EVALUATOR_ARGUMENT};
use agent_protocol::rpc::agent::{StartContainerRequest, WriteStreamRequest};
use policy_engine::rego::{Failure, LoadError, Policy, TEXT_BYTES_MAX, Why};

const RULE: &str = "StartContainerRequest";
/// Longer than any answer takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// A claim, and what shows it.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("plain_rules_are_answered", plain_rules_are_answered),
    ("what_does_not_end_is_ended", what_does_not_end_is_ended),
    ("what_takes_memory_is_ended", what_takes_memory_is_ended),
    (
        "deep_calls_end_the_child_only",
        deep_calls_end_the_child_only,
    ),
    (
        "after_its_end_the_next_question_is_answered_with_the_same_state",
        after_its_end_the_next_question_is_answered_with_the_same_state,
    ),
    (
        "big_texts_load_or_are_refused",
        big_texts_load_or_are_refused,
    ),
    ("the_child_has_no_rights", the_child_has_no_rights),
    (
        "the_longest_message_is_judged_whole",
        the_longest_message_is_judged_whole,
    ),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(EVALUATOR_ARGUMENT) {
        return agent_evaluator::run();
    }
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    for (name, test) in TESTS {
        if filter.as_ref().is_none_or(|filter| name.contains(filter)) {
            let start = Instant::now();
            test();
            println!(
                "test {name} ... ok ({:.1} s)",
                start.elapsed().as_secs_f32()
            );
        }
    }
    ExitCode::SUCCESS
}

fn load(rules: &str) -> Result<Policy, LoadError> {
    Policy::load(&format!("package agent_policy\n\n{rules}\n"), Bounded::load)
}

fn request(container: &str) -> StartContainerRequest {
    StartContainerRequest {
        container_id: container.to_owned(),
        ..StartContainerRequest::default()
    }
}

fn why(policy: &Policy, container: &str) -> Option<Why> {
    let start = Instant::now();
    let decided = policy.decide(RULE, &request(container));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    match decided {
        Ok(allowed) => {
            allowed.commit();
            None
        }
        Err(refusal) => Some(refusal.why),
    }
}

fn plain_rules_are_answered() {
    let policy = load("StartContainerRequest { input.container_id == \"c1\" }").unwrap();
    assert_eq!(why(&policy, "c1"), None);
    assert_eq!(why(&policy, "c2"), Some(Why::Undefined));
}

fn what_does_not_end_is_ended() {
    for rules in [
        // Between steps of Rego.
        "n := numbers.range(1, 9000)\nStartContainerRequest { count({1 | n[_]; n[_]; n[_]}) == 2 }",
        // Within a single function.
        "StartContainerRequest { product(numbers.range(1, 2000000)) == 1 }",
    ] {
        let policy = load(rules).unwrap();
        assert_eq!(
            why(&policy, "c1"),
            Some(Why::Failure(Failure::Time)),
            "{rules}"
        );
    }
}

fn what_takes_memory_is_ended() {
    for rules in [
        "StartContainerRequest { count(numbers.range(1, 1000000000)) == 1 }",
        "s0 := \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\ns1 := replace(s0, \"a\", s0)\ns2 := replace(s1, \"a\", s1)\ns3 := replace(s2, \"a\", s2)\ns4 := replace(s3, \"a\", s3)\ns5 := replace(s4, \"a\", s4)\nStartContainerRequest { s5 == \"\" }",
        "StartContainerRequest { bits.lsh(1, 100000000000) == 1 }",
        "StartContainerRequest { sprintf(\"%2000000000d\", [1]) == \"\" }",
    ] {
        let policy = load(rules).unwrap();
        let found = why(&policy, "c1");
        println!("  {found:?}");
        assert!(
            matches!(found, Some(Why::Failure(_) | Why::Undefined)),
            "{found:?}"
        );
    }
}

fn deep_calls_end_the_child_only() {
    for rules in [
        "f(x) := f(x + 1)\nStartContainerRequest { f(1) }",
        "f(x) := g(x + 1)\ng(x) := f(x + 1)\nStartContainerRequest { f(1) }",
        "StartContainerRequest { other }\nother { StartContainerRequest }",
    ] {
        match load(rules) {
            Err(error) => println!("  {error:?}"),
            Ok(policy) => {
                let found = why(&policy, "c1");
                println!("  {found:?}");
                assert!(
                    matches!(found, Some(Why::Failure(_) | Why::Undefined)),
                    "{found:?}"
                );
            }
        }
    }
}

fn after_its_end_the_next_question_is_answered_with_the_same_state() {
    let rules = r#"
StartContainerRequest := {"allowed": true, "ops": [op]} {
    input.container_id == "first"
    op := {"op": "add", "path": "/pstate/first", "value": 1}
}
StartContainerRequest { input.container_id == "second"; data.pstate.first == 1 }
StartContainerRequest { input.container_id == "big"; count(numbers.range(1, 1000000000)) == 1 }
"#;
    let policy = load(rules).unwrap();
    assert_eq!(why(&policy, "second"), Some(Why::Undefined));
    assert_eq!(why(&policy, "first"), None);
    assert_eq!(why(&policy, "second"), None);
    assert!(matches!(why(&policy, "big"), Some(Why::Failure(_))));
    assert_eq!(why(&policy, "second"), None);
}

fn big_texts_load_or_are_refused() {
    let many: String = (0..100_000).map(|n| format!("rule{n} := {n}\n")).collect();
    let deep = format!("x := {}1{}", "[".repeat(30_000), "]".repeat(30_000));
    let long = format!("x := `{}`", "\n".repeat(10) + &"a\n".repeat(100_000));
    let wide = format!("x := \"{}\"", "a".repeat(TEXT_BYTES_MAX - 100));
    let calls = format!("x {{ {} }}", "f(".repeat(20_000));
    let heavy: String = (0..60_000)
        .map(|n| {
            format!(
                "r{n} {{ input.a{} == [1, {{\"a\": {n}}}, \"{}\"] }}\n",
                n % 7,
                "b".repeat(200)
            )
        })
        .collect();
    for (name, text, loads) in [
        ("100,000 rules", &many, Some(true)),
        ("depth of 30,000", &deep, Some(false)),
        ("a long raw string", &long, Some(true)),
        ("a line of 16 MiB", &wide, Some(false)),
        ("open calls", &calls, Some(false)),
        ("60,000 bodies", &heavy, None),
    ] {
        let start = Instant::now();
        let loaded = load(&format!(
            "{text}\nStartContainerRequest {{ input.container_id == \"c1\" }}"
        ));
        println!(
            "  {name}: {:?} in {:.1} s",
            loaded.as_ref().map(drop).map_err(ToString::to_string),
            start.elapsed().as_secs_f32()
        );
        if let Some(loads) = loads {
            assert_eq!(loaded.is_ok(), loads, "{name}");
        }
        if let Ok(policy) = loaded {
            let start = Instant::now();
            assert_eq!(why(&policy, "c1"), None, "{name}");
            println!(
                "  {name}: decided in {:.1} s",
                start.elapsed().as_secs_f32()
            );
        }
    }
}

fn the_child_has_no_rights() {
    let policy = load("StartContainerRequest { input.container_id == \"c1\" }").unwrap();
    assert_eq!(why(&policy, "c1"), None);
    let children =
        std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))
            .unwrap();
    let status = children
        .split_whitespace()
        .map(|child| std::fs::read_to_string(format!("/proc/{child}/status")).unwrap())
        .find(|status| !status.contains("State:\tZ"))
        .unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.unwrap()
            .split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("NoNewPrivs:"), "1");
    if rustix::process::getuid().is_root() {
        assert_eq!(line("Uid:"), "65534 65534 65534 65534");
        assert_eq!(line("Gid:"), "65534 65534 65534 65534");
        assert_eq!(line("Groups:"), "");
        assert_eq!(line("CapEff:"), "0000000000000000");
    }
}

fn the_longest_message_is_judged_whole() {
    let rules = "WriteStreamRequest { count(input.data) == 4194000; input.data[7] == 255 }";
    let policy = load(rules).unwrap();
    for (byte, allowed) in [(255, true), (254, false)] {
        let message = WriteStreamRequest {
            data: vec![byte; 4_194_000],
            ..WriteStreamRequest::default()
        };
        let start = Instant::now();
        let decided = policy.decide("WriteStreamRequest", &message);
        println!("  4 MiB in {:.1} s", start.elapsed().as_secs_f32());
        assert_eq!(decided.is_ok(), allowed, "{decided:?}");
    }
}
