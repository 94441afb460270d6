//! `kata-cc run`: a Pod from its YAML, through containerd, without Kubernetes.
//!
//! Takes the part of the kubelet that starts one pod: reads and checks the files
//! ([`documents`], [`check`]), makes the volumes, asks the runtime over CRI for a
//! sandbox and containers with the configurations that the kubelet would send
//! ([`config`]), copies their output and ends everything ([`lifecycle`]). Nothing is
//! left on the node whatever happens, short of a SIGKILL of this process.
//!
//! The files are the owner's and trusted; the node is not, and what passes through it
//! here (environment, ConfigMaps, Secrets) it can read.

mod check;
mod config;
mod contents;
mod credentials;
mod cri;
mod documents;
mod environment;
mod images;
mod kubelet_files;
mod lifecycle;
mod logs;
mod pod;
mod progress;
mod resources;
mod volumes;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::initdata::{ANNOTATION, POLICY_ANNOTATION};
use clap::Args;
use k8s_cri::v1::DnsConfig;
pub use lifecycle::Outcome;
use tempfile::TempDir;

use crate::{
    config::Setting,
    credentials::Credentials,
    cri::{Cri, CriError},
    documents::{DocumentError, Documents},
    environment::{Facts, ValueError},
    lifecycle::{Life, Signals},
    pod::Pod,
    progress::Progress,
    volumes::{VolumeError, Volumes},
};

/// The handler of both RuntimeClasses of this project.
const HANDLER: &str = "kata-cc";

/// What a pod without a policy means.
const NO_POLICY: &str =
    "no policy: the node may ask the guest for anything (--policy auto makes one)";

/// Run a Pod from its YAML through containerd, without Kubernetes.
///
/// Copies the output of its containers, each line behind the container's name, until
/// all have ended; then removes the pod. Ctrl-C (or SIGTERM) stops it with its grace
/// period, a second one at once. A container that fails is started again at most five
/// times unless restartPolicy is Never; one that succeeds is not started again.
#[derive(Debug, Args)]
pub struct Options {
    /// File with the Pod, and with ConfigMaps and Secrets that it uses.
    #[arg(value_name = "POD.YAML")]
    pod: PathBuf,
    /// More files with ConfigMaps and Secrets; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Socket of the container runtime.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "unix:///run/containerd/containerd.sock"
    )]
    runtime_endpoint: String,
    /// Runtime handler, a key under containerd's `runtimes`; without it, the one of the
    /// pod's runtimeClassName, or kata-cc.
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Longest time for a pull, for the start of the VM and of each container.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print at the end, on standard error, how long each step took.
    #[arg(long)]
    timing: bool,
}

impl Options {
    /// The files of the pod, that with the pod itself first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.pod]
            .into_iter()
            .chain(&self.files)
            .map(PathBuf::as_path)
    }
}

/// The policy that a pod brings to its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// That of the pod's own annotations, if they have one.
    OfThePod,
    /// None, whatever the pod's annotations have.
    None,
    /// This one, for a pod without.
    Initdata {
        /// Value of the annotation of initdata.
        annotation: String,
    },
}

/// Why a pod did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Pod(#[from] check::PodError),
    #[error(
        "the pod has the annotation {0}, which a policy of --policy would replace: leave out one of both"
    )]
    TwoPolicies(&'static str),
    #[error(transparent)]
    Cri(#[from] CriError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("imagePullSecrets")]
    Credentials(#[source] ValueError),
    #[error("container {container}")]
    Value {
        container: String,
        #[source]
        source: ValueError,
    },
    #[error(
        "the runtime at {endpoint} has no handler {handler}, only {known}: add it to containerd's runtimes, or choose one with --handler"
    )]
    Handler {
        endpoint: String,
        handler: String,
        known: String,
    },
    #[error("image {0} is not on the node, and its imagePullPolicy is Never")]
    NotPulled(String),
    #[error(
        "container {0} is to run as non-root (runAsNonRoot), but its user is {1}: set runAsUser"
    )]
    Root(String, String),
    #[error(
        "the image of container {0} gives its user by name, which the node cannot look up without the image: set securityContext.runAsUser to the number"
    )]
    UserName(String),
    #[error("cannot make a directory for the pod")]
    Directory(#[source] io::Error),
    #[error("cannot write the files that every container has, for container {container}")]
    KubeletFiles {
        container: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot copy the output of container {container}")]
    Log {
        container: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
}

/// Why a pod was not run to its end: what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PodNotRun(#[from] RunError);

/// Runs the pod and says how it ended.
///
/// # Errors
/// When a file is not a pod's, when the container runtime refuses, or when the node lacks
/// something; whatever was started is gone then.
pub async fn run(options: &Options, policy: &Policy) -> Result<Outcome, PodNotRun> {
    Ok(play(options, policy).await?)
}

async fn play(options: &Options, policy: &Policy) -> Result<Outcome, RunError> {
    let mut documents = Documents::read(&options.pod, &options.files)?;
    let told = bring(policy, &mut documents.pod.metadata.annotations)?;
    let pod = &documents.pod;
    check::check(pod)?;
    let ignored = check::without_effect(pod);
    if !ignored.is_empty() {
        eprintln!("kata-cc: without effect here: {}", ignored.join(", "));
    }
    let credentials = Credentials::read(&pod.spec.image_pull_secrets, &documents)
        .map_err(RunError::Credentials)?;
    let signals = Signals::watch().map_err(RunError::Signals)?;
    let limit = Duration::from_secs(options.timeout);
    let mut cri = Cri::connect(&options.runtime_endpoint, limit).await?;
    let handler = handler(options, pod);
    check_handler(&mut cri, &options.runtime_endpoint, &handler).await?;
    eprintln!("kata-cc: {told}");

    let directories = Directories::make().map_err(RunError::Directory)?;
    let uid = uid().map_err(RunError::Directory)?;
    let node = nix::unistd::gethostname().unwrap_or_default();
    let node = node.to_string_lossy();
    let facts = Facts {
        pod,
        uid: &uid,
        node: &node,
        addresses: &[],
    };
    let volumes = Volumes::make(directories.places(), &facts, &documents)?;
    let setting = Setting {
        pod,
        uid: &uid,
        handler: &handler,
        files: directories.files.path(),
        log_directory: directories.logs.path(),
        node_dns: node_dns(),
    };
    let life = Life {
        cri,
        setting: &setting,
        documents: &documents,
        volumes: &volumes,
        credentials: &credentials,
        node: &node,
        progress: Progress::start(),
        signals,
    };
    life.run(options.timing).await
}

/// Puts the policy into the pod's annotations; answers what is to be said of it.
fn bring(
    policy: &Policy,
    annotations: &mut BTreeMap<String, String>,
) -> Result<&'static str, RunError> {
    let own = [ANNOTATION, POLICY_ANNOTATION];
    let own = own.into_iter().find(|name| annotations.contains_key(*name));
    match (policy, own) {
        (Policy::OfThePod, Some(_)) => Ok("policy: as the pod's annotations say"),
        (Policy::OfThePod | Policy::None, None) => Ok(NO_POLICY),
        (Policy::None, Some(_)) => {
            annotations.retain(|name, _| name != ANNOTATION && name != POLICY_ANNOTATION);
            Ok(NO_POLICY)
        }
        (Policy::Initdata { .. }, Some(name)) => Err(RunError::TwoPolicies(name)),
        (Policy::Initdata { annotation }, None) => {
            annotations.insert(ANNOTATION.to_owned(), annotation.clone());
            Ok("policy: the one of --policy")
        }
    }
}

fn handler(options: &Options, pod: &Pod) -> String {
    let class = pod.spec.runtime_class_name.as_deref();
    match (&options.handler, class) {
        (Some(handler), _) => handler.clone(),
        (None, None | Some("kata-cc-isolation")) => HANDLER.to_owned(),
        (None, Some(class)) => class.to_owned(),
    }
}

/// A node may not say which handlers it has; then the sandbox call will.
async fn check_handler(cri: &mut Cri, endpoint: &str, handler: &str) -> Result<(), RunError> {
    let known = cri.handlers(endpoint).await?;
    if known.is_empty() || known.iter().any(|k| k == handler) {
        return Ok(());
    }
    Err(RunError::Handler {
        endpoint: endpoint.to_owned(),
        handler: handler.to_owned(),
        known: known.join(", "),
    })
}

/// Private directories that go when the pod does.
struct Directories {
    /// Files of the pod, Secrets among them: in memory if the node has such a place.
    files: TempDir,
    /// emptyDir volumes: on a disk, because one in memory would mean medium Memory.
    empty: TempDir,
    logs: TempDir,
}

impl Directories {
    fn make() -> io::Result<Self> {
        let make = |preferred: &str| {
            let mut builder = tempfile::Builder::new();
            builder.prefix("kata-cc-run-");
            builder.tempdir_in(preferred).or_else(|_| builder.tempdir())
        };
        Ok(Self {
            files: make("/run")?,
            empty: make("/var/tmp")?,
            logs: make("/var/tmp")?,
        })
    }

    fn places(&self) -> volumes::Roots<'_> {
        volumes::Roots {
            files: self.files.path(),
            empty: self.empty.path(),
        }
    }
}

/// A random UUID, from the kernel.
fn uid() -> io::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(uuid.trim().to_owned())
}

/// The node's own resolver configuration (resolv.conf(5)).
fn node_dns() -> DnsConfig {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            Some("search" | "domain") => dns.searches = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_pod_has_its_own_policy_the_one_given_or_none_and_never_two() {
        let own = |name: &str| BTreeMap::from([(name.to_owned(), "own".to_owned())]);
        let given = Policy::Initdata {
            annotation: "given".to_owned(),
        };
        for name in [ANNOTATION, POLICY_ANNOTATION] {
            let mut annotations = own(name);
            bring(&Policy::OfThePod, &mut annotations).unwrap();
            assert_eq!(annotations, own(name));
            let error = bring(&given, &mut annotations).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert_eq!(bring(&Policy::None, &mut annotations).unwrap(), NO_POLICY);
            assert_eq!(annotations, BTreeMap::new());
        }
        let mut annotations = own("another");
        assert_eq!(
            bring(&Policy::OfThePod, &mut annotations).unwrap(),
            NO_POLICY
        );
        bring(&given, &mut annotations).unwrap();
        assert_eq!(annotations[ANNOTATION], "given");
        assert_eq!(annotations["another"], "own");
    }

    #[test]
    fn the_handler_is_the_options_then_the_pods_then_ours() {
        for (arguments, class, expected) in [
            (vec!["run", "p"], None, "kata-cc"),
            (vec!["run", "p"], Some("kata-cc"), "kata-cc"),
            (vec!["run", "p"], Some("kata-cc-isolation"), "kata-cc"),
            (vec!["run", "p"], Some("runc"), "runc"),
            (vec!["run", "p", "--handler", "x"], Some("runc"), "x"),
        ] {
            let options = Command::try_parse_from(arguments).unwrap().options;
            let mut pod = Pod::default();
            pod.spec.runtime_class_name = class.map(str::to_owned);
            assert_eq!(handler(&options, &pod), expected);
        }
    }
}
