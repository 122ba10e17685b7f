//! `tune`: a search on its own. `validate --tune` has the same defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, value_parser};
use kbench::exit::Exit;
use kbench::suite::Suite;
use serde_json::json;

use super::gpu::GpuArgs;
use super::machine::deferred;
use super::print::print;
use super::suite::{Choice, GROUP, usage};
use crate::layout::Layout;
use crate::plan::{Changes, DeviceChoice, Plan};
use crate::run_dir::RunDir;
use crate::tune::{Options, Tuning, suite_for_search, tune};

/// What a search is told, on one machine or on many.
#[derive(Args)]
pub struct SearchArgs {
    /// The shape that is timed; the suite's first gate on time without.
    #[arg(long)]
    shape: Option<String>,
    /// Configurations to evaluate, rejected ones included.
    #[arg(long, default_value_t = Options::default().budget, value_name = "N")]
    budget: u32,
    /// Elites to keep.
    #[arg(long, default_value_t = Options::default().elites, value_name = "N")]
    elites: usize,
    /// Seed of the search.
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
    /// Stop when the elites did not change for so many evaluations.
    #[arg(long, default_value_t = Options::default().patience, value_name = "N")]
    patience: u32,
    /// Search only these values of a toggle: `--set tile_q=32,64`.
    #[arg(long = "set", value_name = "TOGGLE=VALUES", value_parser = dimension)]
    only: Vec<(String, Vec<u32>)>,
    /// Evaluate the rest of the space too, and compare the search with it.
    #[arg(long)]
    exhaustive: bool,
}

#[derive(Args)]
#[command(override_usage = usage("tune [GATE.toml | SUITE | --<SUITE>] [OPTIONS]"))]
pub struct TuneArgs {
    #[command(flatten)]
    search: SearchArgs,
    /// Propose nothing new after so many seconds; 0 is no limit.
    #[arg(long, default_value_t = Options::default().time_limit_s, value_name = "SECONDS")]
    time_limit: u64,
    /// Profile elites with Nsight Compute; what it says is told to the proposer, and heeded by the search.
    #[arg(long)]
    ncu: bool,
    /// Use at most so many GPUs; all of the first one's model without.
    #[arg(long, value_parser = value_parser!(u16).range(1..))]
    gpus: Option<u16>,
    /// A command that proposes configurations: JSON lines in, JSON lines out.
    #[arg(long, value_name = "COMMAND")]
    proposer: Option<String>,
    /// Seconds that it may take for an answer.
    #[arg(long, default_value_t = Options::default().proposer_patience.as_secs(), value_name = "SECONDS",
        value_parser = value_parser!(u64).range(1..))]
    proposer_timeout: u64,
    /// Where cases run.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    gpu: GpuArgs,
    /// The folder that the run directory goes to.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue an interrupted search: its plan is the run's.
    #[arg(long, value_name = "RUN", conflicts_with_all = [
        GROUP, "shape", "budget", "elites", "seed", "patience", "time_limit", "only", "exhaustive", "ncu", "proposer",
        "out",
    ])]
    resume: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Choice<true>,
}

/// `tile_q=32,64`.
fn dimension(text: &str) -> Result<(String, Vec<u32>), String> {
    let (name, values) = text.split_once('=').ok_or("write TOGGLE=VALUE,VALUE")?;
    let value = |v: &str| v.trim().parse::<u32>().map_err(|_| format!("`{v}` is no value of a toggle"));
    Ok((name.trim().to_owned(), values.split(',').map(value).collect::<Result<_, _>>()?))
}

impl SearchArgs {
    /// With everything else as usual.
    pub fn options(&self) -> Options {
        let mut only: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (name, values) in &self.only {
            only.entry(name.clone()).or_default().extend(values);
        }
        Options {
            shape: self.shape.clone(),
            budget: self.budget,
            elites: self.elites,
            seed: self.seed,
            patience: self.patience,
            only,
            exhaustive: self.exhaustive,
            ..Options::default()
        }
    }
}

impl TuneArgs {
    fn options(&self) -> Result<Options> {
        Ok(Options {
            time_limit_s: self.time_limit,
            ncu: self.ncu,
            gpus: self.gpus.map(usize::from),
            proposer: self.proposer.clone(),
            proposer_patience: Duration::from_secs(self.proposer_timeout),
            device: self.gpu.device(self.device)?,
            out: self.out.clone(),
            resume: self.resume.clone(),
            ..self.search.options()
        })
    }
}

/// A suite as a search has it.
pub fn searched(suite: Suite) -> Result<Plan> {
    if suite.declared().is_some() {
        bail!("{}: a gate file's kernels cannot be searched yet: write the settings as candidates", suite.name);
    }
    Plan::of(suite_for_search(suite), Path::new("."), &Changes::default())
}

pub fn run(args: &TuneArgs) -> Result<Exit> {
    args.gpu.alone()?;
    let layout = Layout::find()?;
    let suite = match &args.resume {
        None => Plan::read(&layout, args.suite.or_usual(), &Changes::default())?.suite,
        Some(path) => RunDir::open(path)?.suite()?,
    };
    let plan = searched(suite)?;
    match tune(&layout, &plan, &args.options()?)? {
        Tuning::Deferred(why) => deferred(args.json, &why),
        Tuning::Ran(ran) => {
            let run = ran.run.shown();
            print(args.json, &json!({"run": run, "result": ran.tuned}), || format!("{}\nevidence: {run}", ran.report))?;
            Ok(ran.exit())
        }
    }
}
