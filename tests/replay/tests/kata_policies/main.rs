//! A policy in the form that Kata's generator writes judges recorded requests as its rules say:
//! for each row of what they look at, a request that they allow and one that they deny.
//!
//! The pod is `life`: pause, a sidecar and the app, of containerd 1.7 and 2.1. A bundle goes
//! through the shim's own transformation, whose source is compiled in here because it is private
//! to a program.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "source of another crate, of which only a part is used; a test may unwrap"
)]

mod requests;
mod rows;
mod rows_of_others;
#[path = "../../../../shim/src/spec.rs"]
mod transformation;

use agent_protocol::rpc::{
    agent::{CreateContainerRequest, SharedMount},
    oci,
};
use agent_requests::{CreateContainer, Parse};
use policy_engine::rego::{Policy, Why};
use protobuf::MessageDyn;
use requests::{RELEASES, from_shim, policy, request};

const CREATE: &str = "CreateContainerRequest";

/// Whether a request is allowed; what was allowed is done.
fn allowed(policy: &Policy, rule: &'static str, message: &dyn MessageDyn) -> Result<(), Why> {
    let decided = policy.decide(rule, message);
    decided
        .map(policy_engine::rego::Allowed::commit)
        .map_err(|refusal| refusal.why)
}

#[test]
fn the_pod_s_containers_are_allowed_from_either_release() {
    for release in RELEASES {
        let policy = policy(release);
        for container in ["sandbox", "sidecar", "main"] {
            let request = request(release, container);
            assert_eq!(
                allowed(&policy, CREATE, &request),
                Ok(()),
                "{release} {container}"
            );
        }
    }
}

#[test]
fn the_pod_s_debugger_is_denied_because_the_policy_has_no_such_container() {
    for release in RELEASES {
        let debugger = request(release, "debugger");
        assert_eq!(
            allowed(&policy(release), CREATE, &debugger),
            Err(Why::Denied),
            "{release}"
        );
    }
}

/// What a pod of today has and no Kata policy allows; `docs/kata-policies.md` lists them.
#[test]
fn what_the_shim_sends_today_for_the_sandbox_is_denied_by_kata_s_rules() {
    for release in RELEASES {
        for drop_seccomp in [false, true] {
            let sandbox = from_shim(release, "sandbox", drop_seccomp);
            assert_eq!(
                allowed(&policy(release), CREATE, &sandbox),
                Err(Why::Denied),
                "{release}"
            );
        }
        let mut filtered = request(release, "sandbox");
        let filter = from_shim(release, "sandbox", false)
            .OCI
            .unwrap()
            .Linux
            .unwrap()
            .Seccomp;
        assert!(
            filter.is_some(),
            "containerd filters the sandbox's system calls"
        );
        filtered
            .OCI
            .as_mut()
            .unwrap()
            .Linux
            .as_mut()
            .unwrap()
            .Seccomp = filter;
        assert_eq!(
            allowed(&policy(release), CREATE, &filtered),
            Err(Why::Denied),
            "{release}"
        );
    }
}

#[test]
fn a_policy_for_another_oci_version_denies() {
    let [old, new] = RELEASES;
    let request = request(old, "main");
    assert_eq!(allowed(&policy(new), CREATE, &request), Err(Why::Denied));
}

/// A guest's own invariants hold under a policy that allows everything.
#[test]
fn shared_mounts_ports_and_hooks_are_refused_whatever_the_policy_says() {
    let base = || request("2.1", "main");
    assert!(CreateContainer::parse(base()).is_ok());
    let changes: [fn(&mut CreateContainerRequest); 4] = [
        |r| r.shared_mounts.push(SharedMount::default()),
        |r| r.stdout_port = 1024,
        |r| r.stdin_port = 1024,
        |r| {
            let hooks = oci::Hooks {
                Prestart: vec![oci::Hook::default()],
                ..Default::default()
            };
            r.OCI.as_mut().unwrap().Hooks = Some(hooks).into();
        },
    ];
    for change in changes {
        let mut request = base();
        change(&mut request);
        assert!(CreateContainer::parse(request).is_err());
    }
}
