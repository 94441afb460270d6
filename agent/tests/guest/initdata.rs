//! One boot for each thing that the host may put on disks, and what the guest says
//! to the first requests. There is no TEE, so nothing can prove what is taken.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::{
    initdata::{Algorithm, Initdata, disk::frame, packed::pack, write},
    rpc::agent,
};

use crate::{
    host::{Host, Outcome, call, runtime},
    tools::Tools,
    vm::{Devices, Vm},
};

const TIME_MAX: Duration = Duration::from_secs(120);
/// It allows one request, and another of the same kind not: the guest has to evaluate it.
pub(crate) const POLICY: &str = "package agent_policy\n\n\
    default AllowRequestsFailingPolicy := false\n\n\
    GuestDetailsRequest { input.mem_block_size }\n";
const OF_POLICY: &str = "KATA_POLICY";

pub(crate) fn disk(name: &str) -> Vec<u8> {
    frame(&pack(&document(name)).unwrap()).unwrap()
}

pub(crate) fn document(name: &str) -> Initdata {
    let entries = BTreeMap::from([(name.to_owned(), POLICY.to_owned())]);
    write(Algorithm::Sha256, &entries).unwrap()
}

struct Boot {
    name: &'static str,
    disks: Vec<Vec<u8>>,
    /// Sent before anything else, and whether it is taken.
    policy: Option<bool>,
    /// Why other requests are refused; nothing if they are not.
    refused: Option<&'static str>,
    /// What the console must say.
    told: &'static str,
}

fn boots() -> [Boot; 5] {
    let mut damaged = disk("aa.toml");
    damaged[40] ^= 0xff;
    [
        Boot {
            name: "one disk is taken, and no policy beside it",
            disks: vec![vec![0; 4096], disk("aa.toml")],
            policy: Some(false),
            refused: None,
            told: "initdata taken",
        },
        Boot {
            name: "two disks are refused",
            disks: vec![disk("aa.toml"), disk("aa.toml")],
            policy: None,
            refused: Some("2 disks hold initdata"),
            told: "every request will be refused",
        },
        Boot {
            name: "a damaged disk is refused",
            disks: vec![damaged],
            policy: None,
            refused: Some("gzip"),
            told: "every request will be refused",
        },
        Boot {
            name: "a kata-style policy in initdata is in force",
            disks: vec![disk("policy.rego")],
            policy: None,
            refused: Some(OF_POLICY),
            told: "policy taken",
        },
        Boot {
            name: "a kata-style policy that is set first is in force",
            disks: Vec::new(),
            policy: Some(true),
            refused: Some(OF_POLICY),
            told: "policy taken",
        },
    ]
}

pub(crate) fn boot_each(tools: &Tools, image: &Path, folder: &Path) {
    let runtime = runtime();
    for (number, boot) in boots().into_iter().enumerate() {
        let folder = folder.join(format!("initdata{number}"));
        fs::create_dir(&folder).unwrap();
        let disks: Vec<PathBuf> = boot
            .disks
            .iter()
            .enumerate()
            .map(|(number, content)| {
                let path = folder.join(format!("disk{number}"));
                fs::write(&path, content).unwrap();
                path
            })
            .collect();
        let devices = Devices {
            disks: &disks,
            serial: "initdata",
            tpm: None,
        };
        let vm = Vm::boot(tools, &folder, image, &devices);
        let result = runtime.block_on(async {
            let case = tokio::time::timeout(TIME_MAX, case(&vm, &boot));
            case.await.unwrap_or_else(|_| Err("took too long".into()))
        });
        eprintln!("{}: {result:?}", boot.name);
        let console = vm.console();
        assert!(
            result.is_ok(),
            "{}: {result:?}; console:\n{console}",
            boot.name
        );
        assert!(console.contains(boot.told), "{}:\n{console}", boot.name);
    }
}

async fn case(vm: &Vm, boot: &Boot) -> Outcome {
    let host = Host::connect(vm, String::new(), None).await;
    if let Some(taken) = boot.policy {
        let policy = agent::SetPolicyRequest {
            policy: POLICY.into(),
            ..Default::default()
        };
        let answer = host.agent.set_policy(call(), &policy).await;
        if answer.is_ok() != taken {
            return Err(format!("policy: {answer:?}").into());
        }
    }
    let details = agent::GuestDetailsRequest::default();
    let answer = host.agent.get_guest_details(call(), &details).await;
    match (boot.refused, answer) {
        (None, Ok(_)) => Ok(()),
        (Some(reason), Err(ttrpc::Error::RpcStatus(status)))
            if status.code() == ttrpc::Code::PERMISSION_DENIED
                && status.message.contains(reason) =>
        {
            if reason != OF_POLICY {
                return Ok(());
            }
            let allowed = agent::GuestDetailsRequest {
                mem_block_size: true,
                ..details
            };
            host.agent.get_guest_details(call(), &allowed).await?;
            Ok(())
        }
        (_, answer) => Err(format!("{answer:?}").into()),
    }
}
