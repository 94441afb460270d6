//! How exactly the guest's clock is trusted.

/// How far clocks may differ before a signature counts as not yet made.
pub(super) const CLOCK_SKEW_SECONDS: u64 = 600;
