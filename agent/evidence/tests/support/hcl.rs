//! What a paravisor's TPM holds, played by the tests.
#![allow(unreachable_pub, reason = "other crates' tests use it, too")]

/// A paravisor's blob around a report and runtime data.
pub fn hcl_blob(report: &[u8], data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).unwrap();
    let mut blob = b"HCLA".to_vec();
    for field in [2, 0x4C0 + 20 + size, 2, 0, 0, 0, 0] {
        blob.extend(field.to_le_bytes());
    }
    blob.extend(report);
    for field in [20 + size, 1, 2, 1, size] {
        blob.extend(field.to_le_bytes());
    }
    blob.extend(data);
    blob
}
