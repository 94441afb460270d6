//! What a document's container must be in the guest: its [`Workload`], so far as it is known
//! before the pod runs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    capabilities::{self, Processes},
    defaults,
    document::{Container, Mount, Origin, Pod, PodName, Seccomp, Variable},
    environment::{self, PodFacts},
    kernel_paths::{self, Administrates},
    seccomp,
    workload::{Part, Workload, sorted},
};

/// What the files of an image say of the user that a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfImage {
    /// The user's home in `/etc/passwd`; none if that was not read.
    pub home: Option<String>,
    /// Further groups of the user in `/etc/group`, without its first one.
    pub groups: BTreeSet<u32>,
}

/// What a container must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its normal form.
    pub workload: Workload,
    /// Parts whose digest depends on what nobody knows before the pod runs.
    pub open: BTreeSet<Part>,
}

/// A mount in its normal form (`docs/workload-digest.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormalMount {
    /// Where.
    pub destination: String,
    /// What: a volume, files of the host, a file system.
    pub what: String,
    /// How, without what the guest does anyway; sorted.
    pub options: Vec<String>,
}

/// What a termination message is in the normal form: a file of the guest's own, where containerd
/// tells the guest of it.
pub(crate) const TERMINATION_MESSAGE: &str = "termination message";
/// What files of the host are in it.
pub(crate) const HOST_FILES: &str = "files of the host";

impl Container {
    /// The whole of what it must be, with the values of the document in place of the pod's.
    #[must_use]
    pub fn expected(&self, pod: &Pod, image: &OfImage) -> Expected {
        let facts = facts_of(pod);
        let mut workload = Workload::default();
        let mut open = BTreeSet::new();
        workload.put(Part::Process, "process.args", json!(self.args));
        workload.put(Part::Process, "process.cwd", json!(self.directory()));
        workload.put(Part::Process, "process.terminal", json!(self.terminal));
        match self.expected_environment(image, &facts) {
            Some(fixed) => workload.put(Part::Environment, "process.env", json!(fixed)),
            None => {
                open.insert(Part::Environment);
            }
        }
        workload.put(Part::Mounts, "root.readonly", json!(self.read_only_root));
        workload.put(
            Part::Mounts,
            "mounts",
            json!(self.expected_mounts(pod, &facts)),
        );
        if let Seccomp::Digest(_) = self.rights.seccomp {
            open.insert(Part::Rights);
        }
        for (field, value) in self.expected_rights(pod, image) {
            workload.put(Part::Rights, field, value);
        }
        let namespaces = defaults::namespaces(self.shares_processes(pod));
        workload.put(Part::Settings, "linux.namespaces", json!(namespaces));
        Expected { workload, open }
    }

    /// Where it starts.
    pub(crate) fn directory(&self) -> &str {
        self.cwd.as_deref().unwrap_or("/")
    }

    pub(crate) fn shares_processes(&self, pod: &Pod) -> bool {
        pod.share_processes || self.target.is_some()
    }

    /// Where it leaves its termination message.
    pub(crate) fn termination_log(&self) -> &str {
        self.termination_path
            .as_deref()
            .unwrap_or(defaults::TERMINATION_LOG)
    }

    /// The environment in its normal form; `None` if a value in it is not known.
    fn expected_environment(&self, image: &OfImage, facts: &PodFacts) -> Option<Vec<String>> {
        let mut fixed = Vec::new();
        let mut literals = Vec::new();
        for (name, variable) in &self.env {
            match variable {
                Variable::Is(value) => literals.push(format!("{name}={value}")),
                Variable::From(Origin::Field(field)) if is_told_by_field(field) => {
                    fixed.push(format!("{name} from {field}"));
                }
                Variable::From(_) => return None,
            }
        }
        if !self.env.contains_key("HOME") {
            literals.push(format!("HOME={}", image.home.as_ref()?));
        }
        let normal = environment::normal(literals, facts);
        fixed.extend(normal.fixed);
        if !self.env.contains_key("HOSTNAME") {
            fixed.push("HOSTNAME from spec.hostname".to_owned());
        }
        // By their names, as the guest tells them.
        fixed.sort_by(|one, other| name_of(one).cmp(name_of(other)));
        Some(fixed)
    }

    /// All mounts, in their order.
    pub(crate) fn expected_mounts(&self, pod: &Pod, facts: &PodFacts) -> Vec<NormalMount> {
        let privileged = self.rights.privileged;
        let kernel = defaults::KERNEL_MOUNTS.iter().map(|mount| {
            let read_only = mount.read_only_unless_privileged && !privileged;
            let options = mount.options.iter().copied();
            let options = options.chain(read_only.then_some("ro"));
            NormalMount {
                destination: mount.at.to_owned(),
                what: mount.kind.to_owned(),
                options: options.map(str::to_owned).collect(),
            }
        });
        let of_document = |of_image| {
            let mounts = self
                .mounts
                .iter()
                .filter(move |one| one.of_image == of_image);
            mounts.map(|mount| named(mount, pod, facts))
        };
        let mut others: Vec<_> = of_document(false).collect();
        others.extend(self.of_kubernetes());
        others.extend(of_document(true));
        // As containerd sorts them; equal ones keep their order.
        others.sort_by_key(|mount| mount.destination.matches('/').count());
        kernel.chain(others).collect()
    }

    /// The guest's own file, in which nothing runs.
    fn of_termination(&self) -> NormalMount {
        NormalMount {
            options: ["noexec", "nosuid"].map(str::to_owned).into(),
            ..normal(self.termination_log(), TERMINATION_MESSAGE, false)
        }
    }

    /// The files and the memory that Kubernetes gives every container, unless the pod has
    /// something else there.
    fn of_kubernetes(&self) -> Vec<NormalMount> {
        let read_only = self.read_only_root;
        let all = [
            normal(defaults::HOSTS, HOST_FILES, false),
            self.of_termination(),
            normal(defaults::HOSTNAME, HOST_FILES, read_only),
            normal(defaults::RESOLV_CONF, HOST_FILES, read_only),
            normal(defaults::SHARED_MEMORY, "shared memory of the pod", false),
        ];
        let is_free = |mount: &NormalMount| {
            let mut named = self.mounts.iter().filter(|one| !one.of_image);
            !named.any(|one| one.at == mount.destination)
        };
        all.into_iter().filter(is_free).collect()
    }
}

impl Container {
    /// Capabilities that it has, after [the table](crate::capabilities).
    pub(crate) fn held(&self, pod: &Pod) -> BTreeSet<String> {
        let processes = if self.shares_processes(pod) {
            Processes::Shared
        } else {
            Processes::Own
        };
        let names: Vec<String> = match &self.rights.capabilities {
            _ if self.rights.privileged => {
                let all = capabilities::TABLE.iter();
                all.map(|(name, _)| (*name).to_owned()).collect()
            }
            Some(named) => named.iter().cloned().collect(),
            None => defaults::CAPABILITIES.map(str::to_owned).into(),
        };
        let all = capabilities::asks_for_all(&names);
        capabilities::of_asked(names.iter().cloned(), all, processes)
            // One that no container gets: the guest refuses the request itself.
            .unwrap_or_else(|_| names.into_iter().collect())
    }

    /// The filter of system calls that it gets, if the document says which.
    #[must_use]
    pub fn filter(&self, pod: &Pod) -> Option<Value> {
        let default = self.rights.seccomp == Seccomp::RuntimeDefault;
        default.then(|| seccomp::runtime_default(&self.held(pod)))
    }

    fn expected_rights(&self, pod: &Pod, image: &OfImage) -> Vec<(&'static str, Value)> {
        let held = self.held(pod);
        let administrates = if held.contains("CAP_SYS_ADMIN") {
            Administrates::Yes
        } else {
            Administrates::No
        };
        let open = self.rights.privileged || self.rights.unmasked;
        let asked = |paths: &[&str]| -> Vec<String> {
            let paths = paths.iter().filter(|_| !open);
            paths.map(|&path| path.to_owned()).collect()
        };
        let masked = kernel_paths::masked(asked(&defaults::MASKED), administrates);
        let read_only = kernel_paths::read_only(asked(&defaults::READ_ONLY), administrates);
        let sets = json!({ "bounding": held, "effective": held, "permitted": held });
        vec![
            ("process.user.uid", json!(self.user.uid)),
            ("process.user.gid", json!(self.user.gid)),
            (
                "process.user.additionalGids",
                sorted(json!(self.groups(&image.groups))),
            ),
            ("process.capabilities", sorted(sets)),
            (
                "process.noNewPrivileges",
                json!(self.rights.no_new_privileges),
            ),
            ("linux.maskedPaths", sorted(json!(masked))),
            ("linux.readonlyPaths", sorted(json!(read_only))),
            (
                "linux.seccomp",
                self.filter(pod).map(sorted).unwrap_or_default(),
            ),
        ]
    }

    /// All groups of its processes.
    pub(crate) fn groups(&self, of_image: &BTreeSet<u32>) -> BTreeSet<u32> {
        let own = of_image.iter().filter(|_| !self.user.strict);
        let asked = self.user.groups.iter().chain([&self.user.gid]);
        own.chain(asked).copied().collect()
    }
}

/// What the document itself says of its pod.
fn facts_of(pod: &Pod) -> PodFacts {
    let mut facts = PodFacts::default();
    if let Some(PodName::Is(name)) = &pod.name {
        facts.add("metadata.name", name);
    }
    facts.add(
        "metadata.namespace",
        pod.namespace.as_deref().unwrap_or_default(),
    );
    facts
}

/// Whether the guest knows the field, and tells it instead of its value.
fn is_told_by_field(field: &str) -> bool {
    matches!(
        field,
        "metadata.name" | "metadata.namespace" | "metadata.uid" | "status.podIP"
    )
}

fn name_of(entry: &str) -> &str {
    let end = entry.find(['=', ' ']).unwrap_or(entry.len());
    entry.get(..end).unwrap_or_default()
}

fn named(mount: &Mount, pod: &Pod, facts: &PodFacts) -> NormalMount {
    let what = match &mount.volume {
        None => HOST_FILES.to_owned(),
        Some(volume) => volume_of(volume, pod, facts),
    };
    let mut normal = normal(&mount.at, &what, mount.read_only);
    normal.options.extend(mount.propagation.clone());
    normal
}

/// The normal form of a volume, or of a part of it. Of its parts, those count as the pod's own
/// that a document spells `$(metadata.name)`, or that are what the pod is called.
fn volume_of(volume: &str, pod: &Pod, facts: &PodFacts) -> String {
    let mut parts = volume.split('/');
    let name = parts.next().unwrap_or_default();
    let in_memory = pod.volumes.get(name).is_some_and(|volume| volume.memory);
    let mut what = if in_memory {
        format!("volume of the pod ephemeral/{name}")
    } else {
        format!("volume {name}")
    };
    for part in parts {
        let field = part
            .strip_prefix("$(")
            .and_then(|rest| rest.strip_suffix(')'));
        let own = field
            .or_else(|| facts.field(part))
            .map(|field| format!("\0{field}"));
        what.push('/');
        what.push_str(own.as_deref().unwrap_or(part));
    }
    what
}

fn normal(at: &str, what: &str, read_only: bool) -> NormalMount {
    let options = read_only.then(|| "ro".to_owned());
    NormalMount {
        destination: at.to_owned(),
        what: what.to_owned(),
        options: options.into_iter().collect(),
    }
}
