#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_keys::fuzzing::jwe(bytes));
