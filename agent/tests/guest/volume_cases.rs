//! How long volumes live, what parts of them are, and how their versions change.

use agent_protocol::rpc::agent::{CopyFileRequest, CreateContainerRequest, Storage};

use crate::{
    cases::{check, code_of},
    disk_cases::{VOLUMES, look, run, with_volume},
    host::{Container, Host, Outcome, call, mount},
};

const DISK: [&str; 2] = ["mode=0777", "fsgid=2000"];
const MEMORY: &str = "/run/kata-containers/sandbox/ephemeral/memory";
/// What the host copies for a container, and for the pod.
const SECRET: &str = "rotated-0123456789abcdef-secret";
const OF_POD: &str = "sandbox-0123456789abcdef-directory";
const SHARED: &str = "/run/kata-containers/shared/containers";

fn bind(request: &mut CreateContainerRequest, destination: &str, source: &str) {
    let mounts = &mut request.OCI.mut_or_insert_default().Mounts;
    mounts.push(mount(destination, "bind", source, &["rbind", "rw"]));
}

async fn finish(host: &Host, request: &CreateContainerRequest) -> Outcome<String> {
    let id = &request.container_id;
    run(host, request).await?;
    let out = host.stdout(id, "").await?;
    host.wait(id, "").await?;
    host.remove(id).await?;
    Ok(String::from_utf8(out)?)
}

/// The containers that had the volume are gone.
pub(crate) async fn a_volume_lives_as_long_as_the_pod_and_a_part_of_it_is_that_part(
    host: &Host,
) -> Outcome {
    let script = "ls /v | tr '\\n' ' '; head -c 6 /file; stat -c ' %a:%g' /made /v/new; \
                  echo through > /made/word; cat /v/new/made/word; ls -A /deep";
    let container = Container::new("again", script);
    let mut request = with_volume(&container, &host.image, "plain", &DISK);
    for (destination, part) in [("/file", "a"), ("/made", "new/made"), ("/deep", "deep")] {
        bind(
            &mut request,
            destination,
            &format!("{VOLUMES}/plain/{part}"),
        );
    }
    let out = finish(host, &request).await?;
    let expected = "a deep new of-reader nobody 2777:2000\n 2777:2000\nthrough\n";
    check!(out == expected, "{out}");
    Ok(())
}

fn in_memory(id: &str, image: &str, script: &str, destination: &str) -> CreateContainerRequest {
    let mut container = Container::new(id, script);
    container.process.Cwd = "/".into();
    let mut request = container.request(image);
    let spec = request.OCI.mut_or_insert_default();
    spec.Mounts.retain(|mount| mount.destination != destination);
    request.storages.push(Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        options: vec!["size=8388608".into(), "fsgid=7".into()],
        mount_point: MEMORY.into(),
        ..Default::default()
    });
    bind(&mut request, destination, MEMORY);
    request
}

pub(crate) async fn a_volume_in_memory_outlives_its_containers_and_is_held_to_its_size(
    host: &Host,
) -> Outcome {
    let script = "stat -c %a:%g /dev/shm; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d ' ' -f 2; \
                  echo kept > /dev/shm/word; dd if=/dev/zero of=/dev/shm/a bs=64k 2>&1 | grep -c space";
    let out = finish(host, &in_memory("one", &host.image, script, "/dev/shm")).await?;
    check!(out == "3777:7\n8192\n1\n", "{out}");
    let script = "cat /m/word; stat -c %s /m/a; ls /dev/shm | grep -c word";
    let out = finish(host, &in_memory("two", &host.image, script, "/m")).await?;
    let lines: Vec<_> = out.lines().collect();
    check!(lines.first() == Some(&"kept"), "{out}");
    check!(
        lines.get(2) == Some(&"1") || lines.get(2) == Some(&"0"),
        "{out}"
    );
    let size: u64 = lines.get(1).ok_or("no size")?.parse()?;
    check!((8_000_000..=8_388_608).contains(&size), "{out}");
    Ok(())
}

pub(crate) async fn a_part_leads_nowhere_out_of_its_volume(host: &Host) -> Outcome {
    put(host, &format!("{OF_POD}/file"), 0o100_644, b"copied").await?;
    let script = "ln -s / /v/out; ln -s ../.. /v/up; ln -s a /v/within; ln -s file /copied/link; \
                  mkdir -p /v/d; sleep 1000";
    let container = Container::new("planter", script);
    let mut request = with_volume(&container, &host.image, "plain", &DISK);
    bind(&mut request, "/copied", &format!("{SHARED}/{OF_POD}"));
    run(host, &request).await?;
    while look(host, "planter", "ls -d /v/d 2>/dev/null").await? != "/v/d\n" {}
    let parts = ["out", "out/etc", "up", "up/up", "a/x"];
    let parts = parts.map(|part| format!("{VOLUMES}/plain/{part}"));
    let copied = ["link", "nowhere"].map(|name| format!("{SHARED}/{OF_POD}/{name}"));
    for part in parts.iter().chain(&copied) {
        let victim = Container::new("victim", "ls /part");
        let mut request = with_volume(&victim, &host.image, "plain", &DISK);
        bind(&mut request, "/part", part);
        let answer = code_of(host.agent.create_container(call(), &request).await);
        let (_, text) = answer.ok_or(format!("{part} was mounted"))?;
        check!(
            text.contains("the source of the mount at /part"),
            "{part}: {text}"
        );
    }
    let inside = Container::new("inside", "head -c 6 /part; cat /file");
    let mut request = with_volume(&inside, &host.image, "plain", &DISK);
    bind(&mut request, "/part", &format!("{VOLUMES}/plain/within"));
    bind(&mut request, "/file", &format!("{SHARED}/{OF_POD}/file"));
    let out = finish(host, &request).await?;
    check!(out == "nobodycopied", "{out}");
    look(host, "planter", "rm /v/out /v/up /v/within").await?;
    host.remove("planter").await
}

async fn put(host: &Host, name: &str, mode: u32, data: &[u8]) -> Outcome {
    let request = CopyFileRequest {
        path: format!("{SHARED}/{name}"),
        file_size: i64::try_from(data.len())?,
        file_mode: mode,
        dir_mode: 0o755,
        uid: -1,
        gid: -1,
        data: data.into(),
        ..Default::default()
    };
    host.agent.copy_file(call(), &request).await?;
    Ok(())
}

async fn put_version(host: &Host, version: &str, keys: &[&str]) -> Outcome {
    for key in keys {
        let name = format!("{SECRET}/{version}/{key}");
        put(host, &name, 0o100_644, version.as_bytes()).await?;
    }
    let link = format!("{SECRET}/..data");
    put(host, &link, 0o120_777, version.as_bytes()).await?;
    for key in keys {
        let target = format!("..data/{key}");
        let name = format!("{SECRET}/{key}");
        put(host, &name, 0o120_777, target.as_bytes()).await?;
    }
    Ok(())
}

pub(crate) async fn a_new_version_comes_in_one_step_and_the_old_one_goes(host: &Host) -> Outcome {
    put_version(host, "..1", &["user", "goes"]).await?;
    let container = Container::new("rotated", "sleep 1000");
    let mut request = container.request(&host.image);
    bind(&mut request, "/secret", &format!("{SHARED}/{SECRET}"));
    run(host, &request).await?;
    let show = "ls -A /secret | tr '\\n' ' '; cat /secret/*";
    let out = look(host, "rotated", show).await?;
    check!(out == "..1 ..data goes user ..1..1", "{out}");
    for version in ["..2", "..3"] {
        put_version(host, version, &["comes", "user"]).await?;
        let out = look(host, "rotated", show).await?;
        let expected = format!("{version} ..data comes user {version}{version}");
        check!(out == expected, "{out}");
    }
    host.remove("rotated").await?;
    // What was copied for a container goes with it.
    let late = code_of(host.agent.create_container(call(), &request).await);
    check!(late.is_some(), "its files are still there");
    Ok(())
}
