//! A guest in a real VM asks the simulated processor, and the verifier judges what it got.
//!
//! Needs QEMU, the firmware of Debian's `ovmf-amdsev`, and what `hack/build` installs
//! (`KATA_CC_PREFIX` says where, else `target/kata-cc`); says what is missing and passes otherwise.

#![expect(clippy::unwrap_used, reason = "this is all test code")]

mod bed;
mod owner;

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use agent_evidence::{HostData, LaunchMeasurement, ReportData};
use bed::Bed;
use owner::{HOST_DATA, POLICY, references};
use policy_appraisal::{
    Check, Endorsements, Timestamp, Verdict,
    snp::{Expected, Product, Roots, SigningKey, UnverifiedReport},
};
use shim_hypervisor::{Confidential, Hypervisor as _, Qemu, SevSnp, VmExitCause};

const BOOT: Duration = Duration::from_secs(120);

/// What the guest printed.
struct Printed {
    reports: Vec<(u8, Vec<u8>)>,
    certificates: Vec<u8>,
}

impl Printed {
    fn read(console: &str) -> Self {
        assert!(!console.contains("failed"), "{console}");
        let mut printed = Self {
            reports: Vec::new(),
            certificates: Vec::new(),
        };
        for line in console.lines() {
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            match words.as_slice() {
                ["report", byte, report] => {
                    let report = hex::decode(report).unwrap();
                    printed.reports.push((byte.parse().unwrap(), report));
                }
                ["certificates", table] => printed.certificates = hex::decode(table).unwrap(),
                _ => {}
            }
        }
        assert_eq!(printed.reports.len(), 2, "reports on the console");
        printed
    }

    fn judge(&self, report: usize, bed: &Bed, expected: &Expected, product: Product) -> Verdict {
        let roots = Roots::parse(&std::fs::read(bed.roots()).unwrap()).unwrap();
        let endorsements = Endorsements::parse(&self.certificates).unwrap();
        let report = UnverifiedReport::parse(&self.reports[report].1).unwrap();
        let measurement = LaunchMeasurement(bed.launch_digest(2));
        let references = references(product, measurement);
        match report.authenticate(&endorsements, &roots, &references, now()) {
            Ok(authentic) => authentic.appraise(&references, expected),
            Err(refused) => refused,
        }
    }
}

async fn boot(bed: &Bed, words: &str) -> Printed {
    let vm = Qemu.start(bed.config(words, 2)).await.unwrap();
    let exit = tokio::time::timeout(BOOT, vm.exited()).await.unwrap();
    assert_eq!(exit.cause, VmExitCause::GuestReset, "{exit}");
    let messages = std::fs::read_to_string(bed.state().join("hypervisor.log")).unwrap();
    assert!(messages.contains("launch digest"), "{messages}");
    Printed::read(&std::fs::read_to_string(bed.state().join("console.log")).unwrap())
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix_seconds(now.as_secs().try_into().unwrap())
}

fn expected(byte: u8) -> Expected {
    Expected {
        report_data: ReportData([byte; 64]),
        host_data: HostData(HOST_DATA),
    }
}

#[tokio::test]
async fn a_guests_report_is_authentic_and_has_the_digest_computed_from_its_files() {
    let Some(bed) = Bed::open() else { return };
    let printed = boot(&bed, "").await;
    let verdict = printed.judge(0, &bed, &expected(1), Product::Genoa);
    assert!(verdict.is_accepted(), "{verdict}");
    let verdict = printed.judge(1, &bed, &expected(2), Product::Genoa);
    assert!(verdict.is_accepted(), "{verdict}");
    let replayed = printed.judge(0, &bed, &expected(2), Product::Genoa);
    let refusals: Vec<Check> = replayed.refusals().map(|finding| finding.check).collect();
    assert_eq!(refusals, [Check::ReportData]);
    let amd = Roots::amd();
    let report = UnverifiedReport::parse(&printed.reports[0].1).unwrap();
    let endorsements = Endorsements::parse(&printed.certificates).unwrap();
    let references = references(Product::Genoa, LaunchMeasurement([0; 48]));
    let refused = report.authenticate(&endorsements, &amd, &references, now());
    assert!(refused.is_err(), "AMD's root did not sign this");
}

#[tokio::test]
async fn other_products_keys_and_report_versions_are_played_too() {
    let Some(bed) = Bed::open() else { return };
    let words = "--product Turin --signing-key vlek --report-version 3";
    let printed = boot(&bed, words).await;
    let verdict = printed.judge(0, &bed, &expected(1), Product::Turin);
    assert!(verdict.is_accepted(), "{verdict}");
    assert!(verdict.to_string().contains(&SigningKey::Vlek.to_string()));
}

#[tokio::test]
async fn the_processor_ends_with_qemu() {
    let Some(bed) = Bed::open() else { return };
    let vm = Qemu.start(bed.config("", 1)).await.unwrap();
    let pid = vm.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let processor = children.trim().to_owned();
    let command = Path::new("/proc").join(&processor).join("cmdline");
    assert!(
        std::fs::read_to_string(&command).unwrap().contains("serve"),
        "{children}"
    );
    let qemu = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(qemu, nix::sys::signal::Signal::SIGKILL).unwrap();
    vm.exited().await;
    let end = Instant::now() + Duration::from_secs(10);
    // A process that nobody has reaped yet has an empty command line.
    while std::fs::read(&command).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < end, "{processor} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_launch_that_the_firmware_refuses_does_not_start() {
    let Some(bed) = Bed::open() else { return };
    let mut config = bed.config("", 1);
    config.confidential = Confidential::Simulated(SevSnp {
        host_data: HOST_DATA,
        policy: POLICY & !(1 << 17),
        identity: None,
    });
    let refused = Qemu.start(config).await.map(|vm| vm.pid()).unwrap_err();
    assert!(refused.to_string().contains("guest policy"), "{refused}");
}
