//! Loads every kernel of the PTX files named on the command line and prints what is refused.
//!
//! `cargo run --release -p ptx-emulator --example load file.ptx…`

use std::process::ExitCode;

use ptx_emulator::Module;

fn main() -> ExitCode {
    let mut refused = 0u32;
    for path in std::env::args().skip(1) {
        refused += load(&path);
    }
    if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Number of problems in one file.
fn load(path: &str) -> u32 {
    let module = match std::fs::read_to_string(path).map(|text| Module::parse(&text)) {
        Ok(Ok(module)) => module,
        Ok(Err(error)) => {
            println!("{path}: {error}");
            return 1;
        }
        Err(error) => {
            println!("failed to read {path}: {error}");
            return 1;
        }
    };
    let mut refused = 0;
    for name in module.entries() {
        match module.entry(name) {
            Ok(kernel) => {
                let (words, doubles, predicates) = kernel.registers();
                println!("{path}: {name}: {} operations, rows {words} + {doubles} + {predicates}", kernel.operations());
            }
            Err(error) => {
                println!("{path}: {name}: {error}");
                refused += 1;
            }
        }
    }
    refused
}
