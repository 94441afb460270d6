//! The owner's command.

fn main() {}
