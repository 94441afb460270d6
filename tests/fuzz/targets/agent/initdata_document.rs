//! An initdata document; one that is taken must be written and read as the same.

#![no_main]

use agent_protocol::initdata::{Initdata, write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Initdata::parse(bytes) else {
        return;
    };
    // A written text may be longer than the limit where the read one was not.
    if let Ok(written) = write(document.algorithm(), document.entries()) {
        assert_eq!(written.entries(), document.entries());
    }
});
