//! The owner's image commands against skopeo: what one encrypts, the other decrypts, with keys of
//! a provider and with public keys.

mod place;

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use place::{
    DEADLINE, DECRYPT, KEY, KEY_FILE, OTHER_KEY_FILE, TRUST, digests, private_key, public_key,
    registry, with_place,
};
use serde_json::Value;
use tests_harness::{REGISTRY, run, run_ok, wait_until};

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
