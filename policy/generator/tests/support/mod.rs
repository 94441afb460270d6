//! Images as registries have them, in a layout that the test makes.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a helper that fails fails its test; not each test uses each"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use agent_image_registry::Digest;
use policy_generator::{Cache, Choices, Images, Platform, Reading, Secrets, Text};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const NAME: &str = "org.opencontainers.image.ref.name";

/// The names under which the images are found, and what their authors say.
pub(crate) fn authors() -> BTreeMap<&'static str, Value> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    BTreeMap::from([
        (
            "nginx:1.27",
            json!({"Env": [path, "NGINX_VERSION=1.27.5"], "Entrypoint": ["/docker-entrypoint.sh"],
                "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"}),
        ),
        (
            "redis:7.4",
            json!({"Env": [path, "REDIS_VERSION=7.4.2"], "Entrypoint": ["docker-entrypoint.sh"],
                "Cmd": ["redis-server"], "WorkingDir": "/data", "Volumes": {"/data": {}}}),
        ),
        (
            "postgres:16",
            json!({"Env": [format!("{path}:/usr/lib/postgresql/16/bin"), "PG_MAJOR=16",
                "PGDATA=/var/lib/postgresql/data"], "Entrypoint": ["docker-entrypoint.sh"],
                "Cmd": ["postgres"], "StopSignal": "SIGINT",
                "Volumes": {"/var/lib/postgresql/data": {}}}),
        ),
        (
            "perl:5.40",
            json!({"Env": [path], "Cmd": ["perl5.40.0", "-de0"], "WorkingDir": "/usr/src/app"}),
        ),
        ("busybox:1.37", json!({"Env": [path], "Cmd": ["sh"]})),
        (
            "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
            json!({"Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}),
        ),
        (
            "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
            json!({"Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Entrypoint": ["/agnhost"], "Cmd": ["pause"]}),
        ),
        (
            "app:1",
            json!({"User": "app", "Entrypoint": ["/app"], "WorkingDir": "/srv/app"}),
        ),
        (
            "us-docker.pkg.dev/samples/gb-frontend:v5",
            json!({"Env": [path, "PHP_INI_DIR=/usr/local/etc/php"], "StopSignal": "SIGWINCH",
                "Entrypoint": ["docker-php-entrypoint"], "Cmd": ["apache2-foreground"],
                "WorkingDir": "/var/www/html"}),
        ),
        ("agent", json!({"Entrypoint": ["/agent"], "Env": []})),
        ("nothing:1", json!({})),
    ])
}

/// A layout with the images, and the digest of `agent`.
pub(crate) struct Layout {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) agent: Digest,
}

impl Layout {
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let layers = [
            layer(root, &[("etc/passwd", PASSWD), ("etc/group", GROUP)], true),
            layer(root, &[("bin/app", "x")], false),
        ];
        let mut entries = Vec::new();
        let mut agent = None;
        for (name, author) in authors() {
            let mut digests = Vec::new();
            for architecture in ["arm64", "amd64"] {
                let config = json!({"os": "linux", "architecture": architecture,
                    "config": author, "rootfs": {"type": "layers", "diff_ids": []}});
                let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": blob(root, CONFIG, config.to_string().as_bytes()), "layers": layers});
                let mut entry = blob(root, MANIFEST, manifest.to_string().as_bytes());
                entry["platform"] = json!({"os": "linux", "architecture": architecture});
                digests.push(entry);
            }
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": digests});
            let mut entry = blob(root, INDEX, index.to_string().as_bytes());
            if name == "agent" {
                let digest = entry["digest"].as_str().unwrap();
                agent = Some(Digest::parse(digest).unwrap());
            }
            entry["annotations"] = json!({NAME: name});
            entries.push(entry);
        }
        let index = json!({"schemaVersion": 2, "manifests": entries});
        fs::write(root.join("index.json"), index.to_string()).unwrap();
        let agent = agent.unwrap();
        Self { directory, agent }
    }

    pub(crate) fn images(&self) -> Images {
        let root = self.directory.path();
        let agent = format!("registry.example:5000/team/agent@{}", self.agent);
        let place = format!("oci:{}:agent", root.display()).parse().unwrap();
        Images {
            config: agent_image::Config::default(),
            platform: Platform::default(),
            cache: None,
            places: [(agent, place)].into(),
            layouts: vec![root.to_owned()],
            all_users: false,
            progress: Box::new(|_| ()),
        }
    }

    pub(crate) fn cached(&self, directory: &Path) -> Images {
        Images {
            cache: Some(Cache::at(directory)),
            ..self.images()
        }
    }

    /// The text of one of the pods of `tests/pods`.
    pub(crate) fn pod(&self, name: &str) -> Text {
        let path = pods().join(format!("{name}.yaml"));
        let text = fs::read_to_string(path).unwrap();
        Text {
            name: format!("{name}.yaml"),
            text: text.replace("@DIGEST", &format!("@{}", self.agent)),
        }
    }
}

pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/srv/app:/bin/sh\none:x:3000:3000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
pub(crate) const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1002:\n";

pub(crate) fn pods() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pods")
}

/// The names of the pods of `tests/pods`.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(pods()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn blob(root: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::sha256(bytes);
    fs::write(root.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()})
}

fn layer(root: &Path, files: &[(&str, &str)], gzip: bool) -> Value {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    let tar = builder.into_inner().unwrap();
    if !gzip {
        return blob(root, LAYER, &tar);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    blob(root, &format!("{LAYER}+gzip"), &encoder.finish().unwrap())
}

/// What an owner chooses who chooses nothing.
pub(crate) fn choices() -> Choices {
    Choices {
        secrets: Secrets::Digest,
        salt: String::new(),
        logs: true,
        service_account: true,
        contents: true,
        version: 0,
        rules: ["ab".repeat(32)].into(),
        grants: policy_engine::document::GrantList::default(),
    }
}

/// A file with one pod of one container, to which lines are added.
pub(crate) fn pod_with(lines: &str) -> Text {
    Text {
        name: "pod.yaml".to_owned(),
        text: format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: busybox:1.37\n    command: [sh]\n{lines}"
        ),
    }
}

pub(crate) fn strict() -> Reading {
    Reading::default()
}
