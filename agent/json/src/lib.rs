//! Reads JSON that strangers write: registries, hosts, guests that are not proven yet.
//!
//! `serde_json` is too lenient in two ways. It limits depth, but not in members that nobody
//! reads; and it refuses a repeated member of a struct, but in a map the last one would win
//! silently, while other readers take the first. [`parse`] limits depth everywhere, and
//! [`UniqueMap`] is a map in which no member is given twice.
//!
//! TOML needs nothing of the kind: its parser refuses more than 80 levels wherever they are.

mod depth;
mod unique;

pub use self::{
    depth::{DEPTH_MAX, check_depth, parse},
    unique::{UniqueMap, unique},
};
