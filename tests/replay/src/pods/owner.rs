//! The owner of the pods: makes their policies with `kata-cc policy gen`, of the images in the
//! bed's registry, which is a mirror of those that the YAML names.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use tests_harness::{Bed, REGISTRY, run_ok};

use super::{directory, images};

const DEADLINE: Duration = Duration::from_secs(120);
const PLACE: &str = "/run/bed/pod-owner";
/// Where the registry's certificate lies in a bed.
const ROOT: &str = "/run/bed/trust/ca.crt";

/// The registries of the YAML, and where the bed's has their images.
const MIRRORED: [(&str, &str); 3] = [
    ("docker.io", "docker.io"),
    ("us-docker.pkg.dev", "us-docker.pkg.dev"),
    ("registry.example:5000", "registry.example"),
];

/// Makes policies.
#[derive(Debug)]
pub struct Owner<'bed> {
    bed: &'bed Bed,
    digest: String,
}

impl<'bed> Owner<'bed> {
    /// Pushes the images, and has containerd and the guests look for them in the bed's registry.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn prepare(bed: &'bed Bed) -> Result<Self> {
        let digest = images::push(bed)?;
        let node = bed.node();
        let mut registries = String::new();
        for (registry, place) in MIRRORED {
            registries.push_str(&format!(
                "[[registry]]\nprefix = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{REGISTRY}/{place}\"\n"
            ));
            // How containerd is told the same.
            let hosts = format!(
                "[host.\"https://{REGISTRY}/v2/{place}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n  ca = \"{ROOT}\"\n"
            );
            node.write(format!("/run/bed/certs.d/{registry}/hosts.toml"), hosts)?;
        }
        node.write(format!("{PLACE}/registries.conf"), registries)?;
        let keys = "[image]\nregistry_configuration_uri = \"file:///run/confidential-containers/initdata/registries.conf\"\n";
        node.write(format!("{PLACE}/cdh.toml"), keys)?;
        let owner = Self { bed, digest };
        let files = ["cdh.toml", "registries.conf"].map(|name| format!("{PLACE}/{name}"));
        let out = format!("{PLACE}/initdata.toml");
        owner.command(&["initdata", "make", &files[0], &files[1], "-o", &out])?;
        Ok(owner)
    }

    fn command(&self, arguments: &[&str]) -> Result<String> {
        let prefix = self.bed.prefix().context("the bed has our runtime")?;
        let mut command = self.bed.command(prefix.bin("kata-cc"));
        command.args(arguments);
        run_ok(command, DEADLINE)
    }

    /// The YAML of a pod of `tests/pods`.
    ///
    /// # Errors
    /// When there is none.
    pub fn yaml(&self, pod: &str) -> Result<String> {
        let path = directory().join(format!("{pod}.yaml"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.replace("@DIGEST", &format!("@{}", self.digest)))
    }

    /// The same with the policy that is generated from it; `options` are further ones of
    /// `kata-cc policy gen`.
    ///
    /// # Errors
    /// When no policy can be made of it.
    pub fn with_policy(&self, pod: &str, options: &[&str]) -> Result<String> {
        let file = format!("{PLACE}/{pod}.yaml");
        self.bed.node().write(&file, self.yaml(pod)?)?;
        let registries = format!("{PLACE}/registries.conf");
        let initdata = format!("{PLACE}/initdata.toml");
        let mut arguments = vec!["policy", "gen", "--no-cache", "--extra-root", ROOT];
        arguments.extend(["--registries-conf", &registries, "--initdata", &initdata]);
        arguments.extend(options);
        arguments.push(&file);
        self.command(&arguments)
    }
}
