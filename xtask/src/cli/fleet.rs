//! `fleet run`, `fleet tune`, `fleet status`, `fleet report`: one gate file, or one search, on many GPUs through Slurm.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use kbench::deferral::Deferral;
use kbench::exit::Exit;
use serde_json::json;

use super::machine::deferred;
use super::print::print;
use super::suite::{Choice, usage};
use super::tune::{SearchArgs, searched};
use crate::fleet::{self, Config, Fleet, Order, Overrides, SearchOrder, Slurm, Submitted};
use crate::inspect::verify;
use crate::layout::Layout;
use crate::plan::{Changes, Plan};
use crate::tune::{found, progress};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Subcommand)]
enum FleetCommand {
    /// Submit gate files to Slurm: one job for each kind of device.
    Run(RunArgs),
    /// Search the toggles for a faster variant, by several workers on one kind of device.
    #[command(override_usage = usage("fleet tune [GATE.toml | SUITE | --<SUITE>] --on KIND [OPTIONS]"))]
    Tune(TuneArgs),
    /// Take part in a search: what the jobs of `fleet tune` do.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Say where every task of a fleet stands, and what it came to.
    Status(StatusArgs),
    /// Verify every run of a fleet, and make one report of them.
    Report(StatusArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Gate files, which end in .toml.
    #[arg(value_name = "GATE.toml", required_unless_present_any = ["suites", "resume"])]
    gates: Vec<String>,
    /// Suites that come with the project.
    #[arg(long = "suite", value_delimiter = ',', value_name = "SUITE,...")]
    suites: Vec<String>,
    /// Kinds of device, by their names in fleet.toml.
    #[arg(long, value_delimiter = ',', value_name = "KIND,...", required_unless_present = "resume")]
    on: Vec<String>,
    /// Runs of every gate file on every kind.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u32,
    #[command(flatten)]
    slurm: SlurmArgs,
    /// Print the scripts, and submit nothing.
    #[arg(long)]
    dry_run: bool,
    /// Submit what is missing of a fleet, and again every task that ended without a verdict.
    #[arg(long, value_name = "FLEET", conflicts_with_all = ["gates", "suites", "on", "repeat", "dry_run"])]
    resume: Option<PathBuf>,
    /// Print folder and jobs as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TuneArgs {
    /// The kind of device, by its name in fleet.toml.
    #[arg(long, value_name = "KIND")]
    on: String,
    /// Jobs that share the search, each on a GPU of its own.
    #[arg(long, default_value_t = 4, value_name = "N")]
    workers: u32,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    slurm: SlurmArgs,
    /// Print the script, and submit nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print folder and job as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Choice<true>,
}

#[derive(Args)]
struct WorkerArgs {
    /// The fleet's folder.
    fleet: PathBuf,
    /// The worker's name, which no other process ever has.
    #[arg(long)]
    name: String,
}

/// How Slurm is asked.
#[derive(Args)]
struct SlurmArgs {
    /// Slurm's partition, instead of fleet.toml's.
    #[arg(long)]
    partition: Option<String>,
    /// Slurm's account, instead of fleet.toml's.
    #[arg(long)]
    account: Option<String>,
    /// Slurm's limit on the time of a task, instead of fleet.toml's, e.g. 02:00:00.
    #[arg(long)]
    time: Option<String>,
    /// The file that names the shared folder and the kinds of device.
    #[arg(long, default_value = "fleet.toml", value_name = "FILE")]
    config: PathBuf,
}

impl SlurmArgs {
    fn overrides(&self) -> Overrides {
        Overrides { partition: self.partition.clone(), account: self.account.clone(), time: self.time.clone() }
    }
}

#[derive(Args)]
struct StatusArgs {
    /// The fleet's folder, as `fleet run` named it.
    fleet: PathBuf,
    /// Print every task as JSON.
    #[arg(long)]
    json: bool,
}

pub fn fleet(args: &FleetArgs) -> Result<Exit> {
    match &args.command {
        FleetCommand::Run(args) => run(args),
        FleetCommand::Tune(args) => tune(args),
        FleetCommand::Worker(args) => worker(args),
        FleetCommand::Status(args) => status(args),
        FleetCommand::Report(args) => report(args),
    }
}

fn run(args: &RunArgs) -> Result<Exit> {
    let overrides = args.slurm.overrides();
    let submitted = match &args.resume {
        Some(folder) => match (Fleet::open(folder)?, Slurm::find()?) {
            (fleet, Ok(slurm)) => fleet::go_on(&fleet, &slurm, &overrides)?,
            (_, Err(why)) => Submitted::Deferred(why),
        },
        None => {
            let order = Order {
                gates: args.gates.iter().chain(&args.suites).cloned().collect(),
                on: args.on.clone(),
                repeats: args.repeat,
                overrides,
                dry_run: args.dry_run,
            };
            fleet::submit(&Layout::find()?, &Config::read(&args.slurm.config)?, &order)?
        }
    };
    say(args.json, &submitted)
}

fn tune(args: &TuneArgs) -> Result<Exit> {
    let layout = Layout::find()?;
    let suite = searched(Plan::read(&layout, args.suite.or_usual(), &Changes::default())?.suite)?;
    let order = SearchOrder {
        suite: &suite,
        options: &args.search.options(),
        on: args.on.clone(),
        workers: args.workers,
        overrides: args.slurm.overrides(),
        dry_run: args.dry_run,
    };
    say(args.json, &fleet::tune(&layout, &Config::read(&args.slurm.config)?, &order)?)
}

fn worker(args: &WorkerArgs) -> Result<Exit> {
    let ran = fleet::take_part(&Layout::find()?, &Fleet::open(&args.fleet)?, &args.name)?;
    println!("{}\nevidence: {}", ran.report, ran.run.shown());
    Ok(ran.exit())
}

/// What was submitted.
fn say(json: bool, submitted: &Submitted) -> Result<Exit> {
    if let Submitted::Deferred(why) = submitted {
        return deferred(json, why);
    }
    print(json, submitted, || match submitted {
        Submitted::Jobs { fleet, jobs, .. } if jobs.is_empty() => {
            format!("nothing is missing, and nothing ended without a verdict\nfleet: {}", fleet.display())
        }
        Submitted::Jobs { fleet, jobs, tasks } => {
            let jobs: Vec<String> = jobs.iter().map(|(kind, _, job)| format!("{kind} is job {job}")).collect();
            format!("{tasks} tasks: {}\nfleet: {}", jobs.join(", "), fleet.display())
        }
        Submitted::Scripts(scripts) => {
            scripts.iter().map(|(kind, text)| format!("# {kind}.sh\n{text}")).collect::<Vec<_>>().join("\n")
        }
        Submitted::Deferred(why) => why.to_string(),
    })?;
    Ok(Exit::Good)
}

fn status(args: &StatusArgs) -> Result<Exit> {
    let fleet = Fleet::open(&args.fleet)?;
    let (all, silent) = fleet::status(&fleet)?;
    let search = fleet.search().map(|folder| progress(&folder)).transpose()?;
    print(args.json, &json!({"tasks": all, "silent": silent, "search": search}), || {
        let silent = silent.as_ref().map(|why| format!("\nSlurm was not asked: {why}")).unwrap_or_default();
        let search = search.as_ref().map(|progress| format!("\n{progress}")).unwrap_or_default();
        format!("{}{silent}{search}", fleet::render(&all))
    })?;
    // How a worker ended is of no interest once the search is over.
    let is_over = search.is_some_and(|progress| progress.run.is_some());
    Ok(if is_over { Exit::Good } else { fleet::exit(&all) })
}

fn report(args: &StatusArgs) -> Result<Exit> {
    let fleet = Fleet::open(&args.fleet)?;
    if let Some(folder) = fleet.search() {
        return report_search(args.json, &folder);
    }
    let report = fleet::report(&fleet)?;
    print(args.json, &report, || {
        format!("{}\nreport: {}", report.text.trim_end(), fleet.path.join("report.html").display())
    })?;
    Ok(report.exit)
}

/// What a search came to, if its run holds.
fn report_search(json: bool, folder: &Path) -> Result<Exit> {
    let Some(ran) = found(folder)? else {
        let why = format!("the search is not over, {}", progress(folder)?);
        return deferred(json, &Deferral::new(why, "see `fleet status`"));
    };
    let (run, faults) = (ran.run.shown(), verify(&ran.run.path)?);
    if !faults.is_empty() {
        let why = faults.join("; ");
        print(json, &json!({"run": run, "refused": why}), || format!("REFUSED `{run}`: {why}"))?;
        return Ok(Exit::Fix);
    }
    print(json, &json!({"run": run, "result": ran.tuned}), || format!("{}\nevidence: {run}", ran.report))?;
    Ok(ran.exit())
}
