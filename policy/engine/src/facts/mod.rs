//! The functions behind the rules: each finds one fact about a request, the document and what
//! the pod did so far, or what is wrong instead.

mod container;
mod environment;
mod mounts;
mod process;
mod requests;

pub(crate) use process::of_process;
pub(crate) use requests::of_files;

use crate::{
    asked::Asked,
    claim::What,
    denied::{Code, Finding},
    document::{Container, Document},
    pod::{Identity, Phase, PodStage, PodState, number},
    rules,
};

/// What a function found.
pub(crate) type Fact = Result<(), Finding>;

/// Facts by their names in the rules, in the order in which they are told.
pub(crate) type Facts = Vec<(&'static str, Fact)>;

/// Holds the facts against the rule.
///
/// # Errors
///
/// What is wrong, the first if several things are.
pub(crate) fn decide(rule: &str, facts: Facts) -> Fact {
    let hold = facts.iter().filter(|(_, fact)| fact.is_ok());
    let hold: Vec<&str> = hold.map(|(name, _)| *name).collect();
    if rules::allows(rule, &hold) {
        return Ok(());
    }
    // Of what does not hold, the rule may need only a part.
    let all: Vec<&str> = facts.iter().map(|(name, _)| *name).collect();
    let needed = |fact: &str| {
        let others: Vec<&str> = all.iter().copied().filter(|name| *name != fact).collect();
        !rules::allows(rule, &others)
    };
    let wrong = facts.into_iter().filter(|(name, _)| needed(name));
    let wrong = wrong.filter_map(|(_, fact)| fact.err()).next();
    Err(wrong.unwrap_or_else(|| Finding::of(Code::NotAllowed)))
}

/// A fact that holds or is wrong as a whole.
fn holds(fact: bool, code: Code) -> Fact {
    if fact { Ok(()) } else { Err(Finding::of(code)) }
}

/// The facts about a request, and the name of the container that it is about.
pub(crate) fn of_request<'d>(
    document: &'d Document,
    state: &PodState,
    asked: &Asked<'_>,
) -> (Facts, Option<&'d str>) {
    let about = |id: &str| state.container(document, id);
    let name = |container: Option<&'d Container>| container.map(|one| one.name.as_str());
    match asked {
        Asked::Nothing | Asked::Destroy => (Vec::new(), None),
        Asked::Sandbox { memory, .. } => (requests::sandbox(state, memory), None),
        Asked::Container(asked) => container::facts(document, state, asked),
        Asked::Start(id) => {
            let phase = state.live.get(*id).map(|live| live.phase);
            let facts = vec![
                requests::is_there(state, id),
                (
                    "container_waits",
                    holds(phase == Some(Phase::Waits), Code::ContainerStarted),
                ),
            ];
            (facts, name(about(id)))
        }
        Asked::Remove(id) => (vec![requests::is_there(state, id)], name(about(id))),
        Asked::Of(id) => {
            let container = about(id);
            (
                requests::of_one(document, state, id, container),
                name(container),
            )
        }
        Asked::Exec(exec) => {
            let container = about(exec.container);
            (requests::exec(state, exec, container), name(container))
        }
        Asked::Signal { container, signal } => {
            let declared = about(container);
            let facts = vec![
                requests::is_there(state, container),
                ("signal", requests::signal(declared, *signal)),
            ];
            (facts, name(declared))
        }
        Asked::File { path, is_link } => {
            let target = requests::copy_target(document, path, *is_link);
            (vec![requests::runs(state), ("copy_target", target)], None)
        }
        Asked::Interface { name, addresses } => {
            let fact = requests::no_loopback(&[name], addresses);
            (vec![("no_loopback", fact)], None)
        }
        Asked::Network { devices, addresses } => {
            let facts = vec![
                ("no_loopback", requests::no_loopback(devices, addresses)),
                ("interfaces", requests::interfaces(state, devices)),
            ];
            (facts, None)
        }
    }
}

/// Changes the state as an allowed request does; what can be undone is told.
pub(crate) fn apply(document: &Document, state: &mut PodState, asked: &Asked<'_>) -> Option<What> {
    match asked {
        Asked::Sandbox { hostname, .. } => {
            state.stage = PodStage::BeingMade;
            (*hostname).clone_into(&mut state.hostname);
            Some(What::Sandbox)
        }
        Asked::Container(asked) => {
            let entry = asked.image.and_then(|_| number(document, asked.name));
            state.identity.get_or_insert_with(|| Identity {
                name: asked.pod_name.to_owned(),
                namespace: asked.namespace.to_owned(),
                uid: asked.uid.to_owned(),
            });
            state.claim(asked.id, entry);
            Some(What::Container {
                id: asked.id.to_owned(),
                number: entry,
            })
        }
        Asked::Start(id) => {
            state.step(id, Phase::Waits, Phase::Starts);
            Some(What::Start((*id).to_owned()))
        }
        Asked::Remove(id) => Some(What::Remove((*id).to_owned())),
        Asked::Interface { name, .. } => {
            state.add_interface(name);
            None
        }
        _ => None,
    }
}
