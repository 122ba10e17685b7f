//! `cargo xtask`: the program. What it understands and does is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::cli::main()
}
