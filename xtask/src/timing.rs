//! The step of a validation that times. Where the device fails or the runner is lost meanwhile, who is to blame is left out
//! and the others are timed in a fresh process; a runner that ends without a word of anybody is an error, never a deferral.
//! Leaves to others: how blocks are timed (the runner), who is to blame (`culprit`), and what times are worth (kbench).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{Checks, Peers, Samples, TimingFailure};
use kbench::job::{BenchJob, Event, Job, Share};
use kbench::judge::timed_problems;
use kbench::operator::{Distribution, Problem};
use kbench::subject::Subject;

use crate::console::Step;
use crate::culprit::{Blame, Shown, blame};
use crate::entropy;
use crate::layout::Layout;
use crate::peers::{self, PeerChoice};
use crate::runner::End;
use crate::spread::{merged, spread};
use crate::steps::{Compared, compare_outputs};
use crate::work::{BENCH_SILENCE, Work, launch_all, verified_outputs};

/// What the command line says of timing.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Whether variants are timed at all.
    pub wanted: bool,
    /// Which peers are timed beside them.
    pub peers: PeerChoice,
    /// What orders and places of blocks are drawn by; of the clock where absent.
    pub draw: Option<u64>,
}

/// Why nothing is timed here, where nothing is.
pub fn why_not(work: &Work, timing: &Timing) -> Option<Deferral> {
    let not_asked = || Deferral::new("time was not asked for", "run a suite with validate");
    work.why_nothing_is_timed().or_else(|| (!timing.wanted).then(not_asked))
}

/// Times everything that was launched without a failure, with peers in the same rounds; each output is the launch's.
pub fn bench(work: &Work, layout: &Layout, timing: &Timing, checks: &Checks) -> Result<(Samples, Peers)> {
    let suite = &work.plan.suite;
    let commands = peers::commands(layout, suite, &timing.peers);
    let wanted = !commands.is_empty();
    let missing = peers::left_out(suite, &timing.peers);
    if let Some(why) = why_not(work, timing) {
        let peers = Peers { wanted, deferred: wanted.then(|| why.clone()), missing, ..Peers::default() };
        return Ok((Samples { deferred: Some(why), ..Samples::default() }, peers));
    }
    if suite.declared().is_some() && suite.time_distributions == [Distribution::Normal] {
        let why = "inputs come in no other distribution than the gate file's own, and are timed as they are";
        eprintln!("{:>10} {why}", "inputs");
    }
    // Never 0, which stands for no placement.
    let seed = timing.draw.map_or_else(entropy::seed, Ok)? | 1;
    let job = BenchJob {
        suite: suite.clone(),
        task: work.task(),
        modules: work.modules(),
        verified: verified_outputs(checks),
        peers: commands,
        work_dir: work.scratch.to_owned(),
        order_seed: seed,
        placement: seed,
        share: None,
        is_search: false,
    };
    let step = Step::begin("time", 0);
    let timed =
        if work.others.is_empty() { time_who_is_left(work, job, &step) } else { time_together(work, &job, &step) };
    let (samples, mut peers) = match timed {
        Ok(timed) => timed,
        Err(error) => {
            step.end("broke off");
            return Err(error);
        }
    };
    step.end(&format!("{} blocks, {} subjects not timed", samples.blocks.len(), samples.failures.len()));
    peers.wanted = wanted;
    peers.missing.extend(missing);
    Ok((samples, peers))
}

/// A job on each GPU, which take the shapes from each other: a shape with everybody on it is timed on one of them.
fn time_together(work: &Work, job: &BenchJob, step: &Step) -> Result<(Samples, Peers)> {
    let folder = work.scratch.join("shapes");
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    let works = work.on_each();
    let parts = spread(works.len(), (0..works.len()).collect(), |_, gpu: usize| {
        let share = Some(Share { folder: folder.clone(), worker: gpu.to_string() });
        time_who_is_left(&works[gpu], BenchJob { share, ..job.clone() }, step)
    })?;
    let is_over = parts.iter().any(|(samples, _)| samples.deferred.is_some());
    if let Some(shape) = job.suite.time_shapes.iter().find(|shape| !is_over && !folder.join(shape).exists()) {
        bail!("no GPU timed `{shape}`; see the logs of the run");
    }
    merged(&job.suite, parts)
}

/// Nothing that was measured before an end that was none is kept: an interval over part of the rounds would look like any
/// other. Each time somebody is left out, so that this ends.
fn time_who_is_left(work: &Work, mut job: BenchJob, step: &Step) -> Result<(Samples, Peers)> {
    let control = job.suite.control.clone();
    let mut failures: Vec<TimingFailure> = Vec::new();
    let mut missing = Vec::new();
    let mut again = false;
    loop {
        let shown = match attempt(work, &job, step)? {
            Ok((mut samples, mut peers)) => {
                samples.failures.extend(failures);
                peers.missing.extend(missing);
                return Ok((samples, peers));
            }
            Err(shown) => shown,
        };
        step.note(&format!("{} on {}: {}", shown.subject, shown.shape, shown.why));
        let variants: Vec<String> = job.modules.iter().map(|m| m.variant.clone()).collect();
        let names: Vec<String> = job.peers.iter().map(|peer| peer.name.clone()).collect();
        let mut alone = |variant: &str| fails_alone(work, &job, &shown.shape, variant);
        match blame(&shown, &control, &variants, &names, &mut alone)? {
            Blame::Peer(name) => {
                job.peers.retain(|peer| peer.name != name);
                missing.push((name, Deferral::new(&shown.why, "see the log")));
            }
            Blame::Control if !again => again = true,
            Blame::Control => bail!("timing broke off twice while the control was running: {}", shown.why),
            Blame::Nobody => bail!("timing broke off while `{}` was running: {}", shown.subject, shown.why),
            Blame::Variants(named) => {
                for (variant, why) in named {
                    job.modules.retain(|module| module.variant != variant);
                    failures.push(TimingFailure { shape: shown.shape.clone(), subject: variant.as_str().into(), why });
                }
            }
        }
        let is_left = |variant: &str| job.modules.iter().any(|module| module.variant == variant);
        let nothing_to_compare = !is_left(&control) || !job.suite.candidates.iter().any(|c| is_left(&c.variant));
        if nothing_to_compare {
            return Ok((
                none_left(work, failures),
                Peers { missing: missing.into_iter().collect(), ..Peers::default() },
            ));
        }
    }
}

/// Runs the job once. The inner error is what showed, and in whose turn.
fn attempt(work: &Work, job: &BenchJob, step: &Step) -> Result<Result<(Samples, Peers), Shown>> {
    let (mut timed, mut last, mut fault) = (None, None::<(String, Subject)>, None);
    let end = work.runner.run("bench", &Job::Bench(Box::new(job.clone())), BENCH_SILENCE, |event| match event {
        // Several GPUs are each somewhere else.
        Event::Progress { what, .. } if job.share.is_some() => step.message(&what),
        Event::Progress { done, total, what } => step.at(done, total, &what),
        Event::Timing { shape, subject } => last = Some((shape, subject)),
        Event::Fault { shape, subject, why } => fault = Some(Shown { shape, subject, why }),
        Event::Timed { samples, peers } => timed = Some((*samples, *peers)),
        _ => {}
    })?;
    match (end, timed, fault, last) {
        (End::Done, Some(timed), ..) => Ok(Ok(timed)),
        (_, _, Some(shown), _) => Ok(Err(shown)),
        (End::Lost { why, .. }, _, None, Some((shape, subject))) => Ok(Err(Shown { shape, subject, why })),
        (End::Lost { why, .. }, _, None, None) => bail!("the runner was lost before anybody was timed: {why}"),
        (End::Error(why), ..) => bail!("timing broke off: {why}"),
        (End::Done, None, ..) => bail!("the runner ended without samples; see the log `bench.log` of the run"),
    }
}

/// Launches a variant by itself on everything that is timed on a shape, and answers why it fails, if it does.
fn fails_alone(work: &Work, job: &BenchJob, shape: &str, variant: &str) -> Result<Option<String>> {
    let module = job.modules.iter().find(|module| module.variant == variant).context("the variant is in the job")?;
    let shape = job.suite.shape(shape)?;
    let problems = timed_problems(&job.suite, &shape);
    let out_dir = work.scratch.join("alone");
    let outcomes = launch_all(work, module, &problems, &out_dir, Vec::new(), &|_, _| {})?;
    Ok(outcomes.into_iter().find_map(|outcome| outcome.failure))
}

/// Without its control, or with nobody beside it, there is nothing to time.
fn none_left(work: &Work, failures: Vec<TimingFailure>) -> Samples {
    let who: BTreeSet<&str> = failures.iter().map(|failure| failure.subject.who.as_str()).collect();
    let who = who.into_iter().map(|who| format!("`{who}`")).collect::<Vec<_>>().join(", ");
    Samples {
        device: work.found.device.as_ref().map(|(device, _)| device.clone()),
        deferred: Some(Deferral::new(
            format!("timing broke off, and without {who} nothing can be compared"),
            format!("mend or leave out {who} and run again"),
        )),
        failures,
        ..Samples::default()
    }
}

/// Peers are compared on the rows that the candidates were, so that their errors can be.
pub fn add_peer_errors(work: &Work, peers: &mut Peers, checks: &Checks) -> Result<()> {
    let suite = &work.plan.suite;
    let subjects: BTreeSet<&str> =
        peers.backends.iter().filter(|b| b.unavailable.is_none()).map(|b| b.subject.as_str()).collect();
    if subjects.is_empty() {
        return Ok(());
    }
    let timed = suite.time().into_iter().flat_map(|shape| timed_problems(suite, &shape));
    let problems: Vec<Problem> = timed.filter(|problem| problem.seed == suite.seeds[0]).collect();
    let row_seed = checks.row_seed.unwrap_or_default();
    let compared = Compared { subjects: subjects.into_iter().collect(), problems, row_seed };
    let mut errors = compare_outputs(work, "peers", &compared, None)?;
    let problems = compared.problems;
    for backend in &mut peers.backends {
        let is_its = |p: &&Problem| p.shape.name == backend.shape && p.distribution == backend.distribution;
        let problem = problems.iter().find(is_its).context("a peer ran on a timed shape")?;
        backend.errors = errors.remove(&(backend.subject.clone(), problem.id()));
    }
    Ok(())
}
