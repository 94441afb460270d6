//! The owner's key broker: appraises evidence and releases keys.
