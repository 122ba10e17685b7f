//! Prints how fast the emulator runs the shipped kernels, and where the time goes: lane-instructions (executed
//! instructions times active lanes; a `wmma.mma` is one instruction) per second of processor time on one core, with
//! all checks off and on, then the families of instructions. A run first, which nobody times; then the median of nine, and
//! their fastest and slowest: a machine shared with others shows in the slowest. A digest of the output shows that two versions of the
//! emulator compute the same bits. It needs no GPU, and kernels that `cargo xtask build <variant>` has built.
//!
//! `cargo run --release -p sdpa-runner --example emulation_speed -- [variant or PTX file]... [--shape mission]
//! [--ctas N] [--no-checks | --all-checks] [--no-profile]`

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use kbench::evidence::BuildRecord;
use kbench::operator::Shape;
use kbench::operator::attention::Sizes;
use ptx_emulator::{BlockFilter, Checks, Launch, Memory, Module, Outcome, run};
use sdpa_kernel::abi::{Config, Params};
use sha2::{Digest, Sha256};

/// Timed runs of each line: odd, so that one is the median.
const RUNS: usize = 9;
/// Where `cargo xtask build` leaves what it built.
const BUILDS: &str = "target/sdpa-build";

struct Options {
    subjects: Vec<String>,
    shape: Shape,
    ctas: Option<u32>,
    checks: Vec<(&'static str, Checks)>,
    profile: bool,
}

fn main() -> Result<()> {
    let options = options()?;
    println!("shape {}, one thread", options.shape.name);
    for subject in &options.subjects {
        let source =
            std::fs::read_to_string(ptx_of(subject)?).with_context(|| format!("failed to read `{subject}`"))?;
        measure(subject, &Module::parse(&source)?, &options)?;
    }
    Ok(())
}

fn options() -> Result<Options> {
    let all = [("checks off", Checks::none()), ("checks on", Checks::all())];
    let mut options =
        Options { subjects: Vec::new(), shape: "mission".parse()?, ctas: None, checks: all.to_vec(), profile: true };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("`{argument}` wants a value"));
        match argument.as_str() {
            "--shape" => options.shape = value()?.parse()?,
            "--ctas" => options.ctas = Some(value()?.parse()?),
            "--no-checks" => options.checks = all[..1].to_vec(),
            "--all-checks" => options.checks = all[1..].to_vec(),
            "--no-profile" => options.profile = false,
            other if other.starts_with("--") => bail!("unknown option `{other}`"),
            subject => options.subjects.push(subject.to_owned()),
        }
    }
    if options.subjects.is_empty() {
        options.subjects.push("stage2".to_owned());
    }
    Ok(options)
}

/// The PTX that a subject names: a file, or the newest build of a variant.
fn ptx_of(subject: &str) -> Result<PathBuf> {
    if subject.ends_with(".ptx") {
        return Ok(subject.into());
    }
    let mut found: Option<(SystemTime, PathBuf)> = None;
    for entry in std::fs::read_dir(BUILDS).into_iter().flatten() {
        let dir = entry?.path();
        let Some(built) = built_at(&dir, subject) else { continue };
        if found.as_ref().is_none_or(|(newest, _)| *newest < built) {
            found = Some((built, dir));
        }
    }
    let (_, dir) = found.with_context(|| format!("`{subject}` is not built; run: cargo xtask build {subject}"))?;
    Ok(dir.join("kernel.ptx"))
}

/// When the variant was built in this folder, if it was.
fn built_at(dir: &Path, variant: &str) -> Option<SystemTime> {
    let path = dir.join("build.json");
    let record: BuildRecord = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    (record.variant == variant).then(|| path.metadata().ok()?.modified().ok())?
}

fn measure(name: &str, module: &Module, options: &Options) -> Result<()> {
    println!("{name}");
    let mut plain = None;
    for (label, checks) in &options.checks {
        let run = || execute(module, &Sizes::of(&options.shape), *checks, options.ctas, false);
        let (outcome, _, digest) = run()?;
        let mut seconds = (0..RUNS).map(|_| Ok(run()?.1)).collect::<Result<Vec<f64>>>()?;
        seconds.sort_by(f64::total_cmp);
        let (median, fastest, slowest) = (seconds[RUNS / 2], seconds[0], seconds[RUNS - 1]);
        println!(
            "  {label:10} {median:7.4} s [{fastest:.4} to {slowest:.4}]  {:8.2} M warp-instructions  {:5.2} [{:.2} to {:.2}] G \
             lane-instructions/s/core  {} of {} CTAs  {} findings  output {digest}",
            outcome.instructions as f64 / 1e6,
            outcome.lane_instructions as f64 / median / 1e9,
            outcome.lane_instructions as f64 / slowest / 1e9,
            outcome.lane_instructions as f64 / fastest / 1e9,
            outcome.blocks_run,
            outcome.blocks_in_grid,
            outcome.findings.len(),
        );
        if options.profile {
            let (profiled, ..) = execute(module, &Sizes::of(&options.shape), *checks, options.ctas, true)?;
            print_profile(&profiled, plain.as_ref());
            plain.get_or_insert(profiled);
        }
    }
    Ok(())
}

/// Runs one launch on this thread: what came of it, the processor time it took, and the start of the output's hash.
fn execute(
    module: &Module,
    shape: &Sizes,
    checks: Checks,
    ctas: Option<u32>,
    profile: bool,
) -> Result<(Outcome, f64, String)> {
    let symbol = format!("sdpa_config_d{}", shape.head_dim);
    let config = Config::parse(module.global_symbol(&symbol).with_context(|| format!("the PTX has no `{symbol}`"))?)?;
    let kernel = module.entry(&format!("sdpa_fwd_d{}", shape.head_dim))?;
    let mut memory = Memory::new(module);
    let [q, k, v] = [("q", shape.q_len()), ("k", shape.kv_len()), ("v", shape.kv_len())]
        .map(|(name, len)| memory.alloc_from(name, &codes(name, len)));
    let scales = memory.alloc_from("scales", &0.01f32.to_le_bytes().repeat(shape.batch_heads()))?.address();
    let out = memory.alloc("out", shape.q_len() * 2)?;
    let workspace = memory.alloc_from("workspace", &vec![0; field(&config, "workspace_bytes")? as usize])?;
    let params = Params {
        q: q?.address(),
        k: k?.address(),
        v: v?.address(),
        q_scale: scales,
        k_scale: scales,
        v_scale: scales,
        out: out.address(),
        workspace: workspace.address(),
        batch: shape.batch as i32,
        heads: shape.heads as i32,
        seq_q: shape.seq_q as i32,
        seq_kv: shape.seq_kv as i32,
        head_dim: shape.head_dim as i32,
        causal: i32::from(shape.causal),
        causal_offset: shape.causal_offset(),
        softmax_scale: shape.softmax_scale(),
    };
    let grid = [shape.seq_q.div_ceil(field(&config, "tile_q")?), shape.batch * shape.heads, 1];
    let mut launch = Launch::new(grid, [field(&config, "threads")?, 1, 1], params.to_bytes().to_vec());
    launch.dynamic_shared_bytes = field(&config, "dynamic_smem")?;
    launch.checks = checks;
    launch.limits.threads = 1;
    launch.profile = profile;
    if let Some(count) = ctas {
        let total = grid[0] * grid[1];
        ensure!(count <= total, "the grid has {total} CTAs");
        launch.blocks = BlockFilter::Only((0..count).map(|i| [i % grid[0], i / grid[0], 0]).collect());
    }
    let start = processor_seconds();
    let outcome = run(&kernel, &memory, &launch)?;
    let seconds = processor_seconds() - start;
    let digest = Sha256::digest(memory.read(out)?)[..6].iter().map(|b| format!("{b:02x}")).collect();
    Ok((outcome, seconds, digest))
}

fn field(config: &Config, name: &str) -> Result<u32> {
    config.get(name).with_context(|| format!("the kernel does not say its {name}"))
}

/// Finite e4m3 codes of both signs, the same on every machine.
fn codes(name: &str, len: usize) -> Vec<u8> {
    let mut state =
        name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |s, b| (s ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    (0..len).map(|_| next() & 0xbf).collect()
}

/// Time that this thread has spent on a processor, which other programs do not add to.
fn processor_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Shares of the families, from a run of its own; beside a run without checks, what the checks add.
fn print_profile(outcome: &Outcome, plain: Option<&Outcome>) {
    let total: f64 = outcome.profile.iter().map(|line| line.seconds).sum();
    for line in &outcome.profile {
        let each = |seconds: f64| 1e9 * seconds / line.instructions as f64;
        let before = plain.and_then(|p| p.profile.iter().find(|l| l.family == line.family));
        let added =
            before.map_or(String::new(), |b| format!(", {:6.0} ns of it checks", each(line.seconds - b.seconds)));
        println!(
            "    {:26} {:5.1} % of the time, {:5.1} % of the instructions, {:6.0} ns each{added}",
            line.family,
            100.0 * line.seconds / total,
            100.0 * line.instructions as f64 / outcome.instructions as f64,
            each(line.seconds),
        );
    }
}
