//! containerd in the versions we promise to work with, and its configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    registry::REGISTRY,
    run::run_ok,
    tools::{cache_dir, system, unique},
};

const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(300);
const BUILD_DEADLINE: Duration = Duration::from_secs(1200);
const PROGRAMS: [&str; 3] = ["containerd", "ctr", "containerd-shim-runc-v2"];

/// A containerd release the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 1.7, from Debian 13.
    V1_7,
    /// 2.1, from Debian unstable, or from its Go module when Debian has moved on.
    V2_1,
    /// The newest 2.x, from its Go module.
    Newest,
}

/// A directory with `containerd`, `ctr` and the runc shim of one version.
#[derive(Debug, Clone)]
pub struct Containerd {
    /// Holds the programs.
    pub directory: PathBuf,
    /// As in `1.7.24`.
    pub version: String,
}

impl Release {
    /// The version each release stands for; a package must begin with it.
    fn wanted(self) -> &'static str {
        match self {
            Self::V1_7 => "1.7.",
            Self::V2_1 => "2.1.",
            Self::Newest => "2.4.",
        }
    }

    fn module(self) -> &'static str {
        match self {
            Self::V1_7 => "1.7.29",
            Self::V2_1 => "2.1.9",
            Self::Newest => "2.4.2",
        }
    }

    fn suite(self) -> Option<&'static str> {
        match self {
            Self::V1_7 => Some("trixie"),
            Self::V2_1 => Some("sid"),
            Self::Newest => None,
        }
    }

    /// Finds the release in the cache, or downloads or builds it.
    ///
    /// # Errors
    /// When neither Debian nor Go provides it; the message says why, for a test to print.
    pub fn provide(self) -> Result<Containerd> {
        let directory = cache_dir()?.join(format!("containerd-{}", self.module()));
        if let Ok(found) = Containerd::open(&directory.join("bin"), self.wanted()) {
            return Ok(found);
        }
        let aside = directory.with_extension(unique());
        let provided = self.download(&aside).or_else(|debian| {
            self.build(&aside)
                .with_context(|| format!("{debian:#}; and"))
        });
        if provided.is_ok() {
            let _ = fs::remove_dir_all(&directory);
            fs::rename(&aside, &directory).context("moving containerd into the cache")?;
        } else {
            let _ = fs::remove_dir_all(&aside);
        }
        provided?;
        Containerd::open(&directory.join("bin"), self.wanted())
    }

    fn download(self, into: &Path) -> Result<()> {
        let suite = self
            .suite()
            .context("Debian does not package this version")?;
        let (packages, root) = (into.join("packages"), into.join("root"));
        fs::create_dir_all(&packages)?;
        fs::create_dir_all(&root)?;
        let mut download = Command::new("apt-get");
        download
            .args(["download", "-q", &format!("containerd/{suite}")])
            .current_dir(&packages);
        run_ok(download, DOWNLOAD_DEADLINE)?;
        let package = fs::read_dir(&packages)?
            .next()
            .context("apt-get downloaded nothing")??;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(package.path()).arg(&root);
        run_ok(unpack, DOWNLOAD_DEADLINE)?;
        fs::rename(root.join("usr/bin"), into.join("bin"))?;
        fs::remove_dir_all(&root)?;
        fs::remove_dir_all(&packages)?;
        Containerd::open(&into.join("bin"), self.wanted()).map(drop)
    }

    fn build(self, into: &Path) -> Result<()> {
        let go = system("go").context("the Go compiler is not installed")?;
        let _ = fs::remove_dir_all(into);
        fs::create_dir_all(into.join("bin"))?;
        let module = if self == Self::V1_7 {
            "github.com/containerd/containerd"
        } else {
            "github.com/containerd/containerd/v2"
        };
        let mut command = Command::new(go);
        command
            .arg("install")
            .args(PROGRAMS.map(|program| format!("{module}/cmd/{program}@v{}", self.module())))
            .current_dir(into)
            .env("GOBIN", into.join("bin"))
            .env("CGO_ENABLED", "0")
            .env(
                "GOFLAGS",
                format!("-ldflags=-X={module}/version.Version={}", self.module()),
            );
        run_ok(command, BUILD_DEADLINE).map(drop)
    }
}

impl Containerd {
    fn open(directory: &Path, wanted: &str) -> Result<Self> {
        for program in PROGRAMS {
            if !directory.join(program).is_file() {
                bail!("{} has no {program}", directory.display());
            }
        }
        let mut command = Command::new(directory.join("containerd"));
        command.arg("--version");
        let text = run_ok(command, Duration::from_secs(20))?;
        let version = version(&text).context("containerd did not print its version")?;
        if !version.starts_with(wanted) {
            bail!("this containerd is {version}, wanted {wanted}x");
        }
        Ok(Self {
            directory: directory.to_owned(),
            version: version.to_owned(),
        })
    }

    /// One of its programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The bed's configuration; `kata-cc-node containerd` adds our runtime to it.
    pub(crate) fn config(&self) -> String {
        if self.version.starts_with("1.") {
            version_2()
        } else {
            version_3()
        }
    }
}

/// `containerd github.com/containerd/containerd 1.7.24~ds1 …` → `1.7.24`
fn version(text: &str) -> Option<&str> {
    let word = text.split_whitespace().nth(2)?.trim_start_matches('v');
    let end = word
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(word.len());
    word.get(..end)
}

const COMMON: &str = r#"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[debug]
  level = "info"
"#;

/// containerd 1.7.
fn version_2() -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let runc = runc(cri);
    format!(
        r#"version = 2
{COMMON}
[{cri}]
  sandbox_image = "{REGISTRY}/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
[{cri}.registry]
  config_path = "/run/bed/certs.d"
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/run/bed/cni"
[{cri}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
{runc}"#
    )
}

/// containerd 2.x.
fn version_3() -> String {
    let cri = "plugins.'io.containerd.cri.v1.runtime'";
    let images = "plugins.'io.containerd.cri.v1.images'";
    let runc = runc(cri);
    format!(
        r#"version = 3
{COMMON}
[{cri}]
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/run/bed/cni"
[{cri}.containerd]
  default_runtime_name = "runc"
{runc}
[{images}]
  snapshotter = "overlayfs"
  use_local_image_pull = true
[{images}.pinned_images]
  sandbox = "{REGISTRY}/pause:1"
[{images}.registry]
  config_path = "/run/bed/certs.d"

[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
"#
    )
}

fn runc(cri: &str) -> String {
    format!("[{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n")
}

/// How containerd finds the registry's certificate.
pub(crate) fn registry_hosts() -> String {
    format!(
        "server = \"https://{REGISTRY}\"\n[host.\"https://{REGISTRY}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"/run/bed/trust/ca.crt\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_debian_and_from_go_builds() {
        let debian = "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6";
        let go = "containerd github.com/containerd/containerd/v2 v2.4.2+unknown ";
        assert_eq!(version(debian), Some("1.7.24"));
        assert_eq!(version(go), Some("2.4.2"));
        assert_eq!(version("containerd"), None);
    }
}
