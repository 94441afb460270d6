//! A registry with images, the owner's keys, and the tools of both sides.

use std::{
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests_harness::{
    Authority, Node, REGISTRY, Ran, Registry, Skopeo, TestImages, built, run, run_ok, wait_until,
};

pub(super) const DEADLINE: Duration = Duration::from_secs(120);
pub(super) const TRUST: &str = "/run/bed/trust";
pub(super) const KEY_FILE: &str = "/run/bed/keys.json";
pub(super) const OTHER_KEY_FILE: &str = "/run/bed/other-keys.json";
pub(super) const KEY: &str = "kbs:///default/image-key/1";
pub(super) const PORT: u16 = 50000;
/// Pairs of keys, by name: one of each kind that there is, and one that nothing is for.
pub(super) const PAIRS: [(&str, &str); 5] = [
    ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072"),
    ("p256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
    ("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
    ("p521", "-algorithm EC -pkeyopt ec_paramgen_curve:P-521"),
    ("other", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
];
/// `--decryption-key` and `--encryption-key` of skopeo; what follows the name is the provider's.
pub(super) const DECRYPT: &str = "--decryption-key=provider:attestation-agent:any";

/// A registry with an image, a key file, and a key provider that serves skopeo.
pub(super) struct Place {
    pub(super) skopeo: Skopeo,
    registry: Registry,
    pub(super) node: Node,
}

impl Place {
    pub(super) fn make(skopeo: Skopeo) -> Result<Self> {
        let node = Node::up()?;
        let registry = Registry::start(&node, &Authority::open()?)?;
        for image in [TestImages::BUSYBOX, TestImages::CONFIGURED] {
            image.push(&node, &registry)?;
        }
        node.write(KEY_FILE, keys(7))?;
        node.write(OTHER_KEY_FILE, keys(8))?;
        for (name, options) in PAIRS {
            let (private, public) = (private_key(name), public_key(name));
            let mut shell = node.command("sh");
            shell.arg("-ec").arg(format!(
                "openssl genpkey {options} -out {private} 2>/dev/null
                 openssl pkey -in {private} -pubout -out {public}"
            ));
            run_ok(shell, DEADLINE)?;
        }
        node.write(
            "/run/bed/ocicrypt.json",
            format!(r#"{{"key-providers":{{"attestation-agent":{{"grpc":"127.0.0.1:{PORT}"}}}}}}"#),
        )?;
        let mut provider = node.command(built("kata-cc")?);
        provider.args(["image", "key-provider", "--unwrap", "--key-file", KEY_FILE]);
        node.serve(provider, "/run/bed/key-provider.log")?;
        wait_until("the key provider listens", DEADLINE, || {
            node.listens_on(PORT)
        })?;
        Ok(Self {
            skopeo,
            registry,
            node,
        })
    }

    pub(super) fn skopeo(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.skopeo.command(&self.node);
        command
            .env("OCICRYPT_KEYPROVIDER_CONFIG", "/run/bed/ocicrypt.json")
            .args(["--insecure-policy", "copy", "--quiet"])
            .args([
                format!("--src-cert-dir={TRUST}"),
                format!("--dest-cert-dir={TRUST}"),
            ])
            .args(arguments);
        run(command, DEADLINE)
    }

    pub(super) fn copy(&self, arguments: &[&str]) -> Result<()> {
        let ran = self.skopeo(arguments)?;
        ensure!(
            ran.code == Some(0),
            "skopeo {arguments:?}: {}",
            ran.output()
        );
        Ok(())
    }

    pub(super) fn owner(&self, command: &str) -> Result<Command> {
        let mut process = self.node.command(built("kata-cc")?);
        process.args(["image", command]);
        Ok(process)
    }

    /// Encrypts for public keys only.
    pub(super) fn encrypt_for(&self, source: &str, target: &str, names: &[&str]) -> Result<Ran> {
        let mut command = self.owner("encrypt")?;
        command
            .args([source, target])
            .args(
                names
                    .iter()
                    .map(|name| format!("--jwe-key={}", public_key(name))),
            )
            .args(["--extra-root", "/run/bed/trust/ca.crt"]);
        run(command, DEADLINE)
    }

    pub(super) fn encrypt(&self, source: &str, target: &str, more: &[&str]) -> Result<Ran> {
        let mut command = self.owner("encrypt")?;
        command
            .args([source, target, "--key", KEY, "--key-file", KEY_FILE])
            .args(["--extra-root", "/run/bed/trust/ca.crt"])
            .args(more);
        run(command, DEADLINE)
    }

    /// Pulls as a guest would; gives the report.
    pub(super) fn pull(&self, name: &str, to: &str, keys: &[&str]) -> Result<Ran> {
        let mut command = self.owner("pull")?;
        command
            .args([&format!("{REGISTRY}/{name}"), to, "--json"])
            .args(["--extra-root", "/run/bed/trust/ca.crt"])
            .args(keys);
        run(command, DEADLINE)
    }

    pub(super) fn pulled(&self, name: &str, to: &str, keys: &[&str]) -> Result<Value> {
        let ran = self.pull(name, to, keys)?;
        ensure!(ran.code == Some(0), "pulling {name}: {}", ran.output());
        Ok(serde_json::from_str(&ran.stdout)?)
    }

    /// `name` comes out as the plain image does, though these of its layers are encrypted.
    pub(super) fn is_like(&self, plain: &str, name: &str, encrypted: &[bool]) -> Result<()> {
        self.is_like_with(plain, name, encrypted, &["--key-file", KEY_FILE])
    }

    pub(super) fn is_like_with(
        &self,
        plain: &str,
        name: &str,
        encrypted: &[bool],
        keys: &[&str],
    ) -> Result<()> {
        static TURN: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let (one, other) = (
            format!("/run/bed/plain-{turn}"),
            format!("/run/bed/of-{turn}"),
        );
        let expected = self.pulled(plain, &one, &[])?;
        let found = self.pulled(name, &other, keys)?;
        let column = |report: &Value, member: &str| -> Vec<Value> {
            let layers = report["layers"].as_array().into_iter().flatten();
            layers.map(|layer| layer[member].clone()).collect()
        };
        ensure!(column(&expected, "diff_id") == column(&found, "diff_id"));
        ensure!(column(&found, "encrypted") == encrypted, "{found}");
        let mut diff = self.node.command("diff");
        diff.args(["-r", "--no-dereference"])
            .args([format!("{one}/rootfs"), format!("{other}/rootfs")]);
        run_ok(diff, DEADLINE).map(drop)
    }

    /// A pull with these keys fails and says this.
    pub(super) fn refuses(&self, name: &str, keys: &[&str], words: &str) -> Result<()> {
        let ran = self.pull(name, "/run/bed/refused", keys)?;
        ensure!(ran.code == Some(1), "{ran:?}");
        ensure!(ran.stderr.contains(words), "no `{words}` in {}", ran.stderr);
        Ok(())
    }

    pub(super) fn manifest(&self, name: &str) -> Result<Value> {
        self.registry.manifest(&self.node, name)
    }
}

pub(super) fn keys(byte: u8) -> String {
    // Base64 of 32 equal bytes.
    let text = match byte {
        7 => "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
        _ => "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=",
    };
    format!(r#"{{"default/image-key/1":"{text}"}}"#)
}

pub(super) fn private_key(name: &str) -> String {
    format!("/run/bed/{name}.pem")
}

pub(super) fn public_key(name: &str) -> String {
    format!("/run/bed/{name}.pub.pem")
}

pub(super) fn digests(manifest: &Value) -> Vec<Value> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    layers.map(|layer| layer["digest"].clone()).collect()
}

pub(super) fn registry(name: &str) -> String {
    format!("docker://{REGISTRY}/{name}")
}

/// Runs a scenario, or says why not.
pub(super) fn with_place(scenario: impl FnOnce(&Place) -> Result<()>) {
    static PLACE: OnceLock<Option<Place>> = OnceLock::new();
    let place = PLACE.get_or_init(|| match Skopeo::provide() {
        Ok(skopeo) => Some(Place::make(skopeo).expect("the registry and the key provider start")),
        Err(error) => {
            eprintln!("skipped: there is no skopeo that knows key providers: {error:#}");
            None
        }
    });
    if let Some(place) = place
        && let Err(error) = scenario(place)
    {
        panic!("{error:#}");
    }
}
