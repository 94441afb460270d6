//! The agent in a real guest: QEMU boots the guest image with this build's agent,
//! and the test plays the host.
//!
//! Needs QEMU, `vhost-device-vsock`, `docker-registry`, `skopeo`, `umoci`,
//! `openssl`, a static busybox and a built `kata-cc-image`; says which one is
//! missing and passes otherwise. One guest with a scratch disk serves all cases, in order:
//! each leaves it as the next expects it. Two more guests have no disk, and two disks.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod acpi;
mod attack_cases;
mod cases;
mod disk_cases;
mod host;
mod initdata;
mod limit_cases;
mod policy;
mod process_cases;
mod registry;
mod relay;
mod stream_cases;
#[path = "../../evidence/tests/support/swtpm.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests of another crate use more")]
mod swtpm;
mod tools;
mod tpm;
mod vm;
mod volume_cases;

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use host::{Host, runtime};

const CASE_TIME_MAX: Duration = Duration::from_secs(120);

const DISK_MIB: u64 = 128;

/// What all guests share.
struct Bed {
    tools: tools::Tools,
    registry: registry::Registry,
    image: PathBuf,
    folder: tempfile::TempDir,
}

impl Bed {
    fn make(tools: tools::Tools) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry::Registry::start(&tools, folder.path());
        registry.push(&tools, "small", 1 << 10);
        registry.push(&tools, "large", 24 << 20);
        registry.push(&tools, "bulk", 24 << 20);
        let image = vm::build_image(&tools, folder.path(), &registry.authority());
        Self {
            tools,
            registry,
            image,
            folder,
        }
    }

    fn boot(&self, name: &str, disks: &[PathBuf]) -> vm::Vm {
        let folder = self.folder.path().join(name);
        vm::Vm::start(&self.tools, &folder, &self.image, disks)
    }

    fn disk(&self, name: &str) -> PathBuf {
        vm::make_disk(self.folder.path(), name, DISK_MIB)
    }

    /// Runs the cases in order in one guest, which says this word at its start and ends
    /// with the last case.
    fn play(&self, mut vm: vm::Vm, disk: Option<&Path>, word: &str, cases: &[(&str, cases::Case)]) {
        let runtime = runtime();
        let result = runtime.block_on(async {
            let disk = disk.map(Path::to_owned);
            let host = Host::connect(&vm, self.registry.reference(), disk);
            let host = tokio::time::timeout(CASE_TIME_MAX, host)
                .await
                .expect("the agent answers");
            for (name, case) in cases {
                let started = Instant::now();
                let case = tokio::time::timeout(CASE_TIME_MAX, case(&host));
                let result = case.await.unwrap_or_else(|_| Err("took too long".into()));
                eprintln!("{name}: {result:?} ({:?})", started.elapsed());
                result.map_err(|error| format!("{name}: {error}"))?;
            }
            Ok::<(), String>(())
        });
        let console = vm.console();
        assert!(result.is_ok(), "{result:?}; console:\n{console}");
        assert!(
            vm.ends(Duration::from_secs(30)),
            "the guest ends with its sandbox"
        );
        assert!(console.contains(word), "{console}");
        let times = ["agent ready", "scratch disk"];
        let told = |line: &&str| times.iter().any(|word| line.contains(word));
        for line in console.lines().filter(told) {
            eprintln!("  {line}");
        }
    }
}

/// Guests are emulated: two at once would only be slower.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn with_bed(test: fn(&Bed)) {
    match tools::Tools::find() {
        Ok(tools) => {
            let _one = ONE_AT_A_TIME.lock();
            test(&Bed::make(tools));
        }
        Err(missing) => eprintln!("skipped: no {missing}"),
    }
}

#[test]
fn the_guest_stands_by_the_initdata_it_was_given() {
    with_bed(|bed| initdata::boot_each(&bed.tools, &bed.image, bed.folder.path()));
}

#[test]
fn the_guest_runs_what_its_policy_document_says_and_nothing_else() {
    with_bed(|bed| {
        policy::judges_every_request(&bed.tools, &bed.registry, &bed.image, bed.folder.path());
    });
}

#[test]
fn the_guest_measures_into_its_tpm_and_does_nothing_unmeasured() {
    with_bed(|bed| tpm::boot_each(&bed.tools, &bed.image, bed.folder.path()));
}

#[test]
fn code_in_the_hosts_acpi_tables_does_not_reach_the_guests_memory() {
    with_bed(|bed| acpi::attack_each(&bed.tools, &bed.image, bed.folder.path()));
}

#[test]
fn the_guest_serves_the_protocol() {
    with_bed(serve_the_protocol);
}

fn a_device_that_no_pod_has_ends_the_guest(bed: &Bed, [one, other]: [PathBuf; 2]) {
    let mut vm = bed.boot("three-disks", &[one, other, bed.disk("third")]);
    assert!(vm.ends(CASE_TIME_MAX), "{}", vm.console());
    let console = vm.console();
    assert!(console.contains("1af4:1001, which no pod has"), "{console}");
}

fn serve_the_protocol(bed: &Bed) {
    let disk = bed.disk("disk");
    let vm = bed.boot("vm", std::slice::from_ref(&disk));
    bed.play(vm, Some(&disk), "scratch disk ready", cases::ALL);
    bed.play(
        bed.boot("no-disk", &[]),
        None,
        "no scratch disk",
        disk_cases::WITHOUT_DISK,
    );
    let disks = [bed.disk("one"), bed.disk("other")];
    let vm = bed.boot("two-disks", &disks);
    bed.play(
        vm,
        None,
        "scratch disk cannot be used",
        disk_cases::WITH_TWO_DISKS,
    );
    a_device_that_no_pod_has_ends_the_guest(bed, disks);
}
