//! Derives a policy document from a pod's YAML.
