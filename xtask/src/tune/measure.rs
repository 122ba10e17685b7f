//! A batch of configurations, measured by all GPUs together: gates on the builds, launches of which each GPU takes a part,
//! errors against float64, then sittings beside the control, which the GPUs share too. What fails a gate goes no further;
//! what comes back is evidence like a run's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use kbench::evidence::{CheckedCase, Checks, EMULATOR, LaunchOutcome, Peers, Samples, TimingFailure};
use kbench::gate::{Gate, State};
use kbench::job::{BenchJob, Event, Executor, Job, Module, output_file};
use kbench::judge::{Evidence, emulated_problems, judge_builds, judge_checks, problems};
use kbench::operator::{Operator, Problem};
use kbench::suite::Suite;
use kbench::tune::{Activity, Rounds, Span};

use super::compare::Comparers;
use super::gpus::Gpu;
use super::meeting::Occasion;
use crate::build::BuildSet;
use crate::plan::Plan;
use crate::runner::End;
use crate::spread::{size, spread, twins};
use crate::work::{BENCH_SILENCE, LAUNCH_SILENCE, Work, launch_all, launch_job, verified_outputs};

/// Elements of the tensors of problems that a GPU takes at once, and how many these are at most.
const SHARE: usize = 4 << 20;
const MOST_OF_SHARE: usize = 8;

#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// GPUs of one model, or what stands in for one.
    pub gpus: &'a [Gpu],
    pub executor: Executor,
    pub comparers: &'a Comparers,
}

impl<'a> Bench<'a> {
    /// The module of a variant that runs here.
    pub fn module(&self, plan: &Plan, builds: &BuildSet, scratch: &Path, variant: &str) -> Result<Module> {
        let work = self.work(self.first()?, plan, builds, scratch);
        let module = work.modules().into_iter().find(|module| module.variant == variant);
        module.with_context(|| format!("`{variant}` was built"))
    }

    fn first(&self) -> Result<&'a Gpu> {
        self.gpus.first().context("something measures")
    }

    fn work<'w>(&self, gpu: &'w Gpu, plan: &'w Plan, builds: &'w BuildSet, scratch: &'w Path) -> Work<'w> {
        let Gpu { runner, found, .. } = gpu;
        Work { plan, builds, runner, found, others: &[], executor: Some(self.executor), scratch }
    }

    /// A watch for every GPU.
    pub fn watches(&self, session: Instant) -> Vec<Watch> {
        self.gpus.iter().map(|_| Watch::start(session)).collect()
    }

    /// Launches every share on whichever GPU is free; what came of them is in their order.
    fn spread<T: Send>(
        &self,
        watches: &mut [Watch],
        shares: Vec<Vec<Problem>>,
        launch: impl Fn(&Gpu, Vec<Problem>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let watches: Vec<Mutex<&mut Watch>> = watches.iter_mut().map(Mutex::new).collect();
        spread(self.gpus.len(), shares, |i, share| {
            let launched = launch(&self.gpus[i], share);
            watches[i].lock().unwrap_or_else(PoisonError::into_inner).spent_on(Activity::Launches);
            launched
        })
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

    /// What has passed since the last call was spent on nothing.
    pub fn idled(&mut self) {
        self.last = self.session.elapsed().as_secs_f64();
    }

    /// What has passed since the last call was spent on this.
    pub fn spent_on(&mut self, activity: Activity) {
        let now = self.session.elapsed().as_secs_f64();
        self.spans.push(Span { activity, from: self.last, to: now });
        self.last = now;
    }
}

/// Configurations that are measured together.
pub struct Batch<'a> {
    /// The suite that they meet under, and their variants.
    pub plan: &'a Plan,
    pub builds: &'a BuildSet,
    /// What they meet for.
    pub occasion: Occasion,
    /// A folder for their outputs.
    pub scratch: &'a Path,
    /// Draws orders and placements.
    pub seed: u64,
}

/// What came of a batch.
pub struct Measured {
    /// Evidence like a run's. What is an error of ours is none.
    pub evidence: Evidence,
    /// Which GPU ran which rounds.
    pub sittings: Vec<Rounds>,
}

/// Evidence about the candidates of a batch. An error is one of ours; a kernel's is in the evidence.
pub fn measure(bench: &Bench, batch: &Batch, watches: &mut [Watch]) -> Result<Measured> {
    let mut evidence = Evidence { builds: batch.builds.evidence(), ..Evidence::default() };
    let Some(checks) = check(bench, batch, watches)? else {
        return Ok(Measured { evidence, sittings: Vec::new() });
    };
    evidence.checks = checks;
    let (samples, sittings) = time(bench, batch, &evidence.checks, watches)?;
    evidence.samples = samples;
    Ok(Measured { evidence, sittings })
}

/// Everything that a batch is checked on.
pub fn problems_of(executor: Executor, suite: &Suite) -> Vec<Problem> {
    if executor == Executor::Gpu { problems(suite) } else { emulated_problems(suite) }
}

/// Launches every variant whose build holds on all problems, which the GPUs share, and compares all outputs. `None` where
/// there is no problem, or only the control is left, about which nobody asks.
fn check(bench: &Bench, batch: &Batch, watches: &mut [Watch]) -> Result<Option<Checks>> {
    let Batch { plan, builds, scratch, .. } = *batch;
    let first = bench.work(bench.first()?, plan, builds, scratch);
    let gates = judge_builds(&plan.suite, &builds.evidence());
    let modules = surviving(&plan.suite, &gates, first.modules())?;
    let problems = problems_of(bench.executor, &plan.suite);
    if problems.is_empty() || modules.iter().all(|m| m.variant == plan.suite.control) {
        return Ok(None);
    }
    let shares = shares(&plan.suite.operator, bench.executor, &problems);
    let failed: Mutex<BTreeSet<String>> = Mutex::default();
    let has_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let launched = bench.spread(watches, shares, |gpu, share| {
        let work = bench.work(gpu, plan, builds, scratch);
        let mut left = modules.clone();
        // Who failed is rejected, and the next share would have to be launched alone.
        left.retain(|module| !has_failed().contains(&module.variant));
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes: Vec<(String, LaunchOutcome)> = Vec::new();
        for (module, found) in left.iter().zip(launch(gpu, &work, &left, &share)?) {
            outcomes.extend(found.into_iter().map(|outcome| (module.variant.clone(), outcome)));
        }
        has_failed().extend(outcomes.iter().filter(|(_, o)| o.failure.is_some()).map(|(variant, _)| variant.clone()));
        Ok(outcomes)
    })?;
    watches.iter_mut().for_each(Watch::idled);
    let subjects: Vec<&str> = modules.iter().map(|m| m.variant.as_str()).collect();
    let mut errors = bench.comparers.compare(&first, &subjects, &problems)?;
    watches.iter_mut().for_each(|watch| watch.spent_on(Activity::Errors));
    let place = |problem: &Problem| problems.iter().position(|p| p == problem);
    let turn = |variant: &str| modules.iter().position(|m| m.variant == variant);
    let mut outcomes: Vec<(String, LaunchOutcome)> = launched.into_iter().flatten().collect();
    outcomes.sort_by_key(|(variant, launch)| (turn(variant), place(&launch.problem)));
    let case = |(variant, launch): (String, LaunchOutcome)| {
        let errors = errors.remove(&(variant.clone(), launch.problem.id()));
        CheckedCase { variant, launch, errors }
    };
    let cases = outcomes.into_iter().map(case).collect();
    let device = match &first.found.device {
        _ if bench.executor == Executor::Emulator => Some(EMULATOR.to_owned()),
        device => device.as_ref().map(|(device, _)| format!("gpu: {}", device.name)),
    };
    Ok(Some(Checks { device, cases, ..Checks::default() }))
}

/// Problems that a GPU takes at once, the largest first. Problems with the same inputs go together.
fn shares(operator: &Operator, executor: Executor, problems: &[Problem]) -> Vec<Vec<Problem>> {
    if executor != Executor::Gpu {
        return vec![problems.to_vec()];
    }
    let size = |problems: &[Problem]| size(operator, problems);
    let mut shares: Vec<Vec<Problem>> = Vec::new();
    for twins in twins(operator, problems) {
        match shares.last_mut().filter(|last| size(last) + size(&twins) <= SHARE && last.len() < MOST_OF_SHARE) {
            Some(last) => last.extend(twins),
            None => shares.push(twins),
        }
    }
    shares
}

/// Times what was checked and holds, in sittings that the GPUs share. Rounds of different sittings have different numbers,
/// so that no ratio crosses a placement or a device.
fn time(bench: &Bench, batch: &Batch, checks: &Checks, watches: &mut [Watch]) -> Result<(Samples, Vec<Rounds>)> {
    let Batch { plan, builds, occasion, scratch, seed } = *batch;
    let first = bench.work(bench.first()?, plan, builds, scratch);
    if let Some(why) = first.why_nothing_is_timed() {
        return Ok((Samples { deferred: Some(why), ..Samples::default() }, Vec::new()));
    }
    let evidence = builds.evidence();
    let modules = surviving(&plan.suite, &judge_builds(&plan.suite, &evidence), first.modules())?;
    let modules = surviving(&plan.suite, &judge_checks(&plan.suite, &evidence, checks), modules)?;
    if modules.iter().all(|m| m.variant == plan.suite.control) {
        return Ok(Default::default());
    }
    let mut suite = plan.suite.clone();
    let count = occasion.rounds();
    (suite.timing.rounds, suite.timing.max_rounds) = (count, count);
    if let Some(large) = &mut suite.large {
        large.rounds = count;
    }
    // Each GPU has as many sittings: a part is one's own, whichever thread begins it.
    let parts: Vec<_> = bench.gpus.iter().zip(watches.iter_mut()).enumerate().collect();
    let timed = spread(parts.len(), parts, |_, (i, (gpu, watch))| {
        let mut modules = modules.clone();
        let mut sittings = Vec::new();
        for sitting in (0..occasion.sittings()).skip(i).step_by(bench.gpus.len()) {
            let seed = seed.wrapping_mul(0x9e37_79b9).wrapping_add(sitting.into());
            let job = BenchJob {
                suite: suite.clone(),
                task: plan.task.clone(),
                modules: modules.clone(),
                verified: verified_outputs(checks),
                peers: Vec::new(),
                work_dir: scratch.to_owned(),
                order_seed: seed,
                placement: seed | 1 << 63,
                share: None,
                is_search: true,
            };
            let samples = rounds(gpu, job)?;
            // Who failed in one sitting is not asked for another.
            modules.retain(|m| !samples.failures.iter().any(|f| f.subject.is_plain(&m.variant)));
            let is_over = samples.deferred.is_some() || modules.iter().all(|m| m.variant == suite.control);
            sittings.push((sitting, samples));
            if is_over {
                break;
            }
        }
        watch.spent_on(Activity::Timing);
        Ok(sittings)
    })?;
    let mut sittings: Vec<(u32, Samples)> = timed.into_iter().flatten().collect();
    sittings.sort_by_key(|(sitting, _)| *sitting);
    let mut whole = Samples::default();
    let mut rounds = Vec::new();
    for (sitting, mut part) in sittings {
        let first = sitting * count;
        part.blocks.iter_mut().for_each(|block| block.round += first);
        if let (Some(device), false) = (&part.device, part.blocks.is_empty()) {
            rounds.push(Rounds { gpu: device.uuid.clone(), first, count });
        }
        let (blocks, failures) = (std::mem::take(&mut whole.blocks), std::mem::take(&mut whole.failures));
        let deferred = whole.deferred.take().or(part.deferred.take());
        whole = Samples {
            device: whole.device.or(part.device),
            deferred,
            blocks: [blocks, part.blocks].concat(),
            failures: [failures, part.failures].concat(),
            ..part
        };
    }
    Ok((whole, rounds))
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
fn launch(gpu: &Gpu, work: &Work, modules: &[Module], problems: &[Problem]) -> Result<Vec<Vec<LaunchOutcome>>> {
    let mut done = match work.executor {
        Some(Executor::Gpu) => launch_together(gpu, work, modules, problems)?,
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

/// Times the modules of a job. A kernel that takes its process with it has failed; the others are timed again without it.
fn rounds(gpu: &Gpu, mut job: BenchJob) -> Result<Samples> {
    let mut lost: Vec<TimingFailure> = Vec::new();
    let mut ours = 0;
    loop {
        let (mut timed, mut running) = (None, None);
        let asked = Job::Bench(Box::new(job.clone()));
        let end = gpu.resident().run(&gpu.runner, &asked, BENCH_SILENCE, |event| match event {
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
            End::Error(why) | End::Lost { why, .. } => why,
        };
        let left: BTreeSet<&str> = job.modules.iter().map(|m| m.variant.as_str()).collect();
        match running {
            Some((shape, subject)) if subject.who != job.suite.control && left.contains(subject.who.as_str()) => {
                job.modules.retain(|m| m.variant != subject.who);
                lost.push(TimingFailure { shape, subject, why });
            }
            _ if ours == 0 => ours += 1,
            _ => return Err(anyhow!("{why}")).context("timing broke off twice, and no candidate was running"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::operator::Distribution;
    use kbench::operator::attention::MASKED;

    #[test]
    fn the_largest_problems_come_first_and_each_comes_once() {
        let of = |name: &str| Problem { shape: name.parse().unwrap(), seed: 0, distribution: Distribution::Normal };
        let [tiny, wide] = ["tiny", "wide"].map(|name| format!("{name}{MASKED}"));
        let names = ["tiny", "wide", "small", "mission", "long", "cross", "ragged", &tiny, &wide];
        let problems: Vec<Problem> = names.map(of).to_vec();
        let shares = shares(&Operator::Attention, Executor::Gpu, &problems);
        let first: Vec<&str> = shares[0].iter().map(|p| p.shape.name.as_str()).collect();
        assert_eq!((first, shares[1].len()), (vec!["wide", wide.as_str()], 1));
        assert!(shares.len() >= 3 && shares.last().unwrap().len() >= 4, "{shares:?}");
        let each: BTreeSet<String> = shares.iter().flatten().map(Problem::id).collect();
        assert_eq!((each.len(), shares.iter().flatten().count()), (names.len(), names.len()));
    }
}
