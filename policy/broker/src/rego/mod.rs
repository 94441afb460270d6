//! The owner's Rego, with the input that Trustee gives: what evidence is worth, and who gets
//! what.
//!
//! A rule that is undefined, of another type, too slow or in error refuses. Evaluation is bounded
//! in time and the texts in length; memory is not bounded, because the texts are the owner's
//! and what they are asked about has passed every check or is a token of our own.

mod values;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use regorus::{
    Engine, Value as Rego,
    utils::limits::{ExecutionTimerConfig, PolicyLengthConfig, TimeSource, set_time_source},
};
use serde_json::{Value, json};

pub(crate) use self::values::NamedValues;
use crate::trust::{TrustError, TrustVector};

/// Judges if the owner gives no other.
pub(crate) const DEFAULT_ATTESTATION: &str = include_str!("default_attestation.rego");
/// Judges if the owner gives no other.
pub(crate) const DEFAULT_RESOURCE: &str = include_str!("default_resource.rego");

const EVALUATION_MAX: Duration = Duration::from_secs(2);
const STEPS_BETWEEN_CHECKS: NonZeroU32 = NonZeroU32::new(64).expect("not zero");
const TEXT_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("not zero");
const LINES_MAX: NonZeroUsize = NonZeroUsize::new(20_000).expect("not zero");
const COLUMNS_MAX: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// A text is no policy.
#[derive(Debug, thiserror::Error)]
#[error("the policy is not what can be evaluated: {0}")]
pub struct RegoError(String);

/// A policy gives no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// It ended in an error.
    #[error("the policy could not be evaluated: {0}")]
    Evaluation(String),
    /// It has an answer that means nothing.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// What evidence is worth.
pub(crate) struct AttestationPolicy(Mutex<Engine>);

/// Who gets what.
pub(crate) struct ResourcePolicy(Mutex<Engine>);

impl AttestationPolicy {
    /// Loads a text that may ask for these values.
    ///
    /// # Errors
    ///
    /// [`RegoError`]
    pub(crate) fn load(text: &str, values: NamedValues) -> Result<Self, RegoError> {
        let mut engine = load(text)?;
        let ask = move |arguments: Vec<Rego>| values.answer(&arguments);
        engine
            .add_extension("query_reference_value".to_owned(), 1, Box::new(ask))
            .map_err(|error| RegoError(format!("{error:#}")))?;
        Ok(Self(Mutex::new(engine)))
    }

    /// The trust vector for evidence with these claims.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: then the evidence is worth nothing.
    pub(crate) fn appraise(&self, input: &Value) -> Result<TrustVector, AnswerError> {
        let claims = ask(&self.0, input, &json!({}), "data.policy.trust_claims")?;
        Ok(TrustVector::parse(&claims)?)
    }
}

impl ResourcePolicy {
    /// Loads a text.
    ///
    /// # Errors
    ///
    /// [`RegoError`]
    pub(crate) fn load(text: &str) -> Result<Self, RegoError> {
        load(text).map(|engine| Self(Mutex::new(engine)))
    }

    /// Whether whoever has a token of these claims may have what `data` names. Undefined and
    /// anything but `true` is no.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: then no as well.
    pub(crate) fn allows(&self, claims: &Value, data: &Value) -> Result<bool, AnswerError> {
        Ok(ask(&self.0, claims, data, "data.policy.allow")? == Value::Bool(true))
    }
}

fn load(text: &str) -> Result<Engine, RegoError> {
    // It is set already after the first text.
    let _ = set_time_source(&Clock);
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: COLUMNS_MAX,
        max_file_bytes: TEXT_BYTES_MAX,
        max_lines: LINES_MAX,
    });
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: EVALUATION_MAX,
        check_interval: STEPS_BETWEEN_CHECKS,
    });
    let added = engine.add_policy("policy.rego".to_owned(), text.to_owned());
    let package = added.map_err(|error| RegoError(format!("{error:#}")))?;
    if package != "data.policy" {
        return Err(RegoError(format!("its package is {package}, not policy")));
    }
    Ok(engine)
}

fn ask(
    engine: &Mutex<Engine>,
    input: &Value,
    data: &Value,
    rule: &str,
) -> Result<Value, AnswerError> {
    let failed = |error| AnswerError::Evaluation(format!("{error:#}"));
    let rego = |value: &Value| Rego::from_json_str(&value.to_string()).map_err(failed);
    let (input, data) = (rego(input)?, rego(data)?);
    let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
    engine.clear_data();
    engine.add_data(data).map_err(failed)?;
    engine.set_input(input);
    let answer = engine.eval_rule(rule.to_owned());
    // Printed lines go nowhere.
    let _ = engine.take_prints();
    engine.set_input(Rego::Undefined);
    match answer.map_err(failed)? {
        Rego::Undefined => Ok(Value::Null),
        answer => {
            let text = answer.to_json_str().map_err(failed)?;
            agent_documents::parse_json(text.as_bytes())
                .map_err(|error| AnswerError::Evaluation(error.to_string()))
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
