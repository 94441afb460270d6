#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = agent::config::Config::parse(text);
});
