//! The command line: what a user may write, and a function for each subcommand that does it, prints what came of it and
//! says what that means as an exit status. Leaves to others: doing it.

mod accept;
mod build;
mod emulate;
mod errors;
mod fleet;
mod gpu;
mod history;
mod list;
mod machine;
mod print;
mod runs;
mod suite;
mod tune;
mod validate;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kbench::exit::Exit;

use crate::layout::program;

use self::errors::{arguments, one_line, parse};

/// Decides whether a GPU kernel may be merged: builds it, checks it, measures it beside its control, and judges.
#[derive(Parser)]
#[command(name = program(), version, after_help = STATUS, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand's exit status says; see `kbench::exit`.
const STATUS: &str = "Exit status: 0 good; 1 something must be fixed; 2 wrong usage or environment; 3 something was not \
                      measured or settled; 4 a valid negative: right, and not faster; 130 interrupted.";

#[derive(Subcommand)]
enum Command {
    /// What is here: compilers, GPU, emulator, profiler, peers; and what each lack defers.
    Doctor(machine::DoctorArgs),
    /// What there is to name: variants, suites, shapes, toggles, gates.
    List(list::ListArgs),
    /// Draft a gate file for the kernels of a CUDA source, with what it could not know marked.
    Init(build::InitArgs),
    /// Build variants and print what ptxas reports of each.
    Build(build::BuildArgs),
    /// Build, check, measure and decide: may the suite's candidates be merged?
    Validate(validate::ValidateArgs),
    /// Time variants beside a control; no gates on time, no verdict.
    Bench(validate::BenchArgs),
    /// Profile variants beside a control with Nsight Compute, and say what holds them back.
    Ncu(validate::NcuArgs),
    /// Look for what a correct result hides: compute-sanitizer on a GPU, the emulator's checks without one.
    Sanitize(machine::SanitizeArgs),
    /// Run a program, or a gate file's launches, on the emulator, and tell what is wrong with the kernels.
    Emulate(emulate::EmulateArgs),
    /// Search the toggles for a faster variant.
    Tune(tune::TuneArgs),
    /// Print the report of a run, or a section of it.
    Report(runs::ReportArgs),
    /// Check a run's hashes, and judge it again from its samples.
    Verify(runs::VerifyArgs),
    /// Feed the judge and `verify` their known lies, and honest controls.
    SelfTest(machine::SelfTestArgs),
    /// Make a candidate that a run says MERGE of the control: record it in accepted.json, and print the merge's message.
    Accept(accept::AcceptArgs),
    /// Put two runs side by side: gates, code and ratios that changed.
    Compare(runs::CompareArgs),
    /// List all runs: when, commit, device, decision, medians.
    History(runs::HistoryArgs),
    /// Measure what this GPU can do at most: launch floor, exponentials, products, conversions, bandwidth.
    Ceilings(machine::CeilingsArgs),
    /// Ask a GPU what the emulator must answer, and keep that as test data.
    Golden(machine::GoldenArgs),
    /// Run gate files on many GPUs through Slurm, and make one verdict of their runs.
    Fleet(fleet::FleetArgs),
    /// Make a folder, or a wheel for pip, that runs on a machine without Rust.
    Dist(build::DistArgs),
}

impl Command {
    fn run(&self) -> Result<Exit> {
        match self {
            Command::Doctor(args) => machine::doctor(args),
            Command::List(args) => list::list(args),
            Command::Init(args) => build::init(args),
            Command::Build(args) => build::build(args),
            Command::Validate(args) => validate::run(args),
            Command::Bench(args) => validate::bench(args),
            Command::Ncu(args) => validate::ncu(args),
            Command::Sanitize(args) => machine::sanitize(args),
            Command::Emulate(args) => emulate::emulate(args),
            Command::Tune(args) => tune::run(args),
            Command::Report(args) => runs::report(args),
            Command::Verify(args) => runs::verify(args),
            Command::SelfTest(args) => machine::self_test(args),
            Command::Accept(args) => accept::run(args),
            Command::Compare(args) => runs::compare(args),
            Command::History(args) => runs::history(args),
            Command::Ceilings(args) => machine::ceilings(args),
            Command::Golden(args) => machine::golden(args),
            Command::Fleet(args) => fleet::fleet(args),
            Command::Dist(args) => build::make_dist(args),
        }
    }
}

/// The whole program. Whatever goes wrong is one line, said here and nowhere else.
pub fn main() -> ExitCode {
    // Without it Ctrl-C ends the program all the same, only with fewer words.
    let _ = crate::interrupt::listen();
    let exit = arguments().and_then(parse::<Cli>).and_then(|asked| match asked {
        Ok(cli) => cli.command.run(),
        Err(exit) => Ok(exit),
    });
    let exit = exit.unwrap_or_else(|error| {
        crate::console::error(&one_line(&error));
        Exit::Environment
    });
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_subcommand_and_option_says_what_it_is_for() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for subcommand in cli.get_subcommands().filter(|c| c.get_name() != "help") {
            let wide = |line: &&str| line.chars().count() > 100;
            let help = subcommand.clone().max_term_width(100).render_long_help().to_string();
            assert_eq!(help.lines().find(wide), None, "{}", subcommand.get_name());
            let about = subcommand.get_about().map(|text| text.to_string()).unwrap_or_default();
            assert!(about.split_whitespace().count() >= 5, "{}: `{about}`", subcommand.get_name());
            for argument in subcommand.get_arguments() {
                let help = argument.get_help().map(|text| text.to_string()).unwrap_or_default();
                let words = help.split_whitespace().count();
                assert!(words >= 2, "{} {}: `{help}`", subcommand.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn every_suite_is_an_option_of_its_own_name() {
        let cli = Cli::command();
        for subcommand in ["validate", "tune", "build"] {
            let subcommand = cli.find_subcommand(subcommand).unwrap();
            let help = subcommand.clone().render_help().to_string();
            assert!(help.contains("--stage5 ") && help.contains("--flagship "), "{help}");
        }
        let asked = |arguments: &[&str]| Cli::try_parse_from([&["xtask"], arguments].concat()).map(|_| ());
        asked(&["validate", "--stage5", "--smoke"]).unwrap();
        asked(&["validate", "stage5"]).unwrap();
        asked(&["build", "--stage2", "stage1"]).unwrap();
        for two in [["--stage5", "--stage4"], ["stage5", "--stage4"], ["--suite=stage5", "stage4"], ["--all", "stage4"]]
        {
            assert!(asked(&["validate", two[0], two[1]]).is_err(), "{two:?}");
        }
        assert!(asked(&["tune", "--stage5", "--resume", "run"]).is_err());
    }
}
