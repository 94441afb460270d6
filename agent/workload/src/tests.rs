use super::*;

fn spec(text: &str) -> Spec {
    serde_json::from_str(text).unwrap()
}

const ONE: &str = r#"{
    "ociVersion": "1.2.0",
    "process": {
        "args": ["sh", "-c", "true"], "cwd": "/", "env": ["A=b"],
        "user": {"uid": 5, "gid": 6, "additionalGids": [8, 7]},
        "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}],
        "oomScoreAdj": 1000
    },
    "root": {"path": "/run/kata-containers/c1/rootfs", "readonly": true},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}
    ],
    "linux": {
        "cgroupsPath": "/kata/c1",
        "resources": {"memory": {"limit": 1}},
        "maskedPaths": ["/b", "/a"],
        "namespaces": [{"type": "mount"}, {"type": "ipc", "path": "/run/sandbox-ns/ipc"}]
    }
}"#;

fn of(text: &str) -> ContainerDigests {
    workload(&spec(text), &[], &[], &PodFacts::default())
        .unwrap()
        .digests
}

/// Which parts differ.
fn differing(one: &ContainerDigests, other: &ContainerDigests) -> Vec<Part> {
    let parts = [
        (Process, one.process == other.process),
        (Environment, one.environment == other.environment),
        (Mounts, one.mounts == other.mounts),
        (Rights, one.rights == other.rights),
        (Settings, one.settings == other.settings),
    ];
    let differing = parts.into_iter().filter(|(_, same)| !same);
    differing.map(|(part, _)| part).collect()
}

#[test]
fn what_only_the_node_decides_changes_nothing() {
    for (from, to) in [
        (
            "/run/kata-containers/c1/rootfs",
            "/run/kata-containers/c2/rootfs",
        ),
        ("/kata/c1", "/kata/c2"),
        (r#""limit": 1"#, r#""limit": 2"#),
        (r#""oomScoreAdj": 1000"#, r#""oomScoreAdj": -997"#),
        (r#"["/b", "/a"]"#, r#"["/a", "/b"]"#),
        ("[8, 7]", "[7, 8]"),
        (
            r#"["CAP_KILL", "CAP_CHOWN"]"#,
            r#"["CAP_CHOWN", "CAP_KILL"]"#,
        ),
        (
            r#""options": ["nosuid"]"#,
            r#""options": ["nosuid", "nodev", "relatime"]"#,
        ),
        (r#""cwd": "/""#, r#""cwd": "/", "terminal": false"#),
        (r#""ociVersion": "1.2.0""#, r#""ociVersion": "1.2.1""#),
    ] {
        assert!(ONE.contains(from), "{from}");
        let other = of(&ONE.replacen(from, to, 1));
        assert_eq!(differing(&of(ONE), &other), [], "{from} → {to}");
    }
}

#[test]
fn each_change_of_what_the_owner_decides_is_told_by_its_part() {
    for (from, to, part) in [
        (r#""true""#, r#""false""#, Process),
        (r#""cwd": "/""#, r#""cwd": "/tmp""#, Process),
        (r#""cwd": "/""#, r#""cwd": "/", "terminal": true"#, Process),
        ("A=b", "A=c", Environment),
        (r#""uid": 5"#, r#""uid": 0"#, Rights),
        (r#""gid": 6"#, r#""gid": 0"#, Rights),
        ("[8, 7]", "[8]", Rights),
        (
            r#""CAP_KILL", "#,
            r#""CAP_KILL", "CAP_SYS_ADMIN", "#,
            Rights,
        ),
        (r#""hard": 2"#, r#""hard": 3"#, Rights),
        (r#"["/b", "/a"]"#, r#"["/a"]"#, Rights),
        (
            r#""cwd": "/""#,
            r#""cwd": "/", "noNewPrivileges": true"#,
            Rights,
        ),
        (
            r#""maskedPaths""#,
            r#""seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "maskedPaths""#,
            Rights,
        ),
        (r#""readonly": true"#, r#""readonly": false"#, Mounts),
        (
            r#""options": ["nosuid"]"#,
            r#""options": ["nosuid", "ro"]"#,
            Mounts,
        ),
        (
            r#""mounts": ["#,
            r#""mounts": [{"destination": "/x", "type": "tmpfs", "source": "tmpfs"},"#,
            Mounts,
        ),
        (
            r#"{"type": "mount"}"#,
            r#"{"type": "mount"}, {"type": "pid"}"#,
            Settings,
        ),
        (
            r#"{"type": "mount"}"#,
            r#"{"type": "mount", "path": "/proc/1/fd/7"}"#,
            Settings,
        ),
    ] {
        assert!(ONE.contains(from), "{from}");
        let other = of(&ONE.replacen(from, to, 1));
        assert_eq!(differing(&of(ONE), &other), [part], "{from} → {to}");
    }
}

#[test]
fn a_sysctl_is_a_setting() {
    let sysctl = Sysctl {
        key: "net.core.somaxconn".to_owned(),
        value: "7".to_owned(),
    };
    let with = workload(&spec(ONE), &[sysctl], &[], &PodFacts::default()).unwrap();
    assert_eq!(differing(&of(ONE), &with.digests), [Settings]);
}

#[test]
fn a_field_that_the_table_lacks_is_not_passed_over() {
    for (from, to, field) in [
        (
            r#""cgroupsPath""#,
            r#""mountLabel": "x", "cgroupsPath""#,
            "linux.mountLabel",
        ),
        (
            r#""ociVersion""#,
            r#""hostname": "x", "ociVersion""#,
            "hostname",
        ),
        (
            r#""oomScoreAdj""#,
            r#""apparmorProfile": "x", "oomScoreAdj""#,
            "process.apparmorProfile",
        ),
        (
            r#""uid": 5"#,
            r#""uid": 5, "umask": 18"#,
            "process.user.umask",
        ),
    ] {
        let other = spec(&ONE.replacen(from, to, 1));
        let error = workload(&other, &[], &[], &PodFacts::default()).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn too_many_chosen_values_are_told_by_their_digest() {
    let few = vec!["A=1".to_owned()];
    assert_eq!(bounded(few.clone()), few);
    let many: Vec<_> = (0..1000).map(|n| format!("NAME_{n}=value")).collect();
    let told = bounded(many.clone());
    assert_eq!(told.len(), 1);
    let mut other = many;
    other[0].push('x');
    assert_ne!(bounded(other), told);
}

#[test]
fn the_page_has_a_row_for_each_field() {
    let page = include_str!("../../../docs/workload-digest.md");
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .collect();
    for (field, place) in TABLE {
        let row = rows
            .get(field)
            .unwrap_or_else(|| panic!("no row for {field}"));
        let words = match place {
            In(Process) => "process",
            In(Environment) => "environment",
            In(Mounts) => "mounts",
            In(Rights) => "rights",
            In(Settings) => "settings",
            Out(_) => "out",
        };
        assert!(row.starts_with(words), "{field}: {row}");
        if let Out(because) = place {
            assert!(row.contains(because), "{field}: {row}");
        }
    }
}
