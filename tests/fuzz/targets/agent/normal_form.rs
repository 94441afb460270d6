//! The spec of a container, as the guest tells it in its log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_containers::fuzzing::normal_form(bytes));
