//! The step of a validation that checks: outputs against float64. Leaves to others: how a variant is launched (`work`), timing
//! (`timing`), and what the figures are worth (kbench).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{CheckedCase, Checks, EMULATOR, LaunchOutcome};
use kbench::job::{BenchJob, Event, Executor, GenerateJob, Job, Module};
use kbench::judge::{emulated_problems, problems};
use kbench::operator::Problem;

use crate::console::Step;
use crate::entropy;
use crate::runner::End;
use crate::spread::{shares, spread};
use crate::work::{ErrorsByCase, REFERENCE_SILENCE, Work, errors_of, launch_all};

/// Runs every variant on every problem, then compares all outputs with float64 attention in another process.
pub fn check(work: &Work) -> Result<Checks> {
    if let Some(why) = work.why_nothing_is_checked() {
        return Ok(Checks { deferred: Some(why), ..Checks::default() });
    }
    let emulated = work.executor == Some(Executor::Emulator);
    let problems = if emulated { emulated_problems(&work.plan.suite) } else { problems(&work.plan.suite) };
    let (modules, suite) = (work.modules(), &work.plan.suite);
    let by_check = suite.declared().is_some_and(|operator| operator.check.is_some());
    if by_check && !modules.iter().any(|module| module.variant == suite.control) {
        let why = format!("the control `{}`, on which `check` is tried first, was not built", suite.control);
        return Ok(Checks { deferred: Some(Deferral::new(why, "see its build gate")), ..Checks::default() });
    }
    let step = Step::begin(if emulated { "emulate" } else { "launch" }, (problems.len() * modules.len()) as u64);
    let folder = |module: &Module| BenchJob::output_dir(work.scratch, &module.variant);
    let launched: Vec<_> = modules.iter().map(|module| (module.clone(), folder(module))).collect();
    let outcomes = launch_each(work, &launched, &problems, &step)?;
    let mut launches: BTreeMap<_, _> = modules.iter().map(|module| module.variant.clone()).zip(outcomes).collect();
    let faults = launches.values().flatten().filter(|o| o.failure.is_some() && o.deferred.is_none()).count();
    step.end(&format!("{} variants on {} problems, {faults} faults", modules.len(), problems.len()));
    launch_control_beside(work, &modules, &problems)?;
    let subjects = modules.iter().map(|m| m.variant.as_str()).collect::<Vec<_>>();
    // Drawn when everything is built and has run.
    let row_seed = entropy::seed()?;
    let nothing_to_try_on = by_check && without_output(&launches[&suite.control]);
    let mut errors = match nothing_to_try_on {
        false => compare_outputs(work, "errors", &subjects, &problems, row_seed)?,
        true => {
            wait_for_the_control(&mut launches, &suite.control);
            Default::default()
        }
    };
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
    let row_seed = work.plan.suite.large.as_ref().map(|_| row_seed);
    Ok(Checks { device, deferred: None, memory_apart: false, row_seed, cases })
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
    let launches =
        others.values().map(|(form, folder)| (Module { quantised_as: *form, ..control.clone() }, folder.clone()));
    let outcomes = launch_each(work, &launches.collect::<Vec<_>>(), &large, &step)?;
    for (variant, outcomes) in others.keys().zip(outcomes) {
        if let Some(why) = outcomes.iter().find_map(|outcome| outcome.failure.as_ref()) {
            bail!("the control `{}` failed on what `{variant}` is given: {why}", suite.control);
        }
    }
    step.end(&format!("{total} outputs of {} on what others are given", suite.control));
    Ok(())
}

/// Every module on every problem, by all GPUs that share the work, with outputs in its folder. Outcomes are in the order of
/// the modules, and then of the problems.
fn launch_each(
    work: &Work,
    modules: &[(Module, PathBuf)],
    problems: &[Problem],
    step: &Step,
) -> Result<Vec<Vec<LaunchOutcome>>> {
    let works = work.on_each();
    let shares = shares(&work.plan.suite.operator, problems, works.len());
    let parts = (0..modules.len()).flat_map(|at| shares.iter().map(move |share| (at, share)));
    let (done, total) = (AtomicU64::new(0), (problems.len() * modules.len()) as u64);
    let launched = spread(works.len(), parts.collect(), |gpu, (at, share)| {
        let (module, folder) = &modules[at];
        let told = Cell::new(0);
        let report = |now: u64, what: &str| {
            let more = now.saturating_sub(told.replace(now));
            step.at(done.fetch_add(more, Ordering::Relaxed) + more, total, what);
        };
        let outcomes = launch_all(&works[gpu], module, share, folder, Vec::new(), &report)?;
        done.fetch_add(share.len() as u64 - told.get(), Ordering::Relaxed);
        Ok((at, outcomes))
    })?;
    let mut launches = vec![Vec::new(); modules.len()];
    for (at, outcomes) in launched {
        launches[at].extend(outcomes);
    }
    let places: BTreeMap<String, usize> = problems.iter().enumerate().map(|(i, problem)| (problem.id(), i)).collect();
    launches.iter_mut().for_each(|outcomes| outcomes.sort_by_key(|outcome| places.get(&outcome.problem.id())));
    Ok(launches)
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
    let suite = &work.plan.suite;
    let problems = if work.executor == Some(Executor::Emulator) { emulated_problems(suite) } else { problems(suite) };
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

/// Errors of every output that is there. A comparison that breaks off is nobody's error: where a gate file declares the
/// operator its reference cannot be had, else we failed ourselves; and no case is judged on a part.
pub fn compare_outputs(
    work: &Work,
    name: &str,
    subjects: &[&str],
    problems: &[Problem],
    row_seed: u64,
) -> Result<ErrorsByCase> {
    let step = Step::begin(name, problems.len() as u64);
    let (errors, broke_off) =
        errors_of(work, name, subjects, problems, row_seed, |done, total, what| step.at(done, total, what))?;
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
