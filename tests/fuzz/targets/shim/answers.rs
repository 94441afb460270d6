//! Bytes of the guest, as the answer that the first byte chooses.

#![no_main]

use agent_protocol::rpc::agent::{
    GetDiagnosticDataResponse, OOMEvent, ReadStreamResponse, StatsContainerResponse,
    WaitProcessResponse, WriteStreamResponse,
};
use protobuf::Message;
use shim_agent_client::{
    AgentError, DEVICES_MAX, INTERFACES_MAX, LINE_BYTES_MAX, MEMORY_KEYS, MESSAGE_BYTES_MAX,
    PAGE_SIZES_MAX, Stats, answers,
};

/// How many bytes a process was sent.
const SENT: usize = 4096;

fn parsed<A: Message>(bytes: &[u8], judge: impl FnOnce(A)) {
    if let Ok(answer) = A::parse_from_bytes(bytes) {
        judge(answer);
    }
}

fn stats(answer: StatsContainerResponse) {
    let Ok(stats) = Stats::parse(&answer) else {
        return;
    };
    assert!(stats.devices.len() <= DEVICES_MAX);
    assert!(stats.huge_pages.len() <= PAGE_SIZES_MAX);
    assert!(stats.interfaces.len() <= INTERFACES_MAX);
    for interface in &stats.interfaces {
        assert!((1..=15).contains(&interface.name.len()));
        assert!(!interface.name.contains(char::is_control));
    }
    for pages in &stats.huge_pages {
        assert!(
            pages
                .page_size
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric())
        );
    }
    for key in MEMORY_KEYS {
        let _ = stats.memory_stat(key);
    }
}

fn refusal(status: ttrpc::Status) {
    let error = AgentError::new("Method", &ttrpc::Error::RpcStatus(status));
    let text = error.to_string();
    assert!(text.len() <= LINE_BYTES_MAX + 64 && !text.contains(char::is_control));
    assert_ne!(error.code(), ttrpc::Code::OK);
    assert_ne!(error.code(), ttrpc::Code::NOT_FOUND);
    assert_ne!(error.code(), ttrpc::Code::UNAVAILABLE);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    match first % 7 {
        0 => parsed(rest, stats),
        1 => parsed(rest, |event: OOMEvent| {
            if let Ok(id) = answers::out_of_memory(&event, |id| id.as_str() != "foreign") {
                assert_ne!(id.as_str(), "foreign");
                assert!(id.as_str().len() <= agent_protocol::limits::ID_BYTES_MAX);
            }
        }),
        2 => parsed(rest, |answer: GetDiagnosticDataResponse| {
            let message = answers::termination_message(&answer);
            assert!(message.as_str().len() <= MESSAGE_BYTES_MAX);
            let layout = ['\n', '\t'];
            let hidden = |c: char| c.is_control() && !layout.contains(&c);
            assert!(!message.as_str().contains(hidden));
        }),
        3 => parsed(rest, |answer: WaitProcessResponse| {
            let _ = answers::exit_code(&answer);
        }),
        4 => parsed(rest, |answer: ReadStreamResponse| {
            let _ = answers::output(answer);
        }),
        5 => parsed(rest, |answer: WriteStreamResponse| {
            if let Ok(taken) = answers::taken(&answer, SENT) {
                assert!(taken <= SENT);
            }
        }),
        _ => parsed(rest, refusal),
    }
});
