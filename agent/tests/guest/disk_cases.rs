//! What becomes of the disk that the host lends.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use agent_protocol::rpc::agent::{CreateContainerRequest, Storage};

use crate::{
    attack_cases::privileged,
    cases::{
        Case, check, code_of, network_is_set_up_before_the_sandbox, sandbox_is_created_once,
        sandbox_is_destroyed,
    },
    host::{Container, Host, Outcome, call, mount, shell},
};

macro_rules! cases {
    ($($name:ident,)*) => { &[$((stringify!($name), |host| Box::pin($name(host))),)*] };
}

pub(crate) const WITHOUT_DISK: &[(&str, Case)] = cases! {
    network_is_set_up_before_the_sandbox,
    sandbox_is_created_once,
    without_a_disk_images_and_volumes_are_in_memory,
    an_image_takes_memory_only_without_a_disk,
    sandbox_is_destroyed,
};

pub(crate) const WITH_TWO_DISKS: &[(&str, Case)] = cases! {
    network_is_set_up_before_the_sandbox,
    sandbox_is_created_once,
    a_disk_that_cannot_be_used_is_no_reason_to_use_memory,
};

pub(crate) const VOLUMES: &str = "/run/kata-containers/shared/containers/sandbox1/rootfs/local";
const PATTERN: &str = "nobody-but-the-pod-may-read-this-";

/// A container that has a volume of this name at `/v`.
pub(crate) fn with_volume(
    container: &Container<'_>,
    image: &str,
    name: &str,
    options: &[&str],
) -> CreateContainerRequest {
    let source = format!("{VOLUMES}/{name}");
    let mut request = container.request(image);
    request.storages.push(Storage {
        driver: "local".into(),
        source: "local".into(),
        fstype: "local".into(),
        options: options.iter().map(|&option| option.into()).collect(),
        mount_point: source.clone(),
        ..Default::default()
    });
    let mounts = &mut request.OCI.mut_or_insert_default().Mounts;
    mounts.push(mount("/v", "bind", &source, &["rbind", "rw"]));
    request
}

pub(crate) async fn run(host: &Host, request: &CreateContainerRequest) -> Outcome {
    host.agent.create_container(call(), request).await?;
    host.start(&request.container_id).await
}

/// Output of a script in a running container.
pub(crate) async fn look(host: &Host, id: &str, script: &str) -> Outcome<String> {
    host.exec(id, "look", shell(script)).await?;
    let out = host.stdout(id, "look").await?;
    host.wait(id, "look").await?;
    Ok(String::from_utf8(out)?)
}

fn holds(path: &Path, text: &[u8]) -> Outcome<bool> {
    let bytes = fs::read(path)?;
    Ok(bytes.windows(text.len()).any(|window| window == text))
}

pub(crate) async fn what_a_pod_writes_is_on_the_disk_and_cannot_be_read_there(
    host: &Host,
) -> Outcome {
    let disk = host.disk.as_deref().ok_or("this guest has no disk")?;
    let script = format!("yes {PATTERN} | head -c 8000000 | tee /v/a > /b; sync; sleep 1000");
    let container = Container::new("writer", &script);
    let options = ["mode=0777", "fsgid=2000"];
    run(
        host,
        &with_volume(&container, &host.image, "plain", &options),
    )
    .await?;
    let mut sizes = String::new();
    while sizes != "8000000\n8000000\n" {
        sizes = look(host, "writer", "stat -c %s /v/a /b").await?;
    }
    let read = look(
        host,
        "writer",
        "sync; stat -c %a:%g /v; head -c 20 /v/a; df /v | tail -1",
    )
    .await?;
    check!(
        read.starts_with("2777:2000\nnobody-but-the-pod-m"),
        "{read}"
    );
    check!(read.contains("/dev/dm-"), "{read}");
    let written = fs::metadata(disk)?.blocks() * 512;
    check!(
        written >= 16_000_000,
        "only {written} bytes reached the disk"
    );
    check!(
        !holds(disk, PATTERN.as_bytes())?,
        "the pattern is in the host's file"
    );
    check!(
        !holds(disk, b"BusyBox v")?,
        "the image is in the host's file"
    );
    check!(!holds(disk, b"lost+found")?, "names are in the host's file");
    // A second container shares the volume.
    let reader = Container::new("reader", "head -c 6 /v/a; touch /v/of-reader");
    run(host, &with_volume(&reader, &host.image, "plain", &options)).await?;
    check!(host.stdout("reader", "").await? == b"nobody", "not shared");
    host.wait("reader", "").await?;
    host.remove("reader").await?;
    host.remove("writer").await
}

/// The tables of inodes are never written before they are used, and what was never written cannot
/// be read: making and finding a file must not depend on its neighbours in the table.
pub(crate) async fn files_are_made_on_the_disk_by_all_at_once(host: &Host) -> Outcome {
    let script = "exec 2>&1; make() { mkdir /v/$1; i=0; while [ $i -lt 100 ]; do \
                  : > /v/$1/$i; i=$((i + 1)); done; }; \
                  for maker in 1 2 3 4 5 6 7 8; do make $maker & done; wait; find /v -type f | wc -l";
    let container = Container::new("makers", script);
    run(
        host,
        &with_volume(&container, &host.image, "made", &["mode=0777"]),
    )
    .await?;
    let out = String::from_utf8(host.stdout("makers", "").await?)?;
    check!(out == "800\n", "{out}");
    host.remove("makers").await
}

pub(crate) async fn a_volume_is_held_to_its_size(host: &Host) -> Outcome {
    let script = "dd if=/dev/zero of=/v/a bs=64k count=64 2>&1 | grep -c 'quota\\|No space'; \
                  sync; du -k /v/a | cut -f 1; df -k /v | tail -1; echo more > /b && cat /b";
    let container = Container::new("limited", script);
    let options = ["mode=0777", "size=1048576"];
    run(
        host,
        &with_volume(&container, &host.image, "small", &options),
    )
    .await?;
    let out = String::from_utf8(host.stdout("limited", "").await?)?;
    let lines: Vec<_> = out.lines().collect();
    let kib: u32 = lines.get(1).ok_or("no size")?.parse()?;
    check!(lines.first() == Some(&"1"), "{out}");
    check!((900..=1024).contains(&kib), "{out}");
    check!(
        lines.get(2).is_some_and(|line| line.contains(" 1024 ")),
        "{out}"
    );
    check!(lines.get(3) == Some(&"more"), "{out}");
    host.remove("limited").await
}

/// What files in memory take, and what is left, in KiB.
async fn memory(host: &Host, id: &str, image: &str) -> Outcome<[i64; 2]> {
    let script = "for field in Shmem MemAvailable; do \
                  grep $field: /proc/meminfo | tr -dc '0-9\\n'; done";
    let request = Container::new(id, script).request(image);
    run(host, &request).await?;
    let out = String::from_utf8(host.stdout(id, "").await?)?;
    host.wait(id, "").await?;
    host.remove(id).await?;
    let numbers: Vec<i64> = out.lines().flat_map(str::parse).collect();
    Ok(numbers.try_into().map_err(|_| out)?)
}

pub(crate) async fn an_image_takes_memory_only_without_a_disk(host: &Host) -> Outcome {
    let [files, left] = memory(host, "before", &host.image).await?;
    let bulk = host.image.replace("busybox:1", "bulk:1");
    let [files_after, left_after] = memory(host, "bulk", &bulk).await?;
    let (taken, less) = (files_after - files, left - left_after);
    eprintln!("  an image of 25 MiB takes {taken} KiB of files in memory, {less} KiB in all");
    let expected = if host.disk.is_some() {
        -1024..2048
    } else {
        24_000..30_000
    };
    check!(expected.contains(&taken), "{taken} KiB");
    Ok(())
}

/// Blocks in which two states of the disk differ, the longest run of them.
fn changed(before: &[u8], after: &[u8]) -> std::ops::Range<usize> {
    let pairs = before.chunks(BLOCK).zip(after.chunks(BLOCK));
    let mut best = 0..0;
    let mut start = 0;
    for (number, (before, after)) in pairs.enumerate() {
        if before == after {
            start = number + 1;
        } else if number + 1 - start > best.len() {
            best = start..number + 1;
        }
    }
    best
}

const BLOCK: usize = 4096;

pub(crate) async fn a_block_that_the_host_changes_or_puts_back_is_an_error(host: &Host) -> Outcome {
    let disk = host.disk.as_deref().ok_or("this guest has no disk")?;
    let container = privileged("victim", "sleep 1000");
    let mut request = with_volume(&container, &host.image, "v", &["mode=0777"]);
    // So that it can make the guest forget what it has read.
    let spec = request.OCI.mut_or_insert_default();
    spec.Linux.mut_or_insert_default().ReadonlyPaths.clear();
    run(host, &request).await?;
    let write = |letter: &str| {
        let line = format!("$(head -c 1023 /dev/zero | tr '\\0' {letter})");
        format!(
            "yes {line} | dd of=/v/a bs=4096 count=512 iflag=fullblock conv=notrunc,fsync 2>/dev/null"
        )
    };
    let read = "echo 3 > /proc/sys/vm/drop_caches || echo not dropped; \
                dd if=/v/a bs=4096 conv=noerror 2>&1 | grep -o '^aaa\\|^bbb\\|error$' | \
                sort | uniq -c | sed 's/^ *//'";
    let full = 512 * 4;
    look(host, "victim", &write("a")).await?;
    let old = fs::read(disk)?;
    look(host, "victim", &write("b")).await?;
    let new = fs::read(disk)?;
    let run = changed(&old, &new);
    check!(run.len() >= 400, "only {run:?} changed");
    let out = look(host, "victim", read).await?;
    check!(out == format!("{full} bbb\n"), "{out}");

    // One block as it was, one with a bit changed, one in another's place.
    let file = fs::File::options().write(true).open(disk)?;
    let block = |bytes: &[u8], number: usize| bytes[number * BLOCK..(number + 1) * BLOCK].to_vec();
    let [put_back, changed, moved] = [100, 200, 300].map(|offset| run.start + offset);
    let mut flipped = block(&new, changed);
    flipped[77] ^= 1;
    let place = |number: usize, bytes: Vec<u8>| file.write_all_at(&bytes, (number * BLOCK) as u64);
    place(put_back, block(&old, put_back))?;
    place(changed, flipped)?;
    place(moved, block(&new, moved + 1))?;
    let out = look(host, "victim", read).await?;
    let expected = format!("{} bbb\n3 error\n", full - 3 * 4);
    check!(out == expected, "{out}");

    // What is written anew can be read again.
    look(host, "victim", &write("a")).await?;
    let out = look(host, "victim", read).await?;
    check!(out == format!("{full} aaa\n"), "{out}");
    host.remove("victim").await
}

pub(crate) async fn a_full_disk_is_told_and_what_fits_still_works(host: &Host) -> Outcome {
    let script = "dd if=/dev/zero of=/v/room bs=1M count=12 2>/dev/null; sync; \
                  dd if=/dev/zero of=/v/rest bs=64k 2>/dev/null; \
                  sync; echo full > /dev/shm/state; sleep 1000";
    let filler = Container::new("filler", script);
    run(
        host,
        &with_volume(&filler, &host.image, "all", &["mode=0777"]),
    )
    .await?;
    let mut out = String::new();
    while out != "full\n" {
        out = look(host, "filler", "cat /dev/shm/state").await?;
    }
    let pull = |name: &str| host.image.replace("busybox:1", &format!("{name}:1"));
    let large = Container::new("large", "stat -c %s /ballast").request(&pull("large"));
    let (_, text) = code_of(host.agent.create_container(call(), &large).await)
        .ok_or("24 MiB were pulled to a full disk")?;
    eprintln!("  {text}");
    for word in [
        "scratch disk of 128 MiB is full",
        "scratch_disk_mib",
        "large:1",
    ] {
        check!(text.contains(word), "{text}");
    }
    // The pod goes on, and what fits is pulled.
    look(host, "filler", "rm /v/room").await?;
    let small = Container::new("small", "stat -c %s /ballast");
    run(host, &small.request(&pull("small"))).await?;
    check!(
        host.stdout("small", "").await? == b"1024\n",
        "not the image"
    );
    host.remove("small").await?;
    let refused = code_of(host.agent.create_container(call(), &large).await);
    check!(refused.is_some(), "24 MiB were pulled into 12");
    // The volume stays when its container goes.
    look(host, "filler", "rm /v/rest").await?;
    host.remove("filler").await?;
    run(host, &large).await?;
    let size = host.stdout("large", "").await?;
    check!(
        size == b"25165824\n",
        "{:?}",
        String::from_utf8_lossy(&size)
    );
    host.remove("large").await
}

async fn without_a_disk_images_and_volumes_are_in_memory(host: &Host) -> Outcome {
    let script = "stat -f -c %T /v; dd if=/dev/zero of=/v/a bs=64k count=64 2>&1 | grep -c 'No space'; \
                  grep -c /dev/dm- /proc/mounts";
    let container = Container::new("memory", script);
    let options = ["mode=0777", "size=1048576"];
    run(
        host,
        &with_volume(&container, &host.image, "small", &options),
    )
    .await?;
    let out = String::from_utf8(host.stdout("memory", "").await?)?;
    check!(out == "tmpfs\n1\n0\n", "{out}");
    host.remove("memory").await
}

async fn a_disk_that_cannot_be_used_is_no_reason_to_use_memory(host: &Host) -> Outcome {
    let request = Container::new("none", "true").request(&host.image);
    for _ in 0..2 {
        let answer = code_of(host.agent.create_container(call(), &request).await);
        let (_, text) = answer.ok_or("a container was made")?;
        check!(text.contains("the host attached 2 disks"), "{text}");
    }
    let volume = Container::new("none", "true");
    let request = with_volume(&volume, &host.image, "v", &["mode=0777"]);
    let answer = code_of(host.agent.create_container(call(), &request).await);
    let (_, text) = answer.ok_or("a volume was made")?;
    check!(text.contains("the host attached 2 disks"), "{text}");
    // Taking the pod down needs no disk.
    host.agent
        .destroy_sandbox(call(), &Default::default())
        .await?;
    Ok(())
}
