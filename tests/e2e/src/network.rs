//! The pod's address works from every side.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests_harness::{ContainerRequest, wait_until};

use crate::Stage;

/// Pod to pod, pod to node, node to pod, and the pod's own address inside it.
pub fn pods_reach_each_other_and_the_node_and_it_them(stage: &'static Stage) -> Result<()> {
    let _turn = stage.together();
    let node = stage.bed().node();
    let (server, client) = (stage.pod()?, stage.pod()?);
    let listener = server.start(ContainerRequest::shell(
        "mkdir /www; echo from-pod > /www/index.html; httpd -p 8080 -h /www; echo up; sleep 1000",
    ))?;
    listener.wait_for_output("up")?;
    let address = server.address()?;
    ensure!(
        listener.shell("ip -4 address")?.contains(&address),
        "the guest has another address"
    );

    let page = format!("wget -q -O - http://{address}:8080/");
    let container = client.start(ContainerRequest::busybox(&["sleep", "1000"]))?;
    ensure!(container.shell(&page)? == "from-pod\n", "pod to pod");
    ensure!(
        node.run(
            "busybox",
            &["wget", "-q", "-O", "-", &format!("http://{address}:8080/")]
        )? == "from-pod\n"
    );

    node.write("/run/bed/www/index.html", "from-node\n")?;
    let mut httpd = node.command("busybox");
    httpd.args(["httpd", "-f", "-p", "10.90.0.1:8081", "-h", "/run/bed/www"]);
    let mut httpd = node.serve(httpd, "/run/bed/httpd.log")?;
    wait_until("the node's server listens", Duration::from_secs(10), || {
        node.listens_on(8081)
    })?;
    let heard = container.shell("wget -q -O - http://10.90.0.1:8081/");
    httpd.kill().context("ending the node's server")?;
    httpd.wait()?;
    ensure!(heard? == "from-node\n", "pod to node");
    server.remove()?;
    client.remove()
}
