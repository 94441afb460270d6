//! Requests about the pod as a whole.

use agent_protocol::{id::SandboxId, initdata::PolicyText, rpc::agent};
use policy_engine::Asked;

use crate::{
    error::{RequestError, Unsupported},
    parse::{Parse, at_most, no_zero, rule},
    storage::{self, Driver, Ephemeral},
};

/// Lines of a resolv.conf, and how long one may be.
const DNS_LINES_MAX: usize = 64;
const DNS_LINE_BYTES_MAX: usize = 1024;
/// `HOST_NAME_MAX` of Linux.
const HOSTNAME_BYTES_MAX: usize = 64;
const STORAGES_MAX: usize = 64;

/// The pod to set up.
#[derive(Debug)]
pub struct CreateSandbox {
    /// Its id, unless the shim leaves it out.
    pub sandbox: Option<SandboxId>,
    /// Its host name; empty keeps the guest's.
    pub hostname: String,
    /// Lines of its resolv.conf.
    pub dns: Vec<String>,
    /// Mounts that all its containers share.
    pub storages: Vec<SandboxStorage>,
}

/// A mount of the whole pod.
#[derive(Debug)]
pub enum SandboxStorage {
    /// A file system in memory.
    Ephemeral(Ephemeral),
}

/// CPUs and memory that should be in use.
#[derive(Debug)]
pub struct OnlineCpuMem;

/// The pod to take down.
#[derive(Debug)]
pub struct DestroySandbox;

/// A wish to hear of the next process killed for lack of memory.
#[derive(Debug)]
pub struct GetOomEvent;

/// A wish to know the guest.
#[derive(Debug)]
pub struct GetGuestDetails {
    /// Whether the size of a memory block is wanted.
    pub memory_block_size: bool,
    /// Whether it matters if memory can be added by probing.
    pub memory_probe: bool,
}

/// The policy that the launch binds.
#[derive(Debug)]
pub struct SetPolicy {
    /// Its text.
    pub policy: PolicyText,
}

impl Parse for SetPolicy {
    type Message = agent::SetPolicyRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        let policy = PolicyText::parse(&message.policy).map_err(RequestError::Policy)?;
        Ok(Self { policy })
    }
}

impl Parse for CreateSandbox {
    type Message = agent::CreateSandboxRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        if !message.kernel_modules.is_empty() {
            return Err(Unsupported::KernelModules.into());
        }
        if !message.guest_hook_path.is_empty() {
            return Err(Unsupported::GuestHooks.into());
        }
        let sandbox = match message.sandbox_id.as_str() {
            "" => None,
            id => Some(SandboxId::parse(id).map_err(RequestError::SandboxId)?),
        };
        at_most("host name", message.hostname.len(), HOSTNAME_BYTES_MAX)?;
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if !message.hostname.bytes().all(name) {
            return Err(RequestError::Invalid("host name"));
        }
        at_most("dns", message.dns.len(), DNS_LINES_MAX)?;
        for line in &message.dns {
            at_most("dns line", line.len(), DNS_LINE_BYTES_MAX)?;
            no_zero("dns line", line)?;
            if line.contains('\n') {
                return Err(RequestError::Invalid("dns line"));
            }
        }
        at_most("storages", message.storages.len(), STORAGES_MAX)?;
        let storages = message
            .storages
            .into_iter()
            .map(sandbox_storage)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            sandbox,
            hostname: message.hostname,
            dns: message.dns,
            storages,
        })
    }
}

fn sandbox_storage(entry: agent::Storage) -> Result<SandboxStorage, RequestError> {
    match storage::driver(&entry.driver)? {
        Driver::Ephemeral => storage::ephemeral(entry).map(SandboxStorage::Ephemeral),
        Driver::Local | Driver::Image => Err(Unsupported::StorageDriver(entry.driver).into()),
    }
}

impl Parse for OnlineCpuMem {
    type Message = agent::OnlineCPUMemRequest;

    fn parse(_: Self::Message) -> Result<Self, RequestError> {
        Ok(Self)
    }
}

impl Parse for DestroySandbox {
    type Message = agent::DestroySandboxRequest;

    fn parse(_: Self::Message) -> Result<Self, RequestError> {
        Ok(Self)
    }
}

impl Parse for GetOomEvent {
    type Message = agent::GetOOMEventRequest;

    fn parse(_: Self::Message) -> Result<Self, RequestError> {
        Ok(Self)
    }
}

impl Parse for GetGuestDetails {
    type Message = agent::GuestDetailsRequest;

    fn parse(message: Self::Message) -> Result<Self, RequestError> {
        Ok(Self {
            memory_block_size: message.mem_block_size,
            memory_probe: message.mem_hotplug_probe,
        })
    }
}

rule! {
    CreateSandbox => "CreateSandboxRequest", |asked| Asked::Sandbox { hostname: &asked.hostname, memory: asked.storages.iter().map(|SandboxStorage::Ephemeral(one)| one.judged()).collect() };
    DestroySandbox => "DestroySandboxRequest", |_asked| Asked::Destroy;
    OnlineCpuMem => "OnlineCPUMemRequest";
    GetOomEvent => "GetOOMEventRequest";
    SetPolicy => "SetPolicyRequest";
    GetGuestDetails => "GuestDetailsRequest";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> agent::CreateSandboxRequest {
        agent::CreateSandboxRequest {
            hostname: "pod-1".into(),
            dns: vec!["nameserver 10.0.0.1".into()],
            sandbox_id: "s1".into(),
            storages: vec![agent::Storage {
                driver: "ephemeral".into(),
                source: "shm".into(),
                fstype: "tmpfs".into(),
                options: vec!["noexec".into(), "mode=1777".into(), "size=67108864".into()],
                mount_point: "/run/kata-containers/sandbox/shm".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn the_request_of_a_shim_is_accepted() {
        let request = CreateSandbox::parse(message()).unwrap();
        assert_eq!(request.hostname, "pod-1");
        assert_eq!(request.storages.len(), 1);
    }

    #[test]
    fn what_would_run_or_load_something_is_refused() {
        let module = agent::KernelModule {
            name: "x".into(),
            ..Default::default()
        };
        let with_module = agent::CreateSandboxRequest {
            kernel_modules: vec![module],
            ..message()
        };
        assert!(CreateSandbox::parse(with_module).is_err());
        let with_hooks = agent::CreateSandboxRequest {
            guest_hook_path: "/usr/hooks".into(),
            ..message()
        };
        assert!(CreateSandbox::parse(with_hooks).is_err());
    }

    #[test]
    fn a_dns_line_is_one_line() {
        let dns = vec!["nameserver 1.1.1.1\noptions x".into()];
        assert!(CreateSandbox::parse(agent::CreateSandboxRequest { dns, ..message() }).is_err());
    }
}
