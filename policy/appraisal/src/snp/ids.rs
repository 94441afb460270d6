//! Fields of a report that only its verifier reads, each its own type.

use agent_evidence::field;

field!(
    /// SHA-384 of an ID or author key.
    KeyDigest, 48, "a key digest"
);
field!(
    /// Family or image id of an ID block.
    BlockId, 16, "a family or image id"
);
field!(
    /// Report id of a guest or of its migration agent.
    ReportId, 32, "a report id"
);
field!(
    /// The chip that signed; Turin uses the first 8 bytes.
    ChipId, 64, "a chip id"
);
