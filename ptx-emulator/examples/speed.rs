//! Prints how fast the emulator runs two flash-attention kernels at (2, 8, 512, 64) and where
//! the time goes, with checks off and on.
//!
//! `cargo run --release -p ptx-emulator --example speed [threads]`

use ptx_emulator::{Checks, Launch, Memory, Module, Outcome, Params, run};

const HEADS: usize = 16;
const SEQ: usize = 512;
const D: usize = 64;

struct Case {
    name: &'static str,
    source: &'static str,
    rows: u32,
    dynamic: u32,
}

const CASES: [Case; 2] = [
    Case { name: "wmma_flash", source: include_str!("../tests/data/wmma_flash.ptx"), rows: 32, dynamic: 0 },
    Case {
        name: "mma_flash",
        source: include_str!("../tests/data/mma_flash.ptx"),
        rows: 64,
        dynamic: (64 * 72 + 4 * 32 * 72) * 2,
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(0), |n| n.parse())?;
    println!("shape (2, 8, 512, 64), threads {threads} (0 is all)");
    for case in &CASES {
        for (label, checks) in [("checks off", Checks::none()), ("checks on", Checks::all())] {
            let outcome = execute(case, checks, threads, false)?;
            print(case.name, label, &outcome, threads);
        }
        print_profile(&execute(case, Checks::none(), 1, true)?);
    }
    Ok(())
}

fn execute(case: &Case, checks: Checks, threads: usize, profile: bool) -> Result<Outcome, Box<dyn std::error::Error>> {
    let module = Module::parse(case.source)?;
    let kernel = module.entry(case.name)?;
    let mut memory = Memory::new(&module);
    // Any finite halves do: exponents around one, signs mixed.
    let content: Vec<u8> = (0..HEADS * SEQ * D)
        .flat_map(|i| {
            let magnitude = 0x2c00u16 + (i * 7919 % 4096) as u16;
            (magnitude | (u16::from(i % 3 == 0) << 15)).to_le_bytes()
        })
        .collect();
    let inputs = ["Q", "K", "V"].map(|name| memory.alloc_from(name, &content));
    let mut params = Params::new();
    for input in inputs {
        params = params.pointer(input?);
    }
    let output = memory.alloc("O", HEADS * SEQ * D * 4)?;
    let params = params.pointer(output).i32(SEQ as i32).f32(0.18);
    let grid = [SEQ as u32 / case.rows, HEADS as u32, 1];
    let mut launch = Launch::new(grid, [128, 1, 1], params.finish());
    launch.dynamic_shared_bytes = case.dynamic;
    launch.checks = checks;
    launch.limits.threads = threads;
    launch.profile = profile;
    Ok(run(&kernel, &memory, &launch)?)
}

fn print(name: &str, label: &str, outcome: &Outcome, threads: usize) {
    let cores = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let per_core = outcome.lane_instructions as f64 / outcome.seconds / cores as f64;
    println!(
        "{name:10} {label:10} {:6.3} s  {:7.2} M warp-instructions  {:5.2} G lane-instructions/s/core  {} findings",
        outcome.seconds,
        outcome.instructions as f64 / 1e6,
        per_core / 1e9,
        outcome.findings.len(),
    );
}

/// Shares of the families of instructions, from a run of its own on one thread.
fn print_profile(outcome: &Outcome) {
    let total: f64 = outcome.profile.iter().map(|line| line.seconds).sum();
    for line in &outcome.profile {
        println!(
            "    {:26} {:5.1} % of the time, {:5.1} % of the instructions, {:6.0} ns each",
            line.family,
            100.0 * line.seconds / total,
            100.0 * line.instructions as f64 / outcome.instructions as f64,
            1e9 * line.seconds / line.instructions as f64,
        );
    }
}
