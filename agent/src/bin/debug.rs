//! The agent's program for a debug image: it differs from the release's in one thing, that
//! it shows the host what its log holds back. A program of its own, so that the release's is
//! never the one with the feature.

fn main() -> std::process::ExitCode {
    agent::program::main()
}
