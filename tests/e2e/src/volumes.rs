//! Volumes as the kubelet prepares them on the node, and as containers of a pod find them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_cri::v1::Mount;
use tests_harness::{Container, ContainerRequest, Node};

use crate::Stage;

const POD: &str = "/var/lib/kubelet/pods/volumes";
const NODES: &str = "/srv/volumes-of-the-node";
const ROTATION: Duration = Duration::from_secs(60);

fn mounts(all: &[(&str, String)]) -> Vec<Mount> {
    let mounts = all.iter().map(|(container, host)| Mount {
        container_path: (*container).to_owned(),
        host_path: host.clone(),
        ..Mount::default()
    });
    mounts.collect()
}

fn volume(node: &Node, plugin: &str, name: &str) -> Result<String> {
    let path = format!("{POD}/volumes/kubernetes.io~{plugin}/{name}");
    fs::create_dir_all(node.path(&path))?;
    fs::set_permissions(node.path(&path), fs::Permissions::from_mode(0o777))?;
    Ok(path)
}

/// As the kubelet prepares a part of a volume for a container: what it does not find on the
/// node is a directory.
fn part(node: &Node, volume: &str, part: &str, number: u32) -> Result<String> {
    let source = format!("{volume}/{part}");
    if !node.path(&source).exists() {
        fs::create_dir_all(node.path(&source))?;
        fs::set_permissions(node.path(&source), fs::Permissions::from_mode(0o777))?;
    }
    let target = format!("{POD}/volume-subpaths/disk/main/{number}");
    if node.path(&source).is_dir() {
        fs::create_dir_all(node.path(&target))?;
    } else {
        fs::create_dir_all(node.path(format!("{POD}/volume-subpaths/disk/main")))?;
        fs::write(node.path(&target), "")?;
    }
    node.run("mount", &["--bind", &source, &target])?;
    Ok(target)
}

/// The swap of `..data`, with the names of keys that come and go.
fn write_version(node: &Node, volume: &str, version: &str, keys: &[&str]) -> Result<()> {
    let root = node.path(volume);
    fs::create_dir(root.join(version))?;
    for key in keys {
        fs::write(root.join(version).join(key), version)?;
    }
    let old = fs::read_link(root.join("..data"));
    symlink(version, root.join("..data_tmp"))?;
    fs::rename(root.join("..data_tmp"), root.join("..data"))?;
    for key in keys
        .iter()
        .filter(|key| fs::symlink_metadata(root.join(key)).is_err())
    {
        symlink(format!("..data/{key}"), root.join(key))?;
    }
    for entry in fs::read_dir(&root)? {
        let entry = entry?;
        if fs::metadata(entry.path()).is_err() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Ok(old) = old {
        fs::remove_dir_all(root.join(old))?;
    }
    Ok(())
}

fn until(container: &Container<'_>, script: &str, expected: &str) -> Result<()> {
    let end = Instant::now() + ROTATION;
    loop {
        let found = container.shell(script)?;
        if found == expected {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{script}: {found:?} for {expected:?}");
    }
}

/// An `emptyDir` is one place for init containers, containers and those that start again,
/// whole or in part; one in memory has its size; a Secret changes as a whole; a path of the
/// node is one place for all.
pub fn a_pods_volumes_are_what_they_are_on_a_plain_node(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let node = stage.bed().node();
    let disk = volume(node, "empty-dir", "disk")?;
    let memory = volume(node, "empty-dir", "memory")?;
    let secret = volume(node, "secret", "password")?;
    node.run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", &memory])?;
    write_version(node, &secret, "..1", &["user", "goes"])?;
    fs::create_dir_all(node.path(NODES))?;
    fs::write(node.path(format!("{NODES}/word")), "of the node\n")?;

    let pod = stage.pod()?;
    let fills = ContainerRequest {
        mounts: mounts(&[("/all", disk.clone())]),
        ..ContainerRequest::shell(
            "mkdir -p /all/data/deep && echo from-init >/all/data/deep/file && echo once >>/all/starts",
        )
    };
    ensure!(pod.complete(fills)?.code == 0, "the init container failed");

    let whole = ("/whole", disk.clone());
    let main = pod.start(ContainerRequest {
        mounts: mounts(&[
            ("/part", part(node, &disk, "data", 1)?),
            whole.clone(),
            ("/one-file", part(node, &disk, "data/deep/file", 2)?),
            ("/expanded", part(node, &disk, "pod/made", 3)?),
            ("/dev/shm", memory),
            ("/secret", secret.clone()),
            ("/node", NODES.to_owned()),
        ]),
        ..ContainerRequest::busybox(&["sleep", "1000"])
    })?;
    let found = main.shell(
        "cat /part/deep/file /one-file /node/word; stat -c %a /expanded /dev/shm; \
         echo through >/expanded/word; cat /whole/pod/made/word; echo again >>/whole/starts; \
         df -k /dev/shm | tail -1 | tr -s ' ' | cut -d ' ' -f 2; echo kept >/dev/shm/word; \
         echo of main >/node/answer; echo two >/one-file; cat /whole/data/deep/file; \
         cat /secret/user /secret/goes",
    )?;
    let expected = "from-init\nfrom-init\nof the node\n777\n1777\nthrough\n8192\ntwo\n..1..1";
    ensure!(found == expected, "{found}");

    for (version, keys) in [("..2", ["comes", "user"]), ("..3", ["comes", "user"])] {
        write_version(node, &secret, version, &keys)?;
        let names = format!("{version}\n..data\ncomes\nuser\n{version}");
        until(&main, "ls -A /secret; cat /secret/user", &names)?;
    }

    let second = ContainerRequest {
        mounts: mounts(&[("/there", NODES.to_owned())]),
        ..ContainerRequest::shell("cat /there/answer")
    };
    let exit = pod.complete(second)?;
    ensure!(exit.stdout == "of main\n", "{exit:?}");

    main.stop(0)?;
    main.remove()?;
    let again = ContainerRequest {
        mounts: mounts(&[whole]),
        ..ContainerRequest::shell("cat /whole/starts /whole/pod/made/word")
    };
    let exit = pod.complete(again)?;
    ensure!(exit.stdout == "once\nagain\nthrough\n", "{exit:?}");
    pod.remove()
}
