//! A loaded policy: decides requests, one at a time, and keeps its state.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protobuf::{MessageDyn, reflect::ReflectValueRef};
use serde_json::Value;
use thiserror::Error;

use super::{
    Evaluate, Facts, Failure, LoadError, Question,
    decision::Decision,
    input::input,
    patch::PatchError,
    rules::RULES,
    state::{Change, State},
};

/// A request is not allowed. The text is fixed: nothing of the policy is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that was asked.
    pub rule: &'static str,
    /// Why it did not allow the request.
    pub why: Why,
}

/// Why a rule does not allow a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Why {
    /// It says so.
    #[error("its rule denies it")]
    Denied,
    /// The policy has no such rule, or it is undefined for the request.
    #[error("no rule of it is about the request")]
    Undefined,
    /// It says something that is no decision.
    #[error("its rule gives no decision")]
    NoDecision,
    /// There is no answer.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Its changes of state cannot be made.
    #[error(transparent)]
    State(#[from] PatchError),
    /// No policy can be asked about the request.
    #[error("the request cannot be put to a rule")]
    Input,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, why } = self;
        write!(f, "{rule} is blocked by policy: {why}")
    }
}

impl std::error::Error for Refusal {}

/// The owner's text, loaded.
#[derive(Debug, Clone)]
pub struct Policy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    facts: Facts,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    evaluator: Box<dyn Evaluate>,
    state: State,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy {
    /// A policy of this text, with an empty state. The loader makes what evaluates it.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what is wrong with the text, for its owner.
    pub fn load<E: Evaluate + 'static>(
        text: &str,
        loader: impl FnOnce(&str) -> Result<E, LoadError>,
    ) -> Result<Self, LoadError> {
        let mut facts = Facts::of(text)?;
        let mut evaluator = loader(text)?;
        confirm(&mut facts, &mut evaluator);
        let inner = Inner {
            evaluator: Box::new(evaluator),
            state: State::default(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                facts,
                inner: Mutex::new(inner),
            }),
        })
    }

    /// What is certain of the text.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// Decides a request. It can take as long as an evaluation may, and a bit more.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for everything that its rule does not clearly allow.
    pub fn decide(&self, rule: &'static str, message: &dyn MessageDyn) -> Result<Allowed, Refusal> {
        self.decide_prepared(rule, self.prepare(rule, message))
    }

    /// What is to be asked about a message, for when the message will be gone.
    #[must_use]
    pub fn prepare(&self, rule: &'static str, message: &dyn MessageDyn) -> Prepared {
        let facts = &self.shared.facts;
        let what = match facts.constant(rule) {
            Some(true) => Ok(None),
            Some(false) => Err(Why::Denied),
            None if !RULES.contains(&rule) || !facts.may_define(rule) => Err(Why::Undefined),
            None => match input(message, &facts.seen) {
                Ok(input) => Ok(Some((input, container(message)))),
                Err(_) => Err(Why::Input),
            },
        };
        Prepared {
            of: Some((Arc::clone(&self.shared), rule, what)),
        }
    }

    /// Decides what was prepared by this policy for this rule.
    ///
    /// # Errors
    ///
    /// [`Refusal`], also for what another policy prepared, or for another rule.
    pub fn decide_prepared(
        &self,
        rule: &'static str,
        prepared: Prepared,
    ) -> Result<Allowed, Refusal> {
        let allowed = self.verdict(rule, prepared);
        allowed.map_err(|why| Refusal { rule, why })
    }

    fn verdict(&self, rule: &'static str, prepared: Prepared) -> Result<Allowed, Why> {
        let Some((of, prepared_rule, what)) = prepared.of else {
            return Err(Why::Input);
        };
        if !Arc::ptr_eq(&of, &self.shared) || prepared_rule != rule {
            return Err(Why::Input);
        }
        let Some((input, container)) = what? else {
            return Ok(Allowed::unchanged());
        };
        let mut inner = self.shared.lock();
        let value = inner.ask(rule, &input)?.ok_or(Why::Undefined)?;
        match Decision::of(value).ok_or(Why::NoDecision)? {
            Decision::Denied => Err(Why::Denied),
            Decision::Allowed(None) => Ok(Allowed::unchanged()),
            Decision::Allowed(Some(ops)) => {
                let change = inner.state.change(ops, container.as_deref())?;
                Ok(Allowed {
                    change: Some((Arc::clone(&self.shared), change)),
                })
            }
        }
    }
}

/// What is to be asked about a message; nothing by default, which no policy allows.
#[derive(Debug, Default)]
pub struct Prepared {
    of: Option<(Arc<Shared>, &'static str, What)>,
}

/// The answer, if it needs no Rego, or else the document and the container that it is about.
type What = Result<Option<(String, Option<String>)>, Why>;

impl Prepared {
    /// Whether deciding it waits for an evaluation.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(&self.of, Some((_, _, Ok(Some(_)))))
    }
}

impl Inner {
    fn ask(&mut self, rule: &str, input: &str) -> Result<Option<Value>, Why> {
        let state = self.state.document().to_string();
        let question = Question {
            rule,
            state: &state,
            state_version: self.state.version(),
            input,
        };
        let Some(answer) = self.evaluator.evaluate(&question)? else {
            return Ok(None);
        };
        let value = agent_documents::parse_json(answer.as_bytes()).map_err(|_| Why::NoDecision)?;
        Ok(Some(value))
    }
}

/// Each rule that looks like a constant is asked once; one that answers otherwise is none.
fn confirm(facts: &mut Facts, evaluator: &mut dyn Evaluate) {
    for (rule, answer) in facts.constants() {
        let question = Question {
            rule,
            state: r#"{"pstate":{}}"#,
            state_version: 0,
            input: "{}",
        };
        let answered = evaluator.evaluate(&question);
        if answered.ok().flatten().as_deref() != Some(if answer { "true" } else { "false" }) {
            facts.doubt(rule);
        }
    }
}

/// The container that a request is about, if it names one.
fn container(message: &dyn MessageDyn) -> Option<String> {
    let field = message.descriptor_dyn().field_by_name("container_id")?;
    match field.get_singular(message)? {
        ReflectValueRef::String(id) => Some(id.to_owned()),
        _ => None,
    }
}

/// A request was allowed. Dropped without [`commit`](Allowed::commit), it takes back what it
/// changed in the policy's state: what was allowed did not happen.
#[derive(Debug)]
#[must_use]
pub struct Allowed {
    change: Option<(Arc<Shared>, Change)>,
}

impl Allowed {
    fn unchanged() -> Self {
        Self { change: None }
    }

    /// What was allowed has happened.
    pub fn commit(mut self) {
        if let Some((policy, change)) = self.change.take() {
            policy.lock().state.keep(&change);
        }
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Some((policy, change)) = self.change.take() {
            policy.lock().state.undo(change);
        }
    }
}
