//! Keys that the owner releases to a proven guest.
