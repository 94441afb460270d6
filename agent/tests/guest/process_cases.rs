//! Who a process is, and what becomes of a program that the kernel refuses.

use agent_protocol::rpc::oci;
use protobuf::MessageField;

use crate::{
    cases::check,
    host::{Container, Host, Outcome, call, shell},
};

/// By number, with the groups that the request says or the image; an exec is the container's
/// user although `/etc/passwd` says something else by then.
pub(crate) async fn users_are_the_images(host: &Host) -> Outcome {
    let user = |name: &str, uid, groups: &[u32]| oci::User {
        UID: uid,
        AdditionalGids: groups.into(),
        Username: name.into(),
        ..Default::default()
    };
    let look = "id -u; id -G; echo $HOME";
    for (user, expected) in [
        (
            user("1000", 1000, &[3456]),
            "1000\n1001 2000 3456\n/home/app\n",
        ),
        (
            user("1000::strict", 1000, &[3456]),
            "1000\n1001 3456\n/home/app\n",
        ),
        (user("app:extra", 65_534, &[]), "1000\n2000\n/home/app\n"),
        (user("", 4242, &[]), "4242\n0\n/\n"),
    ] {
        let mut container = Container::new("who", look);
        container.process.User = MessageField::some(user);
        let (out, _) = host.finish(container).await?;
        check!(out == expected, "{out}, not {expected}");
    }
    let mut container = Container::new("who", "sleep 1000");
    container.process.User = MessageField::some(user("app", 65_534, &[]));
    host.run(container).await?;
    let rewrite = "echo app:x:0:0::/:/bin/sh > /etc/passwd";
    let root = user("", 0, &[]);
    for (name, script, user) in [
        ("root", rewrite, root),
        ("app", look, user("app", 65_534, &[])),
    ] {
        let mut process = shell(script);
        process.User = MessageField::some(user);
        host.exec("who", name, process).await?;
    }
    host.wait("who", "root").await?;
    let out = String::from_utf8(host.stdout("who", "app").await?)?;
    check!(out == "1000\n1001 2000\n/home/app\n", "exec: {out}");
    host.remove("who").await
}

/// Files of a container that are no programs: the name, its content, the kernel's reason.
const NO_PROGRAMS: [(&str, &str, &str); 3] = [
    ("no-magic", "echo shell", "Exec format error"),
    ("no-interpreter", "#!/bin/no-such-shell", "No such file"),
    (
        "other-machine",
        "\\177ELF\\002\\001\\001",
        "Exec format error",
    ),
];

pub(crate) async fn programs_that_the_kernel_refuses(host: &Host) -> Outcome {
    host.run(Container::new("refused", "sleep 1000")).await?;
    for (name, content, reason) in NO_PROGRAMS {
        let write = format!("printf '{content}' > /tmp/{name}; chmod 700 /tmp/{name}");
        host.exec("refused", "write", shell(&write)).await?;
        check!(host.wait("refused", "write").await? == 0, "not written");
        let process = oci::Process {
            Args: vec![format!("/tmp/{name}")],
            ..shell("")
        };
        let answer = host.exec("refused", "run", process).await;
        let text = answer.err().ok_or("ran")?.to_string();
        check!(text.contains(name) && text.contains(reason), "{text}");
    }
    // The same of a container's first process: it is made, and its start fails.
    let mut container = Container::new("first", "");
    container.process.Args = vec!["/no-program".into()];
    let request = container.request(&host.image);
    host.agent.create_container(call(), &request).await?;
    let text = host.start("first").await.err().ok_or("ran")?.to_string();
    check!(
        text.contains("/no-program") && text.contains("Exec format error"),
        "{text}"
    );
    host.wait("first", "").await?;
    host.remove("first").await?;
    host.remove("refused").await
}
