//! Finds, checks and merges configuration files.
//!
//! The configuration is the first that exists of: the file or text of the task's options,
//! the file that `KATA_CONF_FILE` names, `/etc/kata-cc/configuration.toml`,
//! `/opt/kata-cc/configuration.toml`. A file named by options or environment must
//! exist. Files of `config.d` beside the chosen file follow in alphabetical order:
//! tables are merged, lists and single values replaced.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::documents::{measure_toml, parse_toml};
use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value, de::DeTable};

use crate::{Config, TaskOptions, schema};

const SEARCH: [&str; 2] = [
    "/etc/kata-cc/configuration.toml",
    "/opt/kata-cc/configuration.toml",
];
const ENVIRONMENT: &str = "KATA_CONF_FILE";

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No file is named, and none is in a place that is searched.
    #[error("no configuration: set ConfigPath in the runtime's options, or write {}", SEARCH[0])]
    Missing,
    /// A file that was named cannot be read.
    #[error("cannot read configuration {path}, named by {named_by}")]
    Read {
        /// The file.
        path: String,
        /// Who named it.
        named_by: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A line is malformed or holds what its key does not allow.
    #[error("{path}:{line}: {message}")]
    Line {
        /// The file, or what stands for it.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The merged files do not fit together; a fault of this program.
    #[error("configuration {path} passed its check but cannot be used")]
    Unusable {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: toml::de::Error,
    },
}

/// Where the configuration comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// A file and the drop-ins beside it.
    File {
        /// The file.
        path: PathBuf,
        /// Who named it.
        named_by: &'static str,
    },
    /// Text from the runtime's options.
    Inline(String),
}

impl Source {
    /// Chooses by the search order.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Missing`] if nothing names a file and none is in place.
    pub fn choose(options: TaskOptions) -> Result<Self, ConfigError> {
        let exists = |path: &Path| path.is_file();
        Self::choose_with(options, std::env::var_os(ENVIRONMENT), exists)
    }

    fn choose_with(
        options: TaskOptions,
        environment: Option<OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, ConfigError> {
        match options {
            TaskOptions::Path(path) => {
                return Ok(Self::File {
                    path,
                    named_by: "ConfigPath of the runtime's options",
                });
            }
            TaskOptions::Inline(text) => return Ok(Self::Inline(text)),
            TaskOptions::None => {}
        }
        if let Some(path) = environment.filter(|path| !path.is_empty()) {
            return Ok(Self::File {
                path: path.into(),
                named_by: "the environment's KATA_CONF_FILE",
            });
        }
        let found = SEARCH.iter().map(Path::new).find(|path| exists(path));
        found.map_or(Err(ConfigError::Missing), |path| {
            Ok(Self::File {
                path: path.into(),
                named_by: "the search order",
            })
        })
    }

    /// Reads, checks and merges.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file and, where there is one, the line.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let (name, merged) = match self {
            Self::Inline(text) => {
                let name = "options of the runtime".to_owned();
                let table = parse(&name, text)?;
                (name, table)
            }
            Self::File { path, named_by } => {
                let mut merged = read(path, named_by)?;
                for drop_in in drop_ins(path)? {
                    merge(&mut merged, read(&drop_in, "its place in config.d")?);
                }
                (path.display().to_string(), merged)
            }
        };
        Config::deserialize(merged).map_err(|source| ConfigError::Unusable { path: name, source })
    }
}

fn read(path: &Path, named_by: &'static str) -> Result<Table, ConfigError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: name.clone(),
        named_by,
        source,
    })?;
    parse(&name, &text)
}

fn parse(name: &str, text: &str) -> Result<Table, ConfigError> {
    let line = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        before.matches('\n').count() + 1
    };
    let syntax = |error: toml::de::Error| ConfigError::Line {
        path: name.to_owned(),
        line: line(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', " "),
    };
    measure_toml(text).map_err(|error| syntax(error.into()))?;
    let spanned = DeTable::parse(text).map_err(syntax)?;
    schema::check(spanned.get_ref()).map_err(|complaint| ConfigError::Line {
        path: name.to_owned(),
        line: line(complaint.span.start),
        message: complaint.message,
    })?;
    parse_toml(text).map_err(syntax)
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = file.with_file_name("config.d");
    let failed = |source| ConfigError::Read {
        path: folder.display().to_string(),
        named_by: "the file beside it",
        source,
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Lays `over` on top of `base`.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Accelerator, Internetworking};

    fn load(text: &str) -> Result<Config, ConfigError> {
        Source::Inline(text.to_owned()).load()
    }

    fn complaint(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = load("").unwrap();
        assert_eq!(config.qemu().default_memory, 2048);
        assert_eq!(config.create_container_timeout(), Duration::from_secs(60));
        assert_eq!(
            config.runtime.internetworking_model,
            Internetworking::Tcfilter
        );
        assert!(!config.force_guest_pull());
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let config = load(
            r#"
            [hypervisor.qemu]
            path = "/q"
            accelerator = "tcg"
            default_vcpus = 2
            default_memory = 512
            enable_annotations = ["default_.*"]
            shared_fs = "none"
            [agent.kata]
            create_container_timeout = 90
            [runtime]
            experimental = ["force_guest_pull"]
            static_sandbox_resource_mgmt = true
            "#,
        )
        .unwrap();
        assert_eq!(config.qemu().path, Path::new("/q"));
        assert_eq!(config.qemu().accelerator, Accelerator::Tcg);
        assert!((config.qemu().default_vcpus - 2.0).abs() < f32::EPSILON);
        assert_eq!(config.qemu().default_memory, 512);
        assert_eq!(config.qemu().enable_annotations, ["default_.*"]);
        assert_eq!(config.create_container_timeout(), Duration::from_secs(90));
        assert!(config.force_guest_pull());
    }

    #[test]
    fn both_spellings_of_kata_shims_are_read() {
        let config =
            load("[runtime]\nexperimental_force_guest_pull = true\ncreate_container_timeout = 7")
                .unwrap();
        assert!(config.force_guest_pull());
        assert_eq!(config.create_container_timeout(), Duration::from_secs(7));
    }

    #[test]
    fn a_mistake_is_named_with_file_and_line() {
        for (text, line, words) in [
            ("[runtime]\n\nmistake = 1", 3, "unknown key \"mistake\""),
            ("x = 1", 1, "unknown table or key \"x\""),
            ("[hypervisor.clh]\npath = \"/x\"", 1, "\"clh\""),
            (
                "[runtime]\ndefault_memory = 1",
                2,
                "belongs into [hypervisor.qemu]",
            ),
            ("[runtime]\nenable_debug = 1", 2, "must be true or false"),
            ("[hypervisor.qemu]\ndefault_memory = -1", 2, "whole number"),
            ("[hypervisor.qemu]\npath = \"q\"", 2, "absolute path"),
            (
                "[hypervisor.qemu]\nshared_fs = \"virtio-fs\"",
                2,
                "nothing of the host is shared",
            ),
            (
                "[hypervisor.qemu]\nkernel_params = \"quiet\"",
                2,
                "measured",
            ),
            (
                "[runtime]\nexperimental = [\"other\"]",
                2,
                "force_guest_pull",
            ),
            ("runtime = 3", 1, "must be a table"),
            ("[runtime]\nenable_debug = tru", 2, ""),
        ] {
            let text = complaint(text);
            let place = format!("options of the runtime:{line}: ");
            assert!(text.starts_with(&place), "{text}");
            assert!(text.contains(words), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn drop_ins_are_merged_in_order_and_checked_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("configuration.toml");
        let extra = folder.path().join("config.d");
        fs::create_dir(&extra).unwrap();
        fs::write(
            &file,
            "[hypervisor.qemu]\ndefault_memory = 1\ndefault_vcpus = 3",
        )
        .unwrap();
        fs::write(
            extra.join("20.toml"),
            "[hypervisor.qemu]\ndefault_memory = 20",
        )
        .unwrap();
        fs::write(
            extra.join("10.toml"),
            "[hypervisor.qemu]\ndefault_memory = 10",
        )
        .unwrap();
        fs::write(extra.join("ignored.txt"), "?").unwrap();
        let source = Source::File {
            path: file,
            named_by: "the test",
        };
        let config = source.load().unwrap();
        assert_eq!(config.qemu().default_memory, 20);
        assert!((config.qemu().default_vcpus - 3.0).abs() < f32::EPSILON);

        fs::write(extra.join("30.toml"), "\n[runtime]\nwhat = 1").unwrap();
        let text = source.load().unwrap_err().to_string();
        assert!(text.contains("30.toml:3: "), "{text}");
    }

    #[test]
    fn options_come_before_environment_before_search() {
        let nowhere = |_: &Path| false;
        let etc = |path: &Path| path.starts_with("/etc");
        let environment = || Some(OsString::from("/env.toml"));
        let path = |source: Result<Source, ConfigError>| match source.unwrap() {
            Source::File { path, .. } => path,
            Source::Inline(_) => PathBuf::from("inline"),
        };
        let named = TaskOptions::Path("/opt.toml".into());
        assert_eq!(
            path(Source::choose_with(named, environment(), etc)),
            Path::new("/opt.toml")
        );
        let inline = TaskOptions::Inline(String::new());
        assert_eq!(
            path(Source::choose_with(inline, environment(), etc)),
            Path::new("inline")
        );
        let none = || TaskOptions::None;
        assert_eq!(
            path(Source::choose_with(none(), environment(), etc)),
            Path::new("/env.toml")
        );
        assert_eq!(
            path(Source::choose_with(none(), None, etc)),
            Path::new(SEARCH[0])
        );
        assert!(matches!(
            Source::choose_with(none(), None, nowhere),
            Err(ConfigError::Missing)
        ));
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_that_says_who_named_it() {
        let options = TaskOptions::Path("/nonexistent/x.toml".into());
        let source = Source::choose_with(options, None, |_| true).unwrap();
        let text = source.load().unwrap_err().to_string();
        assert!(text.contains("/nonexistent/x.toml"), "{text}");
        assert!(text.contains("ConfigPath"), "{text}");
    }
}
