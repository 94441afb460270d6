//! `kata-cc policy gen`: YAML in, YAML with the policy out.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use agent_protocol::initdata::Algorithm;
use clap::{Args, ValueEnum};
use guest_image_measurement::launches::Launches;
use policy_engine::{document::GrantList, workload::Part};
use policy_generator::{
    AnnotateError, Cache, Choices, Generated, Images, InputError, Platform, Policy, Problems,
    Reading, Secrets, Text, annotated, generate, patch,
};
use policy_images::Place;

use super::initdata::{InitdataOptions, Made, MakeError, make};
use crate::image::registry::{Access, OptionError, RegistryOptions};

/// Make the policy of each pod of the files, and put it into the pod's annotation.
///
/// Images are looked up by manifest and configuration; tags are resolved to what they mean now.
/// What the host has to be allowed is derived as a kubelet and containerd ask for it; everything
/// else is denied. HOST_DATA and what should be known is printed on standard error.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Files with pods, or with what makes pods (Deployment, Job, …); directories; `-` is
    /// standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Further files with ConfigMaps and Secrets; may be given several times.
    #[arg(short = 'c', long = "config-file", value_name = "FILE")]
    config_files: Vec<PathBuf>,
    /// What to write.
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    /// Write the annotation into the files themselves.
    #[arg(short, long, conflicts_with = "output")]
    in_place: bool,
    /// Only warn of fields that are not known; nothing of them is in the policy.
    #[arg(long)]
    lenient: bool,
    /// Where the pod is in another kind, as Workflow=spec.podTemplate; may be given several times.
    #[arg(long = "pod-path", value_name = "KIND=PATH", value_parser = pair)]
    pod_paths: Vec<(String, String)>,
    #[command(flatten)]
    images: ImageOptions,
    #[command(flatten)]
    choices: ChoiceOptions,
    #[command(flatten)]
    initdata: InitdataOptions,
    /// Print the digests that the guest logs of each container; looks up the users of all images,
    /// which reads a layer or more of each.
    #[arg(long)]
    digests: bool,
    /// Guest image whose launch measurements to print; may be given several times.
    #[arg(long = "guest-image", value_name = "DIR")]
    guest_images: Vec<PathBuf>,
    #[command(flatten)]
    launches: Launches,
    #[command(flatten)]
    registry: RegistryOptions,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The files with the annotation in them.
    Yaml,
    /// A patch for kustomize.
    Patch,
    /// The policy documents, one a line.
    Document,
    /// The initdata documents.
    Initdata,
}

#[derive(Debug, Args)]
struct ImageOptions {
    /// Where an image is instead of in its registry, as nginx:1.27=oci:DIR:TAG; may be given
    /// several times.
    #[arg(long = "image", value_name = "NAME=PLACE", value_parser = image)]
    places: Vec<(String, Place)>,
    /// OCI layout with images whose tags are their names; may be given several times.
    #[arg(long = "layout", value_name = "DIR")]
    layouts: Vec<PathBuf>,
    /// What the guest runs on.
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: Platform,
    /// Where manifests and configurations are kept; without it below $XDG_CACHE_HOME.
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep nothing, and use nothing that was kept.
    #[arg(long)]
    no_cache: bool,
}

#[derive(Debug, Default, Args)]
struct ChoiceOptions {
    /// How values of Secrets are told in the policy: by a salted digest, or not at all.
    #[arg(long, value_enum, default_value_t = SecretChoice::Digest)]
    secrets: SecretChoice,
    /// What salts are made of, beside the place of each value.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    salt: String,
    /// The host may not read what containers write to standard output and error, nor their
    /// termination messages.
    #[arg(long)]
    no_logs: bool,
    /// No token of a service account is mounted, whatever the pods say or leave out.
    #[arg(long)]
    no_service_account: bool,
    /// Any content of ConfigMaps is allowed.
    #[arg(long)]
    open_config_maps: bool,
    /// The owner's count of releases of this policy, shown in the evidence.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    policy_version: u64,
    /// Digest of further rules that may judge by this policy; may be given several times.
    #[arg(long = "rules", value_name = "DIGEST", value_parser = digest)]
    rules: Vec<String>,
    /// What the guest refuses unless it is allowed by name; may be given several times.
    #[arg(long = "grant", value_enum, value_name = "WHAT")]
    grants: Vec<Grant>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum SecretChoice {
    /// By a salted digest.
    #[default]
    Digest,
    /// Any value.
    Open,
}

/// The members of the document's grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Grant {
    /// Files of the host may cover paths at which an image has content.
    HostFilesCover,
    /// Files of the host may be replaced once they are there.
    HostFilesChange,
    /// Containers may ask for evidence.
    Evidence,
    /// Containers may open sockets of AF_VSOCK.
    Vsock,
    /// Containers may be asked for their use of resources (kubectl top).
    Statistics,
}

/// Why no policy was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GenerateError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("{}no policy was made", lines(.0))]
    Problems(Problems),
    #[error(transparent)]
    Annotate(#[from] AnnotateError),
    #[error(transparent)]
    Initdata(#[from] MakeError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--in-place cannot change standard input")]
    InPlace,
    #[error("--guest-image {}: {cause}", path.display())]
    GuestImage { path: PathBuf, cause: String },
}

impl From<Problems> for GenerateError {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

fn lines(problems: &Problems) -> String {
    problems.0.iter().map(|one| format!("{one}\n")).collect()
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be KIND=PATH")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn image(text: &str) -> Result<(String, Place), String> {
    let (name, place) = text.split_once('=').ok_or("must be NAME=PLACE")?;
    let place = place.parse::<Place>().map_err(|error| error.to_string())?;
    Ok((name.to_owned(), place))
}

fn digest(text: &str) -> Result<String, String> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match text.len() == 64 && text.bytes().all(is_hex) {
        true => Ok(text.to_owned()),
        false => Err("must be SHA-256 in 64 hexadecimal digits".to_owned()),
    }
}

impl Options {
    fn images(&self) -> Result<Images, GenerateError> {
        let ImageOptions {
            places,
            layouts,
            platform,
            ..
        } = &self.images;
        Ok(Images {
            config: self.registry.config()?,
            platform: platform.clone(),
            cache: self.images.cache().map(|directory| Cache::at(&directory)),
            places: places.iter().cloned().collect(),
            layouts: layouts.clone(),
            all_users: self.digests,
            progress: Box::new(progress),
        })
    }

    fn reading(&self) -> Reading {
        Reading {
            lenient: self.lenient,
            pod_paths: self.pod_paths.iter().cloned().collect(),
        }
    }
}

impl ImageOptions {
    fn cache(&self) -> Option<PathBuf> {
        if self.no_cache {
            return None;
        }
        self.cache.clone().or_else(usual_cache)
    }
}

/// Where manifests are kept unless an option says otherwise.
fn usual_cache() -> Option<PathBuf> {
    let of = |name: &str, below: &str| {
        let directory = env::var_os(name).filter(|value| !value.is_empty())?;
        Some(Path::new(&directory).join(below))
    };
    of("XDG_CACHE_HOME", "kata-cc/images").or_else(|| of("HOME", ".cache/kata-cc/images"))
}

/// The strict policy of the one pod in these files; what should be known is told.
pub(super) fn of_the_pod<'a>(
    files: impl Iterator<Item = &'a Path>,
    access: &Access,
) -> Result<Made, GenerateError> {
    let texts = files.map(Text::read).collect::<Result<Vec<_>, _>>()?;
    let mut texts = texts.into_iter();
    let pod = texts.next().unwrap_or_default();
    let others = texts.flatten().collect();
    let images = Images {
        config: access.config()?,
        platform: Platform::default(),
        cache: usual_cache().map(|directory| Cache::at(&directory)),
        places: BTreeMap::new(),
        layouts: Vec::new(),
        all_users: false,
        progress: Box::new(progress),
    };
    // Nothing but a cluster gives a pod the token of a service account.
    let choices = ChoiceOptions {
        no_service_account: true,
        ..ChoiceOptions::default()
    };
    let reading = Reading::default();
    let generated = generate(pod, others, &reading, &images, &choices.choices());
    end_of_progress();
    let generated = generated?;
    let problems = || Problems(Vec::new());
    let policy = generated.policies.first().ok_or_else(problems)?;
    let made = make(&policy.document, &(Algorithm::Sha256, BTreeMap::new()))?;
    tell(&generated, std::slice::from_ref(&made), false);
    Ok(made)
}

impl ChoiceOptions {
    fn choices(&self) -> Choices {
        let has = |grant: Grant| self.grants.contains(&grant);
        let mut rules: BTreeSet<String> = self.rules.iter().cloned().collect();
        rules.insert(policy_engine::rules_digest_hex());
        Choices {
            secrets: match self.secrets {
                SecretChoice::Digest => Secrets::Digest,
                SecretChoice::Open => Secrets::Open,
            },
            salt: self.salt.clone(),
            logs: !self.no_logs,
            service_account: !self.no_service_account,
            contents: !self.open_config_maps,
            version: self.policy_version,
            rules,
            grants: GrantList {
                host_files_cover: has(Grant::HostFilesCover),
                host_files_change: has(Grant::HostFilesChange),
                evidence: has(Grant::Evidence),
                vsock: has(Grant::Vsock),
                statistics: has(Grant::Statistics),
            },
        }
    }
}

/// One line that is written over, where a person looks at it.
fn progress(what: &str) {
    let mut errors = io::stderr().lock();
    if errors.is_terminal() {
        let line: String = what.chars().take(76).collect();
        let _ = write!(errors, "\r\x1b[K{line}");
        let _ = errors.flush();
    }
}

fn end_of_progress() {
    let mut errors = io::stderr().lock();
    if errors.is_terminal() {
        let _ = write!(errors, "\r\x1b[K");
    }
}

fn texts(paths: &[PathBuf]) -> Result<Vec<Text>, InputError> {
    let all = paths.iter().map(|path| Text::read(path));
    Ok(all.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Makes the policies.
pub(super) fn run(options: &Options) -> Result<u8, GenerateError> {
    let (pods, others) = (texts(&options.files)?, texts(&options.config_files)?);
    if options.in_place && options.files.iter().any(|path| path == Path::new("-")) {
        return Err(GenerateError::InPlace);
    }
    let others_of_initdata = options.initdata.entries()?;
    let images = options.images()?;
    let choices = options.choices.choices();
    let generated = generate(pods, others, &options.reading(), &images, &choices);
    end_of_progress();
    let generated = generated?;
    let made = generated
        .policies
        .iter()
        .map(|policy| make(&policy.document, &others_of_initdata))
        .collect::<Result<Vec<_>, _>>()?;
    write(options, &generated, &made)?;
    tell(&generated, &made, options.digests);
    for path in &options.guest_images {
        tell_launches(&options.launches, path)?;
    }
    Ok(0)
}

fn write(options: &Options, generated: &Generated, made: &[Made]) -> Result<(), GenerateError> {
    let values: Vec<String> = made.iter().map(|made| made.annotation.clone()).collect();
    if options.in_place {
        for Text { name, text } in annotated(generated, &values)? {
            let path = PathBuf::from(name);
            replace(&path, &text).map_err(|source| GenerateError::Write { path, source })?;
        }
        return Ok(());
    }
    let text = match options.output {
        Output::Yaml => {
            let files = annotated(generated, &values)?;
            let texts: Vec<_> = files.into_iter().map(|file| ended(file.text)).collect();
            texts.join("---\n")
        }
        Output::Patch => patch(generated, &values),
        Output::Document => {
            let documents = generated.policies.iter();
            documents
                .map(|policy| policy.document.text() + "\n")
                .collect()
        }
        Output::Initdata => made.iter().map(|made| made.initdata.text()).collect(),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| GenerateError::Write {
            path: "standard output".into(),
            source,
        })
}

fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes a file beside the old one, which it then replaces.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut draft = tempfile::NamedTempFile::new_in(beside.unwrap_or(Path::new(".")))?;
    draft.write_all(text.as_bytes())?;
    let permissions = fs::metadata(path)?.permissions();
    fs::set_permissions(draft.path(), permissions)?;
    draft.persist(path)?;
    Ok(())
}

/// What should be known, on standard error.
fn tell(generated: &Generated, made: &[Made], with_digests: bool) {
    for warning in &generated.warnings {
        eprintln!("{warning}");
    }
    for (name, image) in &generated.images {
        eprintln!("image {name} is {}", image.reference);
    }
    for (policy, made) in generated.policies.iter().zip(made) {
        let host_data = hex::encode(made.initdata.digest().host_data());
        let bytes = made.annotation.len();
        eprintln!(
            "{}: HOST_DATA {host_data} ({bytes} bytes in the annotation)",
            policy.name
        );
        let with_logs = policy.document.containers.iter().filter(|one| one.logs);
        let names: Vec<_> = with_logs.map(|one| one.name.as_str()).collect();
        if !names.is_empty() {
            eprintln!(
                "{}: the host can read what {} write to standard output and error; --no-logs \
                 closes that",
                policy.name,
                names.join(", ")
            );
        }
    }
    if with_digests {
        generated.policies.iter().for_each(tell_digests);
    }
}

/// What the guest will log of each container (`docs/workload-digest.md`).
fn tell_digests(policy: &Policy) {
    for (container, of_image) in policy.document.containers.iter().zip(&policy.of_images) {
        let expected = container.expected(&policy.document.pod, of_image);
        for (part, name) in Part::ALL {
            let digest = match expected.open.contains(&part) {
                true => "depends on what nobody knows before the pod runs".to_owned(),
                false => hex::encode(expected.workload.digest(part)),
            };
            eprintln!("{}: {}: {name} {digest}", policy.name, container.name);
        }
    }
}

fn tell_launches(launches: &Launches, path: &Path) -> Result<(), GenerateError> {
    let expected = crate::measure::expected(launches, path);
    let expected = expected.map_err(|error| GenerateError::GuestImage {
        path: path.to_owned(),
        cause: format!("{error:#}"),
    })?;
    let mut digests = BTreeMap::new();
    for launch in expected {
        digests
            .entry(launch.launch_digest.to_string())
            .or_insert(launch);
    }
    for (digest, launch) in digests {
        eprintln!("launch measurement {digest}  {launch}");
    }
    Ok(())
}
