//! Prints how fast the emulator runs two flash-attention kernels at (2, 8, 512, 64) and a plain product of matrices,
//! whose loads are not contiguous, and where the time goes, with checks off and on.
//!
//! `cargo run --release -p ptx-emulator --example speed [threads]`, or `speed threads CASE off|on` for one run, to count
//! its cycles from outside.

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
    if let (Some(name), Some(checks)) = (std::env::args().nth(2), std::env::args().nth(3)) {
        let checks = if checks == "on" { Checks::all() } else { Checks::none() };
        let case = CASES.iter().find(|case| case.name == name);
        let outcome =
            case.map_or_else(|| product(checks, threads, false), |case| execute(case, checks, threads, false))?;
        print(&name, "one run", &outcome, threads);
        return Ok(());
    }
    println!("shape (2, 8, 512, 64), threads {threads} (0 is all)");
    for case in &CASES {
        for (label, checks) in [("checks off", Checks::none()), ("checks on", Checks::all())] {
            let outcome = execute(case, checks, threads, false)?;
            print(case.name, label, &outcome, threads);
        }
        print_profile(&execute(case, Checks::none(), 1, true)?);
        print_profile(&execute(case, Checks::all(), 1, true)?);
    }
    for (label, checks) in [("checks off", Checks::none()), ("checks on", Checks::all())] {
        print("matmul", label, &product(checks, threads, false)?, threads);
    }
    print_profile(&product(Checks::none(), 1, true)?);
    print_profile(&product(Checks::all(), 1, true)?);
    Ok(())
}

/// Depth of the product, its rows, which are a block's threads, and its columns, which are blocks.
const DEPTH: usize = 256;
const ROWS: usize = 256;
const COLUMNS: usize = 64;

/// A thread adds up one element: its own row of the first matrix, a column that all threads of a block share.
const PRODUCT: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry product(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b32 %r<8>, %f<4>;
    .reg .b64 %d<8>;
    .reg .pred %p;
    ld.param.u64 %d1, [a];
    ld.param.u64 %d2, [b];
    ld.param.u64 %d3, [c];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mul.wide.u32 %d4, %r1, 1024;
    add.s64 %d1, %d1, %d4;
    mul.wide.u32 %d4, %r2, 1024;
    add.s64 %d2, %d2, %d4;
    mov.u32 %r3, 256;
    mov.b32 %f1, 0f00000000;
again:
    ld.global.f32 %f2, [%d1];
    ld.global.f32 %f3, [%d2];
    fma.rn.f32 %f1, %f2, %f3, %f1;
    add.s64 %d1, %d1, 4;
    add.s64 %d2, %d2, 4;
    add.s32 %r3, %r3, -1;
    setp.ne.s32 %p, %r3, 0;
    @%p bra again;
    mad.lo.u32 %r4, %r2, 256, %r1;
    mul.wide.u32 %d4, %r4, 4;
    add.s64 %d3, %d3, %d4;
    st.global.f32 [%d3], %f1;
    ret;
}";

fn product(checks: Checks, threads: usize, profile: bool) -> Result<Outcome, Box<dyn std::error::Error>> {
    let module = Module::parse(PRODUCT)?;
    let kernel = module.entry("product")?;
    let mut memory = Memory::new(&module);
    let content = |count: usize| (0..count).flat_map(|i| ((i % 97) as f32 / 8.0).to_le_bytes()).collect::<Vec<u8>>();
    let a = memory.alloc_from("A", &content(ROWS * DEPTH))?;
    let b = memory.alloc_from("B", &content(COLUMNS * DEPTH))?;
    let c = memory.alloc("C", ROWS * COLUMNS * 4)?;
    let params = Params::new().pointer(a).pointer(b).pointer(c).finish();
    let mut launch = Launch::new([COLUMNS as u32, 1, 1], [ROWS as u32, 1, 1], params);
    launch.checks = checks;
    launch.limits.threads = threads;
    launch.profile = profile;
    Ok(run(&kernel, &memory, &launch)?)
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
