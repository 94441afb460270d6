//! `kata-cc initdata` as its user meets it: files in, text and exit codes out.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const DOCUMENT: &str =
    "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"aa.toml\" = '''\na = 1\n'''\n";
/// SHA-256 of [`DOCUMENT`], by `sha256sum`.
const HOST_DATA: &str = "b82421b707cbf882a63abb288ede0ae438052b8a2cc7c769b62142dcdd752e8e";

fn kata_cc(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kata-cc"))
        .arg("initdata")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(folder: &Path, arguments: &[&str], code: i32, words: &str) {
    let output = kata_cc(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(words), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn what_is_made_is_shown_and_digested_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("aa.toml"), "a = 1\n").unwrap();
    let made = kata_cc(
        folder,
        &["make", "aa.toml", "-o", "doc", "--disk", "disk", "--json"],
    );
    let made: Value = serde_json::from_str(&text(&made)).unwrap();
    assert_eq!(fs::read_to_string(folder.join("doc")).unwrap(), DOCUMENT);
    assert_eq!(made["host_data"], HOST_DATA);
    assert_eq!(made["digest"], HOST_DATA);
    assert_eq!(made["algorithm"], "sha256");
    assert_eq!(made["entries"]["aa.toml"], 6);
    let annotation = &made["annotation"];
    assert_eq!(
        annotation["name"],
        "io.katacontainers.config.hypervisor.cc_init_data"
    );
    fs::write(folder.join("value"), annotation["value"].as_str().unwrap()).unwrap();
    assert_eq!(fs::read(folder.join("disk")).unwrap().len(), 512);
    for form in ["doc", "value", "disk"] {
        let digest = text(&kata_cc(folder, &["digest", form]));
        assert_eq!(digest, format!("{HOST_DATA}\n"), "{form}");
        let shown = text(&kata_cc(folder, &["show", form]));
        assert!(shown.contains("aa.toml (6 bytes)"), "{shown}");
        let entry = text(&kata_cc(folder, &["show", form, "--entry", "aa.toml"]));
        assert_eq!(entry, "a = 1\n");
    }
}

#[test]
fn a_longer_digest_is_cut_to_host_data() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), "x").unwrap();
    let arguments = ["make", "--algorithm", "sha512", "cdh.toml=f", "--json"];
    let made: Value = serde_json::from_str(&text(&kata_cc(folder.path(), &arguments))).unwrap();
    let (digest, host_data) = (made["digest"].as_str(), made["host_data"].as_str());
    assert_eq!(digest.unwrap().len(), 128);
    assert_eq!(host_data.unwrap(), &digest.unwrap()[..64]);
}

#[test]
fn a_policy_is_bound_by_the_digest_of_its_text() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p"), "abc").unwrap();
    let arguments = ["digest", "--policy", "p", "--json"];
    let answer: Value = serde_json::from_str(&text(&kata_cc(folder.path(), &arguments))).unwrap();
    assert_eq!(
        answer["host_data"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(answer["annotation"]["value"], "YWJj");
}

#[test]
fn standard_input_is_read() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kata-cc"))
        .args(["initdata", "digest", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(DOCUMENT.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output), format!("{HOST_DATA}\n"));
}

#[test]
fn each_refusal_has_its_exit_code_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("aa.toml"), "a = 1\n").unwrap();
    fs::write(folder.join("binary"), b"\xff\xfe").unwrap();
    fs::write(folder.join("sm3"), DOCUMENT.replace("sha256", "sm3")).unwrap();
    fs::write(folder.join("disk"), b"initdata\xff\0\0\0\0\0\0\0").unwrap();
    fs::write(folder.join("value"), "H4sIAAAA").unwrap();
    fs::write(folder.join("doc"), DOCUMENT).unwrap();
    refused(folder, &["digest", "absent"], 1, "cannot read absent");
    refused(
        folder,
        &["make", "aa.toml", "-o", "no/such"],
        1,
        "cannot write no/such",
    );
    refused(folder, &["make"], 2, "required");
    refused(folder, &["make", "aa.toml", "aa.toml"], 2, "given twice");
    refused(folder, &["make", ".."], 2, "has no name");
    refused(folder, &["make", "binary"], 3, "not UTF-8");
    refused(folder, &["make", "../x=aa.toml"], 3, "\"../x\"");
    refused(folder, &["digest", "sm3"], 3, "\"sm3\"");
    refused(folder, &["digest", "disk"], 3, "ends before");
    refused(folder, &["digest", "value"], 3, "gzip");
    refused(
        folder,
        &["show", "doc", "--entry", "b"],
        3,
        "no entry \"b\"",
    );
}
