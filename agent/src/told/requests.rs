//! Messages that are no requests, and what the guest does not offer: all of it is the
//! host's own, so it may hear which part is meant.

use agent_evidence::Sha256Digest;
use agent_requests::{RequestError, Unsupported};
use policy_engine::{
    Denied, LoadError,
    document::DocumentError,
    rego::{self, Failure},
    rules_digest,
};

use crate::told::{
    field::{Field, FromHost},
    text::Told,
};

/// A request that the policy does not allow.
pub(crate) fn denial(denied: &Denied) -> Told {
    Told::new("{denied}").with(Field::denied(denied))
}

/// A Kata-style policy that cannot be in force. What the text says at that place is not told.
pub(crate) fn kata_policy(error: &rego::LoadError) -> Told {
    use rego::LoadError as E;
    let at = |text, line: usize| Told::new(text).with(Field::count(line));
    match error {
        E::TooLong => Told::new("the policy is too long"),
        E::TooManyLines => Told::new("the policy has too many lines"),
        E::TooWide(line) => at("line {count} of the policy is too long", *line),
        E::Package => Told::new("the policy is not of the package agent_policy"),
        E::IgnoresFailures => Told::new(
            "the policy sets AllowRequestsFailingPolicy, which allows what it denies: no guest \
             has that switch",
        ),
        E::Impure { line, .. } => at(
            "line {count} of the policy calls a function whose answer is not in the request",
            *line,
        ),
        E::Syntax { line, .. } => at(
            "line {count} of the policy is not rego that this guest knows",
            *line,
        ),
        E::Bounds(Failure::Time) => Told::new("the policy takes too long to load"),
        E::Bounds(Failure::Memory | Failure::Rule) => {
            Told::new("the policy takes too much memory to load, or nests too deep")
        }
        E::Bounds(Failure::Process) => {
            Told::new("the guest cannot start the process that evaluates policies")
        }
    }
}

/// A policy document that cannot be in force.
pub(crate) fn document(error: &LoadError) -> Told {
    Told::new(match error {
        LoadError::Rules(_) => {
            let text = "the policy document was written for other rules than this guest's, whose \
                        digest is {policy}: generate it again for this guest image";
            return Told::new(text).with(Field::policy(Sha256Digest(rules_digest())));
        }
        LoadError::Document(DocumentError::TooLong) => "the policy document is too long",
        LoadError::Document(DocumentError::Containers) => {
            "the policy document has too many containers"
        }
        LoadError::Document(DocumentError::SameName(_)) => {
            "the policy document has two containers with one name"
        }
        LoadError::Document(DocumentError::Form(_) | DocumentError::Member(_)) => {
            "the policy document is not of the form that this guest knows"
        }
    })
}

/// A message that is no request.
pub(crate) fn request(error: &RequestError) -> Told {
    match error {
        RequestError::ContainerId(_) => Told::new("container id is not valid"),
        RequestError::ExecId(_) => Told::new("exec id is not valid"),
        RequestError::SandboxId(_) => Told::new("sandbox id is not valid"),
        RequestError::Missing(what) => Told::new("{what} is missing").with(Field::what(what)),
        RequestError::Invalid(what) => Told::new("{what} is not valid").with(Field::what(what)),
        RequestError::TooLarge { field, max } => {
            Told::new("{what} holds more than {count} entries or bytes")
                .with(Field::what(field))
                .with(Field::count(*max))
        }
        RequestError::Path { field, .. } => {
            Told::new("{what} is not a usable path").with(Field::what(field))
        }
        RequestError::Unsupported(what) => unsupported(what),
        RequestError::Policy(_) => {
            Told::new("policy is not valid: it is empty, too large or no text")
        }
        RequestError::Spec(_) => Told::new("OCI spec is not valid"),
    }
}

fn unsupported(what: &Unsupported) -> Told {
    let sent = |text: &str| Field::sent(FromHost(text));
    match what {
        Unsupported::Hooks => {
            Told::new("hooks in the OCI spec are not supported in the guest: remove them")
        }
        Unsupported::Device(path) => {
            Told::new("devices are not supported in the guest: '{sent}' was asked for")
                .with(sent(path))
        }
        Unsupported::UserNamespace => Told::new(
            "user namespaces are not supported in the guest: set hostUsers to true or leave it out",
        ),
        Unsupported::MountSource { destination } => Told::new(
            "mount of '{sent}' is refused: its source must lie below \
             /run/kata-containers/shared/containers or /run/kata-containers/sandbox",
        )
        .with(sent(destination)),
        Unsupported::MountType { destination, .. } => {
            Told::new("mount of '{sent}' is refused: its file system type is not allowed")
                .with(sent(destination))
        }
        Unsupported::StorageDriver(name) => Told::new(
            "storage driver '{sent}' is not supported: the guest has image_guest_pull, \
             ephemeral and local",
        )
        .with(sent(name)),
        Unsupported::NoImage => Told::new(
            "container has no image_guest_pull storage: images are pulled in the guest, use \
             the kata-cc snapshotter or the image-name annotation",
        ),
        Unsupported::KernelModules => Told::new("kernel modules cannot be loaded on request"),
        Unsupported::GuestHooks => Told::new("guest hooks are not supported"),
        Unsupported::ReservedId(id) => Told::new(
            "container id {container} is not usable: the pod's own directories have this name",
        )
        .with(Field::container(id)),
        Unsupported::SharedMounts => {
            Told::new("shared mounts between containers are not supported")
        }
        Unsupported::Sysctl(key) => {
            Told::new("sysctl '{sent}' is not one that a pod may set").with(sent(key))
        }
        Unsupported::Capability(name) => {
            Told::new("capability '{sent}' is not given to containers: remove it").with(sent(name))
        }
        Unsupported::Seccomp(word) => {
            Told::new("the seccomp profile cannot be applied: the guest has no '{sent}'")
                .with(sent(word))
        }
        Unsupported::StdioPorts => {
            Told::new("stdio ports are not supported: streams go through the agent's calls")
        }
    }
}
