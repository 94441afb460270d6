//! A spec that is taken apart for the log, written and read again is the same.
#![no_main]

use agent_workload::workload;
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;
use policy_engine::environment::PodFacts;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(bytes) else {
        return;
    };
    let mut facts = PodFacts::default();
    facts.add("metadata.name", "web-1");
    facts.add("metadata.namespace", "default");
    facts.add("metadata.uid", "1edd");
    let Ok(first) = workload(&spec, &[], &[], &facts) else {
        return;
    };
    let text = serde_json::to_vec(&spec);
    let again = text.and_then(|text| serde_json::from_slice::<Spec>(&text));
    let second = again
        .ok()
        .and_then(|spec| workload(&spec, &[], &[], &facts).ok());
    assert_eq!(Some(first), second);
});
