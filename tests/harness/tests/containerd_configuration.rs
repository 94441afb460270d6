//! `kata-cc-node containerd` on each release: a node's own configuration stays, ours is added.
//!
//! Every release starts from its default with what administrators change: systemd's cgroups, a
//! mirror, another sandbox image, proxy plug-ins of others. That containerd is started with the
//! result, and `containerd config dump` before and after is compared.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tests_harness::{Containerd, Node, Release, built, run, run_ok, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const MAIN: &str = "/run/etc/config.toml";
const DROP_IN: &str = "/run/etc/conf.d/kata-cc.toml";
const BACKUP: &str = "/run/etc/config.toml.before-kata-cc";
const PREFIX: &str = "/run/prefix";
const OTHERS: &str = "\n# somebody else's\n[proxy_plugins.stargz]\n  type = \"snapshot\" # lazy\n  address = \"/run/stargz.sock\"\n";

/// What an administrator replaces in each release's default.
const CHANGES: [(&str, &str); 7] = [
    (
        "SystemdCgroup = false",
        "SystemdCgroup = true # as the kubelet",
    ),
    (
        "config_path = \"\"",
        "config_path = \"/run/etc/certs.d\" # a mirror",
    ),
    (
        "config_path = ''",
        "config_path = '/run/etc/certs.d' # a mirror",
    ),
    ("sandbox_image = \"", "sandbox_image = \"mirror.example/"),
    ("sandbox = 'registry", "sandbox = 'mirror.example/registry"),
    ("[grpc]", "# the socket\n[grpc]"),
    (
        "max_concurrent_downloads = 3",
        "max_concurrent_downloads = 5",
    ),
];

struct Machine {
    containerd: Containerd,
    node: Node,
}

impl Machine {
    fn up(release: Release) -> Result<Self> {
        let containerd = release.provide()?;
        let node = Node::up()?;
        node.write(format!("{PREFIX}/bin/containerd-shim-kata-cc-v2"), "")?;
        Ok(Self { containerd, node })
    }

    fn changed_default(&self) -> Result<String> {
        let mut command = Command::new(self.containerd.program("containerd"));
        command.args(["config", "default"]);
        let default = run_ok(command, DEADLINE)?;
        let mut text = format!("# this node's\n{default}");
        for (from, to) in CHANGES {
            text = text.replace(from, to);
        }
        // The default of some releases has the table, empty.
        text = text.replace("\n[proxy_plugins]\n", "\n") + OTHERS;
        ensure!(text.contains("SystemdCgroup = true"), "{text}");
        ensure!(text.contains("mirror.example/"), "{text}");
        ensure!(text.contains("/run/etc/certs.d"), "{text}");
        Ok(text)
    }

    fn configure(&self, arguments: &[&str]) -> Command {
        let mut command = self.node.command(
            built("kata-cc-node").expect("the workspace's programs are built before its tests"),
        );
        command
            .args(["containerd", "--config", MAIN, "--prefix", PREFIX])
            .arg("--containerd")
            .arg(self.containerd.program("containerd"))
            .args(arguments);
        command
    }

    /// The lines of what containerd makes of its files, without the list of these files.
    fn dump(&self) -> Result<Vec<String>> {
        let mut command = self.node.command(self.containerd.program("containerd"));
        command.args(["--config", MAIN, "config", "dump"]);
        let text = run_ok(command, DEADLINE)?;
        let lines = text.lines().filter(|line| !line.starts_with("imports = "));
        Ok(lines.map(str::to_owned).collect())
    }

    /// Starts containerd on the files and waits until it answers.
    fn starts(&self) -> Result<()> {
        let mut command = self.node.command(self.containerd.program("containerd"));
        command.args(["--config", MAIN]);
        let mut server = self.node.serve(command, "/run/containerd.log")?;
        let socket = self.node.path("/run/containerd/containerd.sock");
        let answered = wait_until("containerd answers", DEADLINE, || {
            if let Some(status) = server.try_wait()? {
                bail!("containerd ended with {status}");
            }
            if std::os::unix::net::UnixStream::connect(&socket).is_err() {
                return Ok(false);
            }
            let mut command = self.node.command(self.containerd.program("ctr"));
            command.arg("version");
            Ok(run(command, DEADLINE)?.code == Some(0))
        });
        answered.with_context(|| self.node.read("/run/containerd.log").unwrap_or_default())
    }

    fn exists(&self, path: &str) -> Result<bool> {
        Ok(fs::exists(self.node.path(path))?)
    }
}

/// What `after` has between the lines of `before`; an error if a line of `before` is gone.
fn added(before: &[String], after: &[String]) -> Result<Vec<String>> {
    let mut rest = after.iter();
    let mut added = Vec::new();
    for line in before {
        loop {
            let next = rest.next().with_context(|| format!("{line:?} is gone"))?;
            if next == line {
                break;
            }
            added.push(next.trim().to_owned());
        }
    }
    added.extend(rest.map(|line| line.trim().to_owned()));
    added.retain(|line| !line.is_empty());
    Ok(added)
}

/// The tables that `lines` open.
fn tables(lines: &[String]) -> Vec<String> {
    let heads = lines.iter().filter(|line| line.starts_with('['));
    heads.map(|line| line.replace('\'', "\"")).collect()
}

/// The tables of ours in a dump.
fn ours(release: Release) -> Vec<String> {
    let runtimes = |plugin: &str| {
        let runtime = format!("plugins.\"{plugin}\".containerd.runtimes.kata-cc");
        vec![format!("[{runtime}]"), format!("[{runtime}.options]")]
    };
    let mut tables = Vec::new();
    if release == Release::V1_7 {
        tables.extend(runtimes("io.containerd.grpc.v1.cri"));
    } else {
        let platforms = "plugins.\"io.containerd.cri.v1.images\".runtime_platforms";
        tables.push(format!("[{platforms}]"));
        tables.push(format!("[{platforms}.kata-cc]"));
        tables.extend(runtimes("io.containerd.cri.v1.runtime"));
    }
    tables.push("[proxy_plugins.kata-cc]".to_owned());
    if release == Release::V1_7 {
        // An empty table of containerd's own making.
        tables.push("[proxy_plugins.kata-cc.exports]".to_owned());
    }
    tables
}

fn only_ours_is_added(release: Release) -> Result<()> {
    let machine = Machine::up(release)?;
    let original = machine.changed_default()?;
    machine.node.write(MAIN, &original)?;
    // The one value of ours in a table that is there: both have their lines in the comparison.
    let local_pull = |lines: Vec<String>| -> Vec<String> {
        let key = "use_local_image_pull = ";
        let others = lines.into_iter().filter(|line| !line.contains(key));
        others.collect()
    };
    let before = local_pull(machine.dump()?);

    run_ok(machine.configure(&[]), DEADLINE)?;
    let after = machine.dump()?;
    let pulls = after
        .iter()
        .any(|line| line.trim() == "use_local_image_pull = true");
    assert_eq!(pulls, release != Release::V1_7);
    let new = added(&before, &local_pull(after))?;
    assert_eq!(tables(&new), ours(release), "{new:#?}");
    assert_eq!(machine.node.read(BACKUP)?, original);
    let main = machine.node.read(MAIN)?;
    for comment in ["# this node's", "# as the kubelet", "# a mirror", "# lazy"] {
        ensure!(main.contains(comment), "{comment} is gone");
    }
    machine.starts()?;

    let drop_in = machine.node.read(DROP_IN).ok();
    assert_eq!(drop_in.is_some(), release != Release::V1_7);
    assert_eq!(run_ok(machine.configure(&[]), DEADLINE)?, "");
    assert_eq!(machine.node.read(MAIN)?, main);
    assert_eq!(machine.node.read(DROP_IN).ok(), drop_in);

    run_ok(machine.configure(&["--remove"]), DEADLINE)?;
    assert_eq!(machine.node.read(MAIN)?, original);
    assert!(!machine.exists(DROP_IN)? && !machine.exists(BACKUP)?);
    a_missing_file_is_made_and_removed(&machine, release)?;
    a_runtime_of_somebody_else_is_refused(&machine, &original)
}

fn a_missing_file_is_made_and_removed(machine: &Machine, release: Release) -> Result<()> {
    fs::remove_file(machine.node.path(MAIN))?;
    run_ok(machine.configure(&[]), DEADLINE)?;
    let dump = machine.dump()?.join("\n").replace('\'', "\"");
    for table in ours(release) {
        ensure!(dump.contains(&table), "{table} is missing in {dump}");
    }
    ensure!(
        dump.contains(".containerd.runtimes.runc]"),
        "runc is gone: {dump}"
    );
    run_ok(machine.configure(&["--remove"]), DEADLINE)?;
    assert!(!machine.exists(MAIN)? && !machine.exists(DROP_IN)?);
    Ok(())
}

fn a_runtime_of_somebody_else_is_refused(machine: &Machine, original: &str) -> Result<()> {
    let taken = format!("{original}[proxy_plugins.kata-cc]\n  type = \"snapshot\"\n");
    machine.node.write(MAIN, &taken)?;
    let ran = run(machine.configure(&[]), DEADLINE)?;
    assert_eq!(ran.code, Some(1));
    ensure!(
        ran.stderr.contains("[proxy_plugins.kata-cc]"),
        "{}",
        ran.stderr
    );
    assert_eq!(machine.node.read(MAIN)?, taken);
    assert!(!machine.exists(BACKUP)? && !machine.exists(DROP_IN)?);
    Ok(())
}

#[test]
fn only_our_runtime_is_added_to_a_configuration_of_1_7() -> Result<()> {
    only_ours_is_added(Release::V1_7)
}

#[test]
fn only_our_runtime_is_added_to_a_configuration_of_2_1() -> Result<()> {
    only_ours_is_added(Release::V2_1)
}

#[test]
fn only_our_runtime_is_added_to_a_configuration_of_the_newest() -> Result<()> {
    only_ours_is_added(Release::Newest)
}
