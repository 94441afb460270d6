//! Starts, watches and stops a VM.
