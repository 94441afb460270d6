//! `kata-cc broker` as its owner meets it: the command, its mistakes, its disk and its end.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../broker/tests/bed/mod.rs"]
mod bed;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use agent_keys_protocol::TeeKey;
use serde_json::Value;
use ureq::http::StatusCode;

use self::bed::{Bed, KEY, NAME, Owner, log};

const KATA_CC: &str = env!("CARGO_BIN_EXE_kata-cc");

/// The command in a folder, with `--directory broker --store-key store.key` after the first word.
fn command(folder: &Path, words: &[&str]) -> Command {
    let (first, rest) = words.split_first().unwrap();
    let mut command = Command::new(KATA_CC);
    command
        .current_dir(folder)
        .args(["broker", first, "--directory", "broker"]);
    if !["check", "explain"].contains(first) {
        command.args(["--store-key", "store.key"]);
    }
    command.args(rest);
    command
}

fn ran(folder: &Path, words: &[&str]) -> Output {
    let mut command = command(folder, words);
    command.stdin(Stdio::null()).output().unwrap()
}

fn done(folder: &Path, words: &[&str]) -> String {
    let output = ran(folder, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is said on standard error, in one line, of what fails with this code.
fn refused(folder: &Path, words: &[&str], code: i32, says: &str) {
    let output = ran(folder, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
    assert!(errors.contains(says), "{words:?}: {errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

/// A broker in a process of its own; killed when it is dropped.
struct Served {
    child: Child,
    bed: Option<Bed>,
}

impl Served {
    fn start(owner: Owner) -> Self {
        let serve = command(owner.place.path(), &["serve"]);
        Self::of(owner, serve)
    }

    fn of(owner: Owner, mut serve: Command) -> Self {
        let mut child = serve.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap();
        assert!(line.contains("the broker listens on"), "{line}");
        let url = format!("https://{address}/kbs/v0");
        // What it says later must not stop it.
        thread::spawn(move || said.lines().for_each(drop));
        Self {
            child,
            bed: Some(Bed::of(owner, url)),
        }
    }

    fn bed(&self) -> &Bed {
        self.bed.as_ref().unwrap()
    }

    /// Ends it as the kernel does; gives its owner back.
    fn kill(mut self) -> Owner {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let bed = self.bed.take().unwrap();
        Owner {
            place: bed.place,
            scene: bed.scene,
            certificate: bed.certificate,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_owner_makes_a_broker_fills_it_and_sees_what_it_decided() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let init = ["init", "--name", "127.0.0.1", "--port", "9443"];
    let printed = done(folder, &init);
    let entry = "[token_configs.kbs]\nurl = \"https://127.0.0.1:9443\"\ncert = ";
    assert!(printed.contains(entry), "{printed}");
    assert_eq!(
        printed,
        fs::read_to_string(folder.join("broker/aa.toml")).unwrap()
    );
    refused(folder, &init, 1, "holds a broker already");
    // Until the owner says what is accepted it checks nothing and serves nothing.
    refused(folder, &["check"], 1, "references.json");
    fs::write(folder.join("one"), "first").unwrap();
    done(folder, &["put", "default/key/one", "one"]);
    let mut from_pipe = command(folder, &["put", "default/key/two"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    from_pipe
        .stdin
        .take()
        .unwrap()
        .write_all(b"second")
        .unwrap();
    assert!(from_pipe.wait().unwrap().success());
    assert_eq!(
        done(folder, &["list"]),
        "default/key/one\ndefault/key/two\n"
    );
    done(folder, &["remove", "default/key/two"]);
    assert_eq!(done(folder, &["list"]), "default/key/one\n");
    let again = ["remove", "default/key/two"];
    refused(folder, &again, 1, "there is no resource default/key/two");
}

#[test]
fn a_guest_gets_what_was_put_and_explain_tells_of_one_that_was_refused() {
    let served = Served::start(Owner::new(""));
    let bed = served.bed();
    let folder = bed.place.path();
    done(folder, &["check"]);
    // While it serves, the owner stores and removes.
    fs::write(folder.join("new"), "new one").unwrap();
    done(folder, &["put", "default/key/new", "new"]);
    let (cookie, _, key) = bed.attested(&log(true, 1));
    for (name, content) in [(NAME, KEY), ("default/key/new", b"new one")] {
        let (status, sealed) = bed.get(name, ("Cookie", &cookie));
        assert_eq!(status, StatusCode::OK, "{sealed}");
        assert_eq!(key.open(sealed.as_bytes()).unwrap().expose(), content);
    }
    done(folder, &["remove", "default/key/new"]);
    let (status, _) = bed.get("default/key/new", ("Cookie", &cookie));
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (cookie, challenge) = bed.begin();
    let evidence = bed.evidence(&challenge.nonce, &key, &log(false, 1));
    assert_eq!(
        bed.refusal(&evidence, &cookie),
        "refused by measurement-log"
    );

    let told = done(folder, &["explain"]);
    for words in [
        "127.0.0.1 did not get default/key/new",
        "to change store it: kata-cc broker put",
        "127.0.0.1 did not get a token",
        "check     measurement-log",
        "received  a policy that the report does not bind",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let all: Value = serde_json::from_str(&done(folder, &["explain", "--json"])).unwrap();
    assert_eq!(all["count"], 5);
    assert!(told.contains(all["head"].as_str().unwrap()));
    // A second broker beside it would write into the same log.
    refused(folder, &["serve"], 1, "another broker uses the audit log");

    let audit = folder.join("broker/audit.jsonl");
    let text = fs::read_to_string(&audit).unwrap();
    let changed = text.replacen("\"given\":true", "\"given\":false", 1);
    fs::write(&audit, changed).unwrap();
    refused(
        folder,
        &["explain"],
        3,
        "was changed: line 2 does not follow",
    );
}

#[test]
fn mistakes_are_told_in_a_sentence() {
    let owner = Owner::new("");
    let folder = owner.place.path();
    for name in ["default/key", "default/../key", "a/b/c/d", ""] {
        refused(folder, &["put", name, "x"], 2, "`repository/type/tag`");
    }
    refused(
        folder,
        &["put", "a/b/c", "nothing"],
        1,
        "cannot read nothing",
    );
    fs::write(folder.join("long"), vec![0; (1 << 20) + 1]).unwrap();
    let long = ["put", "a/b/c", "long"];
    refused(folder, &long, 1, "a resource has at most 1048576 bytes");
    refused(folder, &["serve", "--listen", "x"], 2, "--listen");

    let key = owner.store_key();
    fs::rename(&key, folder.join("kept")).unwrap();
    refused(folder, &["list"], 1, "cannot use the store key");
    fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(folder, &["list"], 1, "chmod 600 it");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    // A key, but not this store's.
    refused(folder, &["serve"], 1, "does not open with this store key");
    fs::write(&key, "secret").unwrap();
    refused(folder, &["list"], 1, "is not 64 hexadecimal digits");
    fs::rename(folder.join("kept"), &key).unwrap();

    let own = owner.directory().join("broker.toml");
    let text = fs::read_to_string(&own).unwrap();
    for (line, says) in [
        ("minimun = 1\n", "unknown field `minimun`"),
        ("initdata = [\"absent\"]\n", "absent"),
        ("resource_policy = \"roots.der\"\n", "roots.der"),
    ] {
        fs::write(&own, format!("{text}{line}")).unwrap();
        refused(folder, &["check"], 1, says);
        refused(folder, &["serve"], 1, says);
    }
}

/// A place on a disk of its own, in a mount namespace that the command stays in.
fn on_a_disk(place: &Path, options: &str, then: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!(
        "mount --make-rprivate / && cp -a broker kept && \
         mount -t tmpfs -o {options} disk broker && cp -a kept/. broker && {{ {then}; }}"
    );
    command
        .args(["--mount", "--pid", "--fork", "--kill-child"])
        .args(["sh", "-c", &script, KATA_CC])
        .current_dir(place);
    command
}

#[test]
fn a_store_that_is_full_or_read_only_says_so_and_keeps_what_it_has() {
    let put = "$0 broker put --directory broker --store-key store.key";
    for (before, says) in [
        (
            "head -c 1000000 /dev/zero >broker/filler 2>/dev/null || true",
            "No space left",
        ),
        ("mount -o remount,ro broker", "Read-only file system"),
    ] {
        let owner = Owner::new("");
        fs::write(owner.place.path().join("new"), vec![7; 50_000]).unwrap();
        let then = format!(
            "{before}; {put} {NAME} new; echo \"code $?\"; ls -A broker/store; \
             $0 broker list --directory broker --store-key store.key; \
             cp broker/store/* kept/store"
        );
        let mut command = on_a_disk(owner.place.path(), "size=200k", &then);
        let output = command.output().unwrap();
        let (told, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(errors.contains(says), "{told}{errors}");
        assert!(told.contains("code 1") && !told.contains("aside"), "{told}");
        assert!(told.contains(&format!("\n{NAME}\n")), "{told}");
        // What was there before is there, whole.
        fs::remove_dir_all(owner.directory()).unwrap();
        let kept = owner.place.path().join("kept");
        fs::rename(kept, owner.directory()).unwrap();
        let store = policy_broker::identity::open_store(&owner.directory(), &owner.store_key());
        let name = agent_keys_protocol::ResourceName::parse(NAME).unwrap();
        assert_eq!(**store.unwrap().find(&name).unwrap().unwrap(), *KEY);
    }
}

#[test]
fn a_broker_whose_disk_is_full_releases_nothing_until_there_is_room() {
    let owner = Owner::new("");
    let folder = owner.place.path().to_owned();
    // `full` and `room` are how this test speaks to what is in the namespace.
    let fill = "while sleep 0.02; do \
        if [ -e full ]; then head -c 1000000 /dev/zero >broker/filler 2>/dev/null; rm -f full; fi; \
        if [ -e room ]; then rm -f broker/filler room; fi; done";
    let serve = "$0 broker serve --directory broker --store-key store.key";
    let then = format!("({fill}) >/dev/null 2>&1 & exec {serve}");
    let serve = on_a_disk(&folder, "size=200k", &then);
    let served = Served::of(owner, serve);
    let bed = served.bed();
    let (cookie, ..) = bed.attested(&log(true, 1));
    assert_eq!(bed.get(NAME, ("Cookie", &cookie)).0, StatusCode::OK);
    let ask = |name: &str| {
        fs::write(folder.join(name), "").unwrap();
        while folder.join(name).exists() {
            thread::sleep(Duration::from_millis(5));
        }
    };
    ask("full");
    let key = TeeKey::generate().unwrap();
    // The last page of the log may have room for a line or two.
    let statuses: Vec<_> = (0..40)
        .map(|_| bed.get(NAME, ("Cookie", &cookie)).0)
        .collect();
    assert_eq!(
        statuses.last(),
        Some(&StatusCode::SERVICE_UNAVAILABLE),
        "{statuses:?}"
    );
    let (other, challenge) = bed.begin();
    let evidence = bed.evidence(&challenge.nonce, &key, &log(true, 1));
    let body = serde_json::to_string(&evidence).unwrap();
    let answer = bed.post("attest", &other, &body);
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    ask("room");
    assert_eq!(bed.get(NAME, ("Cookie", &cookie)).0, StatusCode::OK);
    bed.attested(&log(true, 1));
}

#[test]
fn whatever_moment_a_writer_is_killed_at_a_resource_is_old_or_new() {
    let owner = Owner::new("");
    let folder = owner.place.path();
    let name = agent_keys_protocol::ResourceName::parse(NAME).unwrap();
    let contents = [vec![1_u8; 1 << 20], vec![2; 1 << 20]];
    for (file, content) in ["odd", "even"].iter().zip(&contents) {
        fs::write(folder.join(file), content).unwrap();
    }
    done(folder, &["put", NAME, "odd"]);
    let (mut changed, mut kept) = (0, 0);
    let mut stored = contents[0].clone();
    for round in 0..60_u64 {
        let file = if stored == contents[0] { "even" } else { "odd" };
        let mut put = command(folder, &["put", NAME, file]).spawn().unwrap();
        thread::sleep(Duration::from_micros(round * 200));
        put.kill().unwrap();
        put.wait().unwrap();
        let store = policy_broker::identity::open_store(&owner.directory(), &owner.store_key());
        let found = store.unwrap().find(&name).unwrap().unwrap().to_vec();
        assert!(contents.contains(&found), "torn in round {round}");
        if found == stored {
            kept += 1;
        } else {
            changed += 1;
        }
        stored = found;
    }
    assert_eq!(done(folder, &["list"]), format!("{NAME}\n"));
    assert!(kept > 0, "{kept} kept, {changed} changed");
}

#[test]
fn a_broker_that_is_killed_while_it_decides_goes_on_with_a_whole_log() {
    let mut owner = Owner::new("");
    let mut decided = 0;
    for _ in 0..5 {
        let served = Served::start(owner);
        let (bed, pid) = (served.bed(), served.child.id());
        let (cookie, ..) = bed.attested(&log(true, 1));
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(15));
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
                nix::sys::signal::Signal::SIGKILL,
            )
        });
        let url = format!("{}/resource/{NAME}", bed.url);
        let ask = || bed.agent.get(&url).header("Cookie", &cookie).call();
        while let Ok(answer) = ask() {
            decided += usize::from(answer.status() == StatusCode::OK);
        }
        killer.join().unwrap().unwrap();
        owner = served.kill();
        let read = policy_broker::audit::read(&owner.directory(), 1).unwrap();
        // Nothing was released that the log does not tell.
        assert!(read.count >= decided, "{} lines", read.count);
    }
    assert!(decided > 0);
    assert!(done(owner.place.path(), &["explain"]).contains("head "));
    let served = Served::start(owner);
    served.bed().attested(&log(true, 1));
}
