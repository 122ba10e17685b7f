//! A batch of configurations on one device: gates on the builds, launches in one process, errors against float64, then
//! rounds beside the control. What fails a gate goes no further; what comes back is evidence like a run's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use kbench::evidence::{CheckedCase, Checks, EMULATOR, LaunchOutcome, Peers, Samples, TimingFailure};
use kbench::gate::{Gate, State};
use kbench::job::{BenchJob, Event, Executor, Job, Module, output_file};
use kbench::judge::{Evidence, emulated_problems, judge_builds, judge_checks, problems};
use kbench::shape::Problem;
use kbench::suite::Suite;
use kbench::tune::{Activity, Span};

use super::gpus::Gpu;
use crate::build::BuildSet;
use crate::float64::errors_of;
use crate::plan::Plan;
use crate::runner::End;
use crate::validate::{BENCH_SILENCE, LAUNCH_SILENCE, Work, launch_all, launch_job, verified_outputs};

/// Where a batch is measured.
#[derive(Clone, Copy)]
pub struct Station<'a> {
    /// The GPU.
    gpu: &'a Gpu,
    /// What executes.
    executor: Executor,
}

impl<'a> Station<'a> {
    /// A GPU, or what stands in for it.
    pub fn of(gpu: &'a Gpu, executor: Executor) -> Station<'a> {
        Station { gpu, executor }
    }

    /// The module of a variant that runs here.
    pub fn module(&self, plan: &Plan, builds: &BuildSet, scratch: &Path, variant: &str) -> Option<Module> {
        self.work(plan, builds, scratch).modules().into_iter().find(|module| module.variant == variant)
    }

    fn work<'w>(&self, plan: &'w Plan, builds: &'w BuildSet, scratch: &'w Path) -> Work<'w>
    where
        'a: 'w,
    {
        let Gpu { runner, found, .. } = self.gpu;
        Work { plan, builds, runner, found, executor: Some(self.executor), scratch }
    }
}

/// A clock that remembers what its time was spent on.
pub struct Watch {
    session: Instant,
    last: f64,
    /// Everything so far, one after the other.
    pub spans: Vec<Span>,
}

impl Watch {
    /// Starts now, in a session that began then.
    pub fn start(session: Instant) -> Watch {
        Watch { session, last: session.elapsed().as_secs_f64(), spans: Vec::new() }
    }

    /// What has passed since the last call was spent on this.
    pub fn spent_on(&mut self, activity: Activity) {
        let now = self.session.elapsed().as_secs_f64();
        self.spans.push(Span { activity, from: self.last, to: now });
        self.last = now;
    }
}

/// Evidence about the candidates of a plan. An error is one of ours; a kernel's is in the evidence.
pub fn measure(
    station: &Station,
    plan: &Plan,
    builds: &BuildSet,
    scratch: &Path,
    order_seed: u64,
    watch: &mut Watch,
) -> Result<Evidence> {
    let mut evidence = Evidence { builds: builds.evidence(), ..Evidence::default() };
    let problems = problems_of(station, &plan.suite);
    let Some(checks) = check(station, plan, builds, scratch, &problems, watch)? else { return Ok(evidence) };
    evidence.checks = checks;
    evidence.samples = time(station, plan, builds, scratch, &evidence.checks, order_seed, watch)?;
    Ok(evidence)
}

/// Everything that a batch is checked on.
pub fn problems_of(station: &Station, suite: &Suite) -> Vec<Problem> {
    if station.executor == Executor::Emulator { emulated_problems(suite) } else { problems(suite) }
}

/// Launches every variant whose build holds on these problems, and compares all outputs. `None` where there is no problem,
/// or only the control is left, about which nobody asks.
pub fn check(
    station: &Station,
    plan: &Plan,
    builds: &BuildSet,
    scratch: &Path,
    problems: &[Problem],
    watch: &mut Watch,
) -> Result<Option<Checks>> {
    let work = station.work(plan, builds, scratch);
    let gates = judge_builds(&plan.suite, &builds.evidence());
    let modules = surviving(&plan.suite, &gates, work.modules())?;
    if problems.is_empty() || modules.iter().all(|m| m.variant == plan.suite.control) {
        return Ok(None);
    }
    let outcomes = launch(station, &work, &modules, problems)?;
    watch.spent_on(Activity::Launches);
    let subjects: Vec<&str> = modules.iter().map(|m| m.variant.as_str()).collect();
    let (mut errors, broke_off) = errors_of(&work, "errors", &subjects, problems, |_, _, _| {})?;
    watch.spent_on(Activity::Errors);
    if let Some(why) = broke_off {
        bail!("comparing with float64 broke off: {why}");
    }
    let mut cases = Vec::new();
    for (module, outcomes) in modules.iter().zip(outcomes) {
        for launch in outcomes {
            let errors = errors.remove(&(module.variant.clone(), launch.problem.id()));
            cases.push(CheckedCase { variant: module.variant.clone(), launch, errors });
        }
    }
    let device = match &station.gpu.found.device {
        _ if station.executor == Executor::Emulator => Some(EMULATOR.to_owned()),
        device => device.as_ref().map(|(device, _)| format!("gpu: {}", device.name)),
    };
    Ok(Some(Checks { device, deferred: None, cases }))
}

/// Times what was checked and holds.
pub fn time(
    station: &Station,
    plan: &Plan,
    builds: &BuildSet,
    scratch: &Path,
    checks: &Checks,
    order_seed: u64,
    watch: &mut Watch,
) -> Result<Samples> {
    let work = station.work(plan, builds, scratch);
    if let Some(why) = work.why_nothing_is_timed() {
        return Ok(Samples { deferred: Some(why), ..Samples::default() });
    }
    let evidence = builds.evidence();
    let modules = surviving(&plan.suite, &judge_builds(&plan.suite, &evidence), work.modules())?;
    let modules = surviving(&plan.suite, &judge_checks(&plan.suite, &evidence, checks), modules)?;
    if modules.iter().all(|m| m.variant == plan.suite.control) {
        return Ok(Samples::default());
    }
    let samples = rounds(station, &work, modules, checks, order_seed);
    watch.spent_on(Activity::Timing);
    samples
}

/// Modules of variants that fail none of the gates. Without its control nothing can be measured.
fn surviving(suite: &Suite, gates: &[Gate], mut modules: Vec<Module>) -> Result<Vec<Module>> {
    let fails = |variant: &str| gates.iter().find(|g| g.variant == variant && g.state == State::Fail);
    if let Some(gate) = fails(&suite.control) {
        bail!(
            "the control `{}` fails `{}`: {}; nothing can be compared with it",
            suite.control,
            gate.figure,
            gate.measured
        );
    }
    modules.retain(|m| fails(&m.variant).is_none());
    Ok(modules)
}

/// Launches every module on every problem. On a GPU in its resident, because the start of a process takes longer than its
/// launches; whoever has no good outcome after that is launched again in a process of its own, so that nobody's fault is
/// another's.
fn launch(station: &Station, work: &Work, modules: &[Module], problems: &[Problem]) -> Result<Vec<Vec<LaunchOutcome>>> {
    let mut done = match work.executor {
        Some(Executor::Gpu) => launch_together(station.gpu, work, modules, problems)?,
        _ => BTreeMap::new(),
    };
    let rest = |module: &Module, done: Vec<LaunchOutcome>| {
        let out_dir = BenchJob::output_dir(work.scratch, &module.variant);
        for problem in &problems[done.len()..] {
            // An output that was written in company is nobody's outcome.
            let _ = std::fs::remove_file(out_dir.join(output_file(problem)));
        }
        launch_all(work, module, problems, &out_dir, done, &|_, _| {})
    };
    let rest = &rest;
    std::thread::scope(|scope| {
        let start = |module: &'_ Module| {
            let (module, done) = (module.clone(), done.remove(&module.variant).unwrap_or_default());
            scope.spawn(move || rest(&module, done))
        };
        let threads: Vec<_> = modules.iter().map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a launch thread died")))).collect()
    })
}

/// Good outcomes of the first problems, by variant, of launches in one process.
fn launch_together(
    gpu: &Gpu,
    work: &Work,
    modules: &[Module],
    problems: &[Problem],
) -> Result<BTreeMap<String, Vec<LaunchOutcome>>> {
    let job =
        |module: &Module| launch_job(work, module, problems, &BenchJob::output_dir(work.scratch, &module.variant));
    let jobs = modules.iter().map(job).collect::<Result<Vec<_>>>()?;
    let mut found: BTreeMap<String, Vec<LaunchOutcome>> = BTreeMap::new();
    // However it ends: what has no good outcome is launched again.
    gpu.resident().run(&gpu.runner, &Job::LaunchBatch { jobs }, LAUNCH_SILENCE, |event| {
        if let Event::LaunchedOf { variant, outcome } = event {
            found.entry(variant).or_default().push(outcome);
        }
    })?;
    for outcomes in found.values_mut() {
        let good = |(outcome, problem): &(&LaunchOutcome, &Problem)| {
            outcome.failure.is_none() && outcome.problem == **problem && outcome.output_sha256.is_some()
        };
        let count = outcomes.iter().zip(problems).take_while(good).count();
        outcomes.truncate(count);
    }
    Ok(found)
}

/// Times the modules. A kernel that takes its process with it has failed; the others are timed again without it.
fn rounds(
    station: &Station,
    work: &Work,
    mut modules: Vec<Module>,
    checks: &Checks,
    order_seed: u64,
) -> Result<Samples> {
    let gpu = station.gpu;
    let suite = &work.plan.suite;
    let mut lost: Vec<TimingFailure> = Vec::new();
    let mut ours = 0;
    loop {
        let job = BenchJob {
            suite: suite.clone(),
            modules: modules.clone(),
            verified: verified_outputs(checks),
            peers: Vec::new(),
            work_dir: work.scratch.to_owned(),
            order_seed,
        };
        let (mut timed, mut running) = (None, None);
        let job = Job::Bench(Box::new(job));
        let end = gpu.resident().run(&gpu.runner, &job, BENCH_SILENCE, |event| match event {
            Event::Timing { shape, subject } => running = Some((shape, subject)),
            Event::Timed { samples, peers } => timed = Some((*samples, *peers)),
            _ => {}
        })?;
        if let Some((mut samples, Peers { .. })) = timed {
            samples.failures.extend(lost);
            return Ok(samples);
        }
        let why = match end {
            End::Done => "the runner ended without samples".to_owned(),
            End::Error(why) | End::Lost(why) => why,
        };
        let left: BTreeSet<&str> = modules.iter().map(|m| m.variant.as_str()).collect();
        match running {
            Some((shape, subject)) if subject != suite.control && left.contains(subject.as_str()) => {
                modules.retain(|m| m.variant != subject);
                lost.push(TimingFailure { shape, subject, why });
            }
            _ if ours == 0 => ours += 1,
            _ => return Err(anyhow!("{why}")).context("timing broke off twice, and no candidate was running"),
        }
    }
}
