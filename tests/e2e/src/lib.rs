//! Pods on a real containerd, from outside.
