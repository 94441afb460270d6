//! Rows of what Kata's rules look at in other requests, and what they remember.

use agent_protocol::rpc::{agent as wire, agent::CreateContainerRequest, oci, types};
use policy_engine::rego::{Policy, Why};
use protobuf::MessageDyn;

use crate::{
    CREATE, allowed,
    requests::{RELEASES, policy, policy_with, request},
};

/// A rule, and messages with whether it allows them.
type Case<'a> = (&'static str, Vec<(&'a str, Box<dyn MessageDyn>, bool)>);

fn check(policy: &Policy, (rule, messages): Case<'_>) {
    for (name, message, allows) in messages {
        let found = allowed(policy, rule, &*message);
        assert_eq!(found.is_ok(), allows, "{rule}, {name}: {found:?}");
    }
}

fn shm() -> wire::Storage {
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"];
    wire::Storage {
        driver: "ephemeral".to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options: options.map(str::to_owned).to_vec(),
        mount_point: "/run/kata-containers/sandbox/shm".to_owned(),
        ..Default::default()
    }
}

#[test]
fn a_sandbox_has_the_storages_of_the_policy_and_nothing_that_runs() {
    assert_eq!(shim_volumes::shm_storage(), shm(), "what the shim sends");
    let base = || wire::CreateSandboxRequest {
        storages: vec![shm()],
        ..Default::default()
    };
    let with = |change: fn(&mut wire::CreateSandboxRequest)| {
        let mut request = base();
        change(&mut request);
        Box::new(request) as Box<dyn MessageDyn>
    };
    let case = (
        "CreateSandboxRequest",
        vec![
            ("as it is", with(|_| {}), true),
            ("no storage", with(|r| r.storages.clear()), true),
            ("hooks", with(|r| r.guest_hook_path = "/x".into()), false),
            (
                "modules",
                with(|r| r.kernel_modules.push(Default::default())),
                false,
            ),
            ("processes", with(|r| r.sandbox_pidns = true), false),
            (
                "another size",
                with(|r| r.storages[0].options[4] = "size=1".into()),
                false,
            ),
            (
                "another place",
                with(|r| r.storages[0].mount_point = "/etc".into()),
                false,
            ),
        ],
    );
    check(&policy("2.1"), case);
}

fn exec(container: &str, args: &[&str]) -> wire::ExecProcessRequest {
    wire::ExecProcessRequest {
        container_id: container.to_owned(),
        process: Some(oci::Process {
            User: Some(oci::User {
                AdditionalGids: vec![0],
                ..Default::default()
            })
            .into(),
            Args: args.iter().map(|&arg| arg.to_owned()).collect(),
            Cwd: "/".to_owned(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

#[test]
fn commands_are_those_of_the_policy_and_run_as_their_container_does() {
    for release in RELEASES {
        let policy = policy(release);
        let main = request(release, "main");
        let id = main.container_id.clone();
        let before = exec(&id, &["sh", "-c", "echo stopping"]);
        assert!(
            allowed(&policy, "ExecProcessRequest", &before).is_err(),
            "not yet created"
        );
        assert_eq!(allowed(&policy, CREATE, &main), Ok(()));
        let with = |change: fn(&mut oci::Process)| {
            let mut request = exec(&id, &["sh", "-c", "echo stopping"]);
            change(request.process.as_mut().unwrap());
            Box::new(request) as Box<dyn MessageDyn>
        };
        let command = |args: &[&str]| Box::new(exec(&id, args)) as Box<dyn MessageDyn>;
        let mut named = exec(&id, &["sh", "-c", "echo stopping"]);
        named.string_user = Some(wire::StringUser::default()).into();
        let case = (
            "ExecProcessRequest",
            vec![
                ("a hook", with(|_| {}), true),
                ("a probe", command(&["sh", "-c", "cat /tmp/started"]), true),
                ("allowed_commands", command(&["/bin/probe", "--now"]), true),
                (
                    "regex, over joined words",
                    command(&["ls", "-l /tmp"]),
                    true,
                ),
                ("another", command(&["sh", "-c", "id"]), false),
                (
                    "a word more",
                    command(&["sh", "-c", "echo stopping", "x"]),
                    false,
                ),
                ("of another container", command(&["true"]), false),
                (
                    "another container",
                    Box::new(exec("other", &["true"])),
                    false,
                ),
                ("string_user", Box::new(named), false),
                ("terminal", with(|p| p.Terminal = true), false),
                ("directory", with(|p| p.Cwd = "/tmp".into()), false),
                ("user", with(|p| p.User.as_mut().unwrap().UID = 1), false),
                (
                    "variable",
                    with(|p| p.Env.push("LD_PRELOAD=x".into())),
                    false,
                ),
                (
                    "declared variable",
                    with(|p| p.Env.push("HOSTNAME=life".into())),
                    true,
                ),
                ("NoNewPrivileges", with(|p| p.NoNewPrivileges = true), false),
                ("label", with(|p| p.SelinuxLabel = "x".into()), false),
                ("profile", with(|p| p.ApparmorProfile = "x".into()), false),
                (
                    "no capabilities",
                    with(|p| p.Capabilities = Some(oci::LinuxCapabilities::default()).into()),
                    true,
                ),
                (
                    "capabilities",
                    with(|p| {
                        p.Capabilities = Some(oci::LinuxCapabilities {
                            Effective: vec!["CAP_CHOWN".into()],
                            ..Default::default()
                        })
                        .into();
                    }),
                    false,
                ),
            ],
        );
        check(&policy, case);
    }
}

#[test]
fn names_are_pinned_by_the_first_container_and_a_failed_one_pins_nothing() {
    for release in RELEASES {
        let policy = policy(release);
        let other = |container| {
            let mut other: CreateContainerRequest = request(release, container);
            let notes = &mut other.OCI.as_mut().unwrap().Annotations;
            notes.insert("io.kubernetes.cri.sandbox-namespace".into(), "other".into());
            other
        };
        // What fails is as if it had not been asked.
        drop(policy.decide(CREATE, &other("sandbox")).unwrap());
        assert_eq!(
            allowed(&policy, CREATE, &request(release, "sandbox")),
            Ok(())
        );
        assert_eq!(allowed(&policy, CREATE, &other("main")), Err(Why::Denied));
        assert_eq!(allowed(&policy, CREATE, &request(release, "main")), Ok(()));
        // An identifier stands for the entry that it was first allowed for.
        let mut again = request(release, "sidecar");
        let main = request(release, "main");
        let text = again.container_id.clone();
        again.container_id = main.container_id.clone();
        assert_eq!(allowed(&policy, CREATE, &again), Err(Why::Denied), "{text}");
    }
}

#[test]
fn a_container_is_removed_once() {
    let policy = policy("2.1");
    let main = request("2.1", "main");
    let remove = wire::RemoveContainerRequest {
        container_id: main.container_id.clone(),
        ..Default::default()
    };
    assert!(matches!(
        allowed(&policy, "RemoveContainerRequest", &remove),
        Err(Why::State(_))
    ));
    assert_eq!(allowed(&policy, CREATE, &main), Ok(()));
    assert_eq!(allowed(&policy, "RemoveContainerRequest", &remove), Ok(()));
    assert!(allowed(&policy, "RemoveContainerRequest", &remove).is_err());
}

fn copy(path: &str, mode: u32, data: &str) -> Box<dyn MessageDyn> {
    Box::new(wire::CopyFileRequest {
        path: path.to_owned(),
        file_mode: mode,
        data: data.as_bytes().to_vec(),
        ..Default::default()
    })
}

#[test]
fn files_land_in_the_containers_own_places() {
    let place = format!(
        "/run/kata-containers/shared/containers/{}-0123456789abcdef-config",
        "a".repeat(64)
    );
    let below = |name: &str| format!("{place}/{name}");
    let watched = place.replace("/containers/a", "/containers/watchable/a");
    let case = (
        "CopyFileRequest",
        vec![
            ("a file", copy(&place, 0o100_644, ""), true),
            ("a directory", copy(&place, 0o040_755, ""), true),
            ("watched", copy(&watched, 0o100_644, ""), true),
            (
                "any content",
                copy(&below("x"), 0o100_644, "anything"),
                true,
            ),
            (
                "a link below",
                copy(&below("x"), 0o120_777, "..data/x"),
                true,
            ),
            ("a link at the top", copy(&place, 0o120_777, "x"), false),
            (
                "a link that is absolute",
                copy(&below("x"), 0o120_777, "/etc/passwd"),
                false,
            ),
            (
                "a link that leads out",
                copy(&below("x"), 0o120_777, "../../x"),
                false,
            ),
            ("a pipe", copy(&below("x"), 0o010_644, ""), false),
            ("upwards", copy(&below("../x"), 0o100_644, ""), false),
            ("elsewhere", copy("/etc/passwd", 0o100_644, ""), false),
            (
                "no container's",
                copy("/run/kata-containers/shared/containers/x", 0o100_644, ""),
                false,
            ),
        ],
    );
    check(&policy("2.1"), case);
}

fn interface(name: &str, address: &str, flags: u32) -> Box<dyn MessageDyn> {
    Box::new(wire::UpdateInterfaceRequest {
        interface: Some(types::Interface {
            name: name.to_owned(),
            hwAddr: address.to_owned(),
            raw_flags: flags,
            ..Default::default()
        })
        .into(),
        ..Default::default()
    })
}

fn route(device: &str, source: &str) -> Box<dyn MessageDyn> {
    Box::new(wire::UpdateRoutesRequest {
        routes: Some(wire::Routes {
            Routes: vec![types::Route {
                device: device.to_owned(),
                source: source.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    })
}

fn neighbor(change: fn(&mut types::ARPNeighbor)) -> Box<dyn MessageDyn> {
    let mut neighbor = types::ARPNeighbor {
        toIPAddress: Some(types::IPAddress {
            address: "10.0.0.1".to_owned(),
            ..Default::default()
        })
        .into(),
        device: "eth0".to_owned(),
        state: 128,
        ..Default::default()
    };
    change(&mut neighbor);
    Box::new(wire::AddARPNeighborsRequest {
        neighbors: Some(wire::ARPNeighbors {
            ARPNeighbors: vec![neighbor],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    })
}

#[test]
fn the_network_is_not_the_loopback() {
    let policy = policy("2.1");
    let mac = "02:00:00:00:00:01";
    for case in [
        (
            "UpdateInterfaceRequest",
            vec![
                ("one", interface("eth0", mac, 0), true),
                ("without ARP", interface("eth0", mac, 128), true),
                ("flags", interface("eth0", mac, 1), false),
                ("loopback", interface("lo", mac, 0), false),
                (
                    "no address",
                    interface("eth0", "00:00:00:00:00:00", 0),
                    false,
                ),
            ],
        ),
        (
            "UpdateRoutesRequest",
            vec![
                ("one", route("eth0", "10.0.0.7"), true),
                ("loopback", route("lo", ""), false),
                ("from loopback", route("eth0", "127.0.0.1"), false),
                ("from loopback of IPv6", route("eth0", "::1"), false),
            ],
        ),
        (
            "AddARPNeighborsRequest",
            vec![
                ("one", neighbor(|_| {}), true),
                ("flags", neighbor(|n| n.flags = 136), true),
                ("reachable", neighbor(|n| n.state = 2), true),
                ("loopback", neighbor(|n| n.device = "lo".into()), false),
                (
                    "address",
                    neighbor(|n| n.toIPAddress.as_mut().unwrap().address = "127.0.0.1".into()),
                    false,
                ),
                (
                    "mask",
                    neighbor(|n| n.toIPAddress.as_mut().unwrap().mask = "8".into()),
                    false,
                ),
                ("state", neighbor(|n| n.state = 1), false),
                ("other flags", neighbor(|n| n.flags = 1), false),
            ],
        ),
    ] {
        check(&policy, case);
    }
}

#[test]
fn switches_are_off_unless_the_settings_say_otherwise() {
    let off = policy("2.1");
    for (rule, message) in [
        (
            "CloseStdinRequest",
            Box::new(wire::CloseStdinRequest::default()) as Box<dyn MessageDyn>,
        ),
        (
            "GetDiagnosticDataRequest",
            Box::new(wire::GetDiagnosticDataRequest::default()),
        ),
        (
            "ReadStreamRequest",
            Box::new(wire::ReadStreamRequest::default()),
        ),
        (
            "UpdateEphemeralMountsRequest",
            Box::new(wire::UpdateEphemeralMountsRequest::default()),
        ),
        (
            "WriteStreamRequest",
            Box::new(wire::WriteStreamRequest::default()),
        ),
    ] {
        assert_eq!(allowed(&off, rule, &*message), Err(Why::Denied), "{rule}");
        let on = policy_with("2.1", &[(rule, true)]);
        assert_eq!(allowed(&on, rule, &*message), Ok(()), "{rule}");
    }
}

#[test]
fn what_is_always_allowed_or_denied_needs_no_rego() {
    let policy = policy("2.1");
    for (rule, answer) in [
        ("StartContainerRequest", true),
        ("SignalProcessRequest", true),
        ("WaitProcessRequest", true),
        ("StatsContainerRequest", true),
        ("TtyWinResizeRequest", true),
        ("GetOOMEventRequest", true),
        ("GuestDetailsRequest", true),
        ("OnlineCPUMemRequest", true),
        ("DestroySandboxRequest", true),
        ("RemoveStaleVirtiofsShareMountsRequest", true),
        ("UpdateContainerRequest", false),
        ("PauseContainerRequest", false),
        ("ResumeContainerRequest", false),
        ("ListInterfacesRequest", false),
        ("ListRoutesRequest", false),
        ("GetIPTablesRequest", false),
        ("SetIPTablesRequest", false),
        ("MemHotplugByProbeRequest", false),
        ("SetGuestDateTimeRequest", false),
        ("ReseedRandomDevRequest", false),
        ("GetMetricsRequest", false),
        ("VolumeStatsRequest", false),
        ("ResizeVolumeRequest", false),
        ("AddSwapRequest", false),
        ("AddSwapPathRequest", false),
        ("SetPolicyRequest", false),
        ("MemAgentMemcgConfig", false),
        ("MemAgentCompactConfig", false),
    ] {
        assert_eq!(policy.facts().constant(rule), Some(answer), "{rule}");
    }
}
