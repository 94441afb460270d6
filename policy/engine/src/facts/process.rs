//! The process of a container, when its image has said who its user is.

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
        ("user", user(&expected, workload)),
        (
            "capabilities",
            same(Part::Rights, "process.capabilities", Code::Capabilities),
        ),
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

fn user(expected: &Workload, found: &Workload) -> Fact {
    let rights = Part::Rights;
    let at = |field: &str, code, member: &str| {
        same(expected, found, (rights, field), code)
            .map_err(|_| Finding::at(code, &["user", member]))
    };
    at("process.user.uid", Code::User, "uid")?;
    at("process.user.gid", Code::User, "gid")?;
    at("process.user.additionalGids", Code::Groups, "groups")
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
