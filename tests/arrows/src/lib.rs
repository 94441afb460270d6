//! Which crate may depend on which: the trust boundary, checked.
