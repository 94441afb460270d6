//! The owner's key broker: appraises evidence and releases keys.
//!
//! Holds nothing yet: no guest asks for a key before it can prove itself.
