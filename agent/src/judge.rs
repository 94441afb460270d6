//! Who says yes or no to the host, from the first request on.
//!
//! What was found at boot decides where the guest stands; a policy may still arrive
//! by `SetPolicy`, once, before anything else, and only the one that the launch
//! binds. A guest that was given a policy which it cannot use denies everything.
//!
//! Every denial is counted and, at powers of two, logged.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

// A program of tests is not the agent's: it cannot start itself as an evaluator.
#[cfg(not(test))]
use agent_evaluator::Bounded as Evaluator;
use agent_evidence::{
    HostData, Sha256Digest,
    log::{DenialEntry, PolicyEntry, PolicySource},
};
use agent_measured::{Measured, NoteError};
use agent_protocol::initdata::PolicyText;
#[cfg(test)]
use policy_engine::rego::Interpreter as Evaluator;
use policy_engine::{
    Code, Denied, Engine, Grants, Permit, Request,
    rego::{self, Prepared},
};
use protobuf::MessageDyn;
use thiserror::Error;
use tokio::task::block_in_place;
use tracing::{info, warn};

use crate::told::{self, Told};

/// The engine of a policy's text: a document begins with a brace, anything else is Kata's Rego.
///
/// # Errors
///
/// Why it is not in force.
pub(crate) fn load(text: &str) -> Result<Engine, Told> {
    if text.starts_with('{') {
        return Engine::of_document(text.as_bytes()).map_err(|error| told::document(&error));
    }
    let policy = rego::Policy::load(text, Evaluator::load);
    policy
        .map(Engine::of_kata_policy)
        .map_err(|error| told::kata_policy(&error))
}

fn engine_of(text: &str) -> Engine {
    load(text).unwrap_or_else(|why| Engine::deny_all_because(&why.to_string()))
}

const AWAITED: &str =
    "the launch binds initdata or a policy (HOST_DATA is not zero), and the host delivered neither";

/// Where the guest stands before the first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing was given, and nothing is bound: everything is allowed. A policy may
    /// be set first; `bound` is what it must match, if there is a TEE.
    Open {
        /// `HOST_DATA` of the launch, which is zero.
        bound: Option<HostData>,
    },
    /// The launch binds something that has not come: only the policy it binds is taken.
    Awaiting(HostData),
    /// The owner's initdata is in force, and it holds no policy.
    Configured,
    /// The owner's policy is in force.
    Policy(PolicyText),
    /// Nothing is allowed, for this reason.
    Refused(Told),
}

/// Why a policy was not taken. The host is at fault, or the owner bound another one.
#[derive(Debug, Error)]
pub enum SetPolicyError {
    /// Another configuration is in force, or requests were answered already.
    #[error(
        "SetPolicyRequest is blocked by policy: a policy is taken once, before any other request, \
         and not beside initdata"
    )]
    TooLate,
    /// Not the one that the launch binds.
    #[error(
        "SetPolicyRequest is blocked by policy: the policy has the digest {found}, the launch binds {bound}"
    )]
    Digest {
        /// Of the text that came.
        found: Sha256Digest,
        /// In the report.
        bound: HostData,
    },
    /// It cannot be measured.
    #[error("the policy cannot be measured")]
    Log(#[from] NoteError),
}

/// Whether a policy may come by request, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetPolicyMay {
    /// None: initdata or a policy is in force.
    Not,
    /// Any: nothing binds one.
    BringAny,
    /// The one that the launch binds.
    BringThe(HostData),
}

#[derive(Debug)]
struct State {
    engine: Engine,
    set_policy: SetPolicyMay,
}

/// The one way from a request to a permit.
#[derive(Debug)]
pub struct Judge {
    state: RwLock<State>,
    /// Something was allowed: no policy may come any more.
    begun: AtomicBool,
    denials: Mutex<BTreeMap<(&'static str, Option<&'static str>), u64>>,
    log: Arc<Measured>,
}

impl Judge {
    /// Judges from this standing.
    #[must_use]
    pub(crate) fn new(standing: &Standing, log: Arc<Measured>) -> Self {
        let (engine, set_policy) = match standing {
            Standing::Open { bound: None } => (Engine::allow_all(), SetPolicyMay::BringAny),
            Standing::Open { bound: Some(bound) } => {
                (Engine::allow_all(), SetPolicyMay::BringThe(*bound))
            }
            Standing::Awaiting(bound) => (
                Engine::deny_all_because(AWAITED),
                SetPolicyMay::BringThe(*bound),
            ),
            Standing::Configured => (Engine::allow_all(), SetPolicyMay::Not),
            Standing::Policy(text) => (engine_of(text.as_str()), SetPolicyMay::Not),
            Standing::Refused(reason) => (
                Engine::deny_all_because(&reason.to_string()),
                SetPolicyMay::Not,
            ),
        };
        Self {
            state: RwLock::new(State { engine, set_policy }),
            begun: AtomicBool::new(false),
            denials: Mutex::default(),
            log,
        }
    }

    /// What the policy is to be asked about a message, before it is parsed.
    #[must_use]
    pub fn prepare<R: Request>(&self, message: &dyn MessageDyn) -> Prepared {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.engine.prepare::<R>(message)
    }

    /// Judges one request, of whose message it was [prepared](Judge::prepare) what to ask. A
    /// Kata-style policy can take some time, which is waited for here.
    ///
    /// # Errors
    ///
    /// [`Denied`] names the rule that did not allow it.
    pub fn judge<R: Request>(&self, request: R, prepared: Prepared) -> Result<Permit<R>, Denied> {
        if prepared.waits() {
            return block_in_place(|| self.decide(request, prepared));
        }
        self.decide(request, prepared)
    }

    fn decide<R: Request>(&self, request: R, prepared: Prepared) -> Result<Permit<R>, Denied> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let engine = state.engine.clone();
        // Where no policy can come any more, nobody has to wait for an evaluation.
        let held = (state.set_policy != SetPolicyMay::Not).then_some(state);
        let result = engine.judge_prepared(request, prepared);
        if result.is_ok() {
            // Under the lock: no policy can slip in after this permit.
            self.begun.store(true, Ordering::Relaxed);
        }
        drop(held);
        if let Err(denied) = &result {
            self.note(denied);
        }
        result
    }

    /// Notes that something was denied.
    pub fn note(&self, denied: &Denied) {
        let closed = denied.finding.code == Code::Closed;
        self.count(denied.rule, (!closed).then(|| denied.finding.code.name()));
    }

    /// What is granted now to whoever asks.
    #[must_use]
    pub fn grants(&self) -> Arc<Grants> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(state.engine.grants())
    }

    /// The images that the policy in force names.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.engine.images()
    }

    /// Takes the policy that the launch binds.
    ///
    /// # Errors
    ///
    /// [`SetPolicyError`]; everything stays as it was then.
    pub fn set_policy(&self, policy: &PolicyText) -> Result<(), SetPolicyError> {
        let result = self.take_policy(policy);
        if result.is_err() {
            self.count("SetPolicyRequest", None);
        }
        result
    }

    fn take_policy(&self, policy: &PolicyText) -> Result<(), SetPolicyError> {
        let found = Sha256Digest(policy.host_data());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if self.begun.load(Ordering::Relaxed) {
            return Err(SetPolicyError::TooLate);
        }
        let bound = match state.set_policy {
            SetPolicyMay::Not => return Err(SetPolicyError::TooLate),
            SetPolicyMay::BringAny => false,
            SetPolicyMay::BringThe(bound) if bound.0 == found.0 => true,
            SetPolicyMay::BringThe(bound) => return Err(SetPolicyError::Digest { found, bound }),
        };
        let engine = engine_of(policy.as_str());
        self.log.note(PolicyEntry {
            source: PolicySource::Request,
            digest: found,
            bound,
            version: engine.version(),
        })?;
        *state = State {
            engine,
            set_policy: SetPolicyMay::Not,
        };
        info!(digest = %found, bound, "policy taken");
        Ok(())
    }

    fn count(&self, rule: &'static str, code: Option<&'static str>) {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let count = denials.entry((rule, code)).or_default();
        *count = count.saturating_add(1);
        let count = *count;
        drop(denials);
        if !count.is_power_of_two() {
            return;
        }
        let entry = DenialEntry {
            rule: rule.to_owned(),
            code: code.map(str::to_owned),
            count,
        };
        // The request is refused all the same.
        if let Err(error) = self.log.note(entry) {
            let told = told::note(&error);
            warn!(%told, error = &error as &dyn StdError, "denial not measured");
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::log::{Entry, EventError};
    use policy_engine::{Asked, rules_digest_hex};

    use super::*;

    struct StartContainer;

    impl Request for StartContainer {
        const RULE: &'static str = "StartContainerRequest";

        fn asked(&self) -> Asked<'_> {
            Asked::Start("c1")
        }
    }

    fn judge(standing: &Standing) -> (Judge, Arc<Measured>) {
        let log = Arc::new(Measured::default());
        (Judge::new(standing, Arc::clone(&log)), log)
    }

    fn policy() -> PolicyText {
        PolicyText::parse("package agent_policy\n").unwrap()
    }

    fn ask(judge: &Judge) -> Result<Permit<StartContainer>, Denied> {
        let message = agent_protocol::rpc::agent::StartContainerRequest {
            container_id: "c1".to_owned(),
            ..Default::default()
        };
        let prepared = judge.prepare::<StartContainer>(&message);
        judge.judge(StartContainer, prepared)
    }

    fn refusal(judge: &Judge) -> String {
        ask(judge).err().unwrap().to_string()
    }

    fn entries(log: &Measured) -> Vec<Entry> {
        let log = log.so_far();
        let events = log.events().iter();
        events
            .map(|event| Entry::of(event).unwrap().unwrap())
            .collect()
    }

    #[test]
    fn without_anything_all_is_allowed_and_with_initdata_too() {
        for standing in [
            Standing::Open { bound: None },
            Standing::Open {
                bound: Some(HostData::ZERO),
            },
            Standing::Configured,
        ] {
            let (judge, log) = judge(&standing);
            assert!(ask(&judge).is_ok(), "{standing:?}");
            assert_eq!(entries(&log), []);
        }
    }

    #[test]
    fn doubt_refuses_everything_and_says_why() {
        let (judge, log) = judge(&Standing::Refused(Told::new("two disks")));
        assert_eq!(
            refusal(&judge),
            "StartContainerRequest is blocked by policy: two disks"
        );
        assert!(matches!(
            judge.set_policy(&policy()),
            Err(SetPolicyError::TooLate)
        ));
        assert_eq!(entries(&log).len(), 2);
    }

    #[test]
    fn what_the_launch_binds_must_come() {
        let (judge, _) = judge(&Standing::Awaiting(HostData([1; 32])));
        assert!(refusal(&judge).contains("HOST_DATA is not zero"));
        let error = judge.set_policy(&policy()).unwrap_err().to_string();
        assert!(error.contains(&"01".repeat(32)), "{error}");
        assert!(refusal(&judge).contains("HOST_DATA is not zero"));
    }

    #[test]
    fn the_bound_policy_is_taken_once_and_measured() {
        let bound = HostData(policy().host_data());
        let (judge, log) = judge(&Standing::Awaiting(bound));
        assert!(refusal(&judge).contains("HOST_DATA"));
        judge.set_policy(&policy()).unwrap();
        assert!(refusal(&judge).contains("KATA_POLICY"));
        assert!(matches!(
            judge.set_policy(&policy()),
            Err(SetPolicyError::TooLate)
        ));
        let taken = PolicyEntry {
            source: PolicySource::Request,
            digest: Sha256Digest(bound.0),
            bound: true,
            version: None,
        };
        assert_eq!(entries(&log)[1], taken.into());
    }

    #[test]
    fn a_kata_style_policy_is_in_force() {
        for (container, allowed) in [("c1", true), ("c2", false)] {
            let rule = format!("StartContainerRequest {{ input.container_id == \"{container}\" }}");
            let text = PolicyText::parse(&format!("package agent_policy\n\n{rule}\n")).unwrap();
            let (judge, _) = judge(&Standing::Policy(text));
            assert_eq!(ask(&judge).is_ok(), allowed, "{container}");
        }
    }

    #[test]
    fn a_kata_style_policy_that_cannot_be_used_closes_the_guest_and_quotes_nothing() {
        for (text, why) in [
            ("package other\n\nmarker := 1\n", "package"),
            ("package agent_policy\n\nmarker := [\n", "line"),
            (
                "package agent_policy\n\nmarker := rand.intn(\"x\", 2)\n",
                "line 3",
            ),
            (
                "package agent_policy\n\ndefault AllowRequestsFailingPolicy := true\n",
                "switch",
            ),
        ] {
            let (judge, _) = judge(&Standing::Policy(PolicyText::parse(text).unwrap()));
            let told = refusal(&judge);
            assert!(told.contains(why) && !told.contains("marker"), "{told}");
        }
    }

    fn written_for(rules: &str) -> PolicyText {
        let text = format!(r#"{{"containers":[],"rules":["{rules}"],"version":7}}"#);
        PolicyText::parse(&text).unwrap()
    }

    #[test]
    fn a_document_is_in_force_and_its_version_is_measured() {
        let (judge, log) = judge(&Standing::Open { bound: None });
        judge.set_policy(&written_for(&rules_digest_hex())).unwrap();
        assert!(matches!(
            &entries(&log)[..],
            [Entry::Policy(PolicyEntry {
                version: Some(7),
                ..
            })]
        ));
        let told = refusal(&judge);
        assert!(told.contains("CONTAINER_NOT_THERE"), "{told}");
        let Some(Entry::Denial(denial)) = entries(&log).pop() else {
            panic!("the denial is not in the log");
        };
        assert_eq!(denial.code.as_deref(), Some("CONTAINER_NOT_THERE"));
    }

    #[test]
    fn a_document_for_other_rules_closes_the_guest() {
        let (judge, _) = judge(&Standing::Policy(written_for(&"ab".repeat(32))));
        let told = refusal(&judge);
        assert!(told.contains("other rules"), "{told}");
        assert!(told.contains(&rules_digest_hex()), "{told}");
    }

    #[test]
    fn a_policy_comes_before_anything_else_or_never() {
        let (judge, _) = judge(&Standing::Open { bound: None });
        assert!(ask(&judge).is_ok());
        assert!(matches!(
            judge.set_policy(&policy()),
            Err(SetPolicyError::TooLate)
        ));
        assert!(ask(&judge).is_ok());
    }

    #[test]
    fn without_a_tee_any_policy_is_taken_and_with_one_only_the_bound_one() {
        let (open, log) = judge(&Standing::Open { bound: None });
        open.set_policy(&policy()).unwrap();
        assert!(matches!(
            &entries(&log)[..],
            [Entry::Policy(PolicyEntry { bound: false, .. })]
        ));
        let (unbound, _) = judge(&Standing::Open {
            bound: Some(HostData::ZERO),
        });
        assert!(matches!(
            unbound.set_policy(&policy()),
            Err(SetPolicyError::Digest { .. })
        ));
        let (configured, _) = judge(&Standing::Configured);
        assert!(matches!(
            configured.set_policy(&policy()),
            Err(SetPolicyError::TooLate)
        ));
    }

    #[test]
    fn a_policy_that_cannot_be_measured_is_not_taken() {
        let (judge, log) = judge(&Standing::Open { bound: None });
        let taken = PolicyEntry {
            source: PolicySource::Request,
            digest: Sha256Digest::ZERO,
            bound: false,
            version: None,
        };
        while log.note(taken.clone()).is_ok() {}
        assert!(matches!(
            judge.set_policy(&policy()),
            Err(SetPolicyError::Log(NoteError::Event(EventError::Full)))
        ));
        assert!(ask(&judge).is_ok());
    }

    #[test]
    fn denials_are_logged_at_powers_of_two() {
        let (judge, log) = judge(&Standing::Refused(Told::new("")));
        for _ in 0..1000 {
            refusal(&judge);
        }
        let counts: Vec<u64> = entries(&log)
            .into_iter()
            .map(|entry| match entry {
                Entry::Denial(denial) => denial.count,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}
