//! Rego, evaluated by regorus in this process.
//!
//! What bounds it here: its own timer, asked every few steps, and the limits on texts and
//! regular expressions. Nothing here bounds its memory or the depth of its calls, nor what a
//! single function takes: a guest evaluates in a process of its own
//! ([`worker`](super::worker)), and an owner's tool asks about the owner's own policies.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::LazyLock,
    time::{Duration, Instant},
};

use regorus::{
    Engine, Value,
    utils::limits::{
        ExecutionTimerConfig, LimitError, PolicyLengthConfig, TimeSource, set_time_source,
    },
};

use super::{
    Evaluate, Failure, LoadError, Question,
    facts::{COLUMNS_MAX, LINES_MAX, PACKAGE, TEXT_BYTES_MAX},
    rules::IGNORE_FAILURES,
};

/// How long one evaluation may take.
pub const EVALUATION_MAX: Duration = Duration::from_secs(5);
/// What the text is called in messages.
const SOURCE: &str = "policy.rego";
const STEPS_BETWEEN_CHECKS: NonZeroU32 = NonZeroU32::new(64).expect("not zero");

/// A loaded text.
#[derive(Debug)]
pub struct Interpreter {
    engine: Engine,
    state_version: Option<u64>,
}

impl Interpreter {
    /// Loads a text that [`Facts`](super::Facts) has nothing against.
    ///
    /// # Errors
    ///
    /// [`LoadError`] for what is not Rego, or allows what it denies.
    pub fn load(text: &str) -> Result<Self, LoadError> {
        // It is set already after the first text.
        let _ = set_time_source(&Clock);
        let mut engine = Engine::new();
        engine.set_rego_v0(true);
        engine.set_strict_builtin_errors(false);
        // Printed lines are gathered, so that they are written nowhere, and dropped.
        engine.set_gather_prints(true);
        engine.set_policy_length_config(length_limits());
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: EVALUATION_MAX,
            check_interval: STEPS_BETWEEN_CHECKS,
        });
        engine
            .add_policy(SOURCE.to_owned(), text.to_owned())
            .map_err(|error| syntax(&format!("{error:#}")))?;
        let mut interpreter = Self {
            engine,
            state_version: None,
        };
        interpreter.refuse_what_ignores_failures()?;
        Ok(interpreter)
    }

    fn refuse_what_ignores_failures(&mut self) -> Result<(), LoadError> {
        let question = Question {
            rule: IGNORE_FAILURES,
            state: r#"{"pstate":{}}"#,
            state_version: 0,
            input: "{}",
        };
        match self.evaluate(&question) {
            Ok(Some(answer)) if answer == "true" => Err(LoadError::IgnoresFailures),
            _ => Ok(()),
        }
    }
}

/// Time since the first question about it.
struct Clock;

impl TimeSource for Clock {
    fn now(&self) -> Option<Duration> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Some(START.elapsed())
    }
}

fn length_limits() -> PolicyLengthConfig {
    let or_max = |limit: usize| NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MAX);
    let columns = u32::try_from(COLUMNS_MAX).unwrap_or(u32::MAX);
    PolicyLengthConfig {
        max_col: NonZeroU32::new(columns).unwrap_or(NonZeroU32::MAX),
        max_file_bytes: or_max(TEXT_BYTES_MAX),
        max_lines: or_max(LINES_MAX),
    }
}

impl Evaluate for Interpreter {
    fn evaluate(&mut self, question: &Question<'_>) -> Result<Option<String>, Failure> {
        if self.state_version != Some(question.state_version) {
            self.state_version = None;
            let state = Value::from_json_str(question.state).map_err(|_| Failure::Rule)?;
            self.engine.clear_data();
            self.engine.add_data(state).map_err(|_| Failure::Rule)?;
            self.state_version = Some(question.state_version);
        }
        let input = Value::from_json_str(question.input).map_err(|_| Failure::Rule)?;
        self.engine.set_input(input);
        let path = format!("data.{PACKAGE}.{}", question.rule);
        let result = self.engine.eval_rule(path);
        let _ = self.engine.take_prints();
        self.engine.set_input(Value::Undefined);
        let value = result.map_err(|error| match error.downcast_ref() {
            Some(LimitError::TimeLimitExceeded { .. }) => Failure::Time,
            _ => Failure::Rule,
        })?;
        match value {
            Value::Undefined => Ok(None),
            value => value.to_json_str().map(Some).map_err(|_| Failure::Rule),
        }
    }
}

/// Where the error is, of a message that shows the line as well.
fn syntax(message: &str) -> LoadError {
    let place = message.split(&format!("{SOURCE}:")).nth(1).unwrap_or("");
    let mut numbers = place.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse().ok());
    let reason = message.rsplit("error: ").next().unwrap_or_default();
    LoadError::Syntax {
        line: number().unwrap_or_default(),
        column: number().unwrap_or_default(),
        reason: reason.trim().to_owned(),
    }
}
