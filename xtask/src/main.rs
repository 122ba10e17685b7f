//! `cargo xtask`: parses the command line, calls one module a subcommand, and turns its outcome into an exit status
//! (`kbench::exit`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use kbench::exit::Exit;
use kbench::gate::{Gate, State};
use kbench::job::Schedule;
use serde::Serialize;
use serde_json::json;
use xtask::build::build_all;
use xtask::inspect::ReportFormat;
use xtask::layout::Layout;
use xtask::peers::PeerChoice;
use xtask::plan::{Changes, DeviceChoice, Plan, suite_names};
use xtask::run_dir::RunDir;
use xtask::sanitize::Sanitizing;
use xtask::steps::Timing;
use xtask::tune::{TuneArgs, Tuning};
use xtask::validate::{Options, Outcome, validate};
use xtask::winner::{with_winner, with_winner_of};
use xtask::{ceilings, dist, doctor, golden, inspect, runs, sanitize, selftest, toolchain};

/// Decides whether a GPU attention kernel may be merged.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is here: compilers, GPU, profiler, peers; and what each lack defers.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Build variants and print what ptxas reports.
    Build {
        /// Variants; all of the registry, or of the suite, when none is named.
        variants: Vec<String>,
        /// Build a suite's variants.
        #[arg(long)]
        suite: Option<String>,
        /// Target architecture.
        #[arg(long, default_value = "sm_89")]
        arch: String,
        /// Also write each cubin and its launch record to this folder, for `sdpa-kernel/python/sdpa_fp8.py` and others.
        #[arg(long)]
        export: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Build, check, measure and decide.
    Validate(ValidateArgs),
    /// Time variants against a control, without gates on time.
    Bench {
        /// Variants to time.
        #[arg(required = true)]
        variants: Vec<String>,
        /// What they are compared with.
        #[arg(long, default_value = "stage2")]
        against: String,
        #[command(flatten)]
        measuring: MeasuringArgs,
    },
    /// Profile variants beside a control with Nsight Compute, and say what holds them back.
    Ncu {
        /// Variants; the candidates of the suite stage5 when none is named.
        variants: Vec<String>,
        /// What they are compared with.
        #[arg(long, default_value = "stage2")]
        against: String,
        /// The shape.
        #[arg(long, default_value = "mission")]
        shape: String,
        /// The folder that the run directory goes to.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look for what a correct result hides: compute-sanitizer on a GPU, the emulator's checks without one.
    Sanitize {
        /// Variants; all of the registry when none is named.
        variants: Vec<String>,
        /// What executes them.
        #[arg(long, value_enum, default_value = "auto")]
        device: DeviceChoice,
        /// Shapes; small and ragged ones, plain and causal, when none is named.
        #[arg(long, value_delimiter = ',')]
        shapes: Vec<String>,
        /// Schedules on the emulator, such as greedy or seeded:3; five when none is named.
        #[arg(long = "schedule", value_delimiter = ',')]
        schedules: Vec<Schedule>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Search the toggles for a faster variant.
    Tune(TuneArgs),
    /// Print the report of a run.
    Report {
        /// The run directory.
        run: PathBuf,
        /// How.
        #[arg(long, value_enum, default_value = "table")]
        format: ReportFormat,
    },
    /// Check a run's hashes, and judge it again from its samples.
    Verify {
        /// The run directory.
        run: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Feed the judge and verify their known lies, and honest controls.
    SelfTest {
        /// Every trial, not only those that came out wrong.
        #[arg(long)]
        table: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Two runs side by side: gates, code and ratios that changed.
    Compare {
        /// A run directory.
        run_a: PathBuf,
        /// Another.
        run_b: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// All runs: when, commit, device, decision, medians. Of one run: its variants' speedups over control and PyTorch.
    History {
        /// A run directory; every run of the folder when none is named.
        #[arg(conflicts_with_all = ["runs", "json"])]
        run: Option<PathBuf>,
        /// The folder of runs.
        #[arg(long)]
        runs: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure what this GPU can do at most: launch floor, exponentials, products, conversions, bandwidth.
    Ceilings {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask a GPU what the emulator must answer, and keep that as test data.
    Golden {
        /// Where the GPU's whole answers are, or go.
        #[arg(long)]
        raw: Option<PathBuf>,
        /// Where the test data goes.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Leave the comparison with the emulator to another machine, which gets the raw answers.
        #[arg(long)]
        record_only: bool,
    },
    /// Make a folder that runs on a machine without Rust.
    Dist {
        /// Where.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct ValidateArgs {
    /// The suite: a name, or a path that ends in .toml. `--stage5` is short for `--suite stage5`.
    #[arg(long, default_value = "stage5")]
    suite: String,
    /// Every suite that comes with the project, in order, and one summary.
    #[arg(long, conflicts_with_all = ["suite", "resume"])]
    all: bool,
    /// 10 launches on `small`.
    #[arg(long)]
    smoke: bool,
    /// Exit 0 although something is DEFERRED or INCONCLUSIVE.
    #[arg(long)]
    allow_deferred: bool,
    /// Profile control and candidates with Nsight Compute, and gate what it says.
    #[arg(long)]
    ncu: bool,
    /// Search the toggles first, and judge the winner as one more candidate.
    #[arg(long, conflicts_with_all = ["all", "resume"])]
    tune: bool,
    /// Judge the winner of a finished search as one more candidate.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["all", "resume", "tune"])]
    tuned: Option<PathBuf>,
    /// Continue an interrupted run.
    #[arg(long, conflicts_with_all = ["out", "shapes", "seeds", "iters", "warmup", "smoke"])]
    resume: Option<PathBuf>,
    #[command(flatten)]
    measuring: MeasuringArgs,
}

#[derive(Args)]
struct MeasuringArgs {
    /// Where cases run.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Only these shapes.
    #[arg(long, value_delimiter = ',')]
    shapes: Option<Vec<String>>,
    /// Only these seeds.
    #[arg(long, value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Launches of a timed block.
    #[arg(long)]
    iters: Option<u32>,
    /// Untimed launches before a block.
    #[arg(long)]
    warmup: Option<u32>,
    /// Which peers are measured.
    #[arg(long, value_enum, default_value = "auto")]
    peers: PeerChoice,
    /// The folder that the run directory goes to.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the decision as JSON instead of the report.
    #[arg(long)]
    json: bool,
}

impl MeasuringArgs {
    fn changes(&self, smoke: bool) -> Changes {
        Changes {
            shapes: self.shapes.clone(),
            seeds: self.seeds.clone(),
            iterations: self.iters,
            warmup: self.warmup,
            smoke,
        }
    }

    fn options(&self, resume: Option<PathBuf>, ncu: bool) -> Options {
        Options {
            device: self.device,
            out: self.out.clone(),
            resume,
            timing: Timing { wanted: true, peers: self.peers },
            ncu,
            attachments: Vec::new(),
        }
    }
}

fn main() -> ExitCode {
    match Layout::find().and_then(|layout| run(&layout)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Environment.into()
        }
    }
}

/// `--stage5` becomes `--suite stage5`, for every suite that is there.
fn arguments(layout: &Layout) -> Vec<String> {
    let names = suite_names(layout);
    std::env::args()
        .flat_map(|argument| match argument.strip_prefix("--") {
            Some(name) if names.iter().any(|n| n == name) => vec!["--suite".to_owned(), name.to_owned()],
            _ => vec![argument],
        })
        .collect()
}

fn run(layout: &Layout) -> Result<Exit> {
    match Cli::parse_from(arguments(layout)).command {
        Command::Doctor { json } => {
            let findings = doctor::examine(layout)?;
            print(json, &findings, || doctor::render(&findings))?;
            Ok(Exit::Good)
        }
        Command::Build { variants, suite, arch, export, json } => {
            build(layout, &variants, suite.as_deref(), &arch, export.as_deref(), json)
        }
        Command::Validate(args) => run_validate(layout, &args),
        Command::Bench { variants, against, measuring } => {
            let plan = Plan::comparison(&against, &variants, &measuring.changes(false))?;
            let outcome = validate(layout, &plan, &measuring.options(None, false))?;
            show_comparison(&outcome, measuring.json)?;
            Ok(match outcome.decision.counts.fail {
                0 if outcome.complete => Exit::Good,
                0 => Exit::Deferred,
                _ => Exit::Fix,
            })
        }
        Command::Ncu { variants, against, shape, out, json } => run_ncu(layout, variants, &against, &shape, out, json),
        Command::Tune(args) => run_tune(layout, &args),
        Command::Sanitize { variants, device, shapes, schedules, json } => {
            run_sanitize(layout, &variants, &sanitize::Options { device, shapes, schedules }, json)
        }
        Command::Report { run, format } => {
            say(&inspect::report(&run, format)?)?;
            Ok(Exit::Good)
        }
        Command::Verify { run, json } => {
            let faults = inspect::verify(&run)?;
            print(json, &json!({"faults": faults}), || match faults.as_slice() {
                [] => {
                    "every file is as it was sealed, and the evidence gives the recorded gates and decision".to_owned()
                }
                faults => faults.join("\n"),
            })?;
            Ok(Exit::fix_if(!faults.is_empty()))
        }
        Command::SelfTest { table, json } => {
            let trials = selftest::self_test()?;
            print(json, &trials, || selftest::render(&trials, table))?;
            Ok(Exit::fix_if(trials.iter().any(|t| !t.right)))
        }
        Command::Compare { run_a, run_b, json } => {
            let (differences, text) = inspect::compare(&run_a, &run_b)?;
            print(json, &differences, || text)?;
            Ok(Exit::Good)
        }
        Command::History { run: Some(run), .. } => {
            let run = RunDir::open(&run)?;
            let times = runs::speedups_of(&run)?;
            say(&times.with_context(|| format!("`{}` has no times; run it on a GPU", run.path.display()))?)?;
            Ok(Exit::Good)
        }
        Command::History { run: None, runs, json } => {
            let lines = runs::history(&runs.unwrap_or_else(|| layout.runs()))?;
            print(json, &lines, || if lines.is_empty() { "no runs yet".to_owned() } else { lines.join("\n") })?;
            Ok(Exit::Good)
        }
        Command::Ceilings { json } => match ceilings::measure(layout)? {
            ceilings::Measuring::Deferred(why) => {
                print(json, &json!({"deferred": why}), || format!("DEFERRED ({why})"))?;
                Ok(Exit::Deferred)
            }
            ceilings::Measuring::Ran(ceilings, path) => {
                print(json, &ceilings, || format!("{}\nkept in {}", ceilings.render(), path.display()))?;
                Ok(Exit::Good)
            }
        },
        Command::Golden { raw, out, record_only } => {
            let raw = raw.unwrap_or_else(|| layout.target.join("golden/raw"));
            let out = out.unwrap_or_else(|| layout.target.join("golden"));
            match golden::golden(layout, &raw, &out, record_only)? {
                golden::Outcome::Deferred(why) => {
                    say(&format!("DEFERRED ({why})"))?;
                    Ok(Exit::Deferred)
                }
                golden::Outcome::Recorded => {
                    say(&format!("recorded in {}", raw.display()))?;
                    Ok(Exit::Good)
                }
                golden::Outcome::Compared(text, agree) => {
                    say(&format!("{text}test data: {}", out.display()))?;
                    Ok(Exit::fix_if(!agree))
                }
            }
        }
        Command::Dist { out } => {
            say(&dist::dist(layout, out.as_deref())?.display().to_string())?;
            Ok(Exit::Good)
        }
    }
}

fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    say(&if json { serde_json::to_string_pretty(value)? } else { text() })
}

/// One line or more on standard output. A reader that has seen enough (`| head`) is no error of ours: the exit status
/// stays the verdict.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A failure anywhere is the status of the whole; short of that, a deferral is.
fn run_all(layout: &Layout, args: &ValidateArgs) -> Result<Exit> {
    let names = suite_names(layout);
    let plans = names.iter().map(|name| Plan::read(layout, name, &args.measuring.changes(args.smoke)));
    let mut decisions = Vec::new();
    let mut statuses = Vec::new();
    for plan in plans.collect::<Result<Vec<_>>>()? {
        eprintln!("suite {}: {}", plan.suite.name, plan.suite.about);
        let outcome = validate(layout, &plan, &args.measuring.options(None, args.ncu))?;
        statuses.push(outcome.decision.exit(args.allow_deferred));
        decisions.push((plan.suite.name.clone(), outcome.run.path.clone(), outcome.decision));
    }
    let line = |(name, run, decision): &(String, PathBuf, kbench::decision::Decision)| {
        let counts = &decision.counts;
        format!(
            "{name}: {}\n  {} PASS, {} FAIL, {} DEFERRED, {} INCONCLUSIVE; {}",
            decision.headline,
            counts.pass,
            counts.fail,
            counts.deferred,
            counts.inconclusive,
            run.display()
        )
    };
    let json: Vec<_> =
        decisions.iter().map(|(name, run, d)| json!({"suite": name, "run": run, "decision": d})).collect();
    print(args.measuring.json, &json, || decisions.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::of_all(statuses))
}

fn run_validate(layout: &Layout, args: &ValidateArgs) -> Result<Exit> {
    if args.all {
        return run_all(layout, args);
    }
    let plan = match &args.resume {
        None => Plan::read(layout, &args.suite, &args.measuring.changes(args.smoke))?,
        Some(path) => Plan::of(RunDir::open(path)?.suite()?, &Changes::default())?,
    };
    let mut options = args.measuring.options(args.resume.clone(), args.ncu);
    let plan = match &args.tuned {
        Some(run) => with_winner_of(run, plan, &mut options)?,
        None if args.tune => with_winner(layout, plan, &mut options)?,
        None => plan,
    };
    let outcome = validate(layout, &plan, &options)?;
    show(&outcome, args.measuring.json)?;
    Ok(outcome.decision.exit(args.allow_deferred))
}

fn run_tune(layout: &Layout, args: &TuneArgs) -> Result<Exit> {
    match args.run(layout)? {
        Tuning::Deferred(why) => {
            print(args.json, &json!({"deferred": why}), || format!("DEFERRED ({why})"))?;
            Ok(Exit::Deferred)
        }
        Tuning::Ran(ran) => {
            print(args.json, &json!({"run": ran.run.path, "result": ran.tuned}), || {
                format!("{}\nevidence: {}", ran.report, ran.run.path.display())
            })?;
            Ok(ran.exit())
        }
    }
}

fn show(outcome: &Outcome, json: bool) -> Result<()> {
    print(json, &json!({"run": outcome.run.path, "decision": outcome.decision}), || {
        format!("{}\nevidence: {}", outcome.report, outcome.run.path.display())
    })
}

/// A comparison has no verdict to lead with: its times, and what is wrong with them. Without times, the whole report.
fn show_comparison(outcome: &Outcome, json: bool) -> Result<()> {
    let Some(times) = runs::speedups_of(&outcome.run)? else { return show(outcome, json) };
    let (_, gates, decision) = outcome.run.judgement()?;
    print(json, &json!({"run": outcome.run.path, "decision": decision}), || {
        let open = gates.iter().filter(|g| matches!(g.state, State::Fail | State::Inconclusive { .. }));
        let line = |g: &Gate| format!("{}: {} {} ({}) {}\n", g.variant, g.figure, g.measured, g.threshold, g.state);
        let lines: String = open.map(line).collect();
        format!("{times}\n{lines}no verdict: run a suite with validate\nevidence: {}", outcome.run.path.display())
    })
}

/// The named variants, or all of the suite, or all of the registry.
fn variants(layout: &Layout, names: &[String], suite: Option<&str>) -> Result<Vec<sdpa_kernel::registry::Variant>> {
    use sdpa_kernel::registry;
    match (names, suite) {
        ([], Some(suite)) => Ok(Plan::read(layout, suite, &Changes::default())?.variants),
        ([], None) => registry::names().map(|name| Ok(registry::find(name)?)).collect(),
        (names, _) => names.iter().map(|name| Ok(registry::find(name)?)).collect(),
    }
}

fn build(
    layout: &Layout,
    names: &[String],
    suite: Option<&str>,
    arch: &str,
    export: Option<&Path>,
    json: bool,
) -> Result<Exit> {
    let variants = variants(layout, names, suite)?;
    let toolchain = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}"))?;
    let set = build_all(layout, &toolchain, &variants, &[arch.to_owned()])?;
    if let Some(folder) = export {
        for record in xtask::export::export(&set, folder)? {
            eprintln!("exported {}", record.display());
        }
    }
    let evidence = set.evidence();
    print(json, &evidence, || xtask::build::render(&set))?;
    Ok(Exit::fix_if(!evidence.failures.is_empty()))
}

/// A run of its own: outputs are verified, nothing is timed, control and variants are profiled.
fn run_ncu(
    layout: &Layout,
    variants: Vec<String>,
    against: &str,
    shape: &str,
    out: Option<PathBuf>,
    json: bool,
) -> Result<Exit> {
    let named: Vec<String> = if variants.is_empty() {
        Plan::read(layout, "stage5", &Changes::default())?.suite.candidates.into_iter().map(|c| c.variant).collect()
    } else {
        variants
    };
    let candidates = named.into_iter().filter(|variant| variant != against).collect();
    let plan = Plan::profiling(against, candidates, shape)?;
    let options = Options {
        device: DeviceChoice::Auto,
        out,
        resume: None,
        timing: Timing { wanted: false, peers: PeerChoice::None },
        ncu: true,
        attachments: Vec::new(),
    };
    let outcome = validate(layout, &plan, &options)?;
    let profiled = xtask::profile::Profiled::of(&outcome.run)?;
    print(json, &profiled, || format!("{}\nevidence: {}", profiled.text, outcome.run.path.display()))?;
    Ok(profiled.exit())
}

fn run_sanitize(layout: &Layout, names: &[String], options: &sanitize::Options, json: bool) -> Result<Exit> {
    let variants = variants(layout, names, None)?;
    let logs = layout.target.join("sanitize");
    match sanitize::sanitize(layout, &variants, &logs, options)? {
        Sanitizing::Deferred(why) => {
            print(json, &json!({"deferred": why}), || format!("DEFERRED ({why})"))?;
            Ok(Exit::Deferred)
        }
        Sanitizing::Ran(results) if results.is_empty() => bail!("nothing was run"),
        Sanitizing::Ran(results) => {
            print(json, &results, || sanitize::render(&results))?;
            let any = |state| results.iter().any(|r| r.state == state);
            let deferred = any(sanitize::State::Deferred).then_some(Exit::Deferred);
            Ok(Exit::of_all(deferred.into_iter().chain([Exit::fix_if(any(sanitize::State::Found))])))
        }
    }
}
