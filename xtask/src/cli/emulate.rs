//! `emulate`: the emulator by itself, on a gate file's launches or on a program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kbench::exit::Exit;
use kbench::findings::{self, Baseline};
use kernel_spec::schedule::Schedule;
use serde::Serialize;

use super::machine::{counted_gate_file, emulated_gate_file};
use super::print::raw;
use crate::emulate::{Emulated, Options, examine, rules, run};
use crate::files::write_whole;
use crate::layout::Layout;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct EmulateArgs {
    #[command(subcommand)]
    program: Option<Emulate>,
    /// The gate file whose launches are looked at, with every check and under five schedules.
    #[arg(value_name = "GATE.toml", required = true)]
    gate: Option<String>,
    /// Instead: count what the launches do, without checks and once: sectors, bank conflicts, divergence, instructions.
    #[arg(long)]
    counts: bool,
    /// Shapes to count on; those that the gate file leaves to the emulator when none is named.
    #[arg(long, value_delimiter = ',', value_name = "SHAPE,...", requires = "counts")]
    shapes: Vec<String>,
    /// Print what was found, or counted, as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Emulate {
    /// Run a program that nvcc compiled with -cudart shared and PTX inside, without a GPU.
    Run(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The program, and what it is called with.
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
    /// Order of the warps: greedy, round-robin, reverse or seeded:N.
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<Schedule>,
    /// Only what is always checked: bounds, alignment, barriers; races and undefined values are not looked for.
    #[arg(long)]
    unchecked: bool,
    /// Compute capability that the device says it has, such as 90; that of the program's PTX when none is named.
    #[arg(long, value_name = "CC")]
    arch: Option<u32>,
    /// Global memory of the device in GiB, of the host's; 4 when none is named.
    #[arg(long, value_name = "GIB")]
    memory: Option<u64>,
    /// A project's rules: severities and suppressions, in TOML.
    #[arg(long, value_name = "POLICY.toml")]
    policy: Option<PathBuf>,
    /// Findings that are known: they do not fail.
    #[arg(long, value_name = "BASELINE.json")]
    baseline: Option<PathBuf>,
    /// Write what was found as such a file.
    #[arg(long, value_name = "BASELINE.json")]
    write_baseline: Option<PathBuf>,
    /// Write findings as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write findings as SARIF 2.1.0 to this file.
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Write findings as JUnit's XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print annotations of a GitHub workflow on standard output.
    #[arg(long)]
    github: bool,
}

pub fn emulate(args: &EmulateArgs) -> Result<Exit> {
    match (&args.program, &args.gate) {
        (Some(Emulate::Run(args)), _) => program(args),
        (None, Some(gate)) if args.counts => counted_gate_file(gate, &args.shapes, args.json),
        (None, Some(gate)) => emulated_gate_file(gate, args.json),
        (None, None) => bail!("name a gate file, or a program after `run`"),
    }
}

fn program(args: &RunArgs) -> Result<Exit> {
    let [program, arguments @ ..] = args.command.as_slice() else { bail!("name a program") };
    let program = Path::new(program);
    examine(program)?;
    let (policy, baseline) = rules(args.policy.as_deref(), args.baseline.as_deref())?;
    let options =
        Options { schedule: args.schedule, unchecked: args.unchecked, arch: args.arch, memory_gib: args.memory };
    let (told, failure) = run(&Layout::find()?, program, arguments, &options)?;
    let emulated = Emulated {
        program: program.display().to_string(),
        findings: findings::judge(&told.findings, &policy, &baseline),
        refused: told.refused,
        failure,
    };
    let root = std::env::current_dir().context("failed to find the working directory")?.display().to_string();
    // The program has written to standard output; that stays its own.
    eprint!("{}", crate::console::dressed(&findings::text(&emulated.findings, &emulated.refused, &root)));
    if let Some(failure) = &emulated.failure {
        eprintln!("{failure}");
    }
    write(args.json.as_deref(), &emulated)?;
    write(args.sarif.as_deref(), &findings::sarif(&emulated.findings, &root))?;
    write(args.write_baseline.as_deref(), &Baseline::of(&emulated.findings))?;
    if let Some(path) = &args.junit {
        let xml = findings::junit(&emulated.findings, &emulated.refused, &emulated.program, &root);
        write_whole(path, xml.as_bytes())?;
    }
    if args.github {
        raw(&findings::annotations(&emulated.findings, &root))?;
    }
    Ok(exit(&emulated))
}

fn write(path: Option<&Path>, value: &impl Serialize) -> Result<()> {
    match path {
        Some(path) => write_whole(path, serde_json::to_string_pretty(value)?.as_bytes()),
        None => Ok(()),
    }
}

/// Something found, or a program that failed; something that was not looked at.
fn exit(emulated: &Emulated) -> Exit {
    let is_wrong = emulated.failure.is_some() || emulated.findings.iter().any(|one| one.fails);
    let is_open = !emulated.refused.is_empty();
    Exit::of_all([Exit::fix_if(is_wrong), if is_open { Exit::Deferred } else { Exit::Good }])
}
