use std::time::Instant;

use super::*;
use crate::{
    asked::{AskedContainer, AskedExec, AskedProcesses, AskedUser, Finished},
    claim::Place,
    environment::PodFacts,
    expected::OfImage,
    rules_digest_hex,
    workload::Workload,
};

macro_rules! requests {
    ($($name:ident = $rule:literal;)*) => {$(
        #[derive(Debug)]
        struct $name<'r>(Asked<'r>);

        impl Request for $name<'_> {
            const RULE: &'static str = $rule;

            fn asked(&self) -> Asked<'_> {
                self.0.clone()
            }
        }
    )*};
}

requests! {
    Sandbox = "CreateSandboxRequest";
    Destroy = "DestroySandboxRequest";
    Create = "CreateContainerRequest";
    Start = "StartContainerRequest";
    Remove = "RemoveContainerRequest";
    Exec = "ExecProcessRequest";
    Signal = "SignalProcessRequest";
    Write = "WriteStreamRequest";
    Read = "ReadStreamRequest";
    Diagnose = "GetDiagnosticDataRequest";
    Statistics = "StatsContainerRequest";
    Copy = "CopyFileRequest";
    Link = "UpdateInterfaceRequest";
    Routes = "UpdateRoutesRequest";
    Clock = "SetGuestDateTimeRequest";
    Wait = "WaitProcessRequest";
}

/// Two init containers with a sidecar between them, and two others.
fn text() -> String {
    let image = format!("r.example/app@sha256:{}", "ab".repeat(32));
    let container = |name: &str, more: &str| {
        format!(r#"{{"name":"{name}","image":"{image}","args":["/app"]{more}}}"#)
    };
    let containers = [
        container("first", r#","stage":"init""#),
        container("proxy", r#","stage":"sidecar""#),
        container("second", r#","stage":"init""#),
        container(
            "web",
            r#","exec":[["cat","/ready"]],"signals":[3],"logs":true,"mounts":[{"at":"/etc/app"}]"#,
        ),
        container("other", r#","stdin":true,"termination_message":true"#),
    ];
    format!(
        r#"{{"rules":["{}"],"pod":{{"name":{{"is":"pod"}}}},"containers":[{}]}}"#,
        rules_digest_hex(),
        containers.join(",")
    )
}

struct Pod(Engine);

impl Pod {
    /// A pod that is set up.
    fn new() -> Self {
        let pod = Self(Engine::of_document(text().as_bytes()).unwrap());
        let _ = pod.sandbox().unwrap().commit();
        pod
    }

    fn claim<R: Request>(&self, request: R) -> Result<Claim, &'static str> {
        let permit = self.0.judge(request);
        permit
            .map(|permit| permit.into_parts().1)
            .map_err(|denied| denied.finding.code.name())
    }

    fn sandbox(&self) -> Result<Claim, &'static str> {
        self.claim(Sandbox(Asked::Sandbox {
            hostname: "pod",
            memory: Vec::new(),
        }))
    }

    fn create(&self, id: &str, name: &str) -> Result<Claim, &'static str> {
        self.claim(Create(Asked::Container(Box::new(AskedContainer {
            id,
            name,
            pod_name: "pod",
            namespace: "default",
            uid: "1edd",
            image: Some("r.example/app:1"),
            sysctls: Vec::new(),
            volumes: Vec::new(),
            processes: AskedProcesses::Own,
        }))))
    }

    fn start(&self, id: &str) -> Result<Claim, &'static str> {
        self.claim(Start(Asked::Start(id)))
    }

    /// A container that runs.
    fn run(&self, id: &str, name: &str) -> Place {
        let place = self.create(id, name).unwrap().commit();
        let _ = self.start(id).unwrap().commit();
        place
    }

    /// A pod whose others run, so that each of the last two may come.
    fn ready() -> Self {
        let pod = Self::new();
        pod.run("i1", "first").ended(true);
        let _ = pod.run("p", "proxy");
        pod.run("i2", "second").ended(true);
        pod
    }
}

#[test]
fn init_containers_run_in_order_to_their_end_and_the_others_after_them() {
    let pod = Pod::new();
    for name in ["proxy", "second", "web"] {
        assert_eq!(
            pod.create("x", name).err(),
            Some("CONTAINER_ORDER"),
            "{name}"
        );
    }
    let first = pod.run("i1", "first");
    assert_eq!(pod.create("x", "proxy").err(), Some("CONTAINER_ORDER"));
    first.ended(false);
    // It failed: it comes again, and nothing comes after it.
    assert_eq!(pod.create("x", "proxy").err(), Some("CONTAINER_ORDER"));
    pod.run("i1b", "first").ended(true);
    assert_eq!(pod.create("x", "second").err(), Some("CONTAINER_ORDER"));
    let _ = pod.run("p", "proxy");
    assert_eq!(pod.create("x", "web").err(), Some("CONTAINER_ORDER"));
    pod.run("i2", "second").ended(true);
    let _ = pod.run("w", "web");
    assert_eq!(pod.create("x", "first").err(), Some("CONTAINER_ORDER"));
    assert!(pod.create("o", "other").is_ok());
}

#[test]
fn one_of_two_creates_wins_and_a_failed_one_leaves_nothing() {
    let pod = Pod::ready();
    let claim = pod.create("w1", "web").unwrap();
    assert_eq!(
        pod.create("w2", "web").err(),
        Some("CONTAINER_RUNS_ALREADY")
    );
    assert_eq!(pod.create("w1", "other").err(), Some("CONTAINER_ID_REUSED"));
    // It is not there before it is made.
    assert_eq!(pod.start("w1").err(), Some("CONTAINER_NOT_THERE"));
    drop(claim);
    let _ = pod.create("w1", "web").unwrap().commit();
    drop(pod.start("w1").unwrap());
    let _ = pod.start("w1").unwrap().commit();
    assert_eq!(pod.start("w1").err(), Some("CONTAINER_STARTED"));
}

#[test]
fn a_container_comes_again_when_the_one_before_has_ended_and_under_a_new_id() {
    let pod = Pod::ready();
    let place = pod.run("w1", "web");
    assert_eq!(
        pod.create("w2", "web").err(),
        Some("CONTAINER_RUNS_ALREADY")
    );
    place.ended(false);
    let place = pod.run("w2", "web");
    // The end of the one before, told late, ends nothing else.
    drop(pod.claim(Remove(Asked::Remove("w1"))).unwrap());
    let _ = pod.claim(Remove(Asked::Remove("w1"))).unwrap().commit();
    assert_eq!(
        pod.claim(Remove(Asked::Remove("w1"))).err(),
        Some("CONTAINER_NOT_THERE")
    );
    assert_eq!(
        pod.create("w3", "web").err(),
        Some("CONTAINER_RUNS_ALREADY")
    );
    place.ended(true);
    assert_eq!(pod.create("w1", "web").err(), Some("CONTAINER_ID_REUSED"));
    assert!(pod.create("w3", "web").is_ok());
}

#[test]
fn a_pod_is_set_up_once_and_nothing_comes_before_or_after() {
    let pod = Pod(Engine::of_document(text().as_bytes()).unwrap());
    assert_eq!(pod.create("x", "first").err(), Some("POD_STATE"));
    let claim = pod.sandbox().unwrap();
    assert_eq!(pod.sandbox().err(), Some("POD_STATE"));
    assert_eq!(pod.create("x", "first").err(), Some("POD_STATE"));
    drop(claim);
    let _ = pod.sandbox().unwrap().commit();
    let _ = pod.create("x", "first").unwrap().commit();
    pod.claim(Destroy(Asked::Destroy)).unwrap();
    assert_eq!(pod.create("y", "first").err(), Some("POD_STATE"));
    assert_eq!(pod.sandbox().err(), Some("POD_STATE"));
}

#[test]
fn a_pod_keeps_the_names_that_it_has() {
    let pod = Pod::new();
    let asked = |uid| AskedContainer {
        id: "x",
        name: "first",
        pod_name: "pod",
        namespace: "default",
        uid,
        image: Some("r.example/app"),
        sysctls: Vec::new(),
        volumes: Vec::new(),
        processes: AskedProcesses::Own,
    };
    let create = |uid| pod.claim(Create(Asked::Container(Box::new(asked(uid)))));
    let _ = create("1").unwrap().commit();
    assert_eq!(create("2").err(), Some("POD_NAME"));
}

/// A container with the process that the document says; its user is a name of the image.
fn settled(pod: &Pod, id: &str, name: &str) {
    let claim = pod.create(id, name).unwrap();
    let user = AskedUser::default();
    let image = OfImage {
        home: Some("/root".to_owned()),
        ..OfImage::default()
    };
    let (document, container) = claim.declared().unwrap();
    let expected: Workload = container.expected(&document.pod, &image).workload;
    let environment = ["HOSTNAME=pod".to_owned(), "HOME=/root".to_owned()];
    let judged = claim.judge_process(Finished {
        workload: &expected,
        environment: &environment,
        facts: &PodFacts::default(),
        image: &image,
        user: &user,
    });
    judged.unwrap();
    let _ = claim.commit();
    let _ = pod.start(id).unwrap().commit();
}

const CAT: &str = "cat";
const HOSTNAME: &str = "HOSTNAME=pod";

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|&word| word.to_owned()).collect()
}

/// What becomes of the declared command after a change.
fn exec(pod: &Pod, change: impl FnOnce(&mut AskedExec<'_>)) -> Option<&'static str> {
    exec_with(pod, &[CAT, "/ready"], &[HOSTNAME], change)
}

fn exec_with(
    pod: &Pod,
    args: &[&str],
    environment: &[&str],
    change: impl FnOnce(&mut AskedExec<'_>),
) -> Option<&'static str> {
    let (args, environment) = (words(args), words(environment));
    let mut asked = AskedExec {
        container: "w",
        args: &args,
        environment: &environment,
        directory: "/",
        terminal: false,
        user: AskedUser::default(),
        no_new_privileges: false,
        limited: false,
    };
    change(&mut asked);
    pod.claim(Exec(Asked::Exec(asked))).err()
}

#[test]
fn a_further_process_is_a_command_of_its_container_in_the_document() {
    let pod = Pod::ready();
    settled(&pod, "w", "web");
    settled(&pod, "o", "other");
    assert_eq!(exec(&pod, |_| {}), None);
    for args in [&[CAT, "/etc/shadow"][..], &[CAT]] {
        let found = exec_with(&pod, args, &[HOSTNAME], |_| {});
        assert_eq!(found, Some("EXEC_NOT_DECLARED"), "{args:?}");
    }
    let of = |container| exec(&pod, |asked| asked.container = container);
    assert_eq!(of("o"), Some("EXEC_NOT_DECLARED"));
    assert_eq!(of("x"), Some("CONTAINER_NOT_THERE"));
}

#[test]
fn a_further_process_is_otherwise_as_its_containers_first() {
    let pod = Pod::ready();
    settled(&pod, "w", "web");
    let terminal = [HOSTNAME, "TERM=xterm"];
    let with = |environment: &[&str], terminal| {
        exec_with(&pod, &[CAT, "/ready"], environment, |asked| {
            asked.terminal = terminal;
        })
    };
    assert_eq!(with(&terminal, true), None);
    assert_eq!(with(&terminal, false), Some("ENV_NOT_DECLARED"));
    let added = [HOSTNAME, "LD_PRELOAD=/x"];
    assert_eq!(with(&added, false), Some("ENV_NOT_DECLARED"));
    assert_eq!(
        exec(&pod, |asked| asked.directory = "/tmp"),
        Some("WORKING_DIRECTORY")
    );
    let group = |asked: &mut AskedExec<'_>| asked.user.groups = [7].into();
    let limited = |asked: &mut AskedExec<'_>| asked.limited = true;
    let privileges = |asked: &mut AskedExec<'_>| asked.no_new_privileges = true;
    assert_eq!(exec(&pod, group), Some("EXEC_PROCESS"));
    assert_eq!(exec(&pod, limited), Some("EXEC_PROCESS"));
    assert_eq!(exec(&pod, privileges), Some("EXEC_PROCESS"));
}

fn copy(pod: &Pod, path: &str, is_link: bool) -> Option<&'static str> {
    pod.claim(Copy(Asked::File { path, is_link })).err()
}

#[test]
fn streams_signals_and_files_are_as_each_container_says() {
    let pod = Pod::ready();
    settled(&pod, "w", "web");
    settled(&pod, "o", "other");
    let signal = |container, signal| pod.claim(Signal(Asked::Signal { container, signal })).err();
    for (container, number, expected) in [
        ("w", 15, None),
        ("w", 9, None),
        ("w", 3, None),
        ("o", 3, Some("SIGNAL_NOT_DECLARED")),
        ("w", 6, Some("SIGNAL_NOT_DECLARED")),
        ("x", 9, Some("CONTAINER_NOT_THERE")),
    ] {
        assert_eq!(
            signal(container, number),
            expected,
            "{number} to {container}"
        );
    }
    assert!(pod.claim(Read(Asked::Of("w"))).is_ok());
    assert_eq!(
        pod.claim(Read(Asked::Of("o"))).err(),
        Some("LOGS_NOT_ALLOWED")
    );
    assert!(pod.claim(Write(Asked::Of("o"))).is_ok());
    assert_eq!(
        pod.claim(Write(Asked::Of("w"))).err(),
        Some("STDIN_NOT_ALLOWED")
    );
    assert!(pod.claim(Diagnose(Asked::Of("o"))).is_ok());
    let message = pod.claim(Diagnose(Asked::Of("w"))).err();
    assert_eq!(message, Some("TERMINATION_MESSAGE_NOT_ALLOWED"));
    let statistics = pod.claim(Statistics(Asked::Of("w"))).err();
    assert_eq!(statistics, Some("STATISTICS_NOT_ALLOWED"));
    let place = |name: &str| format!("w9-0123456789abcdef-{name}");
    for (path, is_link, expected) in [
        (place("app"), false, None),
        (place("hosts"), false, None),
        (place("app/key"), true, None),
        (place("app"), true, Some("COPY_TARGET")),
        (place("evil"), false, Some("COPY_TARGET")),
        ("app".to_owned(), false, Some("COPY_TARGET")),
        (
            "s/rootfs/local/data/x".to_owned(),
            false,
            Some("COPY_TARGET"),
        ),
    ] {
        assert_eq!(copy(&pod, &path, is_link), expected, "{path}");
    }
}

#[test]
fn the_network_is_the_pods_own_and_never_the_loopback() {
    let pod = Pod::new();
    let address = |text: &str| vec![text.parse().unwrap()];
    let link = |name, at: &str| {
        let addresses = address(at);
        pod.claim(Link(Asked::Interface { name, addresses })).err()
    };
    let route = |name, at: &str| {
        let (devices, addresses) = (vec![name], address(at));
        pod.claim(Routes(Asked::Network { devices, addresses }))
            .err()
    };
    assert_eq!(route("eth0", "10.0.0.1"), Some("NETWORK_INTERFACE"));
    assert_eq!(link("eth0", "10.0.0.5"), None);
    assert_eq!(route("eth0", "10.0.0.1"), None);
    for own in ["127.0.0.1", "::1"] {
        assert_eq!(route("eth0", own), Some("NETWORK_LOOPBACK"));
        assert_eq!(link("eth1", own), Some("NETWORK_LOOPBACK"));
    }
    assert_eq!(route("lo", "10.0.0.1"), Some("NETWORK_LOOPBACK"));
}

#[test]
fn what_has_no_rule_is_denied_and_what_needs_no_fact_is_allowed() {
    let pod = Pod::new();
    assert_eq!(
        pod.claim(Clock(Asked::Nothing)).err(),
        Some("REQUEST_NOT_ALLOWED")
    );
    assert!(pod.claim(Wait(Asked::Nothing)).is_ok());
}

#[test]
fn the_images_of_a_document_come_once_and_those_for_debugging_not_ahead() {
    let other = format!("r.example/tools@sha256:{}", "cd".repeat(32));
    let more = format!(
        r#"{{"name":"log","image":"{0}","args":["/log"]}},{{"name":"debug","target":"web","image":"{1}","args":["/sh"]}}]}}"#,
        other,
        other.replace("tools", "debug"),
    );
    let text = text();
    let text = format!("{},{more}", text.strip_suffix("]}").unwrap());
    let engine = Engine::of_document(text.as_bytes()).unwrap();
    let app = format!("r.example/app@sha256:{}", "ab".repeat(32));
    assert_eq!(engine.images(), [app, other]);
    assert!(Engine::allow_all().images().is_empty());
    assert!(Engine::deny_all().images().is_empty());
}

#[test]
fn a_document_for_other_rules_is_not_in_force() {
    let other = text().replace(&rules_digest_hex(), &"ab".repeat(32));
    let error = Engine::of_document(other.as_bytes()).unwrap_err();
    assert!(error.to_string().contains(&rules_digest_hex()));
}

/// What no answer may hold: markers in every place of a document that a denial could tell.
#[test]
fn a_denial_tells_nothing_that_only_the_policy_says() {
    let marked = text()
        .replace("\"/app\"", "\"/MARKER\"")
        .replace("/ready", "/MARKER");
    let pod = Pod(Engine::of_document(marked.as_bytes()).unwrap());
    let _ = pod.sandbox().unwrap().commit();
    let claim = pod.create("i", "first").unwrap();
    let user = AskedUser::default();
    let denied = claim.judge_process(Finished {
        workload: &Workload::default(),
        environment: &["HOME=/SECRET".to_owned(), "X=SECRET".to_owned()],
        facts: &PodFacts::default(),
        image: &OfImage::default(),
        user: &user,
    });
    let told = denied.unwrap_err().to_string();
    assert!(told.contains("ARGUMENTS in container first"), "{told}");
    assert!(
        !told.contains("MARKER") && !told.contains("SECRET"),
        "{told}"
    );
}

/// Prints what decisions take; `hack/bench` has the budgets.
#[test]
fn decisions_are_quick() {
    let pod = Pod::ready();
    settled(&pod, "w", "web");
    let median = |each: &dyn Fn()| {
        let mut times: Vec<_> = (0..2000)
            .map(|_| {
                let begun = Instant::now();
                each();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let create = median(&|| drop(pod.create("o", "other").unwrap()));
    let read = median(&|| drop(pod.claim(Read(Asked::Of("w"))).unwrap()));
    let constant = median(&|| drop(pod.claim(Wait(Asked::Nothing)).unwrap()));
    println!("create {create:?}, read {read:?}, constant {constant:?}");
}
