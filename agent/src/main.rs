//! The guest's first process: it judges what the host asks and runs the pod.

fn main() {}
