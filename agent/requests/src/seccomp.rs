//! System call filters, as the OCI runtime specification writes them.

use agent_protocol::rpc::oci::{LinuxSeccomp, LinuxSyscall, linux_syscall::ErrnoRet};
use serde_json::{Map, Value, json};

use crate::{error::RequestError, parse::at_most};

const RULES_MAX: usize = 4096;
const NAMES_MAX: usize = 8192;

pub(super) fn parse(filter: LinuxSeccomp) -> Result<Value, RequestError> {
    at_most("seccomp rules", filter.Syscalls.len(), RULES_MAX)?;
    let names: usize = filter.Syscalls.iter().map(|rule| rule.Names.len()).sum();
    at_most("seccomp names", names, NAMES_MAX)?;
    let rules: Vec<_> = filter.Syscalls.into_iter().map(rule).collect();
    let mut json = Map::new();
    json.insert("defaultAction".into(), filter.DefaultAction.into());
    json.insert("syscalls".into(), rules.into());
    if !filter.Architectures.is_empty() {
        json.insert("architectures".into(), filter.Architectures.into());
    }
    if !filter.Flags.is_empty() {
        json.insert("flags".into(), filter.Flags.into());
    }
    Ok(json.into())
}

fn rule(rule: LinuxSyscall) -> Value {
    let mut json = json!({ "names": rule.Names, "action": rule.Action });
    if let Some(ErrnoRet::Errnoret(errno)) = rule.ErrnoRet {
        json["errnoRet"] = errno.into();
    }
    if !rule.Args.is_empty() {
        let args = rule.Args.into_iter().map(|arg| {
            json!({
                "index": arg.Index,
                "value": arg.Value,
                "valueTwo": arg.ValueTwo,
                "op": arg.Op,
            })
        });
        json["args"] = args.collect();
    }
    json
}
