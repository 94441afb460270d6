//! The user of a container, as its image's files say.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_containers::fuzzing::image_user(bytes));
