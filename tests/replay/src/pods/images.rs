//! Images under the names that the YAML of the pods has, as small as can be.
//!
//! Their configurations are those of the real ones as far as a policy depends on them; their programs
//! are scripts that do for a pod's owner what the real ones do: say that they are ready, answer a probe,
//! end when told to. All have one layer, so that a guest unpacks it once for a pod.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, Result};
use tests_harness::{Bed, REGISTRY, busybox, run_ok};

const DEADLINE: Duration = Duration::from_secs(60);
const PLACE: &str = "/run/bed/pod-images";
/// The image whose name in the YAML has its digest.
const BY_DIGEST: &str = "registry.example/team/agent";

const PATH: &str = "--config.env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Each by its repository below the registry of the bed, with its tag and arguments of
/// `umoci config`.
const IMAGES: [(&str, &str, &[&str]); 8] = [
    (
        "docker.io/library/busybox",
        "1.37",
        &[PATH, "--config.cmd=sh"],
    ),
    (
        "docker.io/library/nginx",
        "1.27",
        &[
            PATH,
            "--config.env=NGINX_VERSION=1.27.5",
            "--config.entrypoint=/docker-entrypoint.sh",
            "--config.cmd=nginx",
            "--config.cmd=-g",
            "--config.cmd=daemon off;",
            "--config.stopsignal=SIGQUIT",
        ],
    ),
    (
        "docker.io/library/redis",
        "7.4",
        &[
            PATH,
            "--config.env=REDIS_VERSION=7.4.2",
            "--config.entrypoint=docker-entrypoint.sh",
            "--config.cmd=redis-server",
            "--config.workingdir=/data",
            "--config.volume=/data",
        ],
    ),
    (
        "docker.io/library/postgres",
        "16",
        &[
            PATH,
            "--config.env=PG_MAJOR=16",
            "--config.env=PGDATA=/var/lib/postgresql/data",
            "--config.entrypoint=docker-entrypoint.sh",
            "--config.cmd=postgres",
            "--config.stopsignal=SIGINT",
            "--config.volume=/var/lib/postgresql/data",
        ],
    ),
    (
        "docker.io/library/perl",
        "5.40",
        &[
            PATH,
            "--config.cmd=perl5.40.0",
            "--config.cmd=-de0",
            "--config.workingdir=/usr/src/app",
        ],
    ),
    (
        "docker.io/library/app",
        "1",
        &[
            "--config.user=app",
            "--config.entrypoint=/app",
            "--config.workingdir=/srv/app",
        ],
    ),
    (
        "us-docker.pkg.dev/samples/gb-frontend",
        "v5",
        &[
            PATH,
            "--config.env=PHP_INI_DIR=/usr/local/etc/php",
            "--config.entrypoint=docker-php-entrypoint",
            "--config.cmd=apache2-foreground",
            "--config.workingdir=/var/www/html",
            "--config.stopsignal=SIGWINCH",
        ],
    ),
    (BY_DIGEST, "1", &["--config.entrypoint=/agent"]),
];

/// Waits for the signal that ends it, as a server does.
const SERVES: &str = "trap 'exit 0' TERM INT QUIT WINCH; sleep 100000 & wait";

/// The programs, each with what its script does.
const PROGRAMS: [(&str, &str); 12] = [
    ("docker-entrypoint.sh", "exec \"$@\""),
    (
        "usr/local/bin/docker-entrypoint.sh",
        "case $1 in -*) set -- redis-server \"$@\";; esac; exec \"$@\"",
    ),
    (
        "usr/sbin/nginx",
        "echo \"nginx $NGINX_VERSION\"; httpd -p 80 -h /usr/share/nginx/html; SERVES",
    ),
    (
        "usr/local/bin/redis-server",
        "echo \"Ready to accept connections ($*)\"; SERVES",
    ),
    ("usr/local/bin/redis-cli", "[ \"$1\" = ping ] && echo PONG"),
    (
        "usr/local/bin/postgres",
        "mkdir -p \"$PGDATA\" && echo 16 >\"$PGDATA/PG_VERSION\" && echo ready for \"$URL\"; SERVES",
    ),
    (
        "usr/local/bin/pg_isready",
        "test -e \"$PGDATA/PG_VERSION\" && echo accepting connections",
    ),
    ("usr/local/bin/perl", "echo 3.14159265358979323846"),
    ("app", "id; pwd; SERVES"),
    ("usr/local/bin/docker-php-entrypoint", "exec \"$@\""),
    (
        "usr/local/bin/apache2-foreground",
        "echo \"hosts from $GET_HOSTS_FROM\"; SERVES",
    ),
    ("agent", "echo \"agent in $(pwd)\"; SERVES"),
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/srv/app:/bin/sh\none:x:3000:3000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwheel:x:10:root\napp:x:1002:\n";

/// Makes all images and pushes them; returns the digest of the one that is named by it.
pub(super) fn push(bed: &Bed) -> Result<String> {
    let node = bed.node();
    fs::create_dir_all(node.path(PLACE))?;
    shell(
        bed,
        "umoci init --layout=layout && umoci new --image=layout:base && umoci unpack --image=layout:base bundle",
    )?;
    fill(&node.path(format!("{PLACE}/bundle/rootfs")))?;
    shell(bed, "umoci repack --image=layout:base bundle")?;
    for (number, (repository, tag, config)) in IMAGES.into_iter().enumerate() {
        let mut command = bed.command("umoci");
        let image = format!("--image={PLACE}/layout:base");
        command.args(["config", &image, &format!("--tag=image-{number}")]);
        command.args(config);
        run_ok(command, DEADLINE).with_context(|| format!("configuring {repository}"))?;
        let source = format!("oci:{PLACE}/layout:image-{number}");
        let name = format!("{repository}:{tag}");
        bed.registry().push(node, &source, &name, &[])?;
    }
    let digest = shell(
        bed,
        &format!(
            "skopeo inspect --raw --cert-dir=/run/bed/trust docker://{REGISTRY}/{BY_DIGEST}:1 | sha256sum | cut -d' ' -f1"
        ),
    )?;
    Ok(format!("sha256:{}", digest.trim()))
}

fn shell(bed: &Bed, script: &str) -> Result<String> {
    let mut command = bed.command("bash");
    let script = format!("cd {PLACE}; {script}");
    command.args(["-euo", "pipefail", "-c", &script]);
    run_ok(command, DEADLINE)
}

fn fill(root: &Path) -> Result<()> {
    busybox(root)?;
    for directory in [
        "usr/sbin",
        "usr/local/bin",
        "usr/share/nginx/html",
        "srv/app",
        "data",
        "root",
        "var/lib/postgresql/data",
        "var/www/html",
        "usr/src/app",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    for (path, does) in PROGRAMS {
        let path = root.join(path);
        let does = does.replace("SERVES", SERVES);
        fs::write(&path, format!("#!/bin/sh\n{does}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
