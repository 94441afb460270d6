//! Rows of what Kata's rules look at in `CreateContainerRequest`, each with something that they
//! allow and something that they deny.

use agent_protocol::rpc::{
    agent::{CreateContainerRequest, FSGroup, SharedMount, StringUser},
    oci,
};

use crate::{
    CREATE,
    requests::{RELEASES, policy, request, stored, vfio},
};

type Request = CreateContainerRequest;
/// A row, the container, what is allowed, what is denied.
type Row = (
    &'static str,
    &'static str,
    fn(&mut Request),
    fn(&mut Request),
);

fn spec(request: &mut Request) -> &mut oci::Spec {
    request.OCI.as_mut().unwrap()
}

fn process(request: &mut Request) -> &mut oci::Process {
    spec(request).Process.as_mut().unwrap()
}

fn linux(request: &mut Request) -> &mut oci::Linux {
    spec(request).Linux.as_mut().unwrap()
}

fn resources(request: &mut Request) -> &mut oci::LinuxResources {
    linux(request).Resources.as_mut().unwrap()
}

fn user(request: &mut Request) -> &mut oci::User {
    process(request).User.as_mut().unwrap()
}

fn note(request: &mut Request, key: &str, value: &str) {
    let notes = &mut spec(request).Annotations;
    notes.insert(key.to_owned(), value.to_owned());
}

fn variable(request: &mut Request, variable: &str) {
    process(request).Env.push(variable.to_owned());
}

fn mount<'a>(request: &'a mut Request, destination: &str) -> &'a mut oci::Mount {
    let mounts = &mut spec(request).Mounts;
    let mut mounts = mounts.iter_mut();
    mounts
        .find(|mount| mount.destination == destination)
        .unwrap()
}

fn same(_: &mut Request) {}

/// That a container without more is allowed is shown by itself.
const SCREENED: &[Row] = &[
    ("shared_mounts", "main", same, |r| {
        r.shared_mounts.push(SharedMount::default())
    }),
    ("string_user", "main", same, |r| {
        r.string_user = Some(StringUser::default()).into()
    }),
    ("Hooks", "main", same, |r| {
        spec(r).Hooks = Some(oci::Hooks::default()).into()
    }),
    ("Solaris", "main", same, |r| {
        spec(r).Solaris = Some(oci::Solaris::default()).into()
    }),
    ("Windows", "main", same, |r| {
        spec(r).Windows = Some(oci::Windows::default()).into()
    }),
    ("IntelRdt", "main", same, |r| {
        linux(r).IntelRdt = Some(oci::LinuxIntelRdt::default()).into()
    }),
    ("Seccomp", "main", same, |r| {
        linux(r).Seccomp = Some(oci::LinuxSeccomp::default()).into()
    }),
    ("BlockIO", "main", same, |r| {
        resources(r).BlockIO = Some(oci::LinuxBlockIO::default()).into()
    }),
    ("Network", "main", same, |r| {
        resources(r).Network = Some(oci::LinuxNetwork::default()).into()
    }),
    ("Pids", "main", same, |r| {
        resources(r).Pids = Some(oci::LinuxPids::default()).into()
    }),
    ("GIDMappings", "main", same, |r| {
        linux(r).GIDMappings.push(oci::LinuxIDMapping::default())
    }),
    ("UIDMappings", "main", same, |r| {
        linux(r).UIDMappings.push(oci::LinuxIDMapping::default())
    }),
    ("MountLabel", "main", same, |r| {
        linux(r).MountLabel = "x".into()
    }),
    ("RootfsPropagation", "main", same, |r| {
        linux(r).RootfsPropagation = "shared".into()
    }),
    ("Resources.Devices", "main", same, |r| {
        resources(r).Devices.push(oci::LinuxDeviceCgroup::default())
    }),
    ("SelinuxLabel", "main", same, |r| {
        process(r).SelinuxLabel = "x".into()
    }),
    ("Username", "main", same, |r| {
        user(r).Username = "root".into()
    }),
];

const SETTINGS: &[Row] = &[
    ("sandbox_pidns", "main", same, |r| r.sandbox_pidns = true),
    ("Version", "main", same, |r| {
        spec(r).Version = "1.0.0".into()
    }),
    ("Readonly", "main", same, |r| {
        spec(r).Root.as_mut().unwrap().Readonly = true
    }),
    ("Readonly of pause", "sandbox", same, |r| {
        spec(r).Root.as_mut().unwrap().Readonly = false
    }),
    ("Cwd", "main", same, |r| process(r).Cwd = "/tmp".into()),
    ("NoNewPrivileges", "sandbox", same, |r| {
        process(r).NoNewPrivileges = false
    }),
    ("Terminal", "main", same, |r| process(r).Terminal = true),
    ("UID", "main", same, |r| user(r).UID = 1),
    ("GID", "main", same, |r| user(r).GID = 1),
    (
        "AdditionalGids",
        "main",
        |r| user(r).AdditionalGids = vec![0, 0],
        |r| user(r).AdditionalGids.push(7),
    ),
    ("AdditionalGids, fewer", "main", same, |r| {
        user(r).AdditionalGids.clear()
    }),
    ("Args, another", "main", same, |r| {
        process(r).Args[1] = "other".into()
    }),
    ("Args, one more", "main", same, |r| {
        process(r).Args.push("more".into())
    }),
    ("Args, one fewer", "main", same, |r| {
        drop(process(r).Args.pop())
    }),
    ("Args, $(sandbox-name)", "stored", same, |r| {
        process(r).Args[1] = "other".into()
    }),
    (
        "Args, $(node-name) and $$",
        "stored",
        |r| process(r).Args[2] = "anything".into(),
        |r| process(r).Args[3] = "$$HOME".into(),
    ),
    ("Capabilities, more", "main", same, |r| {
        process(r)
            .Capabilities
            .as_mut()
            .unwrap()
            .Effective
            .push("CAP_SYS_ADMIN".into())
    }),
    (
        "Capabilities, fewer",
        "main",
        |r| process(r).Capabilities.as_mut().unwrap().Bounding.reverse(),
        |r| drop(process(r).Capabilities.as_mut().unwrap().Bounding.pop()),
    ),
    (
        "Capabilities, prefix",
        "main",
        |r| process(r).Capabilities.as_mut().unwrap().Permitted[0] = "CHOWN".into(),
        |r| {
            process(r)
                .Capabilities
                .as_mut()
                .unwrap()
                .Ambient
                .push("CAP_CHOWN".into())
        },
    ),
    (
        "Rlimits and OOMScoreAdj, not looked at",
        "main",
        |r| {
            process(r).Rlimits.push(oci::POSIXRlimit::default());
            process(r).OOMScoreAdj = 5;
        },
        |r| process(r).Cwd = "/x".into(),
    ),
    (
        "CgroupsPath and Hostname, not looked at",
        "main",
        |r| {
            linux(r).CgroupsPath = "/x".into();
            spec(r).Hostname = "x".into();
        },
        |r| process(r).Cwd = "/x".into(),
    ),
];

const NOTES: &[Row] = &[
    (
        "namespace, any and pinned",
        "main",
        |r| note(r, "io.kubernetes.cri.sandbox-namespace", "other"),
        |r| {
            drop(
                spec(r)
                    .Annotations
                    .remove("io.kubernetes.cri.sandbox-namespace"),
            )
        },
    ),
    ("sandbox-name", "main", same, |r| {
        note(r, "io.kubernetes.cri.sandbox-name", "other")
    }),
    ("container-type", "main", same, |r| {
        note(r, "io.kubernetes.cri.container-type", "sandbox")
    }),
    ("container_type", "main", same, |r| {
        note(r, "io.katacontainers.pkg.oci.container_type", "pod_sandbox")
    }),
    ("container-name", "main", same, |r| {
        note(r, "io.kubernetes.cri.container-name", "sidecar")
    }),
    ("container-name of pause", "sandbox", same, |r| {
        note(r, "io.kubernetes.cri.container-name", "main")
    }),
    ("network-namespace of pause", "sandbox", same, |r| {
        note(r, "nerdctl/network-namespace", "/proc/1/ns/net")
    }),
    ("network-namespace of others", "main", same, |r| {
        note(
            r,
            "nerdctl/network-namespace",
            "/var/run/netns/cni-cbc3a0cf-b838-5a74-326b-e676bd63ba6f",
        )
    }),
    ("log directory of pause", "sandbox", same, |r| {
        note(r, "io.kubernetes.cri.sandbox-log-directory", "/etc")
    }),
    ("log directory of others", "main", same, |r| {
        note(
            r,
            "io.kubernetes.cri.sandbox-log-directory",
            "/var/log/pods/default_life_5fff33d7-cad0-494b-b998-2166994a39c8",
        )
    }),
    (
        "sandbox-id",
        "main",
        |r| note(r, "io.kubernetes.cri.sandbox-id", &"a".repeat(64)),
        |r| note(r, "io.kubernetes.cri.sandbox-id", "../x"),
    ),
    (
        "others",
        "main",
        |r| note(r, "io.kubernetes.cri.more", "x"),
        |r| note(r, "io.example.more", "x"),
    ),
    (
        "of the policy, any value",
        "main",
        |r| note(r, "io.kubernetes.cri.image-name", "any"),
        |r| note(r, "image-name", "any"),
    ),
    (
        "by pattern",
        "main",
        |r| {
            note(
                r,
                "io.kubernetes.container.terminationMessagePath",
                "/dev/log",
            )
        },
        |r| note(r, "io.kubernetes.container.terminationMessagePath", "log"),
    ),
    (
        "message policy",
        "main",
        |r| {
            note(
                r,
                "io.kubernetes.container.terminationMessagePolicy",
                "File",
            )
        },
        |r| {
            note(
                r,
                "io.kubernetes.container.terminationMessagePolicy",
                "Other",
            )
        },
    ),
];

const LINUX: &[Row] = &[
    ("Root.Path", "main", same, |r| {
        spec(r).Root.as_mut().unwrap().Path = "/run/kata-containers/x/rootfs".into()
    }),
    (
        "Namespaces, order",
        "main",
        |r| {
            linux(r).Namespaces.push(oci::LinuxNamespace {
                Type: "cgroup".into(),
                ..Default::default()
            })
        },
        |r| linux(r).Namespaces.reverse(),
    ),
    ("Namespaces, path", "main", same, |r| {
        linux(r).Namespaces[0].Path = "/proc/1/ns/ipc".into()
    }),
    ("Namespaces, fewer", "main", same, |r| {
        drop(linux(r).Namespaces.pop())
    }),
    (
        "MaskedPaths",
        "main",
        |r| linux(r).MaskedPaths.push("/proc/more".into()),
        |r| linux(r).MaskedPaths.retain(|path| path != "/proc/kcore"),
    ),
    (
        "ReadonlyPaths",
        "main",
        |r| {
            linux(r).ReadonlyPaths.retain(|path| path != "/proc/sys");
            linux(r).MaskedPaths.push("/proc/sys".into());
        },
        |r| linux(r).ReadonlyPaths.clear(),
    ),
    (
        "Devices",
        "stored",
        |r| linux(r).Devices[0].Major = 9,
        |r| {
            linux(r).Devices.push(oci::LinuxDevice {
                Path: "/dev/mem".into(),
                ..Default::default()
            })
        },
    ),
    (
        "Sysctl",
        "main",
        |r| {
            drop(
                linux(r)
                    .Sysctl
                    .insert("net.ipv4.ping_group_range".into(), "0 2147483647".into()),
            )
        },
        |r| {
            drop(
                linux(r)
                    .Sysctl
                    .insert("net.ipv4.ping_group_range".into(), "0 0".into()),
            )
        },
    ),
    ("Sysctl, another", "main", same, |r| {
        drop(linux(r).Sysctl.insert("kernel.shmmax".into(), "1".into()))
    }),
];

const ENVIRONMENT: &[Row] = &[
    ("literal", "stored", same, |r| variable(r, "LITERAL=other")),
    ("one more", "main", same, |r| {
        variable(r, "LD_PRELOAD=/x.so")
    }),
    (
        "one fewer, repeated, in another order",
        "stored",
        |r| {
            process(r).Env.reverse();
            drop(process(r).Env.pop());
            variable(r, "LITERAL=as it is");
        },
        |r| variable(r, "LITERAL="),
    ),
    (
        "$(sandbox-name)",
        "stored",
        |r| variable(r, "POD=life"),
        |r| variable(r, "POD=other"),
    ),
    (
        "$(sandbox-namespace)",
        "stored",
        |r| variable(r, "NAMESPACE=default"),
        |r| variable(r, "NAMESPACE=other"),
    ),
    (
        "$(pod-uid)",
        "stored",
        |r| variable(r, "UID=5fff33d7"),
        |r| variable(r, "UID=a=b"),
    ),
    (
        "$(node-name)",
        "stored",
        |r| variable(r, "NODE=any"),
        |r| variable(r, "NODE=a=b"),
    ),
    (
        "$(resource-field)",
        "stored",
        |r| variable(r, "LIMIT=7"),
        |r| variable(r, "LIMIT=a=b"),
    ),
    (
        "$(todo-annotation)",
        "stored",
        |r| variable(r, "NOTE=7"),
        |r| variable(r, "NOTE=a=b"),
    ),
    (
        "$(host-name)",
        "main",
        |r| variable(r, "HOSTNAME=any"),
        |r| variable(r, "HOSTNAME=a=b"),
    ),
    (
        "$(pod-ip)",
        "stored",
        |r| variable(r, "ADDRESS=10.0.0.7"),
        |r| variable(r, "ADDRESS=0.0.0.7"),
    ),
    (
        "$(host-ip)",
        "stored",
        |r| variable(r, "HOST=192.168.0.1"),
        |r| variable(r, "HOST=node"),
    ),
    (
        "allow_env_regex",
        "main",
        |r| variable(r, "WEB_SERVICE_HOST=10.0.0.1"),
        |r| variable(r, "WEB_SERVICE_HOST=evil.example"),
    ),
    (
        "allow_env_regex, terminal",
        "main",
        |r| variable(r, "TERM=xterm"),
        |r| variable(r, "TERM=other"),
    ),
];

const MOUNTS: &[Row] = &[
    (
        "fewer",
        "main",
        |r| drop(spec(r).Mounts.pop()),
        |r| spec(r).Mounts.push(oci::Mount::default()),
    ),
    (
        "twice the same",
        "main",
        |r| spec(r).Mounts.reverse(),
        |r| {
            let again = spec(r).Mounts[0].clone();
            spec(r).Mounts.push(again);
        },
    ),
    ("destination", "main", same, |r| {
        mount(r, "/etc/hosts").destination = "/etc/passwd".into()
    }),
    ("type", "main", same, |r| {
        mount(r, "/etc/hosts").type_ = "tmpfs".into()
    }),
    ("options", "main", same, |r| {
        mount(r, "/etc/hosts").options.push("suid".into())
    }),
    ("options, order", "main", same, |r| {
        mount(r, "/etc/hosts").options.reverse()
    }),
    ("source", "main", same, |r| {
        mount(r, "/etc/hosts").source = "/etc/hosts".into()
    }),
    (
        "source, of another container",
        "main",
        |r| {
            let source = &mut mount(r, "/etc/hosts").source;
            *source = source.replace("0123456789abcdef", "fedcba9876543210");
        },
        |r| {
            let other = "b".repeat(64);
            let id = r.container_id.clone();
            let source = &mut mount(r, "/etc/hosts").source;
            *source = source.replace(&id, &other);
        },
    ),
    ("source of shm", "main", same, |r| {
        mount(r, "/dev/shm").source = "/dev/shm".into()
    }),
    (
        "cgroup extras",
        "main",
        |r| mount(r, "/sys/fs/cgroup").options.push("nsdelegate".into()),
        |r| mount(r, "/sys/fs/cgroup").options.push("rw".into()),
    ),
    ("sysfs", "main", same, |r| {
        mount(r, "/sys").options.retain(|option| option != "ro");
        mount(r, "/sys").options.push("rw".into());
    }),
    ("block-backed emptyDir", "stored", same, |r| {
        mount(r, "/scratch").source = "/run/kata-containers/sandbox/storage/other".into()
    }),
];

const STORAGES: &[Row] = &[
    ("number", "stored", same, |r| drop(r.storages.pop())),
    ("one more", "main", same, |r| {
        let more = stored("2.1").storages.pop().unwrap();
        r.storages.push(more);
    }),
    ("driver", "stored", same, |r| {
        r.storages[1].driver = "scsi".into()
    }),
    ("driver_options", "stored", same, |r| {
        drop(r.storages[1].driver_options.pop())
    }),
    ("fs_group", "stored", same, |r| {
        r.storages[1].fs_group = Some(FSGroup::default()).into()
    }),
    ("fstype", "stored", same, |r| {
        r.storages[1].fstype = "xfs".into()
    }),
    ("shared", "stored", same, |r| r.storages[1].shared = false),
    ("options", "stored", same, |r| {
        r.storages[1].options.push("suid".into())
    }),
    (
        "source of blk and its mount point",
        "stored",
        |r| block(r, "05", "MDU="),
        |r| block(r, "/dev/vda", "L2Rldi92ZGE="),
    ),
    ("mount point of blk", "stored", same, |r| {
        block(r, "05", "MDY=")
    }),
    ("source of tmpfs", "stored", same, |r| {
        r.storages[2].source = "/dev/vda".into()
    }),
    ("mount point of tmpfs", "stored", same, |r| {
        r.storages[2].mount_point = "/run/kata-containers/sandbox/ephemeral/../x".into()
    }),
    (
        "image, number and reference",
        "main",
        |r| {
            let pull = r.storages[0].clone();
            r.storages.push(pull);
            r.storages[0].source = "other".into();
        },
        |r| r.storages[0].fstype = "ext4".into(),
    ),
    ("image, fs_group", "main", same, |r| {
        r.storages[0].fs_group = Some(FSGroup::default()).into()
    }),
    ("image, shared", "main", same, |r| {
        r.storages[0].shared = true
    }),
    (
        "image, options",
        "main",
        |r| r.storages[0].driver_options.clear(),
        |r| r.storages[0].options.push("ro".into()),
    ),
    ("image, mount point", "main", same, |r| {
        r.storages[0].mount_point = "/run/kata-containers/other/rootfs".into()
    }),
];

fn block(request: &mut Request, source: &str, encoded: &str) {
    let place = format!("/run/kata-containers/sandbox/storage/{encoded}");
    request.storages[1].source = source.into();
    request.storages[1].mount_point.clone_from(&place);
    mount(request, "/scratch").source = place;
}

const DEVICES: &[Row] = &[
    (
        "container_path",
        "stored",
        |r| r.devices[0].id = "other".into(),
        |r| r.devices[0].container_path = "/dev/mem".into(),
    ),
    (
        "fewer",
        "stored",
        |r| drop(r.devices.remove(0)),
        |r| r.devices.push(vfio("1")),
    ),
    ("vfio, path", "stored", same, |r| {
        r.devices[1].container_path = "/dev/vfio/devices/vfiox".into()
    }),
    ("vfio, id", "stored", same, |r| {
        r.devices[1].id = "vfio1".into()
    }),
    ("vfio, type", "stored", same, |r| {
        r.devices[1].type_ = "vfio-pci".into()
    }),
    ("vfio, vm_path", "stored", same, |r| {
        r.devices[1].vm_path = "/dev/x".into()
    }),
    (
        "vfio, options",
        "stored",
        |r| r.devices[1].options.push("0000:02:00.0=02/00".into()),
        |r| r.devices[1].options.clear(),
    ),
    ("vfio, option's form", "stored", same, |r| {
        r.devices[1].options[0] = "host".into()
    }),
    ("vfio, annotation's number", "stored", same, |r| {
        drop(spec(r).Annotations.remove("cdi.k8s.io/vfio0"));
        note(r, "cdi.k8s.io/vfio1", "nvidia.com/gpu=0");
    }),
    ("vfio, annotation's value", "stored", same, |r| {
        note(r, "cdi.k8s.io/vfio0", "other.com/gpu=0")
    }),
    (
        "vfio, cold plug",
        "stored",
        |r| drop(r.devices.remove(1)),
        |r| {
            drop(r.devices.remove(1));
            drop(spec(r).Annotations.remove("cdi.k8s.io/vfio0"));
        },
    ),
];

fn check(rows: &[Row]) {
    for release in RELEASES {
        let policy = policy(release);
        for (name, container, allow, deny) in rows {
            let decided = |change: &fn(&mut Request)| {
                let mut request = match *container {
                    "stored" => stored(release),
                    other => request(release, other),
                };
                change(&mut request);
                // Nothing is committed: each row finds an empty state.
                policy.decide(CREATE, &request).map(drop)
            };
            assert!(
                decided(deny).is_err(),
                "{release} {container} {name}: allowed"
            );
            assert_eq!(decided(allow), Ok(()), "{release} {container} {name}");
        }
    }
}

#[test]
fn what_is_screened_is_denied() {
    check(SCREENED);
}

#[test]
fn settings_of_a_process_are_compared() {
    check(SETTINGS);
}

#[test]
fn annotations_are_compared() {
    check(NOTES);
}

#[test]
fn settings_of_linux_are_compared() {
    check(LINUX);
}

#[test]
fn variables_are_compared() {
    check(ENVIRONMENT);
}

#[test]
fn mounts_are_compared() {
    check(MOUNTS);
}

#[test]
fn storages_are_compared() {
    check(STORAGES);
}

#[test]
fn devices_are_compared() {
    check(DEVICES);
}
