//! A registry with signed images, and guests with signature policies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use agent_image::{Config, Image, Puller};
use agent_image_registry::{Reference, Registry as RegistryConfig};
use agent_image_signatures::{Lookaside, SignaturePolicy};

use super::*;

pub const HOST: &str = "registry.example:5000";

pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("signatures/tests/vectors")
}

pub fn vector(name: &str) -> Vec<u8> {
    fs::read(vectors().join(name)).unwrap()
}

pub fn text(name: &str) -> String {
    String::from_utf8(vector(name)).unwrap().trim().to_owned()
}

/// The registry as the tools left it; it has no referrers API.
pub fn stored() -> Files {
    let mut files = Files::default();
    for line in text("registry/manifests").lines() {
        let [repository, version, digest] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let bytes = vector(&format!("registry/blobs/{}", digest.replace("sha256:", "")));
        let is_index = String::from_utf8_lossy(&bytes).contains("\"manifests\":");
        let kind = if is_index { OCI_INDEX } else { OCI_MANIFEST };
        let path = format!("/v2/{repository}/manifests/{version}");
        files.0.insert(path, (kind.into(), bytes));
        for blob in fs::read_dir(vectors().join("registry/blobs")).unwrap() {
            let blob = blob.unwrap().path();
            let hex = blob.file_name().unwrap().to_str().unwrap();
            let path = format!("/v2/{repository}/blobs/sha256:{hex}");
            files.0.insert(path, ("x".into(), fs::read(&blob).unwrap()));
        }
    }
    files
}

/// A guest with a policy, on an empty store.
pub struct Guest {
    pub registry: Registry,
    pub directory: tempfile::TempDir,
    pub config: Config,
}

impl Guest {
    pub fn with(files: Files, requirements: &str) -> Self {
        Self::of(Registry::serving(files), requirements)
    }

    pub fn of(registry: Registry, requirements: &str) -> Self {
        let directory = directory();
        let mut config = registry.config(&directory.path().join("store"));
        config.registries = vec![RegistryConfig {
            prefix: HOST.into(),
            location: Some(format!("127.0.0.1:{}", registry.port)),
            insecure: true,
            ..RegistryConfig::default()
        }];
        let policy = format!(r#"{{"default":[{requirements}]}}"#);
        config.signature_policy = Some(SignaturePolicy::parse(policy.as_bytes()).unwrap());
        Self {
            registry,
            directory,
            config,
        }
    }

    pub fn lookaside(mut self, url: &str) -> Self {
        let text = format!("default-docker:\n  lookaside: {url}\n");
        self.config.lookaside = Some(Lookaside::parse(&text).unwrap());
        self
    }

    /// A lookaside folder with these signatures of `app`.
    pub fn signatures(self, signatures: &[&[u8]]) -> Self {
        let folder = format!("app@{}", text("digest").replace(':', "="));
        let folder = self.directory.path().join("lookaside").join(folder);
        fs::create_dir_all(&folder).unwrap();
        for (number, bytes) in (1..).zip(signatures) {
            fs::write(folder.join(format!("signature-{number}")), bytes).unwrap();
        }
        let url = format!("file://{}/lookaside", self.directory.path().display());
        self.lookaside(&url)
    }

    pub fn try_pull(&self, image: &str) -> Result<Image, String> {
        let puller = Puller::build(self.config.clone()).unwrap();
        let reference = Reference::parse(&format!("{HOST}/{image}")).unwrap();
        puller.pull(&reference).map_err(|error| error.sentence())
    }

    pub fn accepted(&self, image: &str) -> Image {
        self.try_pull(image).unwrap()
    }

    /// The whole sentence, after a look that no layer was asked for.
    pub fn refused(&self, image: &str) -> String {
        let sentence = self.try_pull(image).unwrap_err();
        assert_eq!(self.layers_asked_for(), 0, "{sentence}");
        let beginning = format!(
            "cannot pull {HOST}/{image}: the signature policy does not accept it: requirement "
        );
        assert!(
            sentence.starts_with(&beginning) && !sentence.contains('\n'),
            "{sentence}"
        );
        sentence
    }

    pub fn layers_asked_for(&self) -> usize {
        let manifest = vector(&format!(
            "registry/blobs/{}",
            text("digest").replace("sha256:", "")
        ));
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        self.registry
            .seen()
            .iter()
            .filter(|seen| seen.path.ends_with(layer))
            .count()
    }
}

pub fn signed_by(key: &str, rest: &str) -> String {
    format!(
        r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}/{key}"{rest}}}"#,
        vectors().display()
    )
}

pub fn sigstore(key: &str, rest: &str) -> String {
    format!(
        r#"{{"type":"sigstoreSigned","keyPath":"{}/{key}"{rest}}}"#,
        vectors().display()
    )
}

pub fn identity(kind: &str, rest: &str) -> String {
    format!(r#","signedIdentity":{{"type":"{kind}"{rest}}}"#)
}

/// A guest that wants `app` signed by one of GnuPG's keys, and the signatures there are.
pub fn simple(key: &str, signatures: &[&str]) -> Guest {
    let signatures: Vec<Vec<u8>> = signatures.iter().map(|name| vector(name)).collect();
    let borrowed: Vec<&[u8]> = signatures.iter().map(Vec::as_slice).collect();
    Guest::with(stored(), &signed_by(key, "")).signatures(&borrowed)
}

pub fn assert_names(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
    }
}
