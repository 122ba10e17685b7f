//! What is asked of the machine and of the program itself: `doctor`, `sanitize`, `self-test`, `ceilings`, `golden`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use kbench::deferral::Deferral;
use kbench::exit::Exit;
use kbench::memory::State;
use kbench::selftest::kill_matrix;
use kbench::simulation::{missed_bars, table};
use kernel_spec::schedule::Schedule;
use sdpa_kernel::registry;
use serde_json::json;

use super::build::registered;
use super::gpu::GpuArgs;
use super::print::print;
use crate::layout::Layout;
use crate::plan::{Changes, DeviceChoice, Plan, suite_names};
use crate::sanitize::{Sanitizing, Whose, counted};
use crate::simulate::{simulate, write_matrix, write_statistics};

/// Says why something could not begin.
pub fn deferred(json: bool, why: &Deferral) -> Result<Exit> {
    print(json, &json!({"deferred": why}), || format!("DEFERRED ({why})"))?;
    Ok(Exit::Deferred)
}

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    gpu: GpuArgs,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub fn doctor(args: &DoctorArgs) -> Result<Exit> {
    args.gpu.alone()?;
    let findings = crate::doctor::examine(&Layout::find()?)?;
    print(args.json, &findings, || crate::doctor::render(&findings, crate::console::width()))?;
    Ok(Exit::Good)
}

#[derive(Args)]
pub struct SanitizeArgs {
    /// Variants, or one gate file or suite; all variants of the registry when none is named.
    #[arg(value_name = "VARIANT | GATE.toml | SUITE")]
    variants: Vec<String>,
    /// What executes them: compute-sanitizer's tools on a GPU, or the emulator's checks.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    gpu: GpuArgs,
    /// Shapes; small and ragged ones, plain and masked, when none is named.
    #[arg(long, value_delimiter = ',', value_name = "SHAPE,...")]
    shapes: Vec<String>,
    /// Schedules on the emulator, such as greedy or seeded:3; five when none is named.
    #[arg(long = "schedule", value_delimiter = ',', value_name = "SCHEDULE,...")]
    schedules: Vec<Schedule>,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

pub fn sanitize(args: &SanitizeArgs) -> Result<Exit> {
    args.gpu.alone()?;
    let layout = Layout::find()?;
    let options = crate::sanitize::Options {
        device: args.gpu.device(args.device)?,
        shapes: args.shapes.clone(),
        schedules: args.schedules.clone(),
    };
    let logs = layout.target.join("sanitize");
    match crate::sanitize::sanitize(&layout, &whose(&layout, &args.variants)?, &logs, &options)? {
        Sanitizing::Deferred(why) => deferred(args.json, &why),
        Sanitizing::Ran(results) if results.is_empty() => bail!("nothing was run"),
        Sanitizing::Ran(results) => {
            print(args.json, &results, || crate::sanitize::render(&results))?;
            Ok(Exit::of_all(results.iter().map(|result| match result.state {
                State::Clean => Exit::Good,
                State::Found => Exit::Fix,
                State::Deferred => Exit::Deferred,
            })))
        }
    }
}

/// The emulator's checks on every launch of a gate file.
pub fn emulated_gate_file(gate: &str, json: bool) -> Result<Exit> {
    sanitize(&SanitizeArgs {
        variants: vec![gate.to_owned()],
        device: DeviceChoice::Emulator,
        gpu: GpuArgs::default(),
        shapes: Vec::new(),
        schedules: Vec::new(),
        json,
    })
}

/// What every launch of a gate file does, counted on the emulator.
pub fn counted_gate_file(gate: &str, shapes: &[String], json: bool) -> Result<Exit> {
    let layout = Layout::find()?;
    let device = DeviceChoice::Emulator;
    let options = crate::sanitize::Options { device, shapes: shapes.to_vec(), schedules: Vec::new() };
    match counted::count(&layout, &whose(&layout, &[gate.to_owned()])?, &options)? {
        Err(why) => deferred(json, &why),
        Ok(cases) => {
            print(json, &cases, || counted::render(&cases))?;
            let is_open = cases.iter().any(|case| case.deferred.is_some());
            Ok(if is_open { Exit::Deferred } else { Exit::Good })
        }
    }
}

/// A name that is no variant's may be a suite's or a gate file's, which stands alone.
fn whose(layout: &Layout, names: &[String]) -> Result<Whose> {
    let [name] = names else { return Ok(Whose::Variants(registered(names)?)) };
    let is_suite = name.ends_with(".toml") || suite_names(layout).contains(name);
    if !is_suite || registry::find(name).is_ok() {
        return Ok(Whose::Variants(registered(names)?));
    }
    let plan = Plan::read(layout, name, &Changes::default())?;
    Ok(match plan.suite.declared() {
        Some(_) => Whose::GateFile(Box::new(plan)),
        None => Whose::Variants(plan.variants),
    })
}

#[derive(Args)]
pub struct SelfTestArgs {
    /// Print every trial, not only those that came out wrong.
    #[arg(long)]
    table: bool,
    /// Print which check catches which lie, and put it into docs/kill-matrix.md.
    #[arg(long)]
    matrix: bool,
    /// That, and the judge's statistics by simulation, into docs/statistics.md: minutes in a release build.
    #[arg(long)]
    full: bool,
    /// Instead: validate one kernel under two names so many times on this GPU, and print how often that was believed.
    #[arg(long, value_name = "N", conflicts_with_all = ["table", "matrix", "full"])]
    gpu_aa: Option<u32>,
    #[command(flatten)]
    gpu: GpuArgs,
    /// Print the trials as JSON.
    #[arg(long, conflicts_with_all = ["matrix", "full"])]
    json: bool,
}

pub fn self_test(args: &SelfTestArgs) -> Result<Exit> {
    if let Some(count) = args.gpu_aa {
        args.gpu.alone()?;
        let all = crate::aa::gpu_aa(&Layout::find()?, count, &|again| eprintln!("{}", again.line()))?;
        print(args.json, &all, || crate::aa::sum(&all))?;
        return Ok(Exit::fix_if(all.iter().any(crate::aa::Again::is_wrong)));
    }
    let trials = crate::selftest::self_test()?;
    print(args.json, &trials, || crate::selftest::render(&trials, args.table))?;
    let mut is_wrong = trials.iter().any(|trial| !trial.right);
    if args.matrix || args.full {
        is_wrong |= matrix()?;
    }
    if args.full {
        is_wrong |= simulated()?;
    }
    Ok(Exit::fix_if(is_wrong))
}

/// Whether a check could be left out and no lie would show it.
fn matrix() -> Result<bool> {
    let matrix = kill_matrix();
    let path = write_matrix(&Layout::find()?, &matrix)?;
    println!("{} lies against every check: {}", matrix.lies(), path.display());
    for check in &matrix.idle {
        println!("WRONG no lie needs `{}`: tell one that only this check catches", check.name());
    }
    Ok(!matrix.idle.is_empty())
}

/// Whether the statistics miss what must hold of them.
fn simulated() -> Result<bool> {
    let tallies = simulate();
    let path = write_statistics(&Layout::find()?, &tallies)?;
    println!("{}\nwritten to {}", table(&tallies), path.display());
    let missed = missed_bars(&tallies);
    missed.iter().for_each(|bar| println!("WRONG {bar}"));
    Ok(!missed.is_empty())
}

#[derive(Args)]
pub struct CeilingsArgs {
    #[command(flatten)]
    gpu: GpuArgs,
    /// Print the rates as JSON.
    #[arg(long)]
    json: bool,
}

pub fn ceilings(args: &CeilingsArgs) -> Result<Exit> {
    args.gpu.alone()?;
    match crate::ceilings::measure(&Layout::find()?)? {
        crate::ceilings::Measuring::Deferred(why) => deferred(args.json, &why),
        crate::ceilings::Measuring::Ran(ceilings, path) => {
            print(args.json, &ceilings, || format!("{}\nkept in {}", ceilings.render(), path.display()))?;
            Ok(Exit::Good)
        }
    }
}

#[derive(Args)]
pub struct GoldenArgs {
    #[command(flatten)]
    gpu: GpuArgs,
    /// Where the GPU's whole answers are, or go; target/golden/raw when none is named.
    #[arg(long, value_name = "DIR")]
    raw: Option<PathBuf>,
    /// Where the test data goes; target/golden when none is named.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leave the comparison with the emulator to another machine, which gets the raw answers.
    #[arg(long)]
    record_only: bool,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub fn golden(args: &GoldenArgs) -> Result<Exit> {
    args.gpu.alone()?;
    let layout = Layout::find()?;
    let raw = args.raw.clone().unwrap_or_else(|| layout.target.join("golden/raw"));
    let out = args.out.clone().unwrap_or_else(|| layout.target.join("golden"));
    let [raw_shown, out_shown] = [&raw, &out].map(|path| path.display().to_string());
    match crate::golden::golden(&layout, &raw, &out, args.record_only)? {
        crate::golden::Outcome::Deferred(why) => deferred(args.json, &why),
        crate::golden::Outcome::Recorded => {
            print(args.json, &json!({"raw": raw_shown}), || format!("recorded in {raw_shown}"))?;
            Ok(Exit::Good)
        }
        crate::golden::Outcome::Compared(text, agree) => {
            let found = text.lines().collect::<Vec<_>>();
            let value = json!({"agree": agree, "found": found, "raw": raw_shown, "out": out_shown});
            print(args.json, &value, || format!("{text}test data: {out_shown}"))?;
            Ok(Exit::fix_if(!agree))
        }
    }
}
