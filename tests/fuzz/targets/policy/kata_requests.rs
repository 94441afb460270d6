//! Bytes of the host, as the message that the first byte chooses, judged by a Kata-style policy:
//! from protobuf to a verdict. The policy is one that looks at all of it.

#![no_main]

use std::sync::LazyLock;

use agent_protocol::rpc::agent as wire;
use policy_engine::rego::{Fields, Interpreter, Policy, input};
use protobuf::{Message, MessageDyn, MessageFull};

const RULES: &str = include_str!("../../../../policy/engine/tests/policies/kata-rules.rego");
const DATA: &str = include_str!("../../../../policy/engine/tests/policies/kata-data.json");

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let data = DATA.replace("OCI_VERSION", "1.2.1");
    let text = format!("{RULES}\npolicy_data := {data}\n");
    Policy::load(&text, Interpreter::load).expect("the policy loads")
});

fn judge<M: Message + MessageFull>(rule: &'static str, bytes: &[u8]) {
    let Ok(message) = M::parse_from_bytes(bytes) else {
        return;
    };
    let message: &dyn MessageDyn = &message;
    if let Ok(document) = input(message, &Fields::All) {
        // What is made of a message is JSON, whatever is in it.
        serde_json::from_str::<serde_json::Value>(&document).expect("a document");
    }
    if let Ok(allowed) = POLICY.decide(rule, message) {
        drop(allowed);
    }
}

type Judge = fn(&'static str, &[u8]);

const JUDGES: &[(&str, Judge)] = &[
    ("AddARPNeighborsRequest", judge::<wire::AddARPNeighborsRequest>),
    ("CloseStdinRequest", judge::<wire::CloseStdinRequest>),
    ("CopyFileRequest", judge::<wire::CopyFileRequest>),
    ("CreateContainerRequest", judge::<wire::CreateContainerRequest>),
    ("CreateSandboxRequest", judge::<wire::CreateSandboxRequest>),
    ("ExecProcessRequest", judge::<wire::ExecProcessRequest>),
    ("GetDiagnosticDataRequest", judge::<wire::GetDiagnosticDataRequest>),
    ("MemAgentMemcgConfig", judge::<wire::MemAgentMemcgConfig>),
    ("ReadStreamRequest", judge::<wire::ReadStreamRequest>),
    ("RemoveContainerRequest", judge::<wire::RemoveContainerRequest>),
    ("SetPolicyRequest", judge::<wire::SetPolicyRequest>),
    ("UpdateContainerRequest", judge::<wire::UpdateContainerRequest>),
    ("UpdateEphemeralMountsRequest", judge::<wire::UpdateEphemeralMountsRequest>),
    ("UpdateInterfaceRequest", judge::<wire::UpdateInterfaceRequest>),
    ("UpdateRoutesRequest", judge::<wire::UpdateRoutesRequest>),
    ("WriteStreamRequest", judge::<wire::WriteStreamRequest>),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, rest)) = bytes.split_first() {
        let (rule, judge) = JUDGES[usize::from(*first) % JUDGES.len()];
        judge(rule, rest);
    }
});
