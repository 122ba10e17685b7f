//! The step of a validation that checks: outputs against float64. Leaves to others: how a variant is launched (`work`), timing
//! (`timing`), and what the figures are worth (kbench).

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use kbench::evidence::{CheckedCase, Checks, EMULATOR};
use kbench::job::{BenchJob, Event, Executor, GenerateJob, Job};
use kbench::judge::{emulated_problems, problems};
use kbench::operator::Problem;

use crate::console::Step;
use crate::runner::End;
use crate::work::{ErrorsByCase, REFERENCE_SILENCE, Work, errors_of, launch_all};

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
    let mut errors = compare_outputs(work, "errors", &subjects, &problems)?;
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

/// Errors of every output that is there. A comparison that breaks off is nobody's error: where a gate file declares the
/// operator its reference cannot be had, else we failed ourselves; and no case is judged on a part.
pub fn compare_outputs(work: &Work, name: &str, subjects: &[&str], problems: &[Problem]) -> Result<ErrorsByCase> {
    let step = Step::begin(name, problems.len() as u64);
    let (errors, broke_off) =
        errors_of(work, name, subjects, problems, |done, total, what| step.at(done, total, what))?;
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
