//! A search under way: threads that build, one that measures with all GPUs, and one that proposes and writes down. What is
//! proposed next does not depend on when a result arrives (`kbench::tune::Search`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use kbench::gate::significant;
use kbench::job::Executor;
use kbench::judge::judge_builds;
use kbench::suite::{Suite, VariantPatch};
use kbench::tune::{
    Activity, Evaluation, Generation, Line, Outcome, Phase, Plan, Profiled, Proposal, Request, Search, Space, Span,
    Stage, Stopped, outcome_of, profile_insights, rejection,
};
use sdpa_kernel::registry::Variant;
use sdpa_kernel::space;

use super::Options;
use super::builder::Builder;
use super::compare::Comparers;
use super::gpus::Gpu;
use super::journal::Journal;
use super::measure::{Batch, Bench, Watch, measure, problems_of};
use super::meeting::{Occasion, meeting};
use super::profiling::Profiler;
use super::proposer::Proposer;
use super::queue::{Item, Job, Queue};
use super::share::{LOOK, Share};
use crate::build::{BuildSet, Built};
use crate::console::Step;
use crate::layout::Layout;
use crate::plan::Plan as SuitePlan;
use crate::runner::Runner;
use crate::toolchain::Toolchain;

/// Configurations of a job of the sweep: more share one start of the processes, and one control.
const SWEEP_JOB: usize = 8;

/// What the measuring thread sends back.
struct Measured {
    result: Result<Found>,
    spent: Vec<Line>,
}

/// What a job found.
enum Found {
    Evaluations(Vec<Evaluation>),
    Profiled(Box<Profiled>),
}

/// Which elites were profiled.
#[derive(Default)]
pub(super) struct Profiling {
    /// Those that have their profile, or have none for a reason.
    pub done: BTreeSet<String>,
    /// Those that are with a GPU.
    pub under_way: BTreeSet<String>,
    /// One could not be profiled, so no other is tried.
    pub is_over: bool,
}

/// What a search is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    pub layout: &'a Layout,
    /// The suite that control, architecture and limits come from.
    pub base: &'a Suite,
    pub control: &'a Variant,
    /// What was asked for.
    pub plan: &'a Plan,
    pub space: &'a Space,
    pub toolchain: &'a Toolchain,
    pub gpus: &'a [Gpu],
    pub executor: Executor,
    /// The runner, to which every GPU is visible, with the run's folder of logs.
    pub runner: &'a Runner,
    /// A folder for outputs.
    pub scratch: &'a Path,
    pub run: &'a Path,
    /// When this session began; with several workers, when the first of them did.
    pub started: Instant,
    /// What this worker shares with others, where there may be any.
    pub share: Option<&'a Share>,
    /// What the rows of large problems are drawn by.
    pub row_seed: u64,
}

/// Everything that does not change while a search runs.
pub struct Session<'a> {
    pub(super) parts: Parts<'a>,
    pub(super) builder: Builder<'a>,
    pub(super) profiler: Profiler,
    comparers: Comparers,
}

/// The search's own state: what only the proposing thread touches.
pub(super) struct Driver<'a, 'j> {
    pub search: Search<'a>,
    pub journal: &'j mut Journal<'a>,
    pub profiling: Profiling,
    pub queue: &'j Queue<'a>,
    results: Receiver<Measured>,
    pub step: Step,
    proposer: Option<Proposer>,
}

impl<'a> Session<'a> {
    /// Nothing is running yet.
    pub fn new(parts: Parts<'a>) -> Session<'a> {
        let Parts { layout, base, plan, toolchain, gpus, .. } = parts;
        let device = gpus.first().and_then(|gpu| gpu.found.device.as_ref()).map(|(device, _)| device.arch());
        let arches: Vec<String> = std::iter::once(base.arch.clone()).chain(device).collect();
        // Without its control nothing is measured, so that is built for all.
        let worth = move |built: &Built| {
            built.record.variant == base.control
                || build_fault(base, plan, &BuildSet { built: vec![built.clone()], ..BuildSet::default() }).is_none()
        };
        let builder = Builder::new(layout, toolchain, &arches, Box::new(worth));
        let problems = |occasion| problems_of(parts.executor, &meeting(base, plan, &[], occasion, parts.executor));
        let (search, finals) = (problems(Occasion::Search), problems(Occasion::Finals));
        let comparers = Comparers::new(parts.runner.clone(), parts.row_seed, search, finals);
        Session { parts, builder, profiler: Profiler::default(), comparers }
    }

    /// Searches, and sweeps where that is asked for; every result is in the journal when this returns.
    pub fn search(&self, journal: &mut Journal<'a>, options: &Options) -> Result<()> {
        let gpus = self.parts.gpus.iter().filter_map(|gpu| gpu.found.device.as_ref()).map(|(d, _)| d.uuid.clone());
        let started = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        journal.append(Line::Session { started, gpus: gpus.collect() })?;
        let spans = vec![Span { activity: Activity::SetUp, from: 0.0, to: self.parts.started.elapsed().as_secs_f64() }];
        journal.append(Line::Spent { stage: Stage::SetUp, gpu: None, configurations: 0, spans })?;
        let queue = Queue::new(self.parts.share);
        let (send, results) = channel::<Measured>();
        let proposer = match &self.parts.plan.proposer {
            Some(command) => Some(Proposer::start(command, options.proposer_patience)?),
            None => None,
        };
        self.builder.want(std::slice::from_ref(self.parts.control), false);
        std::thread::scope(|scope| {
            let queue = &queue;
            scope.spawn(move || self.work(queue, &send));
            let step = Step::begin("tune", u64::from(self.parts.plan.budget));
            let search = Search::new(self.parts.plan, self.parts.space);
            let profiling = Profiling::default();
            let mut driver = Driver { search, journal, profiling, queue, results, step, proposer };
            let outcome = self.drive(&mut driver);
            if outcome.is_err() {
                // Whoever waits for a build waits in vain.
                self.builder.close();
            }
            // With its queue ends the measuring thread.
            queue.close();
            let Driver { step, search, .. } = driver;
            step.end(&format!("{} configurations, {}", search.evaluations().len(), elites_in_words(&search)));
            outcome
        })
    }

    /// Has references computed while nobody waits for them; on the emulator only rows are compared that it computed.
    fn prepare<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) {
        if self.parts.executor != Executor::Gpu {
            return;
        }
        scope.spawn(move || {
            // The search's first: its first comparison comes soon.
            self.comparers.prepare(self.parts.base, Occasion::Search);
            self.comparers.prepare(self.parts.base, Occasion::Finals);
        });
    }

    /// Runs something while everything that measures ends: the driver takes a while to let go of a context.
    pub(super) fn releasing<T>(&self, body: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            for gpu in self.parts.gpus {
                scope.spawn(|| gpu.resident().stop());
            }
            scope.spawn(|| self.comparers.stop());
            body()
        })
    }

    /// Runs something while threads build what is wanted. A build that nobody wants any more is under way when the search
    /// ends, as a rule, and the finals need not wait for it.
    pub fn building<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.saturating_sub(self.parts.gpus.len()).max(1) {
                scope.spawn(|| self.builder.work());
            }
            self.prepare(scope);
            let outcome = body();
            self.builder.close();
            outcome
        })
    }

    fn work(&self, queue: &Queue, send: &Sender<Measured>) {
        loop {
            let job = match queue.next() {
                Ok(Some(job)) => job,
                Ok(None) => return,
                Err(error) => return drop(send.send(Measured { result: Err(error), spent: Vec::new() })),
            };
            let count = job.count();
            let wanted = self.want_ahead(&job, queue);
            let bench = self.bench();
            let mut watches = bench.watches(self.parts.started);
            let result = wanted.and_then(|()| match job {
                Job::Measure(items) => self.evaluate(&bench, items, &mut watches).map(Found::Evaluations),
                Job::Profile(elite) => self.profile_first(&elite, &mut watches),
            });
            let failed = result.is_err();
            let each = self.parts.gpus.iter().zip(watches);
            let spent = each.map(|(gpu, watch)| gpu.spent(Stage::Search, count, watch)).collect();
            if send.send(Measured { result, spent }).is_err() || failed {
                return;
            }
        }
    }

    /// With several workers, wants the builds of what this one has claimed, and then of what it will come to next: those are
    /// made while that is measured. A search of one wants all of them when they are proposed.
    fn want_ahead(&self, job: &Job, queue: &Queue) -> Result<()> {
        if let (Some(_), Job::Measure(items)) = (self.parts.share, job) {
            for items in [items, &queue.ahead()?] {
                self.builder.want(&self.variants(items.iter().map(|(_, _, p)| p))?, false);
            }
        }
        Ok(())
    }

    pub(super) fn bench(&self) -> Bench<'_> {
        Bench { gpus: self.parts.gpus, executor: self.parts.executor, comparers: &self.comparers }
    }

    /// Profiles on the first GPU; one launch at a time is under the profiler.
    fn profile_first(&self, elite: &Evaluation, watches: &mut [Watch]) -> Result<Found> {
        let profiled = self.profile(self.parts.gpus.first().context("something measures")?, elite);
        watches.iter_mut().take(1).for_each(|watch| watch.spent_on(Activity::Profiling));
        Ok(Found::Profiled(Box::new(profiled?)))
    }

    fn evaluate(&self, bench: &Bench, job: Vec<Item>, watches: &mut [Watch]) -> Result<Vec<Evaluation>> {
        let named: Vec<(String, VariantPatch)> = job.iter().map(|(_, _, p)| (p.name.clone(), patch(p))).collect();
        let suite = meeting(self.parts.base, self.parts.plan, &named, Occasion::Search, self.parts.executor);
        let variants = self.variants(job.iter().map(|(_, _, p)| p))?;
        let builds = self.builder.wait(&variants)?;
        watches.iter_mut().for_each(|watch| watch.spent_on(Activity::Builds));
        let scratch = tempfile::Builder::new().prefix("job-").tempdir_in(self.parts.scratch)?;
        // Orders and placements are random, and the same whenever this job is run.
        let seed = u64::from(job[0].0) << 32 | u64::from(job[0].1) | self.parts.plan.seed << 40;
        let plan = SuitePlan::with(suite, variants);
        let (occasion, scratch) = (Occasion::Search, scratch.path());
        let batch = Batch { plan: &plan, builds: &builds, occasion, scratch, seed };
        let measured = measure(bench, &batch, watches)?;
        if let (Executor::Gpu, Some(why)) = (self.parts.executor, &measured.evidence.samples.deferred) {
            return Err(anyhow!("{why}"));
        }
        let evaluation = |(generation, slot, proposal): Item| {
            let outcome = outcome_of(&plan.suite, &measured.evidence, &measured.sittings, &proposal.name);
            let Proposal { name, toggles, origin } = proposal;
            Evaluation { generation, slot, name, toggles, origin, outcome }
        };
        Ok(job.into_iter().map(evaluation).collect())
    }

    /// The control, then the proposals' variants.
    pub(super) fn variants<'p>(&self, proposals: impl Iterator<Item = &'p Proposal>) -> Result<Vec<Variant>> {
        let mut variants = vec![self.parts.control.clone()];
        for proposal in proposals {
            variants.push(space::variant(&proposal.name, &proposal.toggles)?);
        }
        Ok(variants)
    }

    fn drive(&self, driver: &mut Driver) -> Result<()> {
        let mut stopped = self.replay(driver)?;
        loop {
            while stopped.is_none() && driver.search.is_ready() {
                stopped = driver.search.stopped().or_else(|| self.out_of_time());
                // What a generation is proposed from includes the profiles of the elites that it may look at.
                if stopped.is_none() && self.profile_elites(driver, false)? {
                    break;
                }
                if stopped.is_none() {
                    let generation = next_generation(driver, self.parts.plan, self.parts.space);
                    if generation.proposals.is_empty() {
                        stopped = Some(Stopped::SpaceExhausted);
                    } else {
                        self.propose(driver, generation)?;
                    }
                }
            }
            let is_idle = driver.search.is_settled() && driver.profiling.under_way.is_empty();
            if is_idle && stopped.is_some() && !self.profile_elites(driver, true)? {
                break;
            }
            self.receive(driver)?;
        }
        self.end(driver, Phase::Search, stopped.unwrap_or(Stopped::Budget))?;
        if self.parts.plan.exhaustive {
            let left = driver.search.sweep();
            if !left.proposals.is_empty() {
                self.propose(driver, left)?;
            }
            while !driver.search.is_settled() {
                self.receive(driver)?;
            }
            self.end(driver, Phase::Sweep, Stopped::SpaceExhausted)?;
        }
        Ok(())
    }

    /// Writes a generation down, and begins what counts: another worker may have been first, and proposed the same.
    fn propose(&self, driver: &mut Driver, generation: Generation) -> Result<()> {
        match driver.journal.append(Line::Generation(generation))? {
            Line::Generation(generation) => self.begin(driver, generation),
            other => Err(anyhow!("a generation was written, and {other:?} is there")),
        }
    }

    /// Takes up what an interrupted session wrote; measures what it left open. Returns why the search had ended, if it
    /// had.
    fn replay(&self, driver: &mut Driver) -> Result<Option<Stopped>> {
        self.replay_profiles(driver);
        let lines = driver.journal.lines().to_vec();
        let mut known: BTreeMap<String, Evaluation> = BTreeMap::new();
        let mut stopped = None;
        for line in &lines {
            match line {
                Line::Evaluation(evaluation) => {
                    known.insert(evaluation.name.clone(), (**evaluation).clone());
                }
                // With others it is only believed when everything that it follows from is known.
                Line::End { phase: Phase::Search, stopped: why, .. } if self.parts.share.is_none() => {
                    stopped = Some(*why);
                }
                _ => {}
            }
        }
        for line in lines {
            if let Line::Generation(generation) = line
                && generation.index == driver.search.generations()
            {
                for proposal in &generation.proposals {
                    if let Some(evaluation) = known.remove(&proposal.name) {
                        driver.search.record(evaluation);
                    }
                }
                self.begin(driver, generation)?;
            }
        }
        known.into_values().for_each(|evaluation| driver.search.record(evaluation));
        Ok(stopped)
    }

    /// Queues the builds of a generation, then its jobs. What the registry refuses is rejected here and now.
    fn begin(&self, driver: &mut Driver, generation: Generation) -> Result<()> {
        let mut open = Vec::new();
        let mut refused = Vec::new();
        for (slot, proposal) in generation.proposals.iter().enumerate() {
            if driver.search.evaluation(&proposal.name).is_some() {
                continue;
            }
            match space::variant(&proposal.name, &proposal.toggles) {
                Ok(_) if self.parts.space.examine(&proposal.toggles) == Ok(None) => {
                    open.push((generation.index, slot as u32, proposal.clone()));
                }
                Ok(_) => refused.push((slot, proposal.clone(), "this is the control".to_owned())),
                Err(error) => refused.push((slot, proposal.clone(), error.to_string())),
            }
        }
        let is_alone = self.parts.share.is_none();
        if is_alone {
            let variants = self.variants(open.iter().map(|(_, _, p)| p))?;
            self.builder.want(&variants, generation.phase == Phase::Sweep);
        }
        let (index, phase) = (generation.index, generation.phase);
        driver.search.begin(generation);
        for (slot, proposal, reason) in refused {
            let Proposal { name, toggles, origin } = proposal;
            let outcome = Outcome::Rejected { stage: "refused".to_owned(), reason };
            self.take(driver, Evaluation { generation: index, slot: slot as u32, name, toggles, origin, outcome })?;
        }
        match phase {
            // Whoever claims a configuration builds it, and no two workers build the same.
            _ if !is_alone => open.into_iter().for_each(|item| driver.queue.add(Job::Measure(vec![item]))),
            Phase::Sweep => return self.sweep(driver, open),
            Phase::Search if open.is_empty() => {}
            Phase::Search => driver.queue.add(Job::Measure(open)),
        }
        Ok(())
    }

    /// Most of a space fails a gate on its build: jobs are made of what is left, as the builds come in.
    fn sweep(&self, driver: &mut Driver, open: Vec<Item>) -> Result<()> {
        let mut items: Vec<Item> = Vec::new();
        for (generation, slot, proposal) in open {
            let variant = space::variant(&proposal.name, &proposal.toggles)?;
            let set = self.builder.wait(&[variant])?;
            match build_fault(self.parts.base, self.parts.plan, &set) {
                None => items.push((generation, slot, proposal)),
                Some(outcome) => {
                    let Proposal { name, toggles, origin } = proposal;
                    self.take(driver, Evaluation { generation, slot, name, toggles, origin, outcome })?;
                }
            }
            if items.len() == SWEEP_JOB {
                driver.queue.add(Job::Measure(std::mem::take(&mut items)));
            }
            while let Ok(measured) = driver.results.try_recv() {
                self.absorb(driver, measured)?;
            }
        }
        if !items.is_empty() {
            driver.queue.add(Job::Measure(items));
        }
        Ok(())
    }

    /// Waits for a result: of this worker, or of another.
    fn receive(&self, driver: &mut Driver) -> Result<()> {
        let ended = "every thread that measures has ended";
        if self.parts.share.is_none() {
            let measured = driver.results.recv().context(ended)?;
            return self.absorb(driver, measured);
        }
        match driver.results.recv_timeout(LOOK) {
            Ok(measured) => self.absorb(driver, measured)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!(ended)),
        }
        for line in driver.journal.news()? {
            match line {
                // A later one is met again when it is proposed here.
                Line::Generation(generation) if generation.index == driver.search.generations() => {
                    self.begin(driver, generation)?;
                }
                Line::Evaluation(evaluation) => self.known(driver, *evaluation),
                _ => {}
            }
        }
        Ok(())
    }

    fn absorb(&self, driver: &mut Driver, Measured { result, spent }: Measured) -> Result<()> {
        match result? {
            Found::Evaluations(evaluations) => {
                evaluations.into_iter().try_for_each(|evaluation| self.take(driver, evaluation))?;
            }
            Found::Profiled(profiled) => self.take_profile(driver, *profiled)?,
        }
        spent.into_iter().try_for_each(|line| driver.journal.append(line).map(drop))
    }

    /// Writes a result down, and takes up the one that counts.
    fn take(&self, driver: &mut Driver, evaluation: Evaluation) -> Result<()> {
        match driver.journal.append(Line::Evaluation(Box::new(evaluation)))? {
            Line::Evaluation(evaluation) => self.known(driver, *evaluation),
            other => return Err(anyhow!("an evaluation was written, and {other:?} is there")),
        }
        Ok(())
    }

    fn known(&self, driver: &mut Driver, evaluation: Evaluation) {
        driver.search.record(evaluation);
        let done = driver.search.evaluations().len();
        let planned = if self.parts.plan.exhaustive { self.parts.plan.valid } else { self.parts.plan.budget as usize };
        driver.step.at(done as u64, planned as u64, &elites_in_words(&driver.search));
    }

    fn end(&self, driver: &mut Driver, phase: Phase, stopped: Stopped) -> Result<()> {
        let seconds = self.parts.started.elapsed().as_secs_f64();
        let is_there = |line: &Line| matches!(line, Line::End { phase: other, .. } if *other == phase);
        match driver.journal.lines().iter().any(is_there) {
            true => Ok(()),
            false => driver.journal.append(Line::End { phase, stopped, seconds }).map(drop),
        }
    }

    fn out_of_time(&self) -> Option<Stopped> {
        let limit = self.parts.plan.time_limit_s;
        (limit > 0 && self.parts.started.elapsed().as_secs() >= limit).then_some(Stopped::TimeLimit)
    }
}

pub(super) fn patch(proposal: &Proposal) -> VariantPatch {
    VariantPatch { base: space::BASE.to_owned(), toggles: space::toggles(&proposal.toggles) }
}

/// Why a variant is rejected before it runs, by what there is of its builds.
fn build_fault(base: &Suite, plan: &Plan, set: &BuildSet) -> Option<Outcome> {
    let mut names = set.built.iter().map(|b| &b.record.variant).chain(set.failures.iter().map(|f| &f.variant));
    let name = names.next()?;
    let placeholder = VariantPatch { base: space::BASE.to_owned(), toggles: BTreeMap::new() };
    let suite = meeting(base, plan, &[(name.clone(), placeholder)], Occasion::Search, Executor::Gpu);
    rejection(&judge_builds(&suite, &set.evidence()), name)
}

/// The proposer's wishes first, where there is one; the built-in search fills up.
fn next_generation(driver: &mut Driver, plan: &Plan, space: &Space) -> Generation {
    let Some(proposer) = &mut driver.proposer else { return driver.search.propose(Vec::new()) };
    let profiles = profile_insights(driver.journal.lines());
    let request = Request::of(plan, &driver.search, &profiles);
    let (wanted, warnings) = match proposer.ask(&request, space, &driver.search) {
        Ok(answer) => answer,
        Err(why) => {
            driver.proposer = None;
            (Vec::new(), vec![format!("{why}; the built-in search goes on without it")])
        }
    };
    for warning in &warnings {
        driver.step.note(&format!("warning: {warning}"));
    }
    Generation { warnings, ..driver.search.propose(wanted) }
}

/// The elites with their time over the control's: what a progress bar shows.
fn elites_in_words(search: &Search) -> String {
    let words = |e: &Evaluation| Some(format!("{} {}", significant(e.score()?), e.name));
    let words: Vec<String> = search.elites().into_iter().filter_map(words).collect();
    if words.is_empty() { "no elite yet".to_owned() } else { format!("elites: {}", words.join(", ")) }
}
