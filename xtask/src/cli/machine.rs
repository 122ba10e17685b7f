//! What is asked of the machine and of the program itself: `doctor`, `sanitize`, `self-test`, `ceilings`, `golden`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use kbench::deferral::Deferral;
use kbench::exit::Exit;
use kbench::memory::State;
use kernel_spec::schedule::Schedule;
use sdpa_kernel::registry;
use serde_json::json;

use super::build::registered;
use super::print::print;
use crate::layout::Layout;
use crate::plan::{Changes, DeviceChoice, Plan, suite_names};
use crate::sanitize::{Sanitizing, Whose};

/// Says why something could not begin.
pub fn deferred(json: bool, why: &Deferral) -> Result<Exit> {
    print(json, &json!({"deferred": why}), || format!("DEFERRED ({why})"))?;
    Ok(Exit::Deferred)
}

#[derive(Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub fn doctor(args: &DoctorArgs) -> Result<Exit> {
    let findings = crate::doctor::examine(&Layout::find()?)?;
    print(args.json, &findings, || crate::doctor::render(&findings))?;
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
    let layout = Layout::find()?;
    let options = crate::sanitize::Options {
        device: args.device,
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
    /// Print the trials as JSON.
    #[arg(long)]
    json: bool,
}

pub fn self_test(args: &SelfTestArgs) -> Result<Exit> {
    let trials = crate::selftest::self_test()?;
    print(args.json, &trials, || crate::selftest::render(&trials, args.table))?;
    Ok(Exit::fix_if(trials.iter().any(|trial| !trial.right)))
}

#[derive(Args)]
pub struct CeilingsArgs {
    /// Print the rates as JSON.
    #[arg(long)]
    json: bool,
}

pub fn ceilings(args: &CeilingsArgs) -> Result<Exit> {
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
