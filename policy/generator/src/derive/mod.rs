//! A pod and its images → the policy document.
//!
//! What a kubelet asks of a container runtime, and what containerd makes of it, is computed here
//! for one pod, as far as it can be known before the pod runs. Each rule is held against
//! recordings of the real ones (`tests/replay`).

mod contents;
mod environment;
mod mounts;
mod process;
mod rights;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use policy_engine::document::{self, Document, GrantList, Stage};
pub(crate) use process::needs_users;

use crate::{
    images::Image,
    inputs::{Inputs, Workload},
    pod::{Container, ContainerRestart},
    problem::{Problem, Severity},
};

/// Where a container leaves its termination message unless it says another place.
const TERMINATION: &str = "/dev/termination-log";

/// How values from Secrets are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Secrets {
    /// By a salted digest.
    #[default]
    Digest,
    /// Any value.
    Open,
}

/// What the owner chooses, beside what the files say.
#[derive(Debug, Clone)]
pub struct Choices {
    /// How values from Secrets are told.
    pub secrets: Secrets,
    /// What salts are made of, beside the place of a value.
    pub salt: String,
    /// The host may read what containers write.
    pub logs: bool,
    /// Kubernetes mounts the token of a service account where the pod does not say otherwise.
    pub service_account: bool,
    /// The contents of ConfigMaps are bound.
    pub contents: bool,
    /// The version of the policy.
    pub version: u64,
    /// The digests of the rules that may judge by it.
    pub rules: BTreeSet<String>,
    /// What the guest refuses unless it is allowed by name.
    pub grants: GrantList,
}

/// A pod's containers with their stage, and where each is in the pod.
pub(crate) fn containers(workload: &Workload) -> Vec<(Stage, String, &Container)> {
    let spec = &workload.template.spec;
    let init = spec.init_containers.iter().enumerate();
    let init = init.map(|(number, container)| {
        let stage = match container.restart_policy {
            ContainerRestart::Always => Stage::Sidecar,
            _ => Stage::Init,
        };
        (stage, format!("spec.initContainers[{number}]"), container)
    });
    let apps = spec.containers.iter().enumerate();
    let apps = apps.map(|(number, container)| {
        let at = format!("spec.containers[{number}]");
        (Stage::App, at, container)
    });
    init.chain(apps).collect()
}

/// What a document is derived from.
pub(crate) struct Derivation<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) workload: &'a Workload,
    pub(crate) choices: &'a Choices,
    /// Images, by the name that containers call them by.
    pub(crate) images: &'a BTreeMap<String, Image>,
    /// What was wrong.
    pub(crate) problems: Vec<Problem>,
}

impl Derivation<'_> {
    /// Derives the document; where there are errors among the problems, it is not to be used.
    pub(crate) fn document(&mut self) -> Document {
        let (choices, workload) = (self.choices, self.workload);
        self.check_pod();
        let volumes = self.volumes();
        let mut containers = Vec::new();
        for (stage, at, container) in self::containers(workload) {
            // An image that could not be found was told of before.
            if let Some(image) = self.images.get(&container.image) {
                containers.push(self.container(stage, &at, container, image));
            }
        }
        let used = |name: &String| {
            let mut mounts = containers.iter().flat_map(|one| &one.mounts);
            mounts.any(|mount| {
                let volume = mount.volume.as_deref().unwrap_or_default();
                volume.split('/').next() == Some(name)
            })
        };
        let spec = &workload.template.spec;
        Document {
            version: choices.version,
            rules: choices.rules.clone(),
            pod: document::Pod {
                namespace: self.namespace().map(str::to_owned),
                name: workload.pod_name.clone(),
                share_processes: spec.share_process_namespace,
                sysctls: rights::sysctls(&spec.security_context.sysctls),
                volumes: volumes.into_iter().filter(|(name, _)| used(name)).collect(),
            },
            containers,
            ephemeral: Vec::new(),
            grants: choices.grants.clone(),
        }
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        let own = self.workload.template.metadata.namespace.as_deref();
        own.or(self.workload.namespace.as_deref())
    }

    fn error(&mut self, field: &str, message: impl Into<String>) {
        self.tell(field, message.into(), Severity::Error);
    }

    fn warn(&mut self, field: &str, message: impl Into<String>) {
        self.tell(field, message.into(), Severity::Warning);
    }

    fn tell(&mut self, field: &str, message: String, severity: Severity) {
        let problem = self
            .inputs
            .problem_of(self.workload, field, message, severity);
        self.problems.push(problem);
    }

    fn check_pod(&mut self) {
        let spec = &self.workload.template.spec;
        for (there, field) in [
            (spec.host_network, "hostNetwork"),
            (spec.host_pid, "hostPID"),
            (spec.host_ipc, "hostIPC"),
        ] {
            if there {
                let message = "cannot be given to a pod in a VM of its own: remove it";
                self.error(&format!("spec.{field}"), message);
            }
        }
        if spec.host_users == Some(false) {
            let message = "user namespaces are not supported in the guest: remove it";
            self.error("spec.hostUsers", message);
        }
        if !spec.ephemeral_containers.is_empty() {
            let message = "the policy allows no container that is added while the pod runs";
            self.warn("spec.ephemeralContainers", message);
        }
        if spec.containers.is_empty() {
            self.error("spec.containers", "the pod has no containers");
        }
        let windows = spec.security_context.windows_options;
        if windows.0 {
            let message = "guests run Linux only: remove it";
            self.error("spec.securityContext.windowsOptions", message);
        }
        self.check_names();
    }

    fn check_names(&mut self) {
        let mut names = BTreeSet::new();
        for (_, at, container) in containers(self.workload) {
            if container.name.is_empty() {
                self.error(&format!("{at}.name"), "the container has no name");
            } else if !names.insert(&container.name) {
                let message = format!("two containers are called {}", container.name);
                self.error(&format!("{at}.name"), message);
            }
            if container.image.is_empty() {
                self.error(&format!("{at}.image"), "the container has no image");
            }
        }
    }

    fn container(
        &mut self,
        stage: Stage,
        at: &str,
        container: &Container,
        image: &Image,
    ) -> document::Container {
        let environment = self.environment(at, container, image);
        let exec = self.exec(container, &environment);
        let mut made = document::Container {
            name: container.name.clone(),
            stage,
            image: image.reference.clone(),
            args: self.args(at, container, image, &environment),
            cwd: process::cwd(container, image),
            terminal: container.tty,
            user: self.user(at, container, image),
            rights: self.rights(at, container),
            read_only_root: container.security_context.read_only_root,
            mounts: self.mounts(at, container, image, &environment),
            exec,
            signals: self.signals(at, container, image),
            stdin: container.stdin,
            logs: self.choices.logs,
            termination_path: termination_path(container),
            termination_message: self.choices.logs,
            without_service_links: self.workload.template.spec.enable_service_links == Some(false),
            ..document::Container::default()
        };
        made.env = self.variables(container, environment, image);
        made
    }
}

fn termination_path(container: &Container) -> Option<String> {
    let path = container.termination_path.as_deref();
    let path = path.filter(|path| !path.is_empty() && *path != TERMINATION);
    path.map(str::to_owned)
}
