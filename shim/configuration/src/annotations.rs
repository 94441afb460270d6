//! What a pod may change about its own VM.
//!
//! Pods carry Kata's annotations. Those of the hypervisor are honoured only when the
//! node's configuration lists them (`enable_annotations`, regular expressions that
//! must match the whole base name) and fail the pod otherwise: a pod that asked for
//! something and silently runs without it is worse than one that does not run.

use std::collections::BTreeMap;

use agent_protocol::initdata::POLICY_ANNOTATION;
use regex_lite::Regex;
use shim_oci::Spec;
use thiserror::Error;

use crate::Config;

const HYPERVISOR: &str = "io.katacontainers.config.hypervisor.";
const RUNTIME: &str = "io.katacontainers.config.runtime.";
const AGENT: &str = "io.katacontainers.config.agent.";

/// Why a pod's annotations were refused.
#[derive(Debug, Error)]
pub enum AnnotationError {
    /// The node does not allow it.
    #[error(
        "annotation {key} is not allowed on this node: remove it, or list {name:?} in enable_annotations of [hypervisor.qemu]"
    )]
    NotAllowed {
        /// The annotation.
        key: String,
        /// Its base name.
        name: String,
    },
    /// The node allows it, but it means nothing here.
    #[error("annotation {key} is not supported: {why}")]
    Unsupported {
        /// The annotation.
        key: String,
        /// The reason.
        why: &'static str,
    },
    /// The value does not fit.
    #[error("annotation {key} is {value:?}: expected {expected}")]
    BadValue {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
        /// What would fit.
        expected: &'static str,
    },
    /// The node's list holds something that is no regular expression.
    #[error(
        "enable_annotations of [hypervisor.qemu] holds {pattern:?}, which is no regular expression"
    )]
    BadPattern {
        /// The entry.
        pattern: String,
        /// The cause.
        #[source]
        source: regex_lite::Error,
    },
}

/// Changes the configuration as the pod's annotations say.
///
/// # Errors
///
/// [`AnnotationError`] names the first annotation that cannot be honoured.
pub fn apply(spec: &Spec, config: &mut Config) -> Result<(), AnnotationError> {
    let allowed = patterns(&config.qemu().enable_annotations)?;
    for (key, value) in &spec.annotations {
        let annotation = Annotation { key, value };
        if let Some(name) = key.strip_prefix(HYPERVISOR) {
            if !allowed.iter().any(|pattern| pattern.is_match(name)) {
                return Err(AnnotationError::NotAllowed {
                    key: key.clone(),
                    name: name.to_owned(),
                });
            }
            hypervisor(&annotation, name, config)?;
        } else if let Some(name) = key.strip_prefix(RUNTIME) {
            runtime(&annotation, name, config)?;
        } else if key == POLICY_ANNOTATION {
            config.policy = Some(value.clone());
        } else if key.starts_with(AGENT) {
            return Err(annotation.unsupported("the guest's agent takes no options from pods"));
        }
    }
    Ok(())
}

fn patterns(texts: &[String]) -> Result<Vec<Regex>, AnnotationError> {
    let anchored = |text: &String| {
        Regex::new(&format!("^(?:{text})$")).map_err(|source| AnnotationError::BadPattern {
            pattern: text.clone(),
            source,
        })
    };
    texts.iter().map(anchored).collect()
}

fn hypervisor(
    annotation: &Annotation<'_>,
    name: &str,
    config: &mut Config,
) -> Result<(), AnnotationError> {
    let qemu = config.qemu_mut();
    match name {
        "default_vcpus" => {
            let vcpus: f32 = annotation.parse("a positive number of CPUs")?;
            if !(vcpus.is_finite() && vcpus > 0.0) {
                return Err(annotation.bad("a positive number of CPUs"));
            }
            qemu.default_vcpus = vcpus;
        }
        "default_memory" => {
            let memory: u32 = annotation.parse("a positive number of MiB")?;
            if memory == 0 {
                return Err(annotation.bad("a positive number of MiB"));
            }
            qemu.default_memory = memory;
        }
        "scratch_disk_mib" => qemu.scratch_disk_mib = annotation.parse("a number of MiB, or 0")?,
        "cc_init_data" => annotation.value.clone_into(&mut qemu.initdata),
        "kernel_params" | "kernel_verity_params" | "kernel" | "initrd" | "image" | "firmware" => {
            return Err(annotation.unsupported(
                "what boots is the node's installed guest image, unchanged and measured",
            ));
        }
        _ => return Err(annotation.unsupported("this runtime's configuration has no such key")),
    }
    Ok(())
}

fn runtime(
    annotation: &Annotation<'_>,
    name: &str,
    config: &mut Config,
) -> Result<(), AnnotationError> {
    match name {
        "create_container_timeout" => {
            let seconds: u32 = annotation.parse("a number of seconds")?;
            config.set_create_container_timeout(seconds.into());
        }
        "disable_guest_seccomp" => config.runtime.disable_guest_seccomp = annotation.flag()?,
        "sandbox_cgroup_only" => config.runtime.sandbox_cgroup_only = annotation.flag()?,
        "experimental_force_guest_pull" => {
            config.runtime.experimental_force_guest_pull = annotation.flag()?;
        }
        "emptydir_size_limits" => {
            let limits = empty_dir_limits(annotation.value);
            let expected = "volume=bytes,…, with Ki, Mi, Gi or Ti after the number if need be";
            config.runtime.empty_dir_limits = limits.ok_or_else(|| annotation.bad(expected))?;
        }
        "experimental" if annotation.value == "force_guest_pull" => {
            config.runtime.experimental_force_guest_pull = true;
        }
        _ => return Err(annotation.unsupported("this runtime's configuration has no such key")),
    }
    Ok(())
}

/// Sizes of volumes: `cache=1Gi,logs=500000`.
fn empty_dir_limits(text: &str) -> Option<BTreeMap<String, u64>> {
    const UNITS: [(&str, u32); 5] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("", 0)];
    let mut limits = BTreeMap::new();
    for entry in text.split(',') {
        let (name, size) = entry.trim().split_once('=')?;
        let unit = |(suffix, shift)| {
            size.strip_suffix(suffix)
                .map(|digits: &str| (digits, shift))
        };
        let (digits, shift) = UNITS.into_iter().find_map(unit)?;
        let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        let known = limits.insert(name.to_owned(), bytes).is_some();
        if known || name.is_empty() || bytes == 0 {
            return None;
        }
    }
    Some(limits)
}

struct Annotation<'a> {
    key: &'a str,
    value: &'a str,
}

impl Annotation<'_> {
    fn parse<T: std::str::FromStr>(&self, expected: &'static str) -> Result<T, AnnotationError> {
        self.value.parse().map_err(|_| self.bad(expected))
    }

    fn flag(&self) -> Result<bool, AnnotationError> {
        self.parse("true or false")
    }

    fn bad(&self, expected: &'static str) -> AnnotationError {
        AnnotationError::BadValue {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            expected,
        }
    }

    fn unsupported(&self, why: &'static str) -> AnnotationError {
        AnnotationError::Unsupported {
            key: self.key.to_owned(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
            ("agent.kernel_modules", "x"),
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
        let config = applied(&[], &[("runtime.emptydir_size_limits", text)]).unwrap();
        let limits: Vec<_> = config.runtime.empty_dir_limits.into_iter().collect();
        let expected = [("cache", 1 << 30), ("logs", 5000), ("tmp", 64 << 10)];
        assert_eq!(
            limits,
            expected.map(|(name, bytes)| (name.to_owned(), bytes))
        );
    }

    #[test]
    fn initdata_needs_permission_and_a_policy_none() {
        let initdata = [("hypervisor.cc_init_data", "H4sI")];
        assert!(applied(&[], &initdata).is_err());
        let config = applied(&["cc_init_data"], &initdata).unwrap();
        assert_eq!(config.qemu().initdata, "H4sI");
        assert_eq!(config.policy, None);
        let config = applied(&[], &[("agent.policy", "YWJj")]).unwrap();
        assert_eq!(config.policy.as_deref(), Some("YWJj"));
    }

    #[test]
    fn runtime_annotations_need_no_permission() {
        let config = applied(
            &[],
            &[
                ("runtime.create_container_timeout", "5"),
                ("runtime.experimental", "force_guest_pull"),
            ],
        )
        .unwrap();
        assert_eq!(config.create_container_timeout(), Duration::from_secs(5));
        assert!(config.force_guest_pull());
    }
}
