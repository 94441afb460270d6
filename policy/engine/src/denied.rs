//! Why a request is not done: a record for the owner of the pod.
//!
//! It goes to the host (`kubectl describe pod`), to the guest's log and to the measurement log,
//! so it holds no value of a variable and nothing that the policy says: a code, the container's
//! name, which members of the request are wrong, and what to do about it.

use std::sync::Arc;

use thiserror::Error;

/// The longest record, as text.
pub const DENIED_BYTES_MAX: usize = 1024;
/// The longest pointer; what is longer is cut.
const POINTER_BYTES_MAX: usize = 96;
const POINTERS_MAX: usize = 3;
const NAME_BYTES_MAX: usize = 64;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $hint:literal;)*) => {
        /// What is wrong with a request; `docs/denials.md` has a paragraph for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What the owner can do about it.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self {
                    $(Self::$name => $hint,)*
                }
            }
        }
    };
}

codes! {
    /// No rule allows such a request.
    NotAllowed = "REQUEST_NOT_ALLOWED", "no pod with a policy can be asked for this";
    /// Nothing is allowed at all.
    Closed = "GUEST_CLOSED", "the guest allows nothing";
    /// A Kata-style policy does not allow it.
    KataPolicy = "KATA_POLICY", "the pod has a Kata-style policy, which says no more: compare the request with its rule";
    /// The sandbox is not in the right state.
    PodState = "POD_STATE", "the pod is not set up yet, is set up already, or was taken down";
    /// The pod has another name, namespace or UID than before or than the policy says.
    PodName = "POD_NAME", "generate the policy for the pod's name and namespace";
    /// The pod's shared memory is not the usual one.
    SharedMemory = "SHARED_MEMORY", "the node asks for another /dev/shm than every pod has";
    /// An id was used before.
    IdReused = "CONTAINER_ID_REUSED", "an id is used once; a new container has a new one";
    /// The policy has no container of this name.
    ContainerUnknown = "CONTAINER_NOT_DECLARED", "add the container to the pod's YAML and generate the policy again";
    /// The container runs already.
    ContainerRuns = "CONTAINER_RUNS_ALREADY", "a container runs once at a time";
    /// Containers before it have not ended, or were not started.
    ContainerOrder = "CONTAINER_ORDER", "init containers run in order and to their end, sidecars first, then the others";
    /// No container has this id.
    ContainerMissing = "CONTAINER_NOT_THERE", "the pod has no such container now";
    /// The container is not waiting to be started.
    ContainerStarted = "CONTAINER_STARTED", "a container is started once";
    /// The image has another name than the policy's.
    ImageName = "IMAGE_NAME", "name the image in the YAML as in the policy, or generate the policy again";
    /// A sysctl that the policy does not have, or lacks.
    Sysctl = "SYSCTL", "generate the policy again with the pod's securityContext.sysctls";
    /// A volume that the policy does not have, or of another kind or size.
    Volume = "VOLUME", "generate the policy again with the pod's volumes";
    /// The container sees other processes than the policy says.
    Processes = "PROCESS_NAMESPACE", "generate the policy again with shareProcessNamespace as in the YAML";
    /// Another program or arguments.
    Arguments = "ARGUMENTS", "generate the policy again with the YAML's command and args";
    /// Another working directory.
    Directory = "WORKING_DIRECTORY", "generate the policy again with the YAML's workingDir";
    /// A terminal, or none.
    Terminal = "TERMINAL", "generate the policy again with the YAML's tty";
    /// A variable that the policy does not have.
    EnvUnknown = "ENV_NOT_DECLARED", "add the variable to the YAML and generate the policy again; if nobody added it, the node did";
    /// A variable that the policy has and the container lacks.
    EnvMissing = "ENV_MISSING", "the node left the variable out, or the YAML has changed";
    /// A variable with another value.
    EnvValue = "ENV_VALUE", "the variable has another value than in the policy: generate it again if the YAML has changed";
    /// A variable twice.
    EnvTwice = "ENV_TWICE", "the node sent the variable twice";
    /// Another user or group.
    User = "USER", "generate the policy again with the YAML's runAsUser and runAsGroup";
    /// Other further groups.
    Groups = "GROUPS", "generate the policy again with the YAML's supplementalGroups and fsGroup";
    /// Other capabilities.
    Capabilities = "CAPABILITIES", "generate the policy again with the YAML's capabilities";
    /// Whether a process can gain rights.
    NewPrivileges = "NO_NEW_PRIVILEGES", "generate the policy again with the YAML's allowPrivilegeEscalation";
    /// Another filter of system calls.
    Seccomp = "SECCOMP", "generate the policy again with the YAML's seccompProfile";
    /// Files of the kernel's are open that should not be.
    KernelPaths = "KERNEL_PATHS", "generate the policy again with the YAML's procMount and privileged";
    /// Limits of the kernel for a process.
    Limits = "RLIMITS", "the node asks for limits that no pod has";
    /// Whether the root can be written.
    Root = "READ_ONLY_ROOT", "generate the policy again with the YAML's readOnlyRootFilesystem";
    /// A mount that the policy does not have.
    MountUnknown = "MOUNT_NOT_DECLARED", "add the volumeMount to the YAML and generate the policy again";
    /// A mount that the policy has and the container lacks.
    MountMissing = "MOUNT_MISSING", "the node left the mount out, or the YAML has changed";
    /// Something else is mounted there.
    MountSource = "MOUNT_SOURCE", "another volume is mounted there than the policy says";
    /// It is mounted in another way.
    MountOptions = "MOUNT_OPTIONS", "generate the policy again with the YAML's readOnly";
    /// Mounts lie over each other in another order.
    MountOrder = "MOUNT_ORDER", "the node changed the order of the mounts";
    /// Other namespaces or settings of the pod's.
    Settings = "SETTINGS", "the node asks for other namespaces than the policy says";
    /// The content of files of the host is not the policy's.
    FilesContent = "FILES_CONTENT", "the ConfigMap or Secret has changed: generate the policy again";
    /// A file that no mount of the policy expects.
    CopyTarget = "COPY_TARGET", "the node copies a file that no volumeMount in the policy expects";
    /// A command that the policy does not have.
    ExecUnknown = "EXEC_NOT_DECLARED", "add the command to the probes or hooks in the YAML, or allow it when the policy is generated";
    /// The process has another environment, user or place than its container.
    ExecProcess = "EXEC_PROCESS", "a process in a container has its user, directory and environment";
    /// A signal that the policy does not have.
    Signal = "SIGNAL_NOT_DECLARED", "allow the signal when the policy is generated";
    /// The host may not write to the container.
    Stdin = "STDIN_NOT_ALLOWED", "set stdin in the YAML and generate the policy again";
    /// The host may not read the container's output.
    Logs = "LOGS_NOT_ALLOWED", "allow logs when the policy is generated";
    /// The host may not read the termination message.
    TerminationMessage = "TERMINATION_MESSAGE_NOT_ALLOWED", "allow the termination message when the policy is generated";
    /// The host may not read what the container uses.
    Statistics = "STATISTICS_NOT_ALLOWED", "grant statistics when the policy is generated";
    /// An address, route or neighbour of the guest's own loopback interface.
    Loopback = "NETWORK_LOOPBACK", "the node touches the guest's loopback interface";
    /// An interface that is not the pod's.
    Interface = "NETWORK_INTERFACE", "the node names an interface that the pod does not have";
}

/// What of a request is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub code: Code,
    /// JSON pointers to the members that are, into the container as a document has it; at
    /// most three.
    pub pointers: Vec<String>,
}

impl Finding {
    /// The whole request is.
    #[must_use]
    pub(crate) fn of(code: Code) -> Self {
        Self {
            code,
            pointers: Vec::new(),
        }
    }

    /// A member is.
    #[must_use]
    pub(crate) fn at(code: Code, path: &[&str]) -> Self {
        Self {
            code,
            pointers: vec![pointer(path)],
        }
    }

    /// As many members as are told.
    pub(crate) fn add(&mut self, path: &[&str]) {
        if self.pointers.len() < POINTERS_MAX {
            self.pointers.push(pointer(path));
        }
    }
}

/// A JSON pointer (RFC 6901), of plain characters and not too long.
fn pointer(path: &[&str]) -> String {
    let mut text = String::new();
    for part in path {
        text.push('/');
        text.push_str(&part.replace('~', "~0").replace('/', "~1"));
    }
    plain(&text, POINTER_BYTES_MAX)
}

/// A name of the host's as it may be told: what could break a line is not in it.
fn plain(text: &str, most: usize) -> String {
    let plain = |one: char| if one.is_ascii_graphic() { one } else { '?' };
    text.chars().take(most).map(plain).collect()
}

/// The policy forbids the request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", self.text())]
pub struct Denied {
    /// The rule that did not allow it.
    pub rule: &'static str,
    /// The container it is about, if the policy knows it.
    pub container: Option<String>,
    /// What is wrong.
    pub finding: Finding,
    /// Why nothing is allowed, if that is so.
    pub reason: Option<Arc<str>>,
}

impl Denied {
    pub(crate) fn new(rule: &'static str, finding: Finding) -> Self {
        Self {
            rule,
            container: None,
            finding,
            reason: None,
        }
    }

    pub(crate) fn in_container(mut self, name: Option<&str>) -> Self {
        self.container = name.map(|name| plain(name, NAME_BYTES_MAX));
        self
    }

    fn text(&self) -> String {
        let mut text = format!("{} is blocked by policy", self.rule);
        if self.finding.code == Code::Closed {
            if let Some(reason) = &self.reason {
                text.push_str(": ");
                text.push_str(reason);
            }
            return text;
        }
        text.push_str(": ");
        text.push_str(self.finding.code.name());
        if let Some(reason) = &self.reason {
            text.push_str(&format!(", {reason}"));
        }
        if let Some(name) = &self.container {
            text.push_str(&format!(" in container {name}"));
        }
        if !self.finding.pointers.is_empty() {
            text.push_str(&format!(" at {}", self.finding.pointers.join(", ")));
        }
        text.push_str(&format!(" ({})", self.finding.code.hint()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_record_is_one_line_of_at_most_a_kibibyte() {
        for code in Code::ALL {
            let mut finding = Finding::of(*code);
            for _ in 0..5 {
                finding.add(&["env", &"x\n".repeat(200)]);
            }
            let denied = Denied::new("GetDiagnosticDataRequest", finding);
            let text = denied.in_container(Some(&"c".repeat(300))).to_string();
            assert!(text.len() <= DENIED_BYTES_MAX, "{}", text.len());
            assert!(
                text.bytes()
                    .all(|byte| byte == b' ' || byte.is_ascii_graphic()),
                "{text}"
            );
            assert!(text.contains("is blocked by policy"), "{text}");
        }
    }

    #[test]
    fn each_code_has_its_paragraph() {
        let page = include_str!("../../../docs/denials.md");
        for code in Code::ALL {
            let heading = format!("\n### {}\n", code.name());
            assert!(page.contains(&heading), "no paragraph for {}", code.name());
        }
        let headings = page.lines().filter(|line| line.starts_with("### ")).count();
        assert_eq!(headings, Code::ALL.len());
    }

    #[test]
    fn a_pointer_names_a_member_and_escapes_it() {
        assert_eq!(pointer(&["mounts", "/etc/a~b"]), "/mounts/~1etc~1a~0b");
    }
}
