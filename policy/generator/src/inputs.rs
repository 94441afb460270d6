//! The owner's files: which pods they describe, and what those refer to.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use policy_engine::document::PodName;

use crate::{
    objects::{Kind as ObjectKind, Objects},
    pod::{Metadata, Object, Template},
    problem::{Problem, Severity},
    yaml::{
        self, Node,
        read::{Reader, Wrong},
    },
};

/// Kinds with a pod inside, and where it is.
const KINDS: [(&str, &str); 8] = [
    ("Pod", ""),
    ("Deployment", "spec.template"),
    ("StatefulSet", "spec.template"),
    ("DaemonSet", "spec.template"),
    ("ReplicaSet", "spec.template"),
    ("ReplicationController", "spec.template"),
    ("Job", "spec.template"),
    ("CronJob", "spec.jobTemplate.spec.template"),
];
/// Kubernetes cuts the name of what makes pods to this many letters before it adds its own.
const BASE_NAME_MAX: usize = 57;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct InputError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A file's name and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// As messages name it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Text {
    /// Reads a file, every `.yaml`, `.yml` and `.json` of a directory in the order of their names,
    /// or standard input (`-`).
    ///
    /// # Errors
    ///
    /// [`InputError`] names the file.
    pub fn read(path: &Path) -> Result<Vec<Self>, InputError> {
        let failed = |source| InputError {
            path: path.to_owned(),
            source,
        };
        if path == Path::new("-") {
            let text = bounded(io::stdin().lock()).map_err(failed)?;
            let name = "standard input".to_owned();
            return Ok(vec![Self { name, text }]);
        }
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(failed)?;
            let mut files = Vec::new();
            for entry in entries {
                files.push(entry.map_err(failed)?.path());
            }
            files.retain(|file| {
                let extension = file.extension().and_then(|extension| extension.to_str());
                matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file()
            });
            files.sort();
            let texts = files.iter().map(|file| Self::read(file));
            return Ok(texts.collect::<Result<Vec<_>, _>>()?.concat());
        }
        let file = fs::File::open(path).map_err(failed)?;
        let text = bounded(file).map_err(failed)?;
        let name = path.display().to_string();
        Ok(vec![Self { name, text }])
    }
}

fn bounded(from: impl io::Read) -> io::Result<String> {
    let most = u64::try_from(yaml::BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    from.take(most.saturating_add(1))
        .read_to_string(&mut text)?;
    Ok(text)
}

/// How files are read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Fields that nobody knows are only warned of.
    pub lenient: bool,
    /// Further kinds, and where the pod is in them (`spec.podTemplate`).
    pub pod_paths: BTreeMap<String, String>,
}

/// Something that makes pods.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Which of the files.
    pub(crate) file: usize,
    /// Which of its documents.
    pub(crate) document: usize,
    /// Where in the document the pod's `metadata` and `spec` are.
    pub(crate) path: String,
    /// `Deployment`, …
    pub(crate) kind: String,
    /// `apps/v1`, …
    pub(crate) api_version: String,
    /// Its own name, or that which names are made of.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: Option<String>,
    /// What its pods are called.
    pub(crate) pod_name: Option<PodName>,
    /// Its pods have a number of their own (`completionMode: Indexed`).
    pub(crate) indexed: bool,
    /// The pod.
    pub(crate) template: Template,
}

/// The owner's files, read.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) files: Vec<Text>,
    pub(crate) documents: Vec<Vec<Node>>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) objects: Objects,
    pub(crate) problems: Vec<Problem>,
}

/// What every object has.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    document: usize,
}

impl Inputs {
    /// Reads the files with pods, and then those with ConfigMaps and Secrets only.
    pub(crate) fn read(pods: Vec<Text>, others: Vec<Text>, reading: &Reading) -> Self {
        let mut inputs = Self::default();
        let count = pods.len();
        for (file, text) in pods.into_iter().chain(others).enumerate() {
            let parsed = yaml::parse(&text.text);
            inputs.files.push(text);
            let documents = parsed.unwrap_or_else(|error| {
                inputs.tell(file, error.line, "", error.message, Severity::Error);
                Vec::new()
            });
            for (document, node) in documents.iter().enumerate() {
                let place = Place { file, document };
                inputs.take(node, place, "", reading, file < count);
            }
            inputs.documents.push(documents);
        }
        inputs
    }

    fn tell(&mut self, file: usize, line: usize, path: &str, message: String, as_: Severity) {
        let file = self
            .files
            .get(file)
            .map_or("", |file| &file.name)
            .to_owned();
        self.problems.push(Problem {
            severity: as_,
            file,
            line,
            path: path.to_owned(),
            message,
        });
    }

    fn take(&mut self, node: &Node, place: Place, at: &str, reading: &Reading, pods: bool) {
        let text = |name: &str| node.get(name).and_then(Node::text).unwrap_or_default();
        let kind = text("kind").to_owned();
        if kind.is_empty() {
            let message = "there is no kind: this is no object of Kubernetes".to_owned();
            return self.tell(place.file, node.line, at, message, Severity::Error);
        }
        if kind.ends_with("List") && node.get("items").is_some() {
            let items = node.get("items").map(Node::items).unwrap_or_default();
            for (number, item) in items.iter().enumerate() {
                let at = joined(at, &format!("items[{number}]"));
                self.take(item, place, &at, reading, pods);
            }
            return;
        }
        let own = reading.pod_paths.get(&kind).map(String::as_str);
        let known = || KINDS.iter().find(|(name, _)| *name == kind);
        if let Some(path) = own.or_else(|| known().map(|(_, path)| *path)) {
            if pods {
                self.workload(node, place, &joined(at, path), (path, reading));
            }
            return;
        }
        match kind.as_str() {
            "ConfigMap" => self.object(ObjectKind::ConfigMap, node, place, at),
            "Secret" => self.object(ObjectKind::Secret, node, place, at),
            "ServiceAccount" => {
                let metadata: Metadata = quiet(node, "metadata");
                let automount = node.get("automountServiceAccountToken");
                let mounts = automount.and_then(Node::text) != Some("false");
                self.objects
                    .add_account(metadata.namespace, metadata.name, mounts);
            }
            _ => self.perhaps_a_pod(node, place, at, &kind),
        }
    }

    /// Tells of a pod that would get no policy.
    fn perhaps_a_pod(&mut self, node: &Node, place: Place, at: &str, kind: &str) {
        if let Some(path) = inner_pod(node, 0) {
            let message = format!(
                "kind {kind} is not known, and has containers inside: they get no policy; with \
                 --pod-path {kind}={path} they do"
            );
            self.tell(place.file, node.line, at, message, Severity::Warning);
        }
    }

    fn object(&mut self, kind: ObjectKind, node: &Node, place: Place, at: &str) {
        let mut reader = Reader::at(at);
        let object: Object = reader.value(node);
        let name = object.metadata.name.clone();
        // Other fields than these decide nothing.
        for wrong in reader.wrong.into_iter().filter(|wrong| !wrong.unknown) {
            let Wrong {
                line,
                path,
                message,
                ..
            } = wrong;
            self.tell(place.file, line, &path, message, Severity::Error);
        }
        for key in self.objects.add(kind, object) {
            let line = node.line_of(&format!("data.{key}"));
            let message = format!(
                "{} {name} has a value of {key} that is not base64",
                kind.name()
            );
            self.tell(
                place.file,
                line,
                &joined(at, "data"),
                message,
                Severity::Error,
            );
        }
    }

    fn workload(&mut self, node: &Node, place: Place, path: &str, how: (&str, &Reading)) {
        let (inner, reading) = how;
        let Some(found) = node.find(inner) else {
            let message = "there is no pod here".to_owned();
            return self.tell(place.file, node.line, path, message, Severity::Error);
        };
        let mut reader = Reader::at(path);
        let template: Template = reader.value(found);
        let severity = |unknown: bool| match unknown && reading.lenient {
            true => Severity::Warning,
            false => Severity::Error,
        };
        for wrong in reader.wrong {
            let mut message = wrong.message;
            if wrong.unknown && reading.lenient {
                message.push_str("; nothing of it is in the policy");
            }
            let severity = severity(wrong.unknown);
            self.tell(place.file, wrong.line, &wrong.path, message, severity);
        }
        let text = |name: &str| node.get(name).and_then(Node::text).unwrap_or_default();
        let metadata: Metadata = quiet(node, "metadata");
        let kind = text("kind").to_owned();
        let claims = node.find("spec.volumeClaimTemplates");
        if claims.is_some_and(|claims| !claims.items().is_empty()) {
            let line = node.line_of("spec.volumeClaimTemplates");
            let message = "a claim is a disk of the host, which a confidential pod cannot use: \
                           use an emptyDir volume"
                .to_owned();
            let at = path.replace(inner, "spec.volumeClaimTemplates");
            self.tell(place.file, line, &at, message, Severity::Error);
        }
        self.workloads.push(Workload {
            file: place.file,
            document: place.document,
            path: path.to_owned(),
            api_version: text("apiVersion").to_owned(),
            name: match metadata.name.is_empty() {
                true => metadata.generate_name.clone(),
                false => metadata.name.clone(),
            },
            namespace: metadata.namespace.clone(),
            pod_name: pod_name(&kind, &metadata),
            indexed: mode(node, &kind) == Some("Indexed"),
            kind,
            template,
        });
    }

    /// A problem of a field of a workload's pod, with its line.
    pub(crate) fn problem_of(
        &self,
        workload: &Workload,
        field: &str,
        message: String,
        severity: Severity,
    ) -> Problem {
        let path = joined(&workload.path, field);
        let documents = self.documents.get(workload.file);
        let document = documents.and_then(|all| all.get(workload.document));
        let name = self.files.get(workload.file).map_or("", |file| &file.name);
        Problem {
            severity,
            file: name.to_owned(),
            line: document.map_or(1, |node| node.line_of(&path)),
            path,
            message,
        }
    }
}

fn mode<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let path = match kind {
        "Job" => "spec.completionMode",
        "CronJob" => "spec.jobTemplate.spec.completionMode",
        _ => return None,
    };
    node.find(path)?.text()
}

/// Reads a part whose problems are told elsewhere, or do not matter.
fn quiet<T: yaml::read::FromYaml>(node: &Node, name: &str) -> T {
    let part = node.get(name);
    part.map_or_else(T::default, |part| Reader::default().value(part))
}

/// What a controller calls its pods.
fn pod_name(kind: &str, metadata: &Metadata) -> Option<PodName> {
    let (name, base) = (&metadata.name, &metadata.generate_name);
    if !name.is_empty() {
        if kind == "Pod" {
            return Some(PodName::Is(name.clone()));
        }
        let whole = name.len() <= BASE_NAME_MAX;
        return whole.then(|| PodName::StartsWith(name.clone()));
    }
    let base = base.strip_suffix('-')?;
    let whole = !base.is_empty() && base.len() <= BASE_NAME_MAX;
    whole.then(|| PodName::StartsWith(base.to_owned()))
}

/// Where something that looks like a pod is in an object of an unknown kind.
fn inner_pod(node: &Node, depth: usize) -> Option<String> {
    let yaml::Kind::Map(entries) = &node.kind else {
        return None;
    };
    let is_pod = node.find("spec.containers").is_some();
    if depth > 0 && is_pod {
        return Some(String::new());
    }
    let inner = entries.iter().filter(|_| depth < 8);
    inner
        .filter_map(|(key, value)| Some((key, inner_pod(value, depth + 1)?)))
        .map(|(key, rest)| joined(&key.text, &rest))
        .next()
}

fn joined(one: &str, other: &str) -> String {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other.to_owned(),
        (_, true) => one.to_owned(),
        _ => format!("{one}.{other}"),
    }
}
