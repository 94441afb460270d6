//! Doors to what is private, for `tests/fuzz`.

use agent_requests::PodNames;
use oci_spec::runtime::Spec;

use crate::{
    user,
    workload::{PodFacts, workload},
};

/// Takes a spec apart for the log; one that is written and read again is the same.
///
/// # Panics
///
/// When it is not.
pub fn normal_form(bytes: &[u8]) {
    let Ok(spec) = agent_documents::parse_json::<Spec>(bytes) else {
        return;
    };
    let facts = PodFacts::of(&PodNames {
        name: "web-1".to_owned(),
        namespace: "default".to_owned(),
        uid: "1edd".to_owned(),
    });
    let Ok(first) = workload(&spec, &[], &[], &facts) else {
        return;
    };
    let text = serde_json::to_vec(&spec);
    let again = text.and_then(|text| agent_documents::parse_json::<Spec>(&text));
    let second = again
        .ok()
        .and_then(|spec| workload(&spec, &[], &[], &facts).ok());
    assert_eq!(Some(first), second);
}

/// Looks a user up in an image's files; groups are told once, the first one first.
///
/// # Panics
///
/// When they are not.
pub fn image_user(bytes: &[u8]) {
    user::fuzz(bytes);
}
