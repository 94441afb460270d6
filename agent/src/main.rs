//! The agent's program; see [`agent::program`].

fn main() -> std::process::ExitCode {
    agent::program::main()
}
