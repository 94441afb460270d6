//! The agent's program for tests of attestation without hardware: it differs from the
//! release's in one thing, that it may ask a secure processor which the tests play. A
//! program of its own, so that the release's is never the one with the feature.

fn main() -> std::process::ExitCode {
    agent::program::main()
}
