//! Annotations, as pods write them and as the page for people lists them.

use std::{collections::BTreeSet, time::Duration};

use agent_protocol::initdata::{ANNOTATION, POLICY_ANNOTATION};

use super::*;
use crate::keys::KEYS;

const PAGE: &str = include_str!("../../../../docs/configuration.md");
const INSTALLED: &str = include_str!("../../../../hack/node/configuration.toml");

fn applied(enabled: &[&str], annotations: &[(&str, &str)]) -> Result<Config, AnnotationError> {
    let mut config = Config::default();
    config.qemu_mut().enable_annotations = enabled.iter().map(|s| (*s).to_owned()).collect();
    let mut spec = Spec::default();
    for (key, value) in annotations {
        spec.annotations.insert(
            format!("io.katacontainers.config.{key}"),
            (*value).to_owned(),
        );
    }
    apply(&spec, &mut config).map(|()| config)
}

#[test]
fn enabled_annotations_change_the_vm() {
    let config = applied(
        &["default_.*"],
        &[
            ("hypervisor.default_memory", "768"),
            ("hypervisor.default_vcpus", "1.5"),
        ],
    )
    .unwrap();
    assert_eq!(config.qemu().default_memory, 768);
    assert!((config.qemu().default_vcpus - 1.5).abs() < f32::EPSILON);
}

#[test]
fn a_pattern_must_match_the_whole_name() {
    for (pattern, allowed) in [
        ("default_memory", true),
        ("default_.*", true),
        ("other|default_memory", true),
        ("default", false),
        ("memory", false),
    ] {
        let result = applied(&[pattern], &[("hypervisor.default_memory", "768")]);
        assert_eq!(result.is_ok(), allowed, "{pattern}");
    }
    assert!(matches!(
        applied(&[], &[("hypervisor.default_memory", "768")]),
        Err(AnnotationError::NotAllowed { .. })
    ));
}

#[test]
fn what_cannot_be_honoured_fails_the_pod() {
    let all = &[".*"];
    for (key, value) in [
        ("hypervisor.default_memory", "0"),
        ("hypervisor.default_memory", "-1"),
        ("hypervisor.default_vcpus", "NaN"),
        ("hypervisor.kernel_params", "quiet"),
        ("hypervisor.scratch_disk_mib", "1Gi"),
        ("runtime.emptydir_size_limits", "cache"),
        ("runtime.emptydir_size_limits", "cache=0"),
        ("runtime.emptydir_size_limits", "cache=1G"),
        ("runtime.emptydir_size_limits", "cache=-1"),
        ("runtime.emptydir_size_limits", "=1"),
        ("runtime.emptydir_size_limits", "a=1,a=2"),
        ("runtime.emptydir_size_limits", "a=99999999Ti"),
        ("hypervisor.path", "/bin/sh"),
        ("hypervisor.virtio_fs_extra_args", "[]"),
        ("runtime.sandbox_cgroup_only", "yes"),
        ("runtime.internetworking_model", "none"),
        ("runtime.experimental", "everything"),
        ("agent.kernel_modules", "x"),
        ("unknown_table.key", "x"),
        ("", "x"),
    ] {
        assert!(applied(all, &[(key, value)]).is_err(), "{key} {value}");
    }
    assert!(matches!(
        applied(&["("], &[]),
        Err(AnnotationError::BadPattern { .. })
    ));
}

#[test]
fn a_pod_that_may_sets_the_size_of_its_scratch_disk() {
    let annotation = [("hypervisor.scratch_disk_mib", "64")];
    let config = applied(&["scratch_disk_mib"], &annotation).unwrap();
    assert_eq!(config.qemu().scratch_disk_mib, 64);
    assert!(applied(&[], &annotation).is_err());
}

#[test]
fn volumes_have_limits_in_the_units_of_pods() {
    let text = "cache=1Gi, logs=5000,tmp=64Ki";
    let enabled = ["runtime.emptydir_size_limits"];
    let config = applied(&enabled, &[("runtime.emptydir_size_limits", text)]).unwrap();
    let limits: Vec<_> = config.runtime.empty_dir_limits.into_iter().collect();
    let expected = [("cache", 1 << 30), ("logs", 5000), ("tmp", 64 << 10)];
    assert_eq!(
        limits,
        expected.map(|(name, bytes)| (name.to_owned(), bytes))
    );
}

#[test]
fn initdata_and_policies_need_permission() {
    let initdata = [("hypervisor.cc_init_data", "H4sI")];
    assert!(applied(&[], &initdata).is_err());
    let config = applied(&["cc_init_data"], &initdata).unwrap();
    assert_eq!(config.qemu().initdata, "H4sI");
    assert_eq!(config.policy, None);
    let policy = [("agent.policy", "YWJj")];
    assert!(applied(&["policy"], &policy).is_err());
    let config = applied(&["agent.policy"], &policy).unwrap();
    assert_eq!(config.policy.as_deref(), Some("YWJj"));
}

#[test]
fn annotations_of_the_runtime_change_what_they_name() {
    let config = applied(
        &[".*"],
        &[
            ("runtime.create_container_timeout", "5"),
            ("runtime.experimental", "force_guest_pull"),
        ],
    )
    .unwrap();
    assert_eq!(config.create_container_timeout(), Duration::from_secs(5));
    assert!(config.force_guest_pull());
}

#[test]
fn every_annotation_needs_to_be_enabled_by_its_whole_name() {
    for known in KNOWN {
        let value = match known.name {
            "runtime.experimental" => "force_guest_pull",
            "runtime.experimental_force_guest_pull" => "true",
            "runtime.emptydir_size_limits" => "cache=1Gi",
            _ => "64",
        };
        let name = known.enabled_as();
        let annotation = [(known.name, value)];
        assert!(applied(&[name], &annotation).is_ok(), "{name}");
        for other in ["", &name[1..], &format!("{name}x"), "no_such_key"] {
            let refused = applied(&[other], &annotation);
            let Err(AnnotationError::NotAllowed { name: said, .. }) = refused else {
                panic!("{other:?} enables {name}");
            };
            assert_eq!(said, name);
        }
    }
}

#[test]
fn what_weakens_node_or_guest_is_no_annotation_whatever_is_enabled() {
    for (name, why) in NEVER {
        for value in ["true", "false", "0", "none", ""] {
            let refused = applied(&[".*", name], &[(name, value)]);
            let Err(AnnotationError::Unsupported { why: said, .. }) = refused else {
                panic!("{name} is taken");
            };
            assert_eq!(said, *why);
        }
    }
    // Of the node's own keys a pod has those that are known, and no other.
    for (table, key, _) in KEYS {
        let name = match *table {
            "hypervisor.qemu" => format!("hypervisor.{key}"),
            "agent.kata" => format!("agent.{key}"),
            other => format!("{other}.{key}"),
        };
        let refused = applied(&[".*"], &[(&name, "true")]);
        let unknown = matches!(refused, Err(AnnotationError::Unsupported { .. }));
        let known = KNOWN.iter().any(|known| known.name == name);
        assert_ne!(known, unknown, "{name}");
    }
}

/// Cells of the rows of a table whose first cell is an annotation.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = PAGE.split_once(heading).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with('|'));
    let lines = table.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    };
    lines.map(cells).collect()
}

#[test]
fn the_page_lists_every_annotation_and_what_is_installed_as_enabled() {
    let installed: toml::Table = INSTALLED.parse().unwrap();
    let installed = &installed["hypervisor"]["qemu"]["enable_annotations"];
    let installed: BTreeSet<&str> = installed
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let listed = rows("## Annotations");
    assert_eq!(listed.len(), KNOWN.len());
    for (row, known) in listed.iter().zip(KNOWN) {
        assert_eq!(row[0], known.name);
        assert_eq!(row[1], known.enabled_as());
        let is_installed = installed.contains(known.enabled_as());
        assert_eq!(row[2], if is_installed { "yes" } else { "no" }, "{row:?}");
    }
    // Plain names, each of one annotation.
    for name in installed {
        assert!(KNOWN.iter().any(|known| known.enabled_as() == name));
    }
    let refused = rows("### Never");
    let refused: BTreeSet<&str> = refused.iter().flat_map(|row| row[0].split(", ")).collect();
    let never: BTreeSet<&str> = NEVER.iter().map(|(name, _)| *name).collect();
    assert_eq!(refused, never);
    for annotation in [ANNOTATION, POLICY_ANNOTATION] {
        let name = annotation.strip_prefix(PREFIX).unwrap();
        assert!(KNOWN.iter().any(|known| known.name == name), "{name}");
    }
}
