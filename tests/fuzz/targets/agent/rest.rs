//! What a workload may send to the evidence server.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = agent::rest::is_request(bytes);
});
