//! What a guest and its key broker read of each other and of their owner. One target for all, so
//! that what they link is instrumented and linked once: the first byte chooses the reader, the
//! next one what it reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((reader, rest)) = bytes.split_first() else {
        return;
    };
    match reader % 4 {
        0 => agent_keys_protocol::fuzzing::message(rest),
        1 => agent_keys_protocol::fuzzing::response(rest),
        2 => agent_keys_broker::fuzzing::said(rest),
        _ => policy_broker::fuzzing::asked(rest),
    }
});
