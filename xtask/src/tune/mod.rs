//! `tune`: searches the toggles of the ladder for a faster variant. What is tried next and who wins is `kbench::tune`'s;
//! here configurations are built ahead, measured on every GPU at once, written down, and the finalists met again.

mod builder;
mod compare;
mod equipment;
mod finals;
mod gpus;
mod journal;
mod measure;
mod meeting;
mod profiling;
mod proposer;
mod queue;
mod record;
mod session;
mod share;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::exit::Exit;
use kbench::suite::{Candidate, Suite};
use kbench::tune::{Dimension, Layer, Plan, Space, SpaceError, Toggles, Tuned, conclude, render};
use sdpa_kernel::registry::{self, RegistryError, Variant};
use sdpa_kernel::{space, toggles};

use crate::console;
use crate::entropy;
use crate::environment::SourceState;
use crate::files::folders_below;
use crate::interrupt;
use crate::layout::{Layout, program};
use crate::plan::{DeviceChoice, Plan as SuitePlan};
use crate::run_dir::RunDir;
use crate::scratch::Scratch;

pub use record::{RESULT_FILE, WINNER, foreign_winner, is_in, result, verify};
pub use worker::{Progress, Worker, found, offer, planned, progress, work};

use equipment::equipment;
use journal::Journal;
use record::{FINALS_FILE, JOURNAL_FILE, PLAN_FILE, profiled};
use session::{Parts, Session};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shape that is timed; the suite's first gate on time, or its first timed shape, without.
    pub shape: Option<String>,
    pub budget: u32,
    pub elites: usize,
    /// Seed of the search.
    pub seed: u64,
    /// Evaluations without a change after which the search ends.
    pub patience: u32,
    /// Seconds after which nothing new is proposed; 0 is no limit.
    pub time_limit_s: u64,
    /// The only values of some dimensions.
    pub only: BTreeMap<String, Vec<u32>>,
    /// Whether the rest of the space is evaluated too.
    pub exhaustive: bool,
    /// Whether elites are profiled.
    pub ncu: bool,
    /// GPUs to use at most.
    pub gpus: Option<usize>,
    /// Command of an external proposer.
    pub proposer: Option<String>,
    /// How long it may think.
    pub proposer_patience: Duration,
    pub device: DeviceChoice,
    /// Where the run directory goes.
    pub out: Option<PathBuf>,
    /// An interrupted run to continue; the plan is then that run's.
    pub resume: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shape: None,
            budget: 32,
            elites: 3,
            seed: 0,
            patience: 24,
            time_limit_s: 0,
            only: BTreeMap::new(),
            exhaustive: false,
            ncu: false,
            gpus: None,
            proposer: None,
            proposer_patience: Duration::from_secs(60),
            device: DeviceChoice::Auto,
            out: None,
            resume: None,
        }
    }
}

/// What a search came to.
pub enum Tuning {
    /// It could not begin.
    Deferred(Deferral),
    Ran(Box<Ran>),
}

/// A search that ran.
pub struct Ran {
    pub run: RunDir,
    pub tuned: Tuned,
    /// The result as a terminal shows it.
    pub report: String,
}

impl Ran {
    /// Good with a settled winner; nothing accepted is something to fix.
    pub fn exit(&self) -> Exit {
        match (&self.tuned.winner, &self.tuned.deferred, &self.tuned.inconclusive) {
            (Some(_), _, None) => Exit::Good,
            (Some(_), _, Some(_)) | (None, Some(_), _) => Exit::Deferred,
            (None, None, _) => Exit::Fix,
        }
    }

    /// A suite with the winner as one more candidate, and the files that say where it comes from.
    pub fn add_to(&self, mut suite: Suite) -> Result<(Suite, Vec<(RunDir, String)>)> {
        let mut files = [JOURNAL_FILE, PLAN_FILE, FINALS_FILE, RESULT_FILE].map(str::to_owned).to_vec();
        let lines = journal::read(&self.run, JOURNAL_FILE)?;
        files.extend(profiled(&lines).filter_map(|kernel| kernel.csv.clone()));
        match &self.tuned.winner {
            Some(winner) => {
                suite.define(WINNER, &winner.patch);
                suite.candidates.push(Candidate::of(WINNER));
            }
            None => suite.narrowed.push(Deferral::new("the search named no winner", "see elite.json")),
        }
        Ok((suite, files.into_iter().map(|file| (self.run.clone(), file)).collect()))
    }
}

/// Searches under a suite: its control, architecture and limits.
pub fn tune(layout: &Layout, suite: &SuitePlan, options: &Options) -> Result<Tuning> {
    if options.budget == 0 || options.elites == 0 || options.patience == 0 {
        bail!("--budget, --elites and --patience must be at least 1");
    }
    let (begun, started) = (Instant::now(), jiff::Timestamp::now());
    let base = &suite.suite;
    let control = control_of(suite)?;
    let mut equipment = match equipment(layout, base, options)? {
        Ok(equipment) => equipment,
        Err(why) => return Ok(Tuning::Deferred(why)),
    };
    let (run, plan, space) = begin(layout, base, control, options, &equipment.source)?;
    folders_below(&run.path, Path::new("logs"))?;
    equipment.log_to(&run.logs());
    equipment.basis(base, &plan)?.hold(&run)?;
    run.write_json("ENV.json", &equipment.environment(started))?;
    let shown = run.shown();
    let _said = interrupt::words(move || {
        format!("every configuration that was measured is kept\ngo on with: {} tune --resume {shown}", program())
    });
    let scratch = Scratch::new(&layout.target, "sdpa-tune-")?;
    let _room = interrupt::folder(scratch.path());
    let parts = Parts {
        layout,
        base,
        control,
        plan: &plan,
        space: &space,
        toolchain: &equipment.toolchain,
        gpus: &equipment.gpus,
        executor: equipment.executor,
        runner: &equipment.runner,
        scratch: scratch.path(),
        run: &run.path,
        started: begun,
        share: None,
        row_seed: entropy::seed()?,
    };
    let tuned = search(parts, &run, options);
    // What was written stays: whoever mends the cause goes on from there.
    let tuned = tuned.with_context(|| format!("continue with `tune --resume {}`", run.path.display()))?;
    Ok(Tuning::Ran(Box::new(seal(run, tuned)?)))
}

/// A suite's variants begin with its control.
fn control_of(suite: &SuitePlan) -> Result<&Variant> {
    suite.variants.first().context("a suite has a control")
}

/// Writes the result of a run in which everything that it follows from lies, and seals the run.
fn seal(run: RunDir, tuned: Tuned) -> Result<Ran> {
    run.write_json(RESULT_FILE, &tuned)?;
    run.write("REPORT.md", &format!("{}\n", render(&tuned, None)))?;
    run.seal()?;
    let report = render(&tuned, Some(console::columns()));
    Ok(Ran { run, tuned, report })
}

/// Searches, meets the finalists again, and keeps what they were built as.
fn search(parts: Parts, run: &RunDir, options: &Options) -> Result<Tuned> {
    let session = Session::new(parts);
    let mut journal = Journal::open(&run.path.join(JOURNAL_FILE))?;
    let finals = session.building(|| {
        session.search(&mut journal, options)?;
        let finals = match run.read_written(FINALS_FILE)? {
            Some(finals) => finals,
            None => session.finals(&mut journal)?,
        };
        session.keep(&finals, run)?;
        Ok(finals)
    })?;
    Ok(conclude(parts.plan, journal.lines(), &finals))
}

/// The run directory with its plan, new or resumed.
fn begin(
    layout: &Layout,
    base: &Suite,
    control: &Variant,
    options: &Options,
    source: &SourceState,
) -> Result<(RunDir, Plan, Space)> {
    if let Some(path) = &options.resume {
        let run = RunDir::open_unfinished(path)?;
        let Some(plan) = run.read_written::<Plan>(PLAN_FILE)? else {
            bail!("`{}` cannot be resumed without its {PLAN_FILE}; start a new search", path.display());
        };
        let space = space_of(plan.dimensions.clone(), control)?;
        return Ok((run, plan, space));
    }
    let (plan, space) = plan_of(base, control, options)?;
    let parent = options.out.clone().unwrap_or_else(|| layout.runs());
    let run = RunDir::create(&parent, source.short_commit(), &base.name)?;
    run.write("suite.toml", &toml::to_string(base)?)?;
    run.write_json(PLAN_FILE, &plan)?;
    Ok((run, plan, space))
}

/// The suite as a search has it: its name says so, and it can never be taken for a validation.
pub fn suite_for_search(mut suite: Suite) -> Suite {
    if !suite.name.starts_with("tune-") {
        suite.name = format!("tune-{}", suite.name);
        suite.narrowed.push(Deferral::new(
            "a search looks at one seed and times one shape",
            "judge its winner with `validate --tune`",
        ));
    }
    suite
}

fn plan_of(base: &Suite, control: &Variant, options: &Options) -> Result<(Plan, Space)> {
    let dimensions = space::dimensions().map(|(toggle, search)| Dimension {
        name: toggle.name.to_owned(),
        short: search.short.to_owned(),
        layer: match search.layer {
            toggles::Layer::Macro => Layer::Macro,
            toggles::Layer::Micro => Layer::Micro,
            toggles::Layer::Switch => Layer::Switch,
        },
        values: search.values.to_vec(),
    });
    let dimensions = Space::narrowed(dimensions.collect(), &options.only).map_err(|e| anyhow::anyhow!("--set: {e}"))?;
    let space = space_of(dimensions.clone(), control)?;
    let gated = base.performance.first().map(|limit| limit.shape.clone());
    let shape = options.shape.clone().or(gated).or(base.time_shapes.first().cloned());
    let shape = shape.context("the suite times no shape: name one with --shape")?;
    base.shape(&shape)?;
    let own = base.candidates.iter().map(|c| c.variant.clone());
    let named: Vec<String> = own.chain(registry::names().map(str::to_owned)).collect();
    let mut starts: Vec<Toggles> = Vec::new();
    for found in named.iter().filter_map(|name| registry::find(name).ok()).filter_map(|v| space::configuration(&v)) {
        if space.examine(&found) == Ok(None) && !starts.contains(&found) {
            starts.push(found);
        }
    }
    let plan = Plan {
        suite: base.name.clone(),
        control: base.control.clone(),
        shape,
        seed: options.seed,
        budget: options.budget,
        elites: options.elites,
        patience: options.patience,
        time_limit_s: options.time_limit_s,
        exhaustive: options.exhaustive,
        ncu: options.ncu,
        proposer: options.proposer.clone(),
        dimensions,
        valid: space.valid().len(),
        starts,
    };
    Ok((plan, space))
}

/// Every combination that the registry accepts, but for the control itself.
fn space_of(dimensions: Vec<Dimension>, control: &Variant) -> Result<Space, SpaceError> {
    Space::new(dimensions, |toggles| match space::variant("x", toggles) {
        Err(RegistryError::Refused { rule, .. }) => Some(rule.to_owned()),
        Err(other) => Some(other.to_string()),
        Ok(variant) if variant.toggles == control.toggles => Some("this is the control".to_owned()),
        Ok(_) => None,
    })
}
