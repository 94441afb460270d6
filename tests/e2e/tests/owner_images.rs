//! The owner's image commands against skopeo: what one encrypts, the other decrypts, with keys of
//! a provider and with public keys.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_harness::{
    Authority, Node, REGISTRY, Ran, Registry, Skopeo, TestImages, built, run, run_ok, wait_until,
};

const DEADLINE: Duration = Duration::from_secs(120);
const TRUST: &str = "/run/bed/trust";
const KEY_FILE: &str = "/run/bed/keys.json";
const OTHER_KEY_FILE: &str = "/run/bed/other-keys.json";
const KEY: &str = "kbs:///default/image-key/1";
const PORT: u16 = 50000;
/// Pairs of keys, by name: one of each kind that there is, and one that nothing is for.
const PAIRS: [(&str, &str); 5] = [
    ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072"),
    ("p256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
    ("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
    ("p521", "-algorithm EC -pkeyopt ec_paramgen_curve:P-521"),
    ("other", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
];
/// `--decryption-key` and `--encryption-key` of skopeo; what follows the name is the provider's.
const DECRYPT: &str = "--decryption-key=provider:attestation-agent:any";

/// A registry with an image, a key file, and a key provider that serves skopeo.
struct Place {
    skopeo: Skopeo,
    _registry: Registry,
    node: Node,
}

impl Place {
    fn make(skopeo: Skopeo) -> Result<Self> {
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
            _registry: registry,
            node,
        })
    }

    fn skopeo(&self, arguments: &[&str]) -> Result<Ran> {
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

    fn copy(&self, arguments: &[&str]) -> Result<()> {
        let ran = self.skopeo(arguments)?;
        ensure!(
            ran.code == Some(0),
            "skopeo {arguments:?}: {}",
            ran.output()
        );
        Ok(())
    }

    fn owner(&self, command: &str) -> Result<Command> {
        let mut process = self.node.command(built("kata-cc")?);
        process.args(["image", command]);
        Ok(process)
    }

    /// Encrypts for public keys only.
    fn encrypt_for(&self, source: &str, target: &str, names: &[&str]) -> Result<Ran> {
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

    fn encrypt(&self, source: &str, target: &str, more: &[&str]) -> Result<Ran> {
        let mut command = self.owner("encrypt")?;
        command
            .args([source, target, "--key", KEY, "--key-file", KEY_FILE])
            .args(["--extra-root", "/run/bed/trust/ca.crt"])
            .args(more);
        run(command, DEADLINE)
    }

    /// Pulls as a guest would; gives the report.
    fn pull(&self, name: &str, to: &str, keys: &[&str]) -> Result<Ran> {
        let mut command = self.owner("pull")?;
        command
            .args([&format!("{REGISTRY}/{name}"), to, "--json"])
            .args(["--extra-root", "/run/bed/trust/ca.crt"])
            .args(keys);
        run(command, DEADLINE)
    }

    fn pulled(&self, name: &str, to: &str, keys: &[&str]) -> Result<Value> {
        let ran = self.pull(name, to, keys)?;
        ensure!(ran.code == Some(0), "pulling {name}: {}", ran.output());
        Ok(serde_json::from_str(&ran.stdout)?)
    }

    /// `name` comes out as the plain image does, though these of its layers are encrypted.
    fn is_like(&self, plain: &str, name: &str, encrypted: &[bool]) -> Result<()> {
        self.is_like_with(plain, name, encrypted, &["--key-file", KEY_FILE])
    }

    fn is_like_with(
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
    fn refuses(&self, name: &str, keys: &[&str], words: &str) -> Result<()> {
        let ran = self.pull(name, "/run/bed/refused", keys)?;
        ensure!(ran.code == Some(1), "{ran:?}");
        ensure!(ran.stderr.contains(words), "no `{words}` in {}", ran.stderr);
        Ok(())
    }

    fn manifest(&self, name: &str) -> Result<Value> {
        self._registry.manifest(&self.node, name)
    }
}

fn keys(byte: u8) -> String {
    // Base64 of 32 equal bytes.
    let text = match byte {
        7 => "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
        _ => "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=",
    };
    format!(r#"{{"default/image-key/1":"{text}"}}"#)
}

fn private_key(name: &str) -> String {
    format!("/run/bed/{name}.pem")
}

fn public_key(name: &str) -> String {
    format!("/run/bed/{name}.pub.pem")
}

fn digests(manifest: &Value) -> Vec<Value> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    layers.map(|layer| layer["digest"].clone()).collect()
}

fn registry(name: &str) -> String {
    format!("docker://{REGISTRY}/{name}")
}

/// Runs a scenario, or says why not.
fn with_place(scenario: impl FnOnce(&Place) -> Result<()>) {
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

#[test]
fn what_skopeo_encrypts_through_our_key_provider_is_pulled() {
    with_place(|place| {
        let key = format!("--encryption-key=provider:attestation-agent:keyid={KEY}");
        let (from, to) = (registry("busybox:1"), registry("by-skopeo:1"));
        place.copy(&[&key, &from, &to])?;
        place.is_like("busybox:1", "by-skopeo:1", &[true, true])
    });
}

#[test]
fn what_we_encrypt_is_pulled_and_skopeo_decrypts_it_to_the_same_bytes() {
    with_place(|place| {
        for (packet, name) in [("1", "by-us:1"), ("2", "by-us:2")] {
            let ran = place.encrypt(
                &registry("busybox:1"),
                &registry(name),
                &["--packet", packet],
            )?;
            ensure!(ran.code == Some(0), "{}", ran.output());
            place.is_like("busybox:1", name, &[true, true])?;
            let decrypted = registry(&format!("decrypted-{name}"));
            place.copy(&[DECRYPT, &registry(name), &decrypted])?;
            let expected = digests(&place.manifest("busybox:1")?);
            let found = digests(&place.manifest(&format!("decrypted-{name}"))?);
            ensure!(expected == found, "{expected:?} became {found:?}");
        }
        Ok(())
    });
}

#[test]
fn what_skopeo_encrypts_for_public_keys_is_pulled_with_each_private_key_and_no_other() {
    with_place(|place| {
        let from = registry("busybox:1");
        for recipients in [
            &["rsa"][..],
            &["p256"],
            &["p384"],
            &["p521"],
            &["p256", "rsa"],
        ] {
            let name = format!("jwe-by-skopeo:{}", recipients.join("-"));
            let keys = recipients
                .iter()
                .map(|one| format!("--encryption-key=jwe:{}", public_key(one)));
            let (keys, to): (Vec<_>, _) = (keys.collect(), registry(&name));
            let mut arguments: Vec<&str> = keys.iter().map(String::as_str).collect();
            arguments.extend([from.as_str(), &to]);
            place.copy(&arguments)?;
            let other = ["--private-key", &private_key("other")];
            for one in recipients {
                let private = private_key(one);
                let keys = [&other[..], &["--private-key", &private]].concat();
                place.is_like_with("busybox:1", &name, &[true, true], &keys)?;
            }
            place.refuses(
                &name,
                &other,
                "none of its 1 JWE opens with the 1 private keys",
            )?;
            place.refuses(
                &name,
                &["--key-file", KEY_FILE],
                "no private key; name it in",
            )?;
        }
        Ok(())
    });
}

#[test]
fn what_we_encrypt_for_public_keys_skopeo_decrypts_to_the_same_bytes() {
    with_place(|place| {
        let from = registry("busybox:1");
        for recipients in [&["rsa"][..], &["p521"], &["p256", "p384", "rsa"]] {
            let name = format!("jwe-by-us:{}", recipients.join("-"));
            let ran = place.encrypt_for(&from, &registry(&name), recipients)?;
            ensure!(ran.code == Some(0), "{}", ran.output());
            for one in recipients {
                let private = private_key(one);
                place.is_like_with(
                    "busybox:1",
                    &name,
                    &[true, true],
                    &["--private-key", &private],
                )?;
                let decrypted = format!("decrypted-{name}-{one}");
                let key = format!("--decryption-key={private}");
                place.copy(&[&key, &registry(&name), &registry(&decrypted)])?;
                let expected = digests(&place.manifest("busybox:1")?);
                let found = digests(&place.manifest(&decrypted)?);
                ensure!(expected == found, "{expected:?} became {found:?}");
            }
            let key = format!("--decryption-key={}", private_key("other"));
            let ran = place.skopeo(&[&key, &registry(&name), "oci:/run/bed/not-decrypted"])?;
            ensure!(ran.code != Some(0), "another key decrypts it");
        }
        Ok(())
    });
}

#[test]
fn layouts_archives_and_docker_images_are_encrypted_too_and_layers_can_be_chosen() {
    with_place(|place| {
        let (layout, archive) = (
            "oci:/run/bed/layout:a",
            "oci-archive:/run/bed/archive.tar:b",
        );
        place.copy(&[
            &registry("configured:1"),
            "oci-archive:/run/bed/source.tar:s",
        ])?;
        let steps = [
            (
                "oci-archive:/run/bed/source.tar:s",
                layout,
                vec!["--layer", "1"],
            ),
            (layout, archive, vec!["--layer", "-1"]),
        ];
        for (source, target, more) in steps {
            let ran = place.encrypt(source, target, &more)?;
            ensure!(ran.code == Some(0), "{source}: {}", ran.output());
        }
        place.copy(&[archive, &registry("in-steps:1")])?;
        place.is_like("configured:1", "in-steps:1", &[true, true])?;
        // Docker's own format, from a registry; its upper layer stays as it is.
        let from = registry("configured:1");
        let ran = place.encrypt(&from, &registry("of-docker:1"), &["--layer", "1"])?;
        ensure!(ran.code == Some(0), "{}", ran.output());
        place.is_like("configured:1", "of-docker:1", &[true, false])
    });
}

#[test]
fn an_encrypted_layer_is_not_encrypted_again_and_a_wrong_key_opens_nothing() {
    with_place(|place| {
        let name = "refusals:1";
        let ran = place.encrypt(&registry("busybox:1"), &registry(name), &[])?;
        ensure!(ran.code == Some(0), "{}", ran.output());
        let again = place.encrypt(&registry(name), "oci:/run/bed/twice", &[])?;
        ensure!(again.code == Some(1), "{again:?}");
        ensure!(
            again
                .stderr
                .contains("layer 1 cannot be encrypted: it is encrypted already")
        );
        let none = place.encrypt(&registry("busybox:1"), "oci:/run/bed/x", &["--layer", "3"])?;
        ensure!(
            none.stderr.contains("has 2 layers, so there is no layer 3"),
            "{none:?}"
        );
        let wrong = place.pull(name, "/run/bed/wrong-key", &["--key-file", OTHER_KEY_FILE])?;
        ensure!(wrong.code == Some(1), "{wrong:?}");
        for part in [
            format!("cannot pull {REGISTRY}/{name}: layer "),
            " of 2 (sha256:".to_owned(),
            format!("key `{KEY}` does not open it"),
            " bytes, ".to_owned(),
        ] {
            ensure!(
                wrong.stderr.contains(&part),
                "no `{part}` in {}",
                wrong.stderr
            );
        }
        let left: PathBuf = place.node.path("/run/bed/wrong-key");
        ensure!(fs::read_dir(left)?.next().is_none(), "something is left");
        Ok(())
    });
}

#[test]
fn a_pull_obeys_the_policy_that_it_is_given() {
    with_place(|place| {
        for (requirement, code) in [("insecureAcceptAnything", 0), ("reject", 1)] {
            let policy = format!(r#"{{"default":[{{"type":"{requirement}"}}]}}"#);
            place.node.write("/run/bed/policy.json", policy)?;
            let mut command = place.owner("pull")?;
            command
                .args([
                    &format!("{REGISTRY}/busybox:1"),
                    &format!("/run/bed/{requirement}"),
                ])
                .args(["--policy", "/run/bed/policy.json"])
                .args(["--extra-root", "/run/bed/trust/ca.crt"]);
            let ran = run(command, DEADLINE)?;
            ensure!(ran.code == Some(code), "{requirement}: {ran:?}");
        }
        Ok(())
    });
}

#[test]
fn inspect_shows_what_is_encrypted_and_for_which_key() {
    with_place(|place| {
        let name = "looked-at:1";
        let ran = place.encrypt(&registry("busybox:1"), &registry(name), &["--layer", "-1"])?;
        ensure!(ran.code == Some(0), "{}", ran.output());
        let mut command = place.owner("inspect")?;
        command.args([
            &registry(name),
            "--json",
            "--extra-root",
            "/run/bed/trust/ca.crt",
        ]);
        let report: Value = serde_json::from_str(&run_ok(command, DEADLINE)?)?;
        let layers = report["images"][0]["layers"].as_array();
        let layers = layers.context("inspect lists layers")?;
        let shown: Vec<_> = layers
            .iter()
            .map(|layer| (&layer["encrypted"], &layer["recipients"][0]["key_id"]))
            .collect();
        ensure!(
            shown
                == [
                    (&Value::Bool(false), &Value::Null),
                    (&Value::Bool(true), &Value::String(KEY.to_owned()))
                ]
        );
        let ran = place.encrypt_for(&registry(name), "oci:/run/bed/jwe", &["p256", "rsa"])?;
        ensure!(ran.code == Some(1), "layer 2 is encrypted already: {ran:?}");
        let ran =
            place.encrypt_for(&registry("busybox:1"), "oci:/run/bed/jwe", &["p256", "rsa"])?;
        ensure!(ran.code == Some(0), "{}", ran.output());
        let mut command = place.owner("inspect")?;
        command.arg("oci:/run/bed/jwe");
        let text = run_ok(command, DEADLINE)?;
        for algorithm in ["ECDH-ES+A256KW", "RSA-OAEP"] {
            let line = format!("encrypted for an unnamed key  (jwe, {algorithm})");
            ensure!(text.matches(&line).count() == 2, "{text}");
        }
        Ok(())
    });
}

#[test]
fn a_key_provider_unwraps_only_if_it_was_told_to() {
    with_place(|place| {
        let port = "127.0.0.1:50001";
        let mut provider = place.owner("key-provider")?;
        provider.args(["--listen", port, "--key-file", KEY_FILE]);
        place.node.serve(provider, "/run/bed/wrap-only.log")?;
        wait_until("the second key provider listens", DEADLINE, || {
            place.node.listens_on(50001)
        })?;
        place.node.write(
            "/run/bed/wrap-only.json",
            format!(r#"{{"key-providers":{{"attestation-agent":{{"grpc":"{port}"}}}}}}"#),
        )?;
        let copy = |arguments: &[&str]| {
            let mut command = place.skopeo.command(&place.node);
            command
                .env("OCICRYPT_KEYPROVIDER_CONFIG", "/run/bed/wrap-only.json")
                .args(["--insecure-policy", "copy", "--quiet"])
                .arg(format!("--src-cert-dir={TRUST}"))
                .args(arguments);
            run(command, DEADLINE)
        };
        let key = format!("--encryption-key=provider:attestation-agent:keyid={KEY}");
        let to = "oci:/run/bed/wrapped:1";
        let wrapped = copy(&[&key, &registry("busybox:1"), to])?;
        ensure!(wrapped.code == Some(0), "{}", wrapped.output());
        let opened = copy(&[DECRYPT, to, "oci:/run/bed/opened:1"])?;
        ensure!(opened.code != Some(0), "it was unwrapped");
        Ok(())
    });
}
