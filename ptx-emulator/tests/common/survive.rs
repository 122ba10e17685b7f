//! What any input must survive, for the fuzz test and the fuzz target.

use ptx_emulator::{Launch, Memory, Module, run};

/// How far inputs came.
#[derive(Debug, Default)]
pub struct Reached {
    /// Modules that parse.
    pub parsed: u64,
    /// Kernels that load.
    pub loaded: u64,
    /// Kernels that ran to their end.
    pub run: u64,
}

/// Parses the bytes, loads every kernel and runs each for a moment. Every step may refuse; none may panic or hang.
pub fn survive(input: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let text = String::from_utf8_lossy(input);
    let Ok(module) = Module::parse(&text) else { return reached };
    reached.parsed += 1;
    for name in module.entries() {
        let Ok(kernel) = module.entry(name) else { continue };
        reached.loaded += 1;
        let memory = Memory::new(&module);
        // Pointers lead nowhere, so most runs end with a report; each must end.
        let mut launch = Launch::new([1, 1, 1], [32, 1, 1], vec![0; kernel.parameter_bytes()]);
        launch.limits.warp_instructions = 300;
        launch.limits.idle_turns = 20;
        launch.limits.threads = 1;
        reached.run += u64::from(run(&kernel, &memory, &launch).is_ok());
    }
    reached
}
