//! The content of one entry of the log, for the operation that the first byte chooses: what is
//! read is written again, and what a log of it teaches is allowed by what was learnt.

#![no_main]

use agent_evidence::log::{DOMAIN, Entry, Event, MeasurementLog};
use policy_appraisal::Workload;

const OPERATIONS: [&str; 7] = [
    "boot", "initdata", "policy", "image", "container", "exec", "denial",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let operation = OPERATIONS[usize::from(*first) % OPERATIONS.len()];
    let Ok(content) = std::str::from_utf8(rest) else {
        return;
    };
    let Ok(event) = Event::parse(DOMAIN, operation, content) else {
        return;
    };
    if let Some(Ok(entry)) = Entry::of(&event) {
        let again = entry.event().map(|event| Entry::of(&event).unwrap().unwrap());
        if let Ok(again) = again {
            assert_eq!(again, entry);
        }
        let mut log = MeasurementLog::new();
        log.append(event).unwrap();
        let learnt = Workload::learn(&log).unwrap();
        let text = serde_json::to_vec(&learnt).unwrap();
        assert_eq!(serde_json::from_slice::<Workload>(&text).unwrap(), learnt);
    }
});
