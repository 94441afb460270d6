//! Images that their owner encrypted and signed, with the tools that owners use, and a pod whose
//! initdata says which of them may run.

use std::{collections::HashMap, time::Duration};

use agent_protocol::initdata::{
    ANNOTATION, Algorithm, DIRECTORY,
    packed::{pack, to_annotation},
    write,
};
use anyhow::{Context, Result, bail, ensure};
use tests_harness::{
    ContainerRequest, Node, Pod, PodRequest, REGISTRY, Skopeo, built, cosign, run_ok, wait_until,
};

use crate::Stage;

const DEADLINE: Duration = Duration::from_secs(60);
const PLACE: &str = "/run/bed/owner";
const LOOKASIDE_PORT: u16 = 8091;
const PROVIDER_PORT: u16 = 50000;
/// Base64 of 32 equal bytes, twice.
const KEYS: &str = r#"{"default/image-key/1":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}"#;
const ALL_KEYS: &str = r#"{"default/image-key/1":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
    "default/image-key/2":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg="}"#;

/// Private keys: one that the guest's broker has, and one that it has not.
const PRIVATE_KEYS: [&str; 2] = ["jwe", "jwe-other"];

/// The owner's machine, played in the bed, and what it gave away.
struct Owner<'a> {
    node: &'a Node,
}

impl Owner<'_> {
    /// Runs a shell script with the owner's key rings, in the owner's directory.
    fn shell(&self, script: &str) -> Result<String> {
        let mut command = self.node.command("bash");
        command
            .env("GNUPGHOME", format!("{PLACE}/gnupg"))
            .env("TUF_ROOT", format!("{PLACE}/tuf"))
            .env("HOME", PLACE)
            .env("COSIGN_PASSWORD", "")
            .env("SSL_CERT_FILE", "/run/bed/trust/ca.crt")
            .args(["-euo", "pipefail", "-c", &format!("cd {PLACE}; {script}")]);
        run_ok(command, DEADLINE)
    }

    /// An image of its own, copied with these options of skopeo. Its configuration says its name:
    /// images with one configuration are one image to containerd, and it may ask for any.
    fn make(&self, options: &str, from: &str, name: &str) -> Result<()> {
        self.make_changed("", options, from, name)
    }

    /// As above, after a shell command has changed the image `layout:x`.
    fn make_changed(&self, change: &str, options: &str, from: &str, name: &str) -> Result<()> {
        let skopeo = "skopeo --policy policy-of-skopeo.json --registries.d registries.d copy --quiet \
                      --src-cert-dir=/run/bed/trust --dest-cert-dir=/run/bed/trust";
        self.shell(&format!(
            "rm -rf layout
             {skopeo} docker://{REGISTRY}/{from} oci:layout:x
             umoci config --image layout:x --config.label=name={name}
             {change}
             {skopeo} {options} oci:layout:x docker://{REGISTRY}/{name}"
        ))
        .map(drop)
    }

    fn prepare(&self) -> Result<()> {
        self.node.run("mkdir", &["-p", PLACE])?;
        self.node.write(format!("{PLACE}/keys.json"), ALL_KEYS)?;
        self.shell(&format!(
            "mkdir -m 700 gnupg; mkdir lookaside registries.d
             echo 'faked-system-time 20240601T000000!' >gnupg/gpg.conf
             printf 'default-docker:\\n  sigstore-staging: file://{PLACE}/lookaside\\n' >registries.d/default.yaml
             echo '{{\"default\":[{{\"type\":\"insecureAcceptAnything\"}}]}}' >policy-of-skopeo.json
             gpg --batch --quiet --passphrase '' --quick-gen-key owner@example ed25519 sign never
             gpg --armor --export owner@example >owner.asc"
        ))?;
        let mut server = self.node.command("busybox");
        server.args(["httpd", "-f", "-p", &format!("10.90.0.1:{LOOKASIDE_PORT}")]);
        server.args(["-h", &format!("{PLACE}/lookaside")]);
        self.node.serve(server, "/run/bed/lookaside.log")?;
        wait_until("the signature store listens", DEADLINE, || {
            self.node.listens_on(LOOKASIDE_PORT)
        })
    }

    fn encrypt(&self) -> Result<()> {
        for (key, plain, name) in [
            ("1", "plain:1", "encrypted:1"),
            ("2", "plain:2", "encrypted:2"),
        ] {
            self.make("", "busybox:1", plain)?;
            let mut command = self.node.command(built("kata-cc")?);
            command
                .args(["image", "encrypt"])
                .args([plain, name].map(|name| format!("docker://{REGISTRY}/{name}")))
                .args(["--key", &format!("kbs:///default/image-key/{key}")])
                .args(["--key-file", &format!("{PLACE}/keys.json")])
                .args(["--extra-root", "/run/bed/trust/ca.crt"]);
            run_ok(command, DEADLINE)?;
        }
        Ok(())
    }

    /// As owners do who have skopeo: through the key provider that it asks.
    fn encrypt_with_skopeo(&self) -> Result<()> {
        let skopeo = Skopeo::provide()?;
        self.make("", "configured:1", "plain:3")?;
        self.node.write(
            format!("{PLACE}/ocicrypt.json"),
            format!(r#"{{"key-providers":{{"attestation-agent":{{"grpc":"127.0.0.1:{PROVIDER_PORT}"}}}}}}"#),
        )?;
        let mut provider = self.node.command(built("kata-cc")?);
        provider.args(["image", "key-provider"]);
        provider.args(["--key-file", &format!("{PLACE}/keys.json")]);
        self.node.serve(provider, "/run/bed/key-provider.log")?;
        wait_until("the key provider listens", DEADLINE, || {
            self.node.listens_on(PROVIDER_PORT)
        })?;
        let mut command = skopeo.command(self.node);
        command
            .env(
                "OCICRYPT_KEYPROVIDER_CONFIG",
                format!("{PLACE}/ocicrypt.json"),
            )
            .args(["--insecure-policy", "copy", "--quiet"])
            .args([
                "--src-cert-dir=/run/bed/trust",
                "--dest-cert-dir=/run/bed/trust",
            ])
            .arg("--encryption-key=provider:attestation-agent:keyid=kbs:///default/image-key/1")
            .args(
                ["plain:3", "encrypted:by-skopeo"]
                    .map(|name| format!("docker://{REGISTRY}/{name}")),
            );
        run_ok(command, DEADLINE).map(drop)
    }

    /// As owners do who have only a public key.
    fn encrypt_for_public_keys(&self) -> Result<()> {
        let skopeo = Skopeo::provide()?;
        for name in PRIVATE_KEYS {
            self.shell(&format!(
                "head -c 64 /dev/urandom >own-layer
                 openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out {name}.pem
                 openssl pkey -in {name}.pem -pubout -out {name}.pub.pem"
            ))?;
            // A layer that no other image brings into the guest's store in clear.
            let change = "umoci insert --image layout:x own-layer /etc/own-layer";
            self.make_changed(change, "", "busybox:1", &format!("plain:{name}"))?;
            let mut command = skopeo.command(self.node);
            command
                .args(["--insecure-policy", "copy", "--quiet"])
                .args([
                    "--src-cert-dir=/run/bed/trust",
                    "--dest-cert-dir=/run/bed/trust",
                ])
                .arg(format!("--encryption-key=jwe:{PLACE}/{name}.pub.pem"))
                .args(
                    ["plain", "encrypted"]
                        .map(|repository| format!("docker://{REGISTRY}/{repository}:{name}")),
                );
            run_ok(command, DEADLINE)?;
        }
        Ok(())
    }

    fn sign_with_gpg(&self) -> Result<()> {
        self.make("--sign-by owner@example", "busybox:1", "signed:1")?;
        self.make("", "busybox:1", "signed:unsigned")?;
        self.make("", "busybox:1", "transplanted:1")?;
        // The good signature where that of another manifest should be.
        self.shell(&format!(
            "gpgconf --kill gpg-agent
             digest=$(skopeo inspect --raw --cert-dir=/run/bed/trust docker://{REGISTRY}/transplanted:1 | sha256sum)
             cp -r lookaside/signed@sha256=* lookaside/transplanted@sha256=\"${{digest%% *}}\""
        ))
        .map(drop)
    }

    fn sign_with_cosign(&self) -> Result<()> {
        let cosign = cosign()?;
        for name in ["tagged:1", "bundled:1", "bundled:unsigned"] {
            self.make("", "busybox:1", name)?;
        }
        self.shell(&format!(
            "cosign={}
             $cosign signing-config create --out signing.json
             openssl ecparam -name prime256v1 -genkey -noout -out p256.pem
             openssl pkey -in p256.pem -pubout -out cosign.pub
             $cosign import-key-pair --key p256.pem --output-key-prefix cosign
             of() {{ skopeo inspect --raw --cert-dir=/run/bed/trust docker://{REGISTRY}/$1:1 | sha256sum | cut -d' ' -f1; }}
             sign=\"sign --yes --key cosign.key\"
             $cosign $sign --use-signing-config=false --tlog-upload=false --new-bundle-format=false {REGISTRY}/tagged@sha256:$(of tagged)
             $cosign $sign --signing-config signing.json {REGISTRY}/bundled@sha256:$(of bundled)",
            cosign.display()
        ))
        .map(drop)
    }

    /// What the guest is told. Its broker has the first of the two private keys.
    fn initdata(&self) -> Result<String> {
        let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
        let by_gpg = format!(
            r#"[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{DIRECTORY}/owner.asc"}}]"#
        );
        let by_cosign = format!(
            r#"[{{"type":"sigstoreSigned","keyPath":"{DIRECTORY}/cosign.pub","signedIdentity":{{"type":"matchRepository"}}}}]"#
        );
        let scopes = [
            ("encrypted", accept),
            ("signed", &by_gpg),
            ("transplanted", &by_gpg),
            ("tagged", &by_cosign),
            ("bundled", &by_cosign),
        ]
        .map(|(name, requirements)| format!(r#""{REGISTRY}/{name}":{requirements}"#))
        .join(",");
        let file = |name: &str| self.node.read(format!("{PLACE}/{name}"));
        let private_key = self.shell(&format!("base64 -w 0 {}.pem", PRIVATE_KEYS[0]))?;
        let entries = [
            (
                "cdh.toml",
                format!(
                    "[kbc]\nname = \"offline_fs_kbc\"\n[image]\n\
                     image_security_policy_uri = \"file://{DIRECTORY}/policy.json\"\n\
                     sigstore_config_uri = \"file://{DIRECTORY}/sigstore.yaml\"\n\
                     layer_private_key_uris = [\"kbs:///default/private-key/2\", \"kbs:///default/private-key/1\"]\n"
                ),
            ),
            ("aa-offline_fs_kbc-keys.json", KEYS.to_owned()),
            (
                "aa-offline_fs_kbc-resources.json",
                format!(r#"{{"default/private-key/1":"{}"}}"#, private_key.trim()),
            ),
            (
                "policy.json",
                format!(
                    r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{scopes}}}}}}}"#
                ),
            ),
            (
                "sigstore.yaml",
                format!("default-docker:\n  lookaside: http://10.90.0.1:{LOOKASIDE_PORT}\n"),
            ),
            ("owner.asc", file("owner.asc")?),
            ("cosign.pub", file("cosign.pub")?),
        ];
        let entries = entries.map(|(name, text)| (name.to_owned(), text));
        Ok(to_annotation(&pack(&write(
            Algorithm::Sha256,
            &entries.into(),
        )?)?))
    }
}

fn runs(pod: &Pod<'_>, name: &str) -> Result<()> {
    let mut request = ContainerRequest::shell("cat /etc/from-the-second-layer");
    request.image = format!("{REGISTRY}/{name}");
    let exit = pod.complete(request).with_context(|| name.to_owned())?;
    ensure!(exit.stdout == "here\n", "{name}: {exit:?}");
    Ok(())
}

fn is_refused(pod: &Pod<'_>, name: &str, words: &str) -> Result<()> {
    let mut request = ContainerRequest::busybox(&["true"]);
    request.image = format!("{REGISTRY}/{name}");
    match pod.complete(request) {
        Ok(exit) => bail!("{name} ran, which should fail with {words:?}: {exit:?}"),
        Err(error) => ensure!(format!("{error:#}").contains(words), "{name}: {error:#}"),
    }
    Ok(())
}

/// Encrypted by `kata-cc` and by skopeo, for a key provider and for a public key, signed by GnuPG
/// and skopeo, by cosign in a tag and in a bundle: each runs in a guest whose initdata has the
/// keys, and its impostors do not.
pub fn images_run_if_their_owner_protected_them_and_others_do_not(
    stage: &'static Stage,
) -> Result<()> {
    let _turn = stage.together();
    if !stage.has_vms() {
        return Ok(());
    }
    let owner = Owner {
        node: stage.bed().node(),
    };
    owner.prepare()?;
    owner.encrypt().context("encrypting")?;
    owner
        .encrypt_with_skopeo()
        .context("encrypting with skopeo")?;
    owner
        .encrypt_for_public_keys()
        .context("encrypting for public keys")?;
    owner.sign_with_gpg().context("signing with GnuPG")?;
    owner.sign_with_cosign().context("signing with cosign")?;
    let request = PodRequest {
        annotations: HashMap::from([(ANNOTATION.to_owned(), owner.initdata()?)]),
        ..PodRequest::default()
    };
    let pod = Pod::run(stage.bed(), stage.handler(), request)?;
    // First: a layer that the guest has needs no key again.
    for (name, words) in [
        ("busybox:1", "rejects every image"),
        ("encrypted:2", "there is no resource"),
        (
            "encrypted:jwe-other",
            "a private key cannot be fetched: there is no resource `kbs:///default/private-key/2`",
        ),
        ("signed:unsigned", "the image has no signature"),
        ("transplanted:1", "which is not this image's"),
        ("bundled:unsigned", "the image has no signature"),
    ] {
        is_refused(&pod, name, words)?;
    }
    for name in [
        "encrypted:1",
        "encrypted:by-skopeo",
        "encrypted:jwe",
        "signed:1",
        "tagged:1",
        "bundled:1",
    ] {
        runs(&pod, name)?;
    }
    pod.remove()
}
