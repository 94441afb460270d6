//! What the measurement log says about a process.

use agent_evidence::Sha256Digest;
use oci_spec::runtime::Process;
use serde_json::Value;

/// Digest of an OCI process: SHA-256 of its JSON with sorted keys and without
/// spaces, each set of capabilities sorted, so that equal processes have equal digests.
///
/// # Errors
///
/// When the process is no JSON; a bug.
pub(crate) fn process_digest(process: &Process) -> serde_json::Result<Sha256Digest> {
    // Maps of `serde_json` are sorted by key.
    let mut value = serde_json::to_value(process)?;
    let sets = value
        .get_mut("capabilities")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|sets| sets.values_mut())
        .filter_map(Value::as_array_mut);
    for set in sets {
        set.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    }
    Ok(Sha256Digest::of(&[&serde_json::to_vec(&value)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_processes_have_equal_digests_and_others_do_not() {
        let read = |capabilities: &str, argument: &str| {
            let text = format!(
                r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"args":["{argument}"],
                    "capabilities":{{"bounding":[{capabilities}]}}}}"#
            );
            let process: Process = serde_json::from_str(&text).unwrap();
            process_digest(&process).unwrap()
        };
        let one = read(r#""CAP_CHOWN","CAP_KILL","CAP_FOWNER","CAP_SETUID""#, "a");
        for _ in 0..8 {
            let other = read(r#""CAP_SETUID","CAP_FOWNER","CAP_KILL","CAP_CHOWN""#, "a");
            assert_eq!(one, other);
        }
        assert_ne!(one, read(r#""CAP_CHOWN""#, "a"));
        assert_ne!(
            one,
            read(r#""CAP_CHOWN","CAP_KILL","CAP_FOWNER","CAP_SETUID""#, "b")
        );
    }
}
