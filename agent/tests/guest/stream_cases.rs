//! What goes in and comes out of a process, with a terminal and without.

use agent_protocol::rpc::{agent, oci};
use protobuf::MessageField;
use ttrpc::Code;

use crate::{
    cases::{check, code_of},
    host::{Container, Host, Outcome, call, shell},
};

pub(crate) async fn execs_have_streams_of_their_own(host: &Host) -> Outcome {
    host.run(Container::new("exec", "sleep 1000")).await?;
    host.exec("exec", "cat", shell("cat; echo closed; exit 3"))
        .await?;
    host.write("exec", "cat", b"some input\n").await?;
    let close = agent::CloseStdinRequest {
        container_id: "exec".into(),
        exec_id: "cat".into(),
        ..Default::default()
    };
    host.agent.close_stdin(call(), &close).await?;
    let out = host.stdout("exec", "cat").await?;
    check!(out == b"some input\nclosed\n", "{out:?}");
    let status = host.wait("exec", "cat").await?;
    check!(status == 3, "status {status}");
    let missing = oci::Process {
        Args: vec!["nothing-here".into()],
        ..shell("")
    };
    let error = host
        .exec("exec", "bad", missing)
        .await
        .err()
        .ok_or("ran nothing")?
        .to_string();
    check!(
        error.contains("nothing-here") && !error.contains("not found"),
        "{error}"
    );
    let twice = host.exec("exec", "quick", shell("exit 0")).await;
    twice?;
    host.wait("exec", "quick").await?;
    host.exec("exec", "quick", shell("exit 9")).await?;
    check!(
        host.wait("exec", "quick").await? == 9,
        "the id was not free again"
    );
    let (one, other) = tokio::join!(
        host.exec("exec", "same", shell("sleep 1000")),
        host.exec("exec", "same", shell("sleep 1000")),
    );
    check!(
        one.is_ok() != other.is_ok(),
        "one id was given to both or neither: {one:?}, {other:?}"
    );
    host.remove("exec").await
}

pub(crate) async fn terminal_has_a_size_and_an_end(host: &Host) -> Outcome {
    host.run(Container::new("tty", "sleep 1000")).await?;
    let size = oci::Box {
        Height: 30,
        Width: 90,
        ..Default::default()
    };
    let process = oci::Process {
        Terminal: true,
        ConsoleSize: MessageField::some(size),
        ..shell("read line; stty size; echo $line; tty; exit 4")
    };
    host.exec("tty", "sh", process).await?;
    let resize = agent::TtyWinResizeRequest {
        container_id: "tty".into(),
        exec_id: "sh".into(),
        row: 40,
        column: 100,
        ..Default::default()
    };
    host.agent.tty_win_resize(call(), &resize).await?;
    host.write("tty", "sh", b"typed\n").await?;
    let out = String::from_utf8(host.stdout("tty", "sh").await?)?;
    check!(
        out == "typed\r\n40 100\r\ntyped\r\n/dev/pts/0\r\n",
        "{out:?}"
    );
    check!(host.wait("tty", "sh").await? == 4, "wrong status");
    let none = agent::TtyWinResizeRequest {
        exec_id: String::new(),
        ..resize
    };
    let (code, _) =
        code_of(host.agent.tty_win_resize(call(), &none).await).ok_or("resized a pipe")?;
    check!(code == Code::UNAVAILABLE, "{code:?}");
    host.remove("tty").await?;
    let mut container =
        Container::new("tty-init", "stty size; tty; echo $0 > /dev/console; exit 5");
    container.process.Terminal = true;
    let (out, status) = host.finish(container).await?;
    check!(
        out.contains("/dev/pts/0") && status == 5,
        "{out:?} {status}"
    );
    Ok(())
}

pub(crate) async fn output_of_64_mib_is_complete(host: &Host) -> Outcome {
    let (out, status) = host
        .finish(Container::new(
            "big",
            "dd if=/dev/zero bs=65536 count=1024 2>/dev/null | tr '\\0' x",
        ))
        .await?;
    check!(
        out.len() == 64 << 20 && status == 0,
        "{} {status}",
        out.len()
    );
    Ok(())
}
