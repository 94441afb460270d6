//! A policy's text: what is certain of it is found without a panic, and a rule that seems to be
//! a constant is one.

#![no_main]

use policy_engine::rego::{Evaluate, Facts, Interpreter, Question, RULES};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(rules) = std::str::from_utf8(bytes) else {
        return;
    };
    let text = format!("package agent_policy\n\n{rules}");
    let Ok(facts) = Facts::of(&text) else {
        return;
    };
    // Depth ends the process that evaluates, not the guest; here it would end the fuzzer.
    let brackets = text.matches(['(', '[', '{', '.']).count();
    let constants: Vec<_> = RULES.iter().filter_map(|rule| Some((*rule, facts.constant(rule)?))).collect();
    if constants.is_empty() || brackets > 50 {
        return;
    }
    let Ok(mut interpreter) = Interpreter::load(&text) else {
        return;
    };
    for (rule, answer) in constants {
        for input in ["{}", r#"{"container_id":"c1"}"#] {
            let question = Question {
                rule,
                state: r#"{"pstate":{}}"#,
                state_version: 0,
                input,
            };
            if let Ok(found) = interpreter.evaluate(&question) {
                assert_eq!(found.as_deref(), Some(if answer { "true" } else { "false" }), "{text}");
            }
        }
    }
});
