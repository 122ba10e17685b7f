//! The command line of `tune`. `validate --tune` takes its defaults from here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser};

use super::{Options, Tuning, suite_for_search, tune};
use crate::layout::Layout;
use crate::plan::{Changes, DeviceChoice, Plan};
use crate::run_dir::RunDir;

/// The arguments of `tune`.
#[derive(Args)]
pub struct TuneArgs {
    /// The suite that control, architecture and limits come from.
    #[arg(long, default_value = "stage5")]
    suite: String,
    /// The shape that is timed; the suite's first gate on time without.
    #[arg(long)]
    shape: Option<String>,
    /// Configurations to evaluate, rejected ones included.
    #[arg(long, default_value_t = 32)]
    budget: u32,
    /// Elites to keep.
    #[arg(long, default_value_t = 3)]
    elites: usize,
    /// Seed of the search.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop when the elites did not change for so many evaluations.
    #[arg(long, default_value_t = 24)]
    patience: u32,
    /// Propose nothing new after so many seconds; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    time_limit: u64,
    /// Search only these values of a toggle: `--set tile_q=32,64`.
    #[arg(long = "set", value_name = "TOGGLE=VALUES", value_parser = dimension)]
    only: Vec<(String, Vec<u32>)>,
    /// Evaluate the rest of the space too, and compare the search with it.
    #[arg(long)]
    exhaustive: bool,
    /// Profile elites with Nsight Compute; what it says is told to the proposer, and heeded by the search.
    #[arg(long)]
    ncu: bool,
    /// Use at most so many GPUs; all of the first one's model without.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    gpus: Option<u16>,
    /// A command that proposes configurations: JSON lines in, JSON lines out.
    #[arg(long)]
    proposer: Option<String>,
    /// Seconds that it may take for an answer.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    proposer_timeout: u64,
    /// Where cases run.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// The folder that the run directory goes to.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue an interrupted search: its plan is the run's.
    #[arg(long, conflicts_with_all = [
        "suite", "shape", "budget", "elites", "seed", "patience", "time_limit", "only", "exhaustive", "ncu", "proposer",
        "out",
    ])]
    resume: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `tile_q=32,64`.
fn dimension(text: &str) -> Result<(String, Vec<u32>), String> {
    let (name, values) = text.split_once('=').ok_or("write TOGGLE=VALUE,VALUE")?;
    let value = |v: &str| v.trim().parse::<u32>().map_err(|_| format!("`{v}` is no value of a toggle"));
    Ok((name.trim().to_owned(), values.split(',').map(value).collect::<Result<_, _>>()?))
}

/// The options of `tune` alone, so that `validate --tune` has its defaults from the same place.
#[derive(Parser)]
struct TuneDefaults {
    #[command(flatten)]
    args: TuneArgs,
}

impl TuneArgs {
    /// What `validate --tune` searches with.
    pub fn defaults(device: DeviceChoice, out: Option<PathBuf>, ncu: bool) -> Options {
        let defaults = TuneDefaults::parse_from(["tune"]).args.options();
        Options { device, out, ncu, ..defaults }
    }

    fn options(&self) -> Options {
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
            time_limit_s: self.time_limit,
            only,
            exhaustive: self.exhaustive,
            ncu: self.ncu,
            gpus: self.gpus.map(usize::from),
            proposer: self.proposer.clone(),
            proposer_patience: Duration::from_secs(self.proposer_timeout),
            device: self.device,
            out: self.out.clone(),
            resume: self.resume.clone(),
        }
    }

    /// Runs the search.
    pub fn run(&self, layout: &Layout) -> Result<Tuning> {
        let suite = match &self.resume {
            None => Plan::read(layout, &self.suite, &Changes::default())?.suite,
            Some(path) => RunDir::open(path)?.suite()?,
        };
        tune(layout, &Plan::of(suite_for_search(suite), &Changes::default())?, &self.options())
    }
}
