//! Further processes in a running container.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tests_harness::{Container, wait_until};

use crate::{Stage, terminal::Terminal};

const OUTPUT: usize = 64 << 20;
const LINE: &[u8] = b"0123456789abcdef0123456789abcdef\n";

/// `ctr task exec` with a name of its own: what `kubectl exec` is to kubelet, without a kubelet.
fn ctr_exec(
    stage: &Stage,
    container: &Container<'_>,
    options: &[&str],
    command: &[&str],
) -> Command {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let name = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut ctr = stage.bed().ctr_command();
    ctr.args(["tasks", "exec", "--exec-id", &format!("exec-{name}")])
        .args(options)
        .arg(container.id())
        .args(command);
    ctr
}

fn wait_within(child: &mut Child, deadline: Duration) -> Result<i32> {
    let mut status = None;
    let ended = wait_until("the exec ends", deadline, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    ended?;
    status
        .and_then(|status| status.code())
        .context("the exec was killed")
}

/// Each exec has its exit code, its standard output and its standard error.
pub fn exit_codes_and_streams_are_kept_apart(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let container = stage.shared()?;
    let answer = container.exec(&["/bin/sh", "-c", "echo out; echo err >&2; exit 9"])?;
    ensure!(answer.exit_code == 9, "exit code {}", answer.exit_code);
    ensure!(
        answer.stdout == b"out\n" && answer.stderr == b"err\n",
        "{answer:?}"
    );
    let missing = container.exec(&["/no/such/program"]);
    let text = format!("{missing:?}");
    ensure!(
        text.contains("/no/such/program"),
        "an exec of nothing: {text}"
    );
    ensure!(container.shell("echo alive")? == "alive\n");
    Ok(())
}

/// Closing standard input ends a reader, whose output still arrives; who has no input is not kept.
pub fn the_end_of_standard_input_is_seen(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let container = stage.shared()?;
    let answer = container.exec(&["/bin/sh", "-c", "cat; echo ended"])?;
    ensure!(answer.stdout == b"ended\n", "{answer:?}");
    let mut exec = ctr_exec(
        stage,
        container,
        &[],
        &["/bin/sh", "-c", "wc -c; echo after"],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()?;
    let mut stdin = exec.stdin.take().context("a pipe")?;
    stdin.write_all(&vec![b'x'; 100_000])?;
    drop(stdin);
    let code = wait_within(&mut exec, Duration::from_secs(60))?;
    let mut output = String::new();
    exec.stdout
        .take()
        .context("a pipe")?
        .read_to_string(&mut output)?;
    ensure!(
        code == 0 && output == "100000\nafter\n",
        "{code} {output:?}"
    );
    Ok(())
}

/// A reader slower than the writer gets every byte.
pub fn sixty_four_mebibytes_of_output_arrive_unchanged(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let container = stage.shared()?;
    let script = format!("yes 0123456789abcdef0123456789abcdef | head -c {OUTPUT}");
    let mut exec = ctr_exec(stage, container, &[], &["/bin/sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = exec.stdout.take().context("a pipe")?;
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = stdout.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        length += read;
    }
    let code = wait_within(&mut exec, Duration::from_secs(60))?;
    let expected: Vec<u8> = LINE.iter().copied().cycle().take(OUTPUT).collect();
    ensure!(
        code == 0 && length == OUTPUT,
        "exit code {code}, {length} bytes"
    );
    ensure!(
        hash.finalize() == Sha256::digest(&expected),
        "the bytes are not those written"
    );
    Ok(())
}

/// With a terminal the process has one, of the size the user's window has, now and later.
pub fn a_terminal_is_a_terminal_and_can_be_resized(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let container = stage.shared()?;
    let script = "test -t 0 && test -t 1 && echo terminal; \
        while read line; do test \"$line\" = end && exit 4; stty size; done";
    let mut terminal = Terminal::open(40, 100)?;
    terminal.run(ctr_exec(
        stage,
        container,
        &["--tty"],
        &["/bin/sh", "-c", script],
    ))?;
    terminal.wait_for("terminal")?;
    terminal.type_until("size\r", "40 100")?;
    terminal.resize(50, 132)?;
    terminal.type_until("size\r", "50 132")?;
    terminal.type_line("end\r")?;
    let code = terminal.wait()?;
    ensure!(code == 4, "exit code {code}");
    Ok(())
}
