//! The agent in a real guest: QEMU boots the guest image with this build's agent,
//! and the test plays the host.
//!
//! Needs QEMU, `vhost-device-vsock`, `docker-registry`, `skopeo`, `umoci`,
//! `openssl`, a static busybox and a built `kata-cc-image`; says which one is
//! missing and passes otherwise. One guest serves all cases, in order: each leaves
//! it as the next expects it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod cases;
mod host;
mod registry;
mod tools;
mod vm;

use std::time::{Duration, Instant};

use host::Host;

const CASE_TIME_MAX: Duration = Duration::from_secs(120);

#[test]
fn the_guest_serves_the_protocol() {
    let tools = match tools::Tools::find() {
        Ok(tools) => tools,
        Err(missing) => {
            eprintln!("skipped: no {missing}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let registry = registry::Registry::start(&tools, folder.path());
    let mut vm = vm::Vm::start(&tools, folder.path(), &registry.authority());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        let host = Host::connect(&vm, registry.reference());
        let host = tokio::time::timeout(CASE_TIME_MAX, host)
            .await
            .expect("the agent answers");
        for (name, case) in cases::ALL {
            let started = Instant::now();
            let case = tokio::time::timeout(CASE_TIME_MAX, case(&host));
            let result = case.await.unwrap_or_else(|_| Err("took too long".into()));
            eprintln!("{name}: {result:?} ({:?})", started.elapsed());
            result.map_err(|error| format!("{name}: {error}"))?;
        }
        Ok::<(), String>(())
    });
    if result.is_ok() {
        assert!(
            vm.ends(Duration::from_secs(30)),
            "the guest ends with its sandbox"
        );
    }
    assert!(result.is_ok(), "{result:?}; console:\n{}", vm.console());
}
