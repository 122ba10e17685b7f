//! Prints what a warp's load of global memory costs, by where its lanes read, with checks off and on: the difference of a
//! loop with such loads and of the same loop without, the least of several runs on one thread.
//!
//! `cargo run --release -p ptx-emulator --example loads`

use ptx_emulator::{Checks, Launch, Memory, Module, Params, run};

/// Turns of the loop, and loads in each.
const TURNS: u32 = 4000;
const LOADS: u32 = 16;
/// Words of the buffer: a page of 1 KiB for each lane.
const WORDS: u32 = 32 * 256;
/// Runs, of which the quickest counts.
const RUNS: usize = 9;

/// Where lane `%l` reads, and the words of a load.
const PATTERNS: [(&str, &str, u32); 6] = [
    ("neighbours", "shl.b32 %o, %l, 2;", 1),
    ("one word for all", "mov.u32 %o, 64;", 1),
    ("a stride of 1 KiB", "shl.b32 %o, %l, 10;", 1),
    (
        "here and there",
        "mul.lo.u32 %o, %l, 0x9e3779b1; shr.u32 %o, %o, 20; and.b32 %o, %o, 0xfff; shl.b32 %o, %o, 2;",
        1,
    ),
    ("four words, a stride of 1 KiB", "shl.b32 %o, %l, 10;", 4),
    (
        "four words, here and there",
        "mul.lo.u32 %o, %l, 0x9e3779b1; shr.u32 %o, %o, 20; shl.b32 %o, %o, 2; and.b32 %o, %o, 0x3ff0;",
        4,
    ),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, place, words) in PATTERNS {
        let load = if words == 1 { "ld.global.b32 %f0" } else { "ld.global.v4.b32 {%f0, %f1, %f2, %f3}" };
        let loads: String = (0..LOADS).map(|i| format!("{load}, [%a + {}];\n", 4 * words * i)).collect();
        print!("{name:30}");
        for (label, checks) in [("off", Checks::none()), ("on", Checks::all())] {
            let loads = seconds(&kernel(place, &loads), checks)? - seconds(&kernel(place, ""), checks)?;
            print!("  checks {label} {:4.0} ns", 1e9 * loads / f64::from(TURNS * LOADS));
        }
        println!();
    }
    Ok(())
}

fn kernel(place: &str, loads: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64
.visible .entry loads(.param .u64 from)
{{
    .reg .b32 %f<4>, %l, %o, %n;
    .reg .b64 %a, %w;
    .reg .pred %p;
    ld.param.u64 %a, [from];
    mov.u32 %l, %tid.x;
    {place}
    cvt.u64.u32 %w, %o;
    add.s64 %a, %a, %w;
    mov.u32 %n, {TURNS};
again:
    {loads}
    add.s32 %n, %n, -1;
    setp.ne.s32 %p, %n, 0;
    @%p bra again;
    ret;
}}"
    )
}

fn seconds(source: &str, checks: Checks) -> Result<f64, Box<dyn std::error::Error>> {
    let module = Module::parse(source)?;
    let kernel = module.entry("loads")?;
    let mut memory = Memory::new(&module);
    let from = memory.alloc_from("from", &vec![1; 4 * (WORDS + 4 * LOADS) as usize])?;
    let mut launch = Launch::new([1; 3], [32, 1, 1], Params::new().pointer(from).finish());
    launch.checks = checks;
    launch.limits.threads = 1;
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let outcome = run(&kernel, &memory, &launch)?;
        if let Some(finding) = outcome.findings.first() {
            return Err(finding.to_string().into());
        }
        least = least.min(outcome.seconds);
    }
    Ok(least)
}
