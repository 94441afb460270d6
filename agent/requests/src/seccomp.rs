//! System call filters, as the OCI runtime specification writes them.
//!
//! A filter is applied whole or refused by the word that the guest does not know. Names of
//! system calls are the exception, as everywhere: a call that there is not needs no rule.

use agent_protocol::rpc::oci::{LinuxSeccomp, LinuxSyscall, linux_syscall::ErrnoRet};
use serde_json::{Map, Value, json};

use crate::{
    error::{RequestError, Unsupported},
    parse::at_most,
};

const RULES_MAX: usize = 4096;
const NAMES_MAX: usize = 8192;
const WORD_BYTES_MAX: usize = 64;
/// `SCMP_ACT_NOTIFY` is missing: it asks a program on the node for each call.
const ACTIONS: [&str; 8] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
];
const FLAGS: [&str; 3] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
];

pub(super) fn parse(filter: LinuxSeccomp) -> Result<Value, RequestError> {
    at_most("seccomp rules", filter.Syscalls.len(), RULES_MAX)?;
    let names: usize = filter.Syscalls.iter().map(|rule| rule.Names.len()).sum();
    at_most("seccomp names", names, NAMES_MAX)?;
    let actions = filter.Syscalls.iter().map(|rule| &rule.Action);
    known(actions.chain([&filter.DefaultAction]), &ACTIONS)?;
    known(filter.Flags.iter(), &FLAGS)?;
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

fn known<'a>(
    words: impl IntoIterator<Item = &'a String>,
    all: &[&str],
) -> Result<(), RequestError> {
    match words.into_iter().find(|word| !all.contains(&word.as_str())) {
        Some(word) => Err(Unsupported::Seccomp(word.chars().take(WORD_BYTES_MAX).collect()).into()),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(action: &str, flag: &str) -> LinuxSeccomp {
        LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ERRNO".into(),
            Flags: vec![flag.into()],
            Syscalls: vec![LinuxSyscall {
                Names: vec!["mkdir".into(), "call_of_a_later_kernel".into()],
                Action: action.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_filter_that_cannot_be_applied_whole_is_refused_by_the_word() {
        for action in ACTIONS {
            for flag in FLAGS {
                let json = parse(filter(action, flag)).unwrap();
                serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(json).unwrap();
            }
        }
        for (action, flag, word) in [
            ("SCMP_ACT_NOTIFY", FLAGS[0], "SCMP_ACT_NOTIFY"),
            ("SCMP_ACT_NEW", FLAGS[0], "SCMP_ACT_NEW"),
            (ACTIONS[0], "SECCOMP_FILTER_FLAG_NEW", "FLAG_NEW"),
        ] {
            let error = parse(filter(action, flag)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
