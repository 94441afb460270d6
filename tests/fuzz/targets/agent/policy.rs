//! A policy document, a zero byte, and a message of the host's: from bytes to a verdict.
#![no_main]

use agent_requests::{self as request, Parse};
use policy_engine::{DENIED_BYTES_MAX, Engine, document::Document, rules_digest_hex};
use protobuf::Message;

fn judge<R: Parse<Message: Message>>(engine: &Engine, bytes: &[u8]) {
    let Ok(message) = R::Message::parse_from_bytes(bytes) else {
        return;
    };
    let Ok(request) = R::parse(message) else {
        return;
    };
    if let Err(denied) = engine.judge(request) {
        assert!(denied.to_string().len() <= DENIED_BYTES_MAX);
    }
}

const JUDGES: &[fn(&Engine, &[u8])] = &[
    judge::<request::AddArpNeighbors>,
    judge::<request::CopyFile>,
    judge::<request::CreateContainer>,
    judge::<request::CreateSandbox>,
    judge::<request::ExecProcess>,
    judge::<request::SignalProcess>,
    judge::<request::UpdateInterface>,
    judge::<request::UpdateRoutes>,
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (Some(text), Some(rest)) = (parts.next(), parts.next()) else {
        return;
    };
    let Ok(mut document) = Document::parse(text) else {
        return;
    };
    // What is written is read the same.
    let again = Document::parse(document.text().as_bytes()).expect("its own text is a document");
    assert_eq!(document, again);
    document.rules.insert(rules_digest_hex());
    let engine = Engine::of_document(document.text().as_bytes()).expect("its own text is one");
    // A pod that is set up, so that more than its state is judged.
    judge::<request::CreateSandbox>(&engine, &[]);
    if let Some((first, rest)) = rest.split_first() {
        JUDGES[usize::from(*first) % JUDGES.len()](&engine, rest);
    }
});
