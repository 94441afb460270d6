//! The process of a container, when its image has said who its user is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Fact, Facts,
    environment::{Known, environment},
    holds, mounts,
};
use crate::{
    asked::Finished,
    denied::{Code, Finding},
    document::{Container, Document, Seccomp},
    rules::hex,
    workload::{Part, Workload, sha256},
};

pub(crate) fn of_process(
    document: &Document,
    container: &Container,
    hostname: &str,
    finished: Finished<'_>,
) -> Facts {
    let workload = finished.workload;
    let expected = container.expected(&document.pod, finished.image).workload;
    let same = |part, field, code| same(&expected, workload, (part, field), code);
    let known = Known {
        hostname,
        facts: finished.facts,
        home: finished.image.home.as_deref(),
        also: None,
    };
    vec![
        ("arguments", arguments(container, workload)),
        (
            "directory",
            same(Part::Process, "process.cwd", Code::Directory),
        ),
        (
            "terminal",
            same(Part::Process, "process.terminal", Code::Terminal),
        ),
        (
            "environment",
            environment(container, finished.environment, &known),
        ),
        ("user", user(container, &expected, &finished)),
        ("capabilities", capabilities(container, &expected, workload)),
        (
            "new_privileges",
            same(Part::Rights, "process.noNewPrivileges", Code::NewPrivileges),
        ),
        ("seccomp", seccomp(container, &expected, workload)),
        ("kernel_paths", kernel_paths(&expected, workload)),
        (
            "limits",
            holds(
                workload.field(Part::Rights, "process.rlimits").is_none(),
                Code::Limits,
            ),
        ),
        ("root", same(Part::Mounts, "root.readonly", Code::Root)),
        (
            "mounts",
            mounts::mounts(&document.pod, container, workload, finished.facts),
        ),
        ("settings", settings(document, &expected, workload)),
    ]
}

fn same(expected: &Workload, found: &Workload, (part, field): (Part, &str), code: Code) -> Fact {
    holds(
        expected.field(part, field) == found.field(part, field),
        code,
    )
}

fn arguments(container: &Container, workload: &Workload) -> Fact {
    let found = workload.field(Part::Process, "process.args");
    let found = found.and_then(Value::as_array);
    let found: Vec<&str> = found
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if container.args == found {
        return Ok(());
    }
    let same = container.args.iter().zip(&found);
    let place = same.take_while(|(one, other)| one == *other).count();
    let place = place.to_string();
    Err(Finding::at(Code::Arguments, &["args", &place]))
}

/// The user and the first group are the document's. Its further groups are all there, and others
/// only if the image gives them to the user: a node that does not know the image cannot ask for
/// those.
fn user(container: &Container, expected: &Workload, finished: &Finished<'_>) -> Fact {
    let at = |field: &str, member: &str| {
        let same = same(
            expected,
            finished.workload,
            (Part::Rights, field),
            Code::User,
        );
        same.map_err(|_| Finding::at(Code::User, &["user", member]))
    };
    at("process.user.uid", "uid")?;
    at("process.user.gid", "gid")?;
    let found = finished
        .workload
        .field(Part::Rights, "process.user.additionalGids");
    let found: BTreeSet<u32> = found
        .and_then(|groups| serde_json::from_value(groups.clone()).ok())
        .unwrap_or_default();
    let all = container.groups(&finished.image.groups);
    let right = container.user.groups.is_subset(&found) && found.is_subset(&all);
    if right {
        return Ok(());
    }
    Err(Finding::at(Code::Groups, &["user", "groups"]))
}

/// Exactly the document's; of a privileged container no others, because it gets those of the
/// node's own containerd.
fn capabilities(container: &Container, expected: &Workload, workload: &Workload) -> Fact {
    let field = "process.capabilities";
    if !container.rights.privileged {
        return same(
            expected,
            workload,
            (Part::Rights, field),
            Code::Capabilities,
        );
    }
    let sets = |of: &Workload| {
        let sets = of.field(Part::Rights, field).and_then(Value::as_object);
        sets.cloned().unwrap_or_default()
    };
    let most = sets(expected);
    let within = |(name, held): (String, Value)| {
        let most = most.get(&name).and_then(Value::as_array);
        let held = held.as_array().into_iter().flatten();
        most.is_some_and(|most| held.into_iter().all(|one| most.contains(one)))
    };
    holds(sets(workload).into_iter().all(within), Code::Capabilities)
}

fn seccomp(container: &Container, expected: &Workload, workload: &Workload) -> Fact {
    let field = "linux.seccomp";
    let Seccomp::Digest(digest) = &container.rights.seccomp else {
        return same(expected, workload, (Part::Rights, field), Code::Seccomp);
    };
    let found = workload.field(Part::Rights, field);
    let found = found.map(|filter| hex(&sha256(filter.to_string().as_bytes())));
    holds(found.as_deref() == Some(digest), Code::Seccomp)
}

/// More may be masked or read-only than the document's container has, and not less.
fn kernel_paths(expected: &Workload, workload: &Workload) -> Fact {
    let paths = |of: &Workload, field| {
        let paths = of.field(Part::Rights, field).and_then(Value::as_array);
        paths.cloned().unwrap_or_default()
    };
    let covers = |field| {
        let found = paths(workload, field);
        paths(expected, field)
            .iter()
            .all(|path| found.contains(path))
    };
    holds(
        covers("linux.maskedPaths") && covers("linux.readonlyPaths"),
        Code::KernelPaths,
    )
}

/// Namespaces as the document says; sysctls were judged before the image was fetched.
fn settings(document: &Document, expected: &Workload, workload: &Workload) -> Fact {
    let sysctls = workload.field(Part::Settings, "sysctls").cloned();
    let sysctls = sysctls.unwrap_or_else(|| json!({}));
    let declared = |(key, value): (&String, &Value)| {
        let value = value.as_str();
        document.pod.sysctls.get(key).map(String::as_str) == value
    };
    if !sysctls
        .as_object()
        .is_some_and(|all| all.iter().all(declared))
    {
        return Err(Finding::of(Code::Sysctl));
    }
    same(
        expected,
        workload,
        (Part::Settings, "linux.namespaces"),
        Code::Settings,
    )
}
