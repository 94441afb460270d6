//! Mounts as containerd and kubelet make them, and what becomes of them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use agent_protocol::id::{ContainerId, SandboxId};
use nix::mount::MsFlags;
use shim_oci::{Mount, Spec};

use crate::{
    PodVolumes, VolumeError, VolumeOwner, VolumePlan,
    plan::{GUEST_SHM, SHARE, TERMINATION_PATH, plan, shm_storage},
    tests::{mount_at, with_own_mounts},
};

const EPHEMERAL: &str = "/run/kata-containers/sandbox/ephemeral";

fn mount(destination: &str, source: &Path, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: source.display().to_string(),
        kind: "bind".to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

fn spec(mounts: &[(&str, &Path)]) -> Spec {
    let options = ["rbind", "rprivate", "rw"];
    let mounts = mounts
        .iter()
        .map(|(destination, source)| mount(destination, source, &options));
    Spec {
        mounts: mounts.collect(),
        ..Spec::default()
    }
}

fn planned_in(pod: &PodVolumes, container: &str, spec: &Spec) -> Result<VolumePlan, VolumeError> {
    let owner = VolumeOwner {
        container: &ContainerId::parse(container).unwrap(),
        sandbox: &SandboxId::parse("s1").unwrap(),
        pod,
        limits: &BTreeMap::from([("small".to_owned(), 4096)]),
    };
    plan(owner, spec)
}

fn planned(spec: &Spec) -> Result<VolumePlan, VolumeError> {
    planned_in(&PodVolumes::default(), "c1", spec)
}

fn sources(plan: &VolumePlan) -> Vec<&str> {
    plan.mounts
        .iter()
        .map(|mount| mount.source.as_str())
        .collect()
}

/// A pod's directory in a kubelet's, and the folder of everything.
fn pod_directory() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let pod = folder.path().canonicalize().unwrap().join("pods/uid");
    (folder, pod)
}

fn volume(pod: &Path, plugin: &str, name: &str) -> PathBuf {
    let volume = pod
        .join("volumes")
        .join(format!("kubernetes.io~{plugin}"))
        .join(name);
    fs::create_dir_all(&volume).unwrap();
    volume
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// As the kubelet binds a part of a volume.
fn bind_part(pod: &Path, what: &Path, name: &str, number: u32) -> PathBuf {
    let parts = pod.join("volume-subpaths").join(name).join("main");
    fs::create_dir_all(&parts).unwrap();
    let part = parts.join(number.to_string());
    if what.is_dir() {
        fs::create_dir(&part).unwrap();
    } else {
        fs::write(&part, "").unwrap();
    }
    mount_at(Some(what), &part, None, MsFlags::MS_BIND, None);
    part
}

#[test]
fn shared_memory_is_the_pods_and_system_mounts_stay() {
    let shm = Path::new("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s1/shm");
    let mut spec = spec(&[("/dev/shm", shm)]);
    spec.mounts.push(Mount {
        destination: "/proc".into(),
        source: "proc".into(),
        kind: "proc".into(),
        options: vec![],
    });
    let plan = planned(&spec).unwrap();
    assert_eq!(sources(&plan), [GUEST_SHM, "proc"]);
    assert_eq!(plan.mounts[0].options, ["rbind"]);
    assert!(plan.copies.is_empty() && plan.storages.is_empty());
}

#[test]
fn what_is_made_for_a_container_is_copied_for_it_under_a_name_that_policies_know() {
    let (_folder, pod) = pod_directory();
    let log = pod.join("containers/main/0f0a3767");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    let hosts = pod.join("etc-hosts");
    let config = volume(&pod, "configmap", "settings");
    for file in [&log, &hosts, &config.join("key")] {
        fs::write(file, "x").unwrap();
    }
    let containerd = pod.join("../io.containerd.grpc.v1.cri");
    fs::create_dir_all(&containerd).unwrap();
    let containerd = containerd.canonicalize().unwrap();
    let volume = containerd.join("containers/c1/volumes/v");
    let resolv = containerd.join("sandboxes/s1/resolv.conf");
    for directory in [&volume, &resolv] {
        fs::create_dir_all(directory).unwrap();
    }
    let of_containerd = planned(&self::spec(&[
        ("/data", &volume),
        ("/etc/resolv.conf", &resolv),
    ]));
    let of_containerd = of_containerd.unwrap();
    for source in sources(&of_containerd) {
        assert!(source.starts_with(&format!("{SHARE}/c1-")), "{source}");
    }
    let mut spec = spec(&[
        ("/etc/hosts", &hosts),
        ("/dev/termination-log", &log),
        ("/config", &config),
    ]);
    spec.annotations
        .insert(TERMINATION_PATH.into(), "/dev/termination-log".into());
    let known = PodVolumes::default();
    let plan = planned_in(&known, "c1", &spec).unwrap();
    assert_eq!(plan.copies.len(), 3);
    for (source, last) in sources(&plan)
        .into_iter()
        .zip(["hosts", "termination-log", "config"])
    {
        let name = source.strip_prefix(&format!("{SHARE}/c1-")).unwrap();
        assert_eq!(
            name.split_once('-')
                .map(|(digits, rest)| (digits.len(), rest)),
            Some((16, last))
        );
        assert!(
            plan.copies
                .iter()
                .any(|copy| copy.guest == source && copy.copied.is_none())
        );
    }
    assert_eq!(plan.termination_log.unwrap().path(), log);
    // Another container has its own.
    let other = planned_in(&known, "c2", &spec).unwrap();
    assert!(
        sources(&other)
            .iter()
            .all(|source| source.starts_with(&format!("{SHARE}/c2-")))
    );
}

#[test]
fn an_empty_dir_is_one_place_for_the_whole_pod() {
    let (_folder, pod) = pod_directory();
    let disk = volume(&pod, "empty-dir", "disk");
    set_mode(&disk, 0o777);
    let known = PodVolumes::default();
    let spec = spec(&[("/cache", &disk), ("/again", &disk)]);
    for container in ["init", "main"] {
        let plan = planned_in(&known, container, &spec).unwrap();
        assert!(plan.copies.is_empty());
        let [storage] = &plan.storages[..] else {
            panic!("{:?}", plan.storages);
        };
        assert_eq!(storage.mount_point, format!("{SHARE}/s1/rootfs/local/disk"));
        assert_eq!(
            (storage.driver.as_str(), &storage.options[..]),
            ("local", &["mode=0777".to_owned()][..])
        );
        assert_eq!(sources(&plan), [&storage.mount_point, &storage.mount_point]);
    }
    // One of that name that lies elsewhere is another.
    let (_other_folder, other) = pod_directory();
    let other = volume(&other, "empty-dir", "disk");
    let error = planned_in(&known, "c3", &self::spec(&[("/v", &other)])).unwrap_err();
    assert!(matches!(error, VolumeError::SameName { .. }), "{error}");
}

#[test]
fn an_empty_dir_has_the_limit_permissions_and_group_that_it_has_on_the_node() {
    let (_folder, pod) = pod_directory();
    for (name, mode, group, expected) in [
        ("small", 0o777, 0, &["mode=0777", "size=4096"][..]),
        ("other", 0o1777, 0, &["mode=1777"]),
        ("grouped", 0o2777, 2000, &["mode=0777", "fsgid=2000"]),
        ("root-group", 0o2777, 0, &["mode=0777", "fsgid=0"]),
    ] {
        let volume = volume(&pod, "empty-dir", name);
        if chown(&volume, None, Some(group)).is_err() {
            eprintln!("skipped: no group can be given here");
            return;
        }
        set_mode(&volume, mode);
        let plan = planned(&spec(&[("/v", &volume)])).unwrap();
        assert_eq!(plan.storages[0].options, expected, "{name}");
    }
}

/// The mounts of the recorded pod `emptydirs`.
#[test]
fn what_lies_below_a_volume_is_that_volume_whatever_path_leads_there() {
    let (folder, pod) = pod_directory();
    with_own_mounts(move || {
        let disk = volume(&pod, "empty-dir", "disk");
        set_mode(&disk, 0o777);
        let memory = volume(&pod, "empty-dir", "memory");
        let unlimited = volume(&pod, "empty-dir", "unlimited");
        for (point, options) in [(&memory, "size=262144k"), (&unlimited, "mode=0700")] {
            mount_at(None, point, Some("tmpfs"), MsFlags::empty(), Some(options));
        }
        fs::create_dir_all(disk.join("data/deep")).unwrap();
        fs::create_dir_all(disk.join("emptydirs/made")).unwrap();
        fs::create_dir(memory.join("half")).unwrap();
        fs::write(disk.join("data/deep/file"), "").unwrap();
        let parts = [
            (&disk, "data"),
            (&disk, "data/deep/file"),
            (&disk, "emptydirs/made"),
            (&memory, "half"),
        ];
        let parts: Vec<PathBuf> = (1..)
            .zip(parts)
            .map(|(number, (volume, part))| bind_part(&pod, &volume.join(part), "v", number))
            .collect();
        let known = PodVolumes::default();
        let main = spec(&[
            ("/part", &parts[0]),
            ("/whole", &disk),
            ("/one-file", &parts[1]),
            ("/expanded", &parts[2]),
            ("/dev/shm", &memory),
            ("/tmp", &unlimited),
            ("/half", &parts[3]),
        ]);
        let plan = planned_in(&known, "main", &main).unwrap();
        assert!(plan.copies.is_empty());
        let local = format!("{SHARE}/s1/rootfs/local/disk");
        let expected = [
            &format!("{local}/data"),
            &local,
            &format!("{local}/data/deep/file"),
            &format!("{local}/emptydirs/made"),
            &format!("{EPHEMERAL}/memory"),
            &format!("{EPHEMERAL}/unlimited"),
            &format!("{EPHEMERAL}/memory/half"),
        ];
        assert_eq!(sources(&plan), expected);
        assert_eq!(plan.mounts[4].options, ["rbind", "rprivate", "rw"]);
        let options = |end: &str| {
            let mut all = plan.storages.iter();
            &all.find(|one| one.mount_point.ends_with(end))
                .unwrap()
                .options
        };
        assert_eq!(options("/memory")[..], ["size=268435456"]);
        assert_eq!(options("/unlimited")[..], ["mode=0700"]);
        // A container that has nothing but a part makes the same volume.
        let part = spec(&[("/part", &parts[0])]);
        for known in [&known, &PodVolumes::default()] {
            let plan = planned_in(known, "other", &part).unwrap();
            assert_eq!(sources(&plan), [expected[0]]);
            assert_eq!(plan.storages[0].mount_point, local);
        }
        // A part of no volume that is there.
        fs::rename(pod.join("volumes"), folder.path().join("moved")).unwrap();
        let error = planned(&part).unwrap_err();
        assert!(matches!(error, VolumeError::Unknown { .. }), "{error}");
        assert!(error.to_string().contains("/part"), "{error}");
    });
}

#[test]
fn a_path_of_the_node_is_copied_once_for_the_pod() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("directory/below")).unwrap();
    let directory = root.join("directory");
    let below = directory.join("below");
    let known = PodVolumes::default();
    let one = spec(&[("/below", &below), ("/directory", &directory)]);
    let plan = planned_in(&known, "one", &one).unwrap();
    let [part, whole] = sources(&plan)[..] else {
        panic!()
    };
    let name = whole.strip_prefix(&format!("{SHARE}/sandbox-")).unwrap();
    assert!(name.ends_with("-directory"), "{name}");
    assert_eq!(part, format!("{whole}/below"));
    assert!(plan.copies[0].copied.is_some() && plan.copies[1].only_directory);
    let two = planned_in(&known, "two", &spec(&[("/other", &directory)])).unwrap();
    assert_eq!(sources(&two), [whole]);

    // The part first: writes to one of two copies would not show in the other.
    let known = PodVolumes::default();
    planned_in(&known, "one", &spec(&[("/below", &below)])).unwrap();
    let error = planned_in(&known, "two", &spec(&[("/directory", &directory)])).unwrap_err();
    assert!(matches!(error, VolumeError::Overlap { .. }), "{error}");
    let known = PodVolumes::default();
    for (container, path) in [("one", &below), ("two", &directory)] {
        let mut spec = Spec::default();
        spec.mounts.push(mount("/v", path, &["rbind", "ro"]));
        planned_in(&known, container, &spec).unwrap();
    }
}

#[test]
fn what_the_node_mounts_read_only_is_read_only_in_the_guest() {
    let (_folder, pod) = pod_directory();
    with_own_mounts(move || {
        let volume = volume(&pod, "empty-dir", "fixed");
        mount_at(None, &volume, Some("tmpfs"), MsFlags::MS_RDONLY, None);
        let plan = planned(&spec(&[("/v", &volume)])).unwrap();
        assert_eq!(plan.mounts[0].options, ["rbind", "rprivate", "ro"]);
    });
}

#[test]
fn what_only_the_host_can_serve_is_refused_by_name() {
    let (folder, pod) = pod_directory();
    let socket = folder.path().join("s.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = |spec: &Spec| planned(spec).unwrap_err().to_string();
    let text = refused(&spec(&[("/s", &socket)]));
    assert!(text.contains("s.sock") && text.contains("socket"), "{text}");
    let text = refused(&spec(&[("/n", Path::new("/dev/null"))]));
    assert!(text.contains("device"), "{text}");
    let text = refused(&spec(&[("/dev/shm", Path::new("/dev/shm"))]));
    assert!(text.contains("shared memory"), "{text}");
    assert!(planned(&spec(&[("/x", Path::new("/nonexistent"))])).is_err());
    let claim = volume(&pod, "csi", "claim").join("mount");
    fs::create_dir(&claim).unwrap();
    let text = refused(&spec(&[("/claim", &claim)]));
    assert!(text.contains("kubernetes.io~csi"), "{text}");
}

#[test]
fn a_source_behind_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    assert!(planned(&spec(&[("/v", &volume)])).is_ok());
    let link = folder.path().join("link");
    symlink(&volume, &link).unwrap();
    let error = planned(&spec(&[("/v", &link)])).unwrap_err();
    let VolumeError::Source { source, .. } = error else {
        panic!("{error}");
    };
    assert!(source.to_string().contains("symbolic link"), "{source}");
    // Not so for the pod's first container, whose mounts containerd makes up itself.
    let spec = spec(&[("/v", &link)]);
    assert!(planned_in(&PodVolumes::default(), "s1", &spec).is_ok());
}

#[test]
fn the_pods_shared_memory_is_what_policies_demand() {
    let storage = shm_storage();
    assert_eq!(
        storage.options,
        ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]
    );
    assert!(storage.fs_group.is_none() && !storage.shared);
}
