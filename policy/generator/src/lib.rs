//! Derives a policy document from a pod's YAML.
//!
//! Holds nothing yet: there is no policy document to derive before
//! `policy-engine` evaluates one. Until then the guest allows every request
//! that is well formed, and says so in its log.
