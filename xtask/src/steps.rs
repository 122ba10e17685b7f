//! The steps of a validation that check: launches, and outputs against float64. Leaves to others: how a variant is launched
//! (`work`), timing (`timing`), and what the figures are worth (kbench).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use anyhow::{Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{CheckedCase, Checks, EMULATOR, LaunchOutcome};
use kbench::job::{BenchJob, ErrorsJob, Event, Executor, GenerateJob, Job, Module};
use kbench::operator::Problem;
use kbench::suite::Suite;

use crate::console::Step;
use crate::entropy;
use crate::runner::End;
use crate::spread::{shares, spread};
use crate::work::{
    ErrorsByCase, REFERENCE_SILENCE, Rows, Work, errors_job_of, errors_of, half_of_the_host, launch_all,
};

/// Runs every variant on every problem. What the outputs are worth, [`compare`] says.
pub fn launch(work: &Work) -> Result<Checks> {
    if let Some(why) = work.why_nothing_is_checked() {
        return Ok(Checks { deferred: Some(why), ..Checks::default() });
    }
    let emulated = work.executor == Some(Executor::Emulator);
    let (modules, problems, suite) = (work.modules(), work.problems(), &work.plan.suite);
    let by_check = is_by_check(suite);
    if by_check && !modules.iter().any(|module| module.variant == suite.control) {
        let why = format!("the control `{}`, on which `check` is tried first, was not built", suite.control);
        return Ok(Checks { deferred: Some(Deferral::new(why, "see its build gate")), ..Checks::default() });
    }
    let step = Step::begin(if emulated { "emulate" } else { "launch" }, (problems.len() * modules.len()) as u64);
    let each = modules.iter().map(|module| (module.clone(), BenchJob::output_dir(work.scratch, &module.variant)));
    let outcomes = launch_shared(work, &each.collect::<Vec<_>>(), &problems, &step)?;
    let variants = modules.iter().map(|module| module.variant.clone());
    let mut launches: BTreeMap<String, Vec<LaunchOutcome>> = variants.zip(outcomes).collect();
    let faults = launches.values().flatten().filter(|o| o.failure.is_some() && o.deferred.is_none()).count();
    step.end(&format!("{} variants on {} problems, {faults} faults", modules.len(), problems.len()));
    launch_control_beside(work, &modules, &problems)?;
    if by_check && without_output(&launches[&suite.control]) {
        wait_for_the_control(&mut launches, &suite.control);
    }
    let mut cases = Vec::new();
    for (variant, outcomes) in launches {
        cases.extend(outcomes.into_iter().map(|launch| CheckedCase { variant: variant.clone(), launch, errors: None }));
    }
    let device = match &work.found.device {
        _ if emulated => Some(EMULATOR.to_owned()),
        device => device.as_ref().map(|(device, _)| format!("gpu: {}", device.name)),
    };
    Ok(Checks { device, deferred: None, memory_apart: false, row_seed: None, cases })
}

fn is_by_check(suite: &Suite) -> bool {
    suite.declared().is_some_and(|operator| operator.check.is_some())
}

/// Compares all outputs of launched cases with the reference, in another process. The rows of large problems are drawn now,
/// when everything is built and has run. `beside` is told once the first problem is compared, where others work meanwhile.
pub fn compare(work: &Work, launched: Checks, beside: Option<&Sender<()>>) -> Result<Checks> {
    let nothing_to_try_on = || launched.cases.iter().all(|case| case.launch.output_sha256.is_none());
    if launched.deferred.is_some() || is_by_check(&work.plan.suite) && nothing_to_try_on() {
        return Ok(launched);
    }
    let subjects: BTreeSet<&str> = launched.cases.iter().map(|case| case.variant.as_str()).collect();
    let row_seed = entropy::seed()?;
    let compared = Compared { subjects: subjects.into_iter().collect(), problems: work.problems(), row_seed };
    let mut errors = compare_outputs(work, "errors", &compared, beside)?;
    let with_errors = |case: CheckedCase| {
        let errors = errors.remove(&(case.variant.clone(), case.launch.problem.id()));
        CheckedCase { errors, ..case }
    };
    let row_seed = work.plan.suite.large.as_ref().map(|_| row_seed);
    Ok(Checks { row_seed, cases: launched.cases.into_iter().map(with_errors).collect(), ..launched })
}

/// Modules, each with the folder of its outputs, on every problem, by all GPUs that share the work; what came of each is in
/// the order of the problems.
fn launch_shared(
    work: &Work,
    modules: &[(Module, PathBuf)],
    problems: &[Problem],
    step: &Step,
) -> Result<Vec<Vec<LaunchOutcome>>> {
    let works = work.on_each();
    let shares = shares(&work.plan.suite.operator, problems, works.len());
    let parts = modules.iter().enumerate().flat_map(|module| shares.iter().map(move |share| (module, share)));
    let (done, total) = (AtomicU64::new(0), (problems.len() * modules.len()) as u64);
    let launched = spread(works.len(), parts.collect(), |gpu, ((place, (module, folder)), share)| {
        let told = Cell::new(0);
        let report = |now: u64, what: &str| {
            let more = now.saturating_sub(told.replace(now));
            step.at(done.fetch_add(more, Ordering::Relaxed) + more, total, what);
        };
        let outcomes = launch_all(&works[gpu], module, share, folder, Vec::new(), &report)?;
        done.fetch_add((share.len() as u64).saturating_sub(told.get()), Ordering::Relaxed);
        Ok((place, outcomes))
    })?;
    let mut launches: Vec<Vec<LaunchOutcome>> = vec![Vec::new(); modules.len()];
    for (place, outcomes) in launched {
        launches[place].extend(outcomes);
    }
    let places: BTreeMap<String, usize> = problems.iter().enumerate().map(|(i, problem)| (problem.id(), i)).collect();
    launches.iter_mut().for_each(|outcomes| outcomes.sort_by_key(|outcome| places.get(&outcome.problem.id())));
    Ok(launches)
}

/// The control on what others were given, of the problems that are large: only there is an output held to the control's.
fn launch_control_beside(work: &Work, modules: &[Module], problems: &[Problem]) -> Result<()> {
    let suite = &work.plan.suite;
    let large: Vec<Problem> = problems.iter().filter(|p| suite.large(&p.shape.name).is_some()).cloned().collect();
    let Some(control) = modules.iter().find(|module| module.variant == suite.control) else { return Ok(()) };
    let others = work.control_on();
    if others.is_empty() || large.is_empty() {
        return Ok(());
    }
    let total = others.len() * large.len();
    let step = Step::begin("beside", total as u64);
    let (variants, given): (Vec<String>, Vec<_>) = others.into_iter().unzip();
    let of = |(form, folder)| (Module { quantised_as: form, ..control.clone() }, folder);
    let given: Vec<(Module, PathBuf)> = given.into_iter().map(of).collect();
    for (variant, outcomes) in variants.iter().zip(launch_shared(work, &given, &large, &step)?) {
        if let Some(why) = outcomes.iter().find_map(|outcome| outcome.failure.as_ref()) {
            bail!("the control `{}` failed on what `{variant}` is given: {why}", suite.control);
        }
    }
    step.end(&format!("{total} outputs of {} on what others are given", suite.control));
    Ok(())
}

fn without_output(outcomes: &[LaunchOutcome]) -> bool {
    outcomes.iter().all(|outcome| outcome.failure.is_some())
}

/// A checker is tried on the control's output before it judges any: without one, nobody's output is judged.
fn wait_for_the_control(launches: &mut BTreeMap<String, Vec<LaunchOutcome>>, control: &str) {
    let why = format!("the control `{control}`, on which `check` is tried first, left no output");
    for outcome in launches.values_mut().flatten().filter(|outcome| outcome.failure.is_none()) {
        *outcome = LaunchOutcome::deferred(&outcome.problem, Deferral::new(why.as_str(), "mend the control"));
    }
}

/// Has the gate file's `generate` make the inputs that are not drawn.
pub fn generate(work: &Work) -> Result<()> {
    let problems = work.problems();
    if work.why_nothing_is_checked().is_some() {
        return Ok(());
    }
    if work.plan.suite.declared().is_none_or(|operator| operator.generate.is_none()) {
        return Ok(());
    }
    let step = Step::begin("generate", problems.len() as u64);
    let (task, count) = (work.task(), problems.len());
    let job = GenerateJob { task, problems };
    let end = work.runner.run("generate", &Job::Generate(job), REFERENCE_SILENCE, |event| {
        if let Event::Progress { done, total, what } = event {
            step.at(done, total, &what);
        }
    })?;
    match end {
        End::Done => step.end(&format!("inputs of {count} problems")),
        End::Error(why) | End::Lost { why, .. } => bail!("{why}"),
    }
    Ok(())
}

/// Whose outputs are compared, on what.
pub struct Compared<'a> {
    pub subjects: Vec<&'a str>,
    pub problems: Vec<Problem>,
    /// What the rows of large problems are drawn by.
    pub row_seed: u64,
}

/// Errors of every output that is there. A comparison that breaks off is nobody's error: where a gate file declares the
/// operator its reference cannot be had, else we failed ourselves; and no case is judged on a part.
pub fn compare_outputs(
    work: &Work,
    name: &str,
    Compared { subjects, problems, row_seed }: &Compared,
    beside: Option<&Sender<()>>,
) -> Result<ErrorsByCase> {
    let step = Step::begin(name, problems.len() as u64);
    let rows = Rows { most: None, seed: *row_seed };
    let threads = if beside.is_some() { half_of_the_host() } else { 0 };
    let job = ErrorsJob { threads, ..errors_job_of(work, subjects, problems, rows) };
    let (errors, broke_off) = errors_of(work, name, job, |done, total, what| {
        step.at(done, total, what);
        if done > 0 {
            // Nobody waits any more once it was told.
            let _ = beside.map(|beside| beside.send(()));
        }
    })?;
    if let Some(why) = broke_off {
        step.end("broke off");
        match work.plan.suite.declared() {
            Some(_) => bail!("{why}"),
            None => bail!("comparing with float64 broke off: {why}"),
        }
    }
    step.end(&format!("{} outputs against float64", errors.len()));
    Ok(errors)
}
