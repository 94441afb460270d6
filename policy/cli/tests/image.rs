//! `kata-cc image pull` as its user meets it: against a small registry, needs root.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

fn kata_cc(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kata-cc"))
        .args(["image", "pull"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &str) {
    let output = kata_cc(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(words), "{arguments:?}: {errors}");
}

fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    format!("sha256:{}", hex::encode(digest))
}

/// An image of one layer that is an empty archive, by path.
fn image() -> BTreeMap<String, Vec<u8>> {
    let layer = vec![0; 1024];
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest(&layer)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":1024}}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        digest(&layer)
    );
    let blob = |bytes: Vec<u8>| (format!("/v2/x/blobs/{}", digest(&bytes)), bytes);
    BTreeMap::from([
        blob(layer),
        blob(config.into_bytes()),
        ("/v2/x/manifests/latest".to_owned(), manifest.into_bytes()),
    ])
}

/// Serves the image; gives its port. The thread ends with the test program.
fn registry() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(|| serve(stream.unwrap(), &image()));
        }
    });
    port
}

fn serve(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        if !reader
            .read_line(&mut request)
            .is_ok_and(|length| length > 0)
        {
            return;
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if !reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                return;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = files.get(path).map_or((404, &[][..]), |body| (200, body));
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nContent-Type: {kind}\r\n\r\n",
            body.len()
        );
        if stream.write_all(&[head.as_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

/// Initdata whose registry is spoken to in plain text and whose policy is this one.
fn initdata(port: u16, policy: &str) -> String {
    format!(
        r#"version = "0.1.0"
algorithm = "sha256"
[data]
"registries.conf" = '''
[[registry]]
location = "127.0.0.1:{port}"
insecure = true
'''
"cdh.toml" = '''
[image]
registry_configuration_uri = "file:///run/confidential-containers/initdata/registries.conf"
image_security_policy = '{{"default":[{{"type":"{policy}"}}]}}'
'''
"#
    )
}

#[test]
fn with_initdata_an_image_is_pulled_as_a_pod_with_it_would() {
    let port = registry();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let reference = format!("127.0.0.1:{port}/x");
    for (name, policy) in [("open", "insecureAcceptAnything"), ("closed", "reject")] {
        fs::write(folder.join(name), initdata(port, policy)).unwrap();
    }
    let output = kata_cc(folder, &["--initdata", "open", &reference, "out"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(folder.join("out/rootfs").is_dir());
    let closed = ["--initdata", "closed", &reference, "other"];
    refused(folder, &closed, 1, "it rejects every image");
    fs::write(folder.join("none"), "x = 1").unwrap();
    let none = ["--initdata", "none", &reference, "other"];
    refused(folder, &none, 1, "is no initdata");
}

#[test]
fn initdata_and_options_for_what_it_says_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    for option in [
        "--policy",
        "--lookaside",
        "--key-file",
        "--private-key",
        "--authfile",
        "--registries-conf",
        "--extra-root",
        "--insecure",
    ] {
        let arguments = ["--initdata", "x", option, "y", "r", "d"];
        refused(folder.path(), &arguments, 2, "cannot be used with");
    }
}

#[test]
fn lookaside_without_a_policy_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("l"), "default-docker: {}").unwrap();
    let arguments = ["--lookaside", "l", "127.0.0.1:1/x", "d"];
    refused(folder.path(), &arguments, 2, "with --policy FILE");
}

/// How often a registry is asked that accepts and never says anything.
fn asked(options: &[&str]) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let reference = format!("127.0.0.1:{port}/x");
    let own = ["--insecure", "127.0.0.1", "--timeout", "4", &reference, "d"];
    let arguments = [options, &own].concat();
    refused(
        folder.path(),
        &arguments,
        1,
        "did not finish within 4 seconds",
    );
    count.load(Ordering::SeqCst)
}

#[test]
fn silence_has_a_limit_beside_that_of_the_whole_pull() {
    assert!(asked(&["--silence", "1"]) > 1, "asked again after a second");
    assert_eq!(asked(&[]), 1);
}
