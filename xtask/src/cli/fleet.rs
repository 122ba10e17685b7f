//! `fleet run`, `fleet status`, `fleet report`: one gate file on many GPUs through Slurm.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use kbench::exit::Exit;
use serde_json::json;

use super::machine::deferred;
use super::print::print;
use crate::fleet::{self, Config, Fleet, Order, Overrides, Slurm, Submitted};
use crate::layout::Layout;

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
        FleetCommand::Status(args) => status(args),
        FleetCommand::Report(args) => report(args),
    }
}

fn run(args: &RunArgs) -> Result<Exit> {
    let RunArgs { partition, account, time, .. } = args;
    let overrides = Overrides { partition: partition.clone(), account: account.clone(), time: time.clone() };
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
            fleet::submit(&Layout::find()?, &Config::read(&args.config)?, &order)?
        }
    };
    if let Submitted::Deferred(why) = &submitted {
        return deferred(args.json, why);
    }
    print(args.json, &submitted, || match &submitted {
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
    let (all, silent) = fleet::status(&Fleet::open(&args.fleet)?)?;
    print(args.json, &json!({"tasks": all, "silent": silent}), || {
        let silent = silent.as_ref().map(|why| format!("\nSlurm was not asked: {why}")).unwrap_or_default();
        format!("{}{silent}", fleet::render(&all))
    })?;
    Ok(fleet::exit(&all))
}

fn report(args: &StatusArgs) -> Result<Exit> {
    let fleet = Fleet::open(&args.fleet)?;
    let report = fleet::report(&fleet)?;
    print(args.json, &report, || {
        format!("{}\nreport: {}", report.text.trim_end(), fleet.path.join("report.html").display())
    })?;
    Ok(report.exit)
}
