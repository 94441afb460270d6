//! Guests with a TPM: what the agent extends, in which order, and that nothing happens
//! once the TPM is gone.

use std::{fs, path::Path, time::Duration};

use agent_protocol::rpc::agent;

use crate::{
    host::{Host, call, runtime},
    initdata::{self, POLICY},
    swtpm::{Swtpm, define, fill},
    tools::Tools,
    vm::{Devices, Vm},
};

const TIME_MAX: Duration = Duration::from_secs(120);
const REPORT_INDEX: u32 = 0x0140_0001;
/// A paravisor's blob around a real report. Nobody in the guest judges it.
const REPORT: &[u8] =
    include_bytes!("../../../policy/appraisal/tests/vectors/azure-vtpm/crate-hcl-report-snp.bin");

/// `TPM2_PCR_Extend`, as the guest sends it.
struct Extension {
    pcr: u8,
    /// Hash algorithms with their digests.
    values: Vec<u8>,
}

pub(crate) fn boot_each(tools: &Tools, image: &Path, folder: &Path) {
    let runtime = runtime();
    runtime.block_on(async {
        plain(tools, image, folder).await;
        paravisors(tools, image, folder).await;
    });
}

/// A TPM that any host can give: the log goes into it, and when it is gone, nothing is
/// done that would have to be in the log.
async fn plain(tools: &Tools, image: &Path, folder: &Path) {
    let Some(mut tpm) = Swtpm::start() else {
        return;
    };
    tpm.serve_qemu();
    let folder = folder.join("tpm");
    let devices = Devices {
        disks: &[],
        serial: "",
        tpm: Some(&tpm.control()),
    };
    let vm = Vm::boot(tools, &folder, image, &devices);
    let host = connected(&vm).await;
    let console = vm.console();
    assert!(console.contains("tee=\"none\""), "{console}");
    let extended = extensions(&tpm);
    let pcrs: Vec<u8> = extended.iter().map(|it| it.pcr).collect();
    assert_eq!(pcrs, [15], "the boot; console:\n{console}");
    // Two values: SHA-256 and SHA-384.
    let values = &extended[0].values;
    assert_eq!(values.len(), 4 + 2 + 32 + 2 + 48);
    assert_eq!(
        (&values[..6], &values[38..40]),
        (&[0, 0, 0, 2, 0, 0x0B][..], &[0, 0x0C][..])
    );

    tpm.end();
    let policy = agent::SetPolicyRequest {
        policy: POLICY.into(),
        ..Default::default()
    };
    let answer = host.agent.set_policy(call(), &policy).await;
    let Err(ttrpc::Error::RpcStatus(status)) = answer else {
        panic!("a policy that cannot be measured is taken: {answer:?}")
    };
    assert!(
        status.message.contains("policy cannot be measured"),
        "{}",
        status.message
    );
}

/// A paravisor's TPM: the initdata go into PCR 8 before their entry goes into the log's.
async fn paravisors(tools: &Tools, image: &Path, folder: &Path) {
    let Some(mut tpm) = Swtpm::start() else {
        return;
    };
    let mut stream = tpm.connect();
    define(&mut stream, REPORT_INDEX, REPORT.len());
    fill(&mut stream, REPORT_INDEX, REPORT);
    drop(stream);
    tpm.serve_qemu();
    let folder = folder.join("paravisor");
    fs::create_dir(&folder).unwrap();
    let disk = folder.join("initdata");
    fs::write(&disk, initdata::disk("aa.toml")).unwrap();
    let devices = Devices {
        disks: &[disk],
        serial: "initdata",
        tpm: Some(&tpm.control()),
    };
    let vm = Vm::boot(tools, &folder, image, &devices);
    connected(&vm).await;
    let console = vm.console();
    let told = console.lines().find(|line| line.contains("initdata taken"));
    assert!(
        told.is_some_and(|line| line.contains("az-snp-vtpm")),
        "{console}"
    );
    let extended = extensions(&tpm);
    let pcrs: Vec<u8> = extended.iter().map(|it| it.pcr).collect();
    assert_eq!(
        pcrs,
        [15, 8, 15],
        "boot, initdata, its entry; console:\n{console}"
    );
    let digest = initdata::document("aa.toml").digest().host_data();
    assert_eq!(
        extended[1].values,
        [&[0, 0, 0, 1, 0, 0x0B][..], &digest].concat()
    );
}

async fn connected(vm: &Vm) -> Host {
    let host = tokio::time::timeout(TIME_MAX, Host::connect(vm, String::new(), None)).await;
    host.unwrap_or_else(|_| panic!("the agent does not answer; console:\n{}", vm.console()))
}

/// Extensions of the PCRs that are the guest's alone; firmware and kernel use others.
fn extensions(tpm: &Swtpm) -> Vec<Extension> {
    // A head that says what follows, then lines of bytes until the next head.
    let log = fs::read_to_string(tpm.log()).unwrap();
    let messages = log.split("SWTPM_IO_Read: length ").skip(1);
    messages
        .filter_map(|message| {
            let lines = message.lines().skip(1);
            let dump = lines.map_while(|line| hex::decode(line.replace(' ', "")).ok());
            let bytes: Vec<u8> = dump.flatten().collect();
            let is_extension = bytes.get(6..10) == Some(&[0, 0, 1, 0x82]);
            let pcr = *bytes.get(13)?;
            (is_extension && matches!(pcr, 8 | 15)).then(|| Extension {
                pcr,
                values: bytes.get(27..).unwrap_or_default().to_vec(),
            })
        })
        .collect()
}
