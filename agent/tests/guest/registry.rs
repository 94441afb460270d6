//! A registry with TLS on this machine's loopback, which a guest behind QEMU's own
//! network sees as 10.0.2.2, and images in it.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::tools::{Tools, run};

pub(crate) struct Registry {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Registry {
    pub(crate) fn start(tools: &Tools, folder: &Path) -> Self {
        let folder = folder.join("registry");
        fs::create_dir_all(&folder).unwrap();
        certificate(tools, &folder);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\n\
             http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}}}\n",
            folder.display()
        );
        fs::write(folder.join("config.yml"), config).unwrap();
        let server = Command::new(&tools.registry)
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            server,
            folder,
            port,
        };
        registry.wait();
        registry.push(tools, "busybox", 0);
        registry
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub(crate) fn reference(&self) -> String {
        format!("10.0.2.2:{}/busybox:1", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// An image by the digest of its manifest, seen at another port.
    pub(crate) fn pinned_at(&self, name: &str, port: u16) -> String {
        let link =
            format!("data/docker/registry/v2/repositories/{name}/_manifests/tags/1/current/link");
        let digest = fs::read_to_string(self.folder.join(link)).unwrap();
        format!("10.0.2.2:{port}/{name}@{}", digest.trim())
    }

    /// Pushes one more image: the same programs beside so many bytes that compress badly.
    pub(crate) fn push(&self, tools: &Tools, name: &str, ballast_bytes: u64) {
        let layout = self.folder.join(format!("{name}-layout"));
        let umoci = |arguments: &[&str]| run(Command::new(&tools.umoci).args(arguments));
        let layout_option = format!("--layout={}", layout.display());
        let image = format!("--image={}:1", layout.display());
        let bundle = self.folder.join(format!("{name}-bundle"));
        let bundle_text = bundle.display().to_string();
        umoci(&["init", &layout_option]);
        umoci(&["new", &image]);
        umoci(&["unpack", &image, &bundle_text]);
        fill(tools, &bundle.join("rootfs"));
        let mut ballast = fs::File::create(bundle.join("rootfs/ballast")).unwrap();
        let random = fs::File::open("/dev/urandom").unwrap();
        std::io::copy(&mut random.take(ballast_bytes), &mut ballast).unwrap();
        umoci(&["repack", &image, &bundle_text]);
        run(Command::new(&tools.skopeo)
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}:1", layout.display()))
            .arg(format!("docker://127.0.0.1:{}/{name}:1", self.port)));
    }
}

/// An authority, and a server's certificate that it signed.
fn certificate(tools: &Tools, folder: &Path) {
    let request = |key: &str, certificate: &str, more: &[&str]| {
        run(Command::new(&tools.openssl)
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args(["-keyout", key, "-out", certificate])
            .args(more)
            .current_dir(folder));
    };
    request("ca-key.pem", "ca.pem", &["-subj", "/CN=authority"]);
    request(
        "key.pem",
        "cert.pem",
        &[
            "-subj",
            "/CN=server",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "subjectAltName=IP:10.0.2.2,IP:127.0.0.1",
        ],
    );
}

fn fill(tools: &Tools, root: &Path) {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "home/app"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let program = root.join("bin/busybox");
    fs::copy(&tools.busybox, &program).unwrap();
    for applet in run(Command::new(&program).arg("--list")).lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("no-program"), "echo shell\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(root.join("no-program"), executable).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nextra:x:2000:app\n").unwrap();
}
