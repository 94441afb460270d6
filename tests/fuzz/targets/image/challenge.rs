#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_image_registry::fuzzing::challenge(bytes));
