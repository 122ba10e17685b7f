//! The steps of a validation that measure: outputs against float64, and times. Leaves to others: how a variant is launched
//! (`work`), and what the figures are worth (kbench).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{CheckedCase, Checks, EMULATOR, Peers, Samples, TimingFailure};
use kbench::job::{BenchJob, Event, Executor, GenerateJob, Job};
use kbench::judge::{emulated_problems, problems};
use kbench::operator::{Distribution, Problem};
use kbench::subject::Subject;

use crate::console::Step;
use crate::entropy;
use crate::layout::Layout;
use crate::peers::{self, PeerChoice};
use crate::runner::End;
use crate::work::{BENCH_SILENCE, ErrorsByCase, REFERENCE_SILENCE, Work, errors_of, launch_all, verified_outputs};

/// What the command line says of timing.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Whether variants are timed at all.
    pub wanted: bool,
    /// Which peers are timed beside them.
    pub peers: PeerChoice,
}

/// Runs every variant on every problem, then compares all outputs with float64 attention in another process.
pub fn check(work: &Work) -> Result<Checks> {
    if let Some(why) = work.why_nothing_is_checked() {
        return Ok(Checks { deferred: Some(why), ..Checks::default() });
    }
    let emulated = work.executor == Some(Executor::Emulator);
    let problems = if emulated { emulated_problems(&work.plan.suite) } else { problems(&work.plan.suite) };
    let modules = work.modules();
    generate(work, &problems)?;
    let step = Step::begin(if emulated { "emulate" } else { "launch" }, (problems.len() * modules.len()) as u64);
    let mut launches = BTreeMap::new();
    for (i, module) in modules.iter().enumerate() {
        let out_dir = BenchJob::output_dir(work.scratch, &module.variant);
        let base = i * problems.len();
        let total = problems.len() * modules.len();
        let report = |done: u64, what: &str| step.at(base as u64 + done, total as u64, what);
        let outcomes = launch_all(work, module, &problems, &out_dir, Vec::new(), &report)?;
        launches.insert(module.variant.clone(), outcomes);
    }
    let faults = launches.values().flatten().filter(|o| o.failure.is_some()).count();
    step.end(&format!("{} variants on {} problems, {faults} faults", modules.len(), problems.len()));
    let subjects = modules.iter().map(|m| m.variant.as_str()).collect::<Vec<_>>();
    let (mut errors, broke_off) = compare_outputs(work, "errors", &subjects, &problems)?;
    if let Some(why) = broke_off {
        // A reference that cannot be had is the gate file's fault, and nobody is judged without it.
        if work.plan.suite.declared().is_some() {
            bail!("{why}");
        }
        // Ours, not a kernel's: no case is judged on part of the comparison.
        let deferral = Deferral::because(format!("comparing with float64 broke off: {why}"));
        return Ok(Checks { deferred: Some(deferral), ..Checks::default() });
    }
    let mut cases = Vec::new();
    for (variant, outcomes) in launches {
        for launch in outcomes {
            let errors = errors.remove(&(variant.clone(), launch.problem.id()));
            cases.push(CheckedCase { variant: variant.clone(), launch, errors });
        }
    }
    let device = match &work.found.device {
        _ if emulated => Some(EMULATOR.to_owned()),
        device => device.as_ref().map(|(device, _)| format!("gpu: {}", device.name)),
    };
    Ok(Checks { device, deferred: None, cases })
}

/// Has the gate file's `generate` make the inputs that are not drawn.
fn generate(work: &Work, problems: &[Problem]) -> Result<()> {
    if work.plan.suite.declared().is_none_or(|operator| operator.generate.is_none()) {
        return Ok(());
    }
    let step = Step::begin("generate", problems.len() as u64);
    let job = GenerateJob { task: work.task(), problems: problems.to_vec() };
    let end = work.runner.run("generate", &Job::Generate(job), REFERENCE_SILENCE, |event| {
        if let Event::Progress { done, total, what } = event {
            step.at(done, total, &what);
        }
    })?;
    match end {
        End::Done => step.end(&format!("inputs of {} problems", problems.len())),
        End::Error(why) | End::Lost { why, .. } => bail!("{why}"),
    }
    Ok(())
}

/// Errors of every output that is there, and why the comparison broke off, if it did.
fn compare_outputs(
    work: &Work,
    name: &str,
    subjects: &[&str],
    problems: &[Problem],
) -> Result<(ErrorsByCase, Option<String>)> {
    let step = Step::begin(name, problems.len() as u64);
    let compared = errors_of(work, name, subjects, problems, |done, total, what| step.at(done, total, what))?;
    step.end(&format!("{} outputs against float64", compared.0.len()));
    Ok(compared)
}

/// Times everything whose outputs were verified, with peers in the same rounds.
pub fn bench(work: &Work, layout: &Layout, timing: &Timing, checks: &Checks) -> Result<(Samples, Peers)> {
    let suite = &work.plan.suite;
    let commands = peers::commands(layout, suite, &timing.peers);
    let wanted = !commands.is_empty();
    let missing = peers::left_out(suite, &timing.peers);
    let not_asked = || Deferral::new("time was not asked for", "run a suite with validate");
    if let Some(why) = work.why_nothing_is_timed().or_else(|| (!timing.wanted).then(not_asked)) {
        let peers = Peers { wanted, deferred: wanted.then(|| why.clone()), missing, ..Peers::default() };
        return Ok((Samples { deferred: Some(why), ..Samples::default() }, peers));
    }
    let job = BenchJob {
        suite: suite.clone(),
        task: work.task(),
        modules: work.modules(),
        verified: verified_outputs(checks),
        peers: commands,
        work_dir: work.scratch.to_owned(),
        order_seed: entropy::seed()?,
        placement: 0,
    };
    let step = Step::begin("time", 0);
    let mut timed = None;
    let mut last = None;
    let end = work.runner.run("bench", &Job::Bench(Box::new(job)), BENCH_SILENCE, |event| match event {
        Event::Progress { done, total, what } => {
            step.at(done, total, &what);
        }
        Event::Timing { shape, subject } => last = Some((shape, subject)),
        Event::Timed { samples, peers } => timed = Some((*samples, *peers)),
        _ => {}
    })?;
    let Some((samples, mut peers)) = timed else {
        let why = match end {
            End::Done => "the runner ended without samples".to_owned(),
            End::Error(why) | End::Lost { why, .. } => why,
        };
        step.end(&format!("broke off: {why}"));
        let deferral = || Deferral::new("timing broke off", "see the log");
        let peers = Peers { wanted, deferred: wanted.then(deferral), missing, ..Peers::default() };
        return Ok((broken_off(work, last, &why), peers));
    };
    step.end(&format!("{} blocks, {} subjects not timed", samples.blocks.len(), samples.failures.len()));
    peers.wanted = wanted;
    peers.missing.extend(missing);
    add_peer_errors(work, &mut peers)?;
    Ok((samples, peers))
}

/// Nothing that was measured before the end is kept: an interval over part of the rounds would look like any other. Who
/// was running has failed; the others wait for a run without it.
fn broken_off(work: &Work, running: Option<(String, Subject)>, why: &str) -> Samples {
    let who = running.as_ref().map_or("nobody".to_owned(), |(_, subject)| subject.to_string());
    Samples {
        device: work.found.device.as_ref().map(|(device, _)| device.clone()),
        deferred: Some(Deferral::new(
            format!("timing broke off while `{who}` was running"),
            format!("mend or leave out `{who}` and run again"),
        )),
        failures: running
            .map(|(shape, subject)| TimingFailure { shape, subject, why: why.to_owned() })
            .into_iter()
            .collect(),
        ..Samples::default()
    }
}

fn add_peer_errors(work: &Work, peers: &mut Peers) -> Result<()> {
    let suite = &work.plan.suite;
    let subjects: std::collections::BTreeSet<&str> =
        peers.backends.iter().filter(|b| b.unavailable.is_none()).map(|b| b.subject.as_str()).collect();
    if subjects.is_empty() {
        return Ok(());
    }
    let problem = |shape| Problem { shape, seed: suite.seeds[0], distribution: Distribution::Normal };
    let problems: Vec<Problem> = suite.time().into_iter().map(problem).collect();
    let (mut errors, _) = compare_outputs(work, "peers", &subjects.into_iter().collect::<Vec<_>>(), &problems)?;
    for backend in &mut peers.backends {
        let problem = problems.iter().find(|p| p.shape.name == backend.shape).context("a peer ran on a timed shape")?;
        backend.errors = errors.remove(&(backend.subject.clone(), problem.id()));
    }
    Ok(())
}
