//! Many pods at once.

use std::thread;

use anyhow::{Result, anyhow, ensure};
use tests_harness::ContainerRequest;

use crate::Stage;

const PODS: usize = 10;

/// Ten pods start, run and end beside each other, and none gets another's output.
pub fn ten_pods_run_at_once(stage: &'static Stage) -> Result<()> {
    let _turn = stage.alone();
    let before = stage.before()?;
    let pods: Vec<_> = (0..PODS)
        .map(|number| {
            thread::spawn(move || -> Result<()> {
                let pod = stage.pod()?;
                let exit = pod.complete(ContainerRequest::shell(&format!("echo pod {number}")))?;
                ensure!(
                    exit.code == 0 && exit.stdout == format!("pod {number}\n"),
                    "{exit:?}"
                );
                pod.remove()
            })
        })
        .collect();
    for pod in pods {
        pod.join()
            .map_err(|_| anyhow!("a pod's thread panicked"))??;
    }
    before.wait_until_gone(stage.bed().node(), std::time::Duration::from_secs(30))
}
