//! `cargo xtask`: the program. What it understands and does is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    confine::enter().unwrap_or_else(xtask::cli::main)
}
