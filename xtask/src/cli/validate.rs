//! `validate`, and the two commands that are a part of it without a verdict on time: `bench` and `ncu`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use kbench::decision::Decision;
use kbench::exit::Exit;
use kbench::gate::{Gate, State};
use kbench::report::brief_times;
use serde_json::json;

use super::gpu::GpuArgs;
use super::print::print;
use super::suite::{Choice, GROUP, usage};
use crate::against::Against;
use crate::console;
use crate::gpus::GpuChoice;
use crate::inspect::{self, ReportFormat, Screen};
use crate::layout::Layout;
use crate::peers::PeerChoice;
use crate::plan::{Changes, DeviceChoice, Plan, suites};
use crate::profile::Profiled;
use crate::run_dir::RunDir;
use crate::runs::{speedups_of, with_view};
use crate::signature;
use crate::timing::Timing;
use crate::validate::{Options, Outcome, SameCode, validate};
use crate::winner::{with_winner, with_winner_of};

/// What `bench` and `ncu` compare with where nothing else is said.
const USUAL_CONTROL: &str = "stage2";

#[derive(Args)]
#[command(override_usage = usage("validate [GATE.toml | SUITE | --<SUITE> | --all] [OPTIONS]"))]
pub struct ValidateArgs {
    /// Every suite that comes with the project, one after the other, and one summary.
    #[arg(long, conflicts_with_all = [GROUP, "resume"])]
    all: bool,
    /// 10 launches on the shape `small`: shows that everything works; can never MERGE.
    #[arg(long)]
    smoke: bool,
    /// Pass over what is DEFERRED or INCONCLUSIVE in the exit status.
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
    /// Continue an interrupted run under its own suite.
    #[arg(long, value_name = "RUN", conflicts_with_all = [GROUP, "out", "shapes", "seeds", "iters", "warmup", "smoke"])]
    resume: Option<PathBuf>,
    /// Judge what a change made of a gate file's variants: each that is other code beside itself as it was at this revision,
    /// by the gate file and the reference of the revision.
    #[arg(long, value_name = "REV", conflicts_with_all = ["all", "resume", "tune", "tuned", "sign", "smoke"])]
    against: Option<String>,
    /// Sign the sealed run with this private key of SSH; it is signed by nobody without.
    #[arg(long, value_name = "KEY", conflicts_with = "all")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    measuring: MeasuringArgs,
    #[command(flatten)]
    suite: Choice<true>,
}

#[derive(Args)]
struct MeasuringArgs {
    /// Where cases run.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    gpu: GpuArgs,
    /// GPUs of one model that share the work, each shape timed on one of them: all, how many, or a list of unique ids, or of
    /// numbers as CUDA counts them; the first without.
    #[arg(long, value_name = "all|N|LIST", conflicts_with = "gpu")]
    gpus: Option<GpuChoice>,
    /// Run only these shapes; part of a suite can never MERGE.
    #[arg(long, value_delimiter = ',', value_name = "SHAPE,...")]
    shapes: Option<Vec<String>>,
    /// Run these seeds and no fresh one, to see again what one showed; such a run can never MERGE.
    #[arg(long, value_delimiter = ',', value_name = "SEED,...")]
    seeds: Option<Vec<u64>>,
    /// Draw orders and places of blocks by the `seed` that samples.json of another run has, to see again what it showed;
    /// such a run can never MERGE.
    #[arg(long, value_name = "SEED")]
    draw: Option<u64>,
    /// Launches of a timed block.
    #[arg(long, value_name = "N")]
    iters: Option<u32>,
    /// Untimed launches before a block.
    #[arg(long, value_name = "N")]
    warmup: Option<u32>,
    /// Peers to measure: auto (those that the suite names), none, or names: torch,cudnn,fa3.
    #[arg(long, default_value = "auto", value_name = "auto|none|NAME,...")]
    peers: PeerChoice,
    /// The folder that the run directory goes to.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print every table and every gate, in their own width.
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Print the decision as JSON instead of the report.
    #[arg(long)]
    json: bool,
}

impl MeasuringArgs {
    fn changes(&self, smoke: bool) -> Changes {
        Changes {
            shapes: self.shapes.clone(),
            seeds: self.seeds.clone(),
            draw: self.draw,
            iterations: self.iters,
            warmup: self.warmup,
            smoke,
            peers: self.peers.clone(),
        }
    }

    fn options(&self) -> Result<Options> {
        self.gpu.alone()?;
        let device = match (&self.gpus, self.device) {
            // As with --gpu, whoever asks for GPUs wants no emulator in their place.
            (Some(_), DeviceChoice::Emulator) => bail!("--gpus chooses among GPUs, and --device emulator uses none"),
            (Some(_), _) => DeviceChoice::Gpu,
            (None, device) => self.gpu.device(device)?,
        };
        Ok(Options {
            device,
            gpus: self.gpus.clone().unwrap_or_default(),
            out: self.out.clone(),
            resume: None,
            fresh_seed: self.seeds.is_none(),
            timing: Timing { wanted: true, peers: self.peers.clone(), draw: self.draw },
            ncu: false,
            attachments: Vec::new(),
        })
    }
}

pub fn run(args: &ValidateArgs) -> Result<Exit> {
    let layout = Layout::find()?;
    if args.all {
        return run_all(&layout, args);
    }
    if let Some(revision) = &args.against {
        let gate = args.suite.named().filter(|name| name.ends_with(".toml"));
        let gate = gate.context("--against takes a gate file, as in validate GATE.toml --against main")?;
        return run_against(gate, revision, args.allow_deferred, &args.measuring);
    }
    let plan = match &args.resume {
        None => Plan::read(&layout, args.suite.or_usual(), &args.measuring.changes(args.smoke))?,
        Some(path) => Plan::of(
            RunDir::open(path)?.suite()?,
            &RunDir::open(path)?.operator_folder(),
            &args.measuring.changes(false),
        )?,
    };
    let mut options = Options { resume: args.resume.clone(), ncu: args.ncu, ..args.measuring.options()? };
    let plan = match &args.tuned {
        Some(run) => with_winner_of(run, plan, &mut options)?,
        None if args.tune => with_winner(&layout, plan, &mut options)?,
        None => plan,
    };
    let outcome = validate(&layout, &plan, &options)?;
    show(&outcome, &args.measuring)?;
    if let Some(key) = &args.sign
        && let Err(why) = signature::sign(&outcome.run, key)?
    {
        console::line(&format!("not signed: {why}"));
    }
    Ok(outcome.decision.exit(args.allow_deferred))
}

/// Each variant that is other code than at the revision is judged beside itself as it was. The exit status is that of all runs
/// together, and good where nothing is there to be judged.
fn run_against(gate: &str, revision: &str, allow_deferred: bool, args: &MeasuringArgs) -> Result<Exit> {
    let layout = Layout::find()?;
    let against = Against::read(&layout, gate.as_ref(), revision)?;
    let (changes, options) = (args.changes(false), args.options()?);
    let judged_otherwise = against.judged_otherwise();
    let differences = [judged_otherwise.clone(), against.changed()].concat();
    let of = format!("{} ({})", against.revision, against.asked);
    for line in &differences {
        console::line(&format!("{:>10} {line}", "changed"));
    }
    if !judged_otherwise.is_empty() {
        console::line(&format!("{:>10} what judges is that of {of}", "against"));
    }
    // Every plan is made before the first run, so that what is wrong with the last one is said now.
    let touched = against.variants().filter(|variant| !against.is_untouched(variant));
    let plans = touched.map(|variant| against.plan(variant, &changes)).collect::<Result<Vec<_>>>()?;
    let (mut runs, mut exits) = (Vec::new(), Vec::new());
    for plan in plans {
        let (variant, control) = (&plan.suite.candidates[0].variant, &plan.suite.control);
        console::line(&format!("{:>10} {variant} beside {control}", "against"));
        match validate(&layout, &plan, &options) {
            Ok(outcome) => {
                if !args.json {
                    show(&outcome, args)?;
                }
                exits.push(outcome.decision.exit(allow_deferred));
                let (run, root) = (outcome.run.shown(), &outcome.root);
                runs.push(json!({"variant": variant, "run": run, "root": root, "decision": outcome.decision}));
            }
            Err(error) if error.is::<SameCode>() => {
                console::line(&format!("{:>10} {variant} is the code that it was", "against"));
            }
            Err(error) => return Err(error),
        }
    }
    let value = json!({"against": against.revision, "differences": differences, "runs": runs});
    if args.json || runs.is_empty() {
        print(args.json, &value, || format!("nothing to judge: every variant is the code of {of}"))?;
    }
    Ok(Exit::of_all(exits))
}

/// Where a run is, from here.
fn near(run: &RunDir) -> String {
    let here = std::env::current_dir().ok();
    here.and_then(|here| Some(run.path.strip_prefix(here).ok()?.display().to_string())).unwrap_or_else(|| run.shown())
}

/// Every plan is read before the first suite runs, so that what is wrong with the last one is said now.
fn run_all(layout: &Layout, args: &ValidateArgs) -> Result<Exit> {
    let changes = args.measuring.changes(args.smoke);
    let plans = suites(layout).into_iter().map(|(name, _)| Plan::read(layout, &name, &changes));
    let options = Options { ncu: args.ncu, ..args.measuring.options()? };
    let mut decided = Vec::new();
    for plan in plans.collect::<Result<Vec<_>>>()? {
        console::line(&format!("suite {}: {}", plan.suite.name, plan.suite.about));
        let outcome = validate(layout, &plan, &options)?;
        decided.push((plan.suite.name, outcome.run.shown(), outcome.decision));
    }
    let json: Vec<_> = decided.iter().map(|(name, run, d)| json!({"suite": name, "run": run, "decision": d})).collect();
    print(args.measuring.json, &json, || decided.iter().map(summary).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::of_all(decided.iter().map(|(.., decision)| decision.exit(args.allow_deferred))))
}

fn summary((name, run, decision): &(String, String, Decision)) -> String {
    let c = &decision.counts;
    let verdicts = decision.named().iter().map(|one| format!("  {}\n", one.line()));
    format!(
        "{name}: {} PASS, {} FAIL, {} DEFERRED, {} INCONCLUSIVE; {run}\n{}",
        c.pass,
        c.fail,
        c.deferred,
        c.inconclusive,
        verdicts.collect::<String>().trim_end()
    )
}

fn show(outcome: &Outcome, args: &MeasuringArgs) -> Result<()> {
    let (run, root) = (near(&outcome.run), &outcome.root);
    let screen = Screen { width: console::width(), full: args.full };
    let text = inspect::report(&outcome.run, ReportFormat::Table, screen)?;
    let more = if args.full { "" } else { " (REPORT.md, report.html; --full prints all)" };
    print(args.json, &json!({"run": outcome.run.shown(), "root": root, "decision": outcome.decision}), || {
        format!("{text}\nevidence: {run}{more}\nroot {root}")
    })
}

#[derive(Args)]
pub struct BenchArgs {
    /// Variants to time.
    #[arg(required = true, value_name = "VARIANT")]
    variants: Vec<String>,
    /// The control: what they are compared with.
    #[arg(long, default_value = USUAL_CONTROL, value_name = "VARIANT")]
    against: String,
    #[command(flatten)]
    measuring: MeasuringArgs,
}

pub fn bench(args: &BenchArgs) -> Result<Exit> {
    let plan = Plan::comparison(&args.against, &args.variants, &args.measuring.changes(false))?;
    let outcome = validate(&Layout::find()?, &plan, &args.measuring.options()?)?;
    show_comparison(&outcome, &args.measuring)?;
    Ok(match outcome.decision.counts.fail {
        0 if outcome.complete => Exit::Good,
        0 => Exit::Deferred,
        _ => Exit::Fix,
    })
}

/// A comparison has no verdict to lead with: its times, and what is wrong with them. Without times, the whole report.
fn show_comparison(outcome: &Outcome, args: &MeasuringArgs) -> Result<()> {
    let Some(speedups) = speedups_of(&outcome.run)? else { return show(outcome, args) };
    let times = if args.full { speedups } else { with_view(&outcome.run, |view| brief_times(view, console::width()))? };
    let (_, gates, decision) = outcome.run.judgement()?;
    let run = outcome.run.shown();
    print(args.json, &json!({"run": run, "decision": decision}), || {
        let open = gates.iter().filter(|g| matches!(g.state, State::Fail | State::Inconclusive { .. }));
        let line = |g: &Gate| format!("{}: {} {} ({}) {}\n", g.variant, g.figure, g.measured, g.threshold, g.state);
        let lines: String = open.map(line).collect();
        format!("{times}\n{lines}no verdict: run a suite with validate\nevidence: {run}")
    })
}

#[derive(Args)]
pub struct NcuArgs {
    /// Variants; the candidates of the suite stage5 when none is named.
    #[arg(value_name = "VARIANT")]
    variants: Vec<String>,
    /// The control: what they are compared with.
    #[arg(long, default_value = USUAL_CONTROL, value_name = "VARIANT")]
    against: String,
    /// The shape on which they are profiled.
    #[arg(long, default_value = "mission")]
    shape: String,
    #[command(flatten)]
    gpu: GpuArgs,
    /// The folder that the run directory goes to.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print figures, gates and diagnoses as JSON.
    #[arg(long)]
    json: bool,
}

/// A run of its own: outputs are verified, nothing is timed, control and variants are profiled.
pub fn ncu(args: &NcuArgs) -> Result<Exit> {
    args.gpu.alone()?;
    let layout = Layout::find()?;
    let named: Vec<String> = if args.variants.is_empty() {
        let usual = Plan::read(&layout, "stage5", &Changes::default())?;
        usual.suite.candidates.into_iter().map(|c| c.variant).collect()
    } else {
        args.variants.clone()
    };
    let candidates = named.into_iter().filter(|variant| *variant != args.against).collect();
    let plan = Plan::profiling(&args.against, candidates, &args.shape)?;
    let options = Options {
        device: args.gpu.device(DeviceChoice::Auto)?,
        gpus: GpuChoice::First,
        out: args.out.clone(),
        resume: None,
        fresh_seed: false,
        timing: Timing { wanted: false, peers: PeerChoice::none(), draw: None },
        ncu: true,
        attachments: Vec::new(),
    };
    let outcome = validate(&layout, &plan, &options)?;
    let profiled = Profiled::of(&outcome.run)?;
    print(args.json, &profiled, || format!("{}\nevidence: {}", profiled.text, outcome.run.shown()))?;
    Ok(profiled.exit())
}
