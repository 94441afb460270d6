use protobuf::MessageField;

use super::*;

fn id() -> ContainerId {
    ContainerId::parse("c1").unwrap()
}

fn process() -> oci::Process {
    oci::Process {
        Args: vec!["sh".into(), "-c".into(), "true".into()],
        Env: vec!["A=b".into()],
        Cwd: "/w".into(),
        User: MessageField::some(oci::User {
            UID: 5,
            GID: 6,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn spec() -> oci::Spec {
    oci::Spec {
        Version: "1.0.2".into(),
        Process: MessageField::some(process()),
        Root: MessageField::some(oci::Root {
            Path: "/etc".into(),
            Readonly: true,
            ..Default::default()
        }),
        Linux: MessageField::some(oci::Linux {
            CgroupsPath: "/../../kubepods/x".into(),
            Resources: MessageField::some(oci::LinuxResources {
                Memory: MessageField::some(oci::LinuxMemory {
                    Limit: 1 << 20,
                    Swap: 1 << 20,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn of_several_variables_the_last_is_all_that_there_is() {
    let mut process = process();
    process.Env = ["PGDATA=/image", "PATH=/bin", "PGDATA=/pod", "EMPTY", "PATH"]
        .map(str::to_owned)
        .to_vec();
    let parsed = ProcessSpec::parse(process, Processes::Own).unwrap();
    let left = parsed.process.env().as_deref().unwrap();
    assert_eq!(left[..3], ["PGDATA=/pod", "EMPTY", "PATH"]);
    let named = left.iter().filter(|one| one.starts_with("PGDATA")).count();
    assert_eq!(named, 1, "{left:?}");
}

#[test]
fn paths_of_the_host_are_not_followed() {
    let parsed = ContainerSpec::parse(&id(), spec(), Processes::Own).unwrap();
    let root = parsed.spec.root().as_ref().unwrap();
    assert_eq!(
        root.path(),
        std::path::Path::new("/run/kata-containers/c1/rootfs")
    );
    assert_eq!(root.readonly(), Some(true));
    let linux = parsed.spec.linux().as_ref().unwrap();
    let cgroup = linux.cgroups_path().as_ref().unwrap();
    assert_eq!(cgroup, std::path::Path::new("/kata/c1"));
    assert!(linux.namespaces().as_ref().is_none_or(Vec::is_empty));
}

#[test]
fn limits_are_kept_and_swap_is_not() {
    let parsed = ContainerSpec::parse(&id(), spec(), Processes::Own).unwrap();
    let linux = parsed.spec.linux().as_ref().unwrap();
    let memory = linux
        .resources()
        .as_ref()
        .unwrap()
        .memory()
        .as_ref()
        .unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(1 << 20), None));
}

#[test]
fn a_process_keeps_its_user_and_gets_a_path() {
    let parsed = ProcessSpec::parse(process(), Processes::Own).unwrap();
    assert_eq!(
        (parsed.process.user().uid(), parsed.process.user().gid()),
        (5, 6)
    );
    let env = parsed.process.env().as_ref().unwrap();
    assert_eq!(env.first().unwrap(), "A=b");
    assert!(env.iter().any(|entry| entry.starts_with("PATH=/")));
    assert_eq!(parsed.process.no_new_privileges(), None);
}

#[test]
fn hooks_user_namespaces_and_devices_are_refused() {
    let with_hook = |set: fn(&mut oci::Hooks) -> &mut Vec<oci::Hook>| {
        let (mut hooks, mut spec) = (oci::Hooks::default(), spec());
        set(&mut hooks).push(oci::Hook::default());
        spec.Hooks = MessageField::some(hooks);
        spec
    };
    let mut bad = vec![
        with_hook(|hooks| &mut hooks.Prestart),
        with_hook(|hooks| &mut hooks.Poststart),
        with_hook(|hooks| &mut hooks.Poststop),
        with_hook(|hooks| &mut hooks.CreateRuntime),
        with_hook(|hooks| &mut hooks.CreateContainer),
        with_hook(|hooks| &mut hooks.StartContainer),
    ];
    let mapping = || vec![oci::LinuxIDMapping::default()];
    let mut mapped = [spec(), spec()];
    mapped[0].Linux.mut_or_insert_default().UIDMappings = mapping();
    mapped[1].Linux.mut_or_insert_default().GIDMappings = mapping();
    bad.extend(mapped);
    let mut user = spec();
    user.Linux.mut_or_insert_default().Namespaces = vec![oci::LinuxNamespace {
        Type: "user".into(),
        ..Default::default()
    }];
    let mut disk = spec();
    disk.Linux.mut_or_insert_default().Devices = vec![oci::LinuxDevice {
        Path: "/dev/vda".into(),
        Major: 254,
        ..Default::default()
    }];
    let mut block = spec();
    block.Linux.mut_or_insert_default().Devices = vec![oci::LinuxDevice {
        Path: "/dev/null".into(),
        Type: "b".into(),
        Major: 1,
        Minor: 3,
        ..Default::default()
    }];
    bad.extend([user, disk, block]);
    for bad in bad {
        assert!(matches!(
            ContainerSpec::parse(&id(), bad, Processes::Own),
            Err(RequestError::Unsupported(_))
        ));
    }
}

#[test]
fn sysctls_are_the_pods_own() {
    let set = |key: &str| {
        let mut spec = spec();
        spec.Linux.mut_or_insert_default().Sysctl = [(key.into(), "1".into())].into();
        ContainerSpec::parse(&id(), spec, Processes::Own)
    };
    for key in ["net.ipv4.ping_group_range", "kernel.shm_rmid_forced"] {
        assert_eq!(set(key).unwrap().sysctls.len(), 1, "{key}");
    }
    for key in [
        "kernel.panic",
        "vm.swappiness",
        "net/../kernel",
        "net..x",
        "net.../x",
        "",
    ] {
        assert!(set(key).is_err(), "{key}");
    }
}

#[test]
fn a_process_without_arguments_or_with_zero_bytes_is_refused() {
    for args in [vec![], vec![String::new()], vec!["a\0".to_owned()]] {
        let bad = oci::Process {
            Args: args,
            ..process()
        };
        assert!(ProcessSpec::parse(bad, Processes::Own).is_err());
    }
    assert!(
        ProcessSpec::parse(
            oci::Process {
                Cwd: "x".into(),
                ..process()
            },
            Processes::Own,
        )
        .is_err()
    );
}

#[test]
fn an_unknown_capability_is_refused() {
    let bad = oci::Process {
        Capabilities: MessageField::some(oci::LinuxCapabilities {
            Bounding: vec!["CAP_EVERYTHING".into()],
            ..Default::default()
        }),
        ..process()
    };
    assert!(matches!(
        ProcessSpec::parse(bad, Processes::Own),
        Err(RequestError::Unsupported(Unsupported::Capability(_)))
    ));
}

#[test]
fn the_host_does_not_describe_the_pause_container() {
    let mut hostile = spec();
    let process = hostile.Process.mut_or_insert_default();
    process.Args = vec!["/bin/sh".into(), "-c".into(), "id".into()];
    process.Env = vec!["LD_PRELOAD=/x".into()];
    process.Terminal = true;
    let all = vec!["CAP_SYS_ADMIN".to_owned()];
    process.Capabilities = MessageField::some(oci::LinuxCapabilities {
        Bounding: all.clone(),
        Effective: all.clone(),
        Permitted: all,
        ..Default::default()
    });
    hostile.Mounts = vec![oci::Mount {
        destination: "/pause".into(),
        source: format!("{}/x", paths::SHARED_ROOT),
        type_: "bind".into(),
        options: vec!["rbind".into()],
        ..Default::default()
    }];
    hostile.Root.mut_or_insert_default().Readonly = false;
    let settings = [("net.ipv4.ping_group_range".to_owned(), "0 1".to_owned())];
    hostile.Linux.mut_or_insert_default().Sysctl = settings.clone().into();
    let honest = oci::Spec {
        Linux: MessageField::some(oci::Linux {
            Sysctl: settings.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = |spec| ContainerSpec::pause(&id(), spec).unwrap();
    let (hostile, honest) = (made(hostile), made(honest));
    assert_eq!(hostile.spec, honest.spec);
    assert_eq!(hostile.process.process, honest.process.process);
    assert_eq!(hostile.sysctls, honest.sysctls);
    assert_eq!(hostile.sysctls.len(), 1);
    let mounts = hostile.spec.mounts().as_deref().unwrap();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert!(!hostile.process.terminal());
}
