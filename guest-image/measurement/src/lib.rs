//! What a genuine VM reports about what it booted, computed before anything runs.
