//! Reads JSON and TOML that strangers write: registries, hosts, guests that are not proven yet.
//!
//! A value is made, read and dropped by recursion, so that a document decides how much stack
//! that takes. `serde_json` limits depth, but not in members that nobody reads; `toml` limits
//! each way of nesting for itself. So each document is measured before it is parsed, and
//! [`DEPTH_MAX`] is the limit of all; of TOML the tokens are counted, too ([`TOML_TOKENS_MAX`]). [`UniqueMap`] is a map in which no member is given twice:
//! in another the last would win silently, while other readers take the first.

mod json;
mod toml;
mod unique;

pub use self::{
    json::{DEPTH_MAX, measure_json, parse_json},
    toml::{TOML_TOKENS_MAX, TooMuch, measure_toml, parse_toml},
    unique::{UniqueMap, unique},
};
