//! IGVM files: what another implementation writes is measured as the ABI says, what is written
//! here it reads, and what breaks the format is refused by name.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod composed;
mod model;
mod peer;
mod raw;
mod refused;
