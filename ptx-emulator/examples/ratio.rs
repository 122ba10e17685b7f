//! Prints what the checks cost on any kernel: runs it in turn with checks off and on, one thread each, and prints the
//! medians of the times and of their ratios. Times are those that the thread was given, where Linux tells them: another's
//! load is left out, as far as it can be.
//!
//! `cargo run --release -p ptx-emulator --example ratio FILE.ptx ENTRY GRID BLOCK SHARED RUNS [ARGUMENT…]`
//!
//! GRID and BLOCK are like `4,2,1`, SHARED is the dynamic shared memory in bytes. Arguments, in the order of the kernel's
//! parameters: `in:N` a buffer of N floats below one, `zero:N` of N zero words, `out:N` of N undefined words, `i32:V`,
//! `u64:V` and `f32:V` plain values.

use std::process::ExitCode;

use ptx_emulator::{Checks, Kernel, Launch, Memory, Module, Outcome, Params, run};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match compare(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to compare: {error}");
            ExitCode::from(2)
        }
    }
}

fn compare(arguments: &[String]) -> Result<(), Failure> {
    let [path, entry, grid, block, shared, runs, values @ ..] = arguments else {
        return Err("FILE.ptx ENTRY GRID BLOCK SHARED RUNS [ARGUMENT…] are needed".into());
    };
    let module = Module::parse(&std::fs::read_to_string(path)?)?;
    let kernel = module.entry(entry)?;
    let (grid, block, shared) = (shape(grid)?, shape(block)?, shared.parse()?);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..runs.parse::<usize>()?.max(1) {
        for (times, checks) in times.iter_mut().zip([Checks::none(), Checks::all()]) {
            let (outcome, seconds) = execute(&module, &kernel, (grid, block, shared), values, checks)?;
            if times.is_empty() {
                print(&outcome, checks);
            }
            times.push(seconds);
        }
    }
    let [off, on] = &times;
    let ratio = median(on.iter().zip(off).map(|(on, off)| on / off).collect());
    let (off, on) = (median(off.clone()), median(on.clone()));
    println!("{entry}: checks off {off:.4} s, on {on:.4} s, ratio {ratio:.2}");
    Ok(())
}

fn shape(text: &str) -> Result<[u32; 3], Failure> {
    let mut shape = [1; 3];
    for (axis, number) in text.split(',').enumerate() {
        *shape.get_mut(axis).ok_or("a shape has three axes at most")? = number.parse()?;
    }
    Ok(shape)
}

fn execute(
    module: &Module,
    kernel: &Kernel,
    (grid, block, shared): ([u32; 3], [u32; 3], u32),
    values: &[String],
    checks: Checks,
) -> Result<(Outcome, f64), Failure> {
    let mut memory = Memory::new(module);
    let mut params = Params::new();
    for (i, value) in values.iter().enumerate() {
        let (kind, value) = value.split_once(':').ok_or("an argument is like `in:1024`")?;
        let name = format!("argument {i}");
        params = match kind {
            "in" => {
                let float = |at: usize| (((at + 31 * i) * 7919 % 4096) as f32 / 4096.0).to_le_bytes();
                params.pointer(memory.alloc_from(&name, &(0..value.parse()?).flat_map(float).collect::<Vec<u8>>())?)
            }
            "zero" => params.pointer(memory.alloc_from(&name, &vec![0; 4 * value.parse::<usize>()?])?),
            "out" => params.pointer(memory.alloc(&name, 4 * value.parse::<usize>()?)?),
            "i32" => params.i32(value.parse()?),
            "u64" => params.u64(value.parse()?),
            "f32" => params.f32(value.parse()?),
            _ => return Err(format!("`{kind}` is no kind of argument").into()),
        };
    }
    let mut launch = Launch::new(grid, block, params.finish());
    launch.dynamic_shared_bytes = shared;
    launch.checks = checks;
    launch.limits.threads = 1;
    let start = given_seconds();
    let outcome = run(kernel, &memory, &launch)?;
    let seconds = start.zip(given_seconds()).map_or(outcome.seconds, |(start, end)| end - start);
    Ok((outcome, seconds))
}

/// Time that a processor was this thread's, in seconds.
fn given_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
}

fn print(outcome: &Outcome, checks: Checks) {
    println!(
        "{} warp instructions, checks {}, {} findings",
        outcome.instructions,
        if checks.races { "on" } else { "off" },
        outcome.findings.len()
    );
    for finding in outcome.findings.iter().take(3) {
        println!("{}", finding.to_string().lines().next().unwrap_or_default());
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
