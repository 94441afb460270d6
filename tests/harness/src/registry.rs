//! The bed's registry: `docker-registry` with TLS, its storage open to faults.

use std::{fs, path::PathBuf, process::Child, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    access_log::AccessLog, authority::Authority, bed::wait_until, node::Node, run::run_ok,
    tools::system,
};

/// Registry of the bed, as written in image references.
pub const REGISTRY: &str = "10.90.0.1:5000";

const PORT: u16 = 5000;
const STATE: &str = "/run/bed/registry";
const LOG: &str = "/run/bed/registry.log";
const PUSH_DEADLINE: Duration = Duration::from_secs(300);

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    server: Child,
}

impl Registry {
    /// Starts the registry in `node` and waits until it listens.
    ///
    /// # Errors
    /// When a tool is missing or it does not come up in 20 seconds.
    pub fn start(node: &Node, authority: &Authority) -> Result<Self> {
        authority.sign_server(&node.path(STATE))?;
        fs::create_dir_all(node.path("/run/bed/trust"))?;
        fs::copy(authority.certificate(), node.path("/run/bed/trust/ca.crt"))?;
        node.write(format!("{STATE}/config.yml"), config())?;
        let mut command = node.command(system("docker-registry")?);
        command.args(["serve", &format!("{STATE}/config.yml")]);
        let mut server = node.serve(command, LOG)?;
        let listening = wait_until("the registry listens", Duration::from_secs(20), || {
            node.listens_on(PORT)
        });
        if let Err(error) = listening {
            let _ = server.kill();
            bail!("{error}: {}", node.read(LOG)?);
        }
        Ok(Self { server })
    }

    /// Everything asked of the registry so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self, node: &Node) -> Result<AccessLog> {
        Ok(AccessLog::parse(&node.read(LOG)?))
    }

    /// Copies an image with `skopeo` from `source` (a skopeo name) to `name` in this registry.
    ///
    /// # Errors
    /// When skopeo fails.
    pub fn push(&self, node: &Node, source: &str, name: &str, options: &[&str]) -> Result<()> {
        let mut command = node.command(system("skopeo")?);
        command
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-cert-dir=/run/bed/trust",
            ])
            .args(options)
            .arg(source)
            .arg(format!("docker://{REGISTRY}/{name}"));
        run_ok(command, PUSH_DEADLINE).map(drop)
    }

    /// The file that holds a blob's bytes, for a test to spoil.
    #[must_use]
    pub fn blob(&self, node: &Node, digest: &str) -> PathBuf {
        let hash = digest.trim_start_matches("sha256:");
        let first = hash.get(..2).unwrap_or_default();
        node.path(format!(
            "{STATE}/storage/docker/registry/v2/blobs/sha256/{first}/{hash}/data"
        ))
    }

    /// The manifest of `name` as the registry serves it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn manifest(&self, node: &Node, name: &str) -> Result<serde_json::Value> {
        let mut command = node.command(system("skopeo")?);
        command
            .args(["inspect", "--raw", "--cert-dir=/run/bed/trust"])
            .arg(format!("docker://{REGISTRY}/{name}"));
        let text = run_ok(command, Duration::from_secs(30))?;
        serde_json::from_str(&text).context("reading the manifest that skopeo printed")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn config() -> String {
    format!(
        "version: 0.1\n\
         log: {{ level: warn, accesslog: {{ disabled: false }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: {STATE}/storage }}, delete: {{ enabled: true }} }}\n\
         http:\n  \
           addr: {REGISTRY}\n  \
           secret: bed\n  \
           tls: {{ certificate: {STATE}/server.crt, key: {STATE}/server.key }}\n"
    )
}
