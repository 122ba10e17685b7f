//! A batch of configurations on one device: gates on the builds, launches side by side, errors against float64, then
//! rounds beside the control. What fails a gate goes no further; what comes back is evidence like a run's.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kbench::evidence::{CheckedCase, Checks, EMULATOR, LaunchOutcome, Peers, Samples, TimingFailure};
use kbench::gate::{Gate, State};
use kbench::job::{BenchJob, Event, Executor, Job, Module};
use kbench::judge::{Evidence, emulated_problems, judge_builds, judge_checks, problems};
use kbench::suite::Suite;

use crate::build::BuildSet;
use crate::float64::errors_of;
use crate::plan::Plan;
use crate::runner::{End, Runner};
use crate::validate::{BENCH_SILENCE, Found, Work, launch_all, verified_outputs};

/// Where a batch is measured.
pub struct Station<'a> {
    /// The runner, which sees one GPU.
    pub runner: &'a Runner,
    /// That GPU.
    pub found: &'a Found,
    /// What executes.
    pub executor: Executor,
}

/// Evidence about the candidates of a plan. An error is one of ours; a kernel's is in the evidence.
pub fn measure(station: &Station, plan: &Plan, builds: &BuildSet, scratch: &Path, order_seed: u64) -> Result<Evidence> {
    let suite = &plan.suite;
    let mut evidence = Evidence { builds: builds.evidence(), ..Evidence::default() };
    let work =
        Work { plan, builds, runner: station.runner, found: station.found, executor: Some(station.executor), scratch };
    let gates = judge_builds(suite, &evidence.builds);
    let modules = surviving(suite, &gates, work.modules())?;
    evidence.checks = check(&work, &modules)?;
    if evidence.checks.deferred.is_some() {
        return Ok(evidence);
    }
    if let Some(why) = work.why_nothing_is_timed() {
        evidence.samples.deferred = Some(why);
        return Ok(evidence);
    }
    let gates = judge_checks(suite, &evidence.builds, &evidence.checks);
    let modules = surviving(suite, &gates, modules)?;
    evidence.samples = time(&work, modules, &evidence.checks, order_seed)?;
    Ok(evidence)
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

/// Launches every module at once, each in a process of its own, then compares all outputs.
fn check(work: &Work, modules: &[Module]) -> Result<Checks> {
    let suite = &work.plan.suite;
    let emulated = work.executor == Some(Executor::Emulator);
    let problems = if emulated { emulated_problems(suite) } else { problems(suite) };
    let launch = |module: &Module| -> Result<Vec<LaunchOutcome>> {
        launch_all(work, module, &problems, &BenchJob::output_dir(work.scratch, &module.variant), &|_, _| {})
    };
    let outcomes: Vec<Result<Vec<LaunchOutcome>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = modules.iter().map(|module| scope.spawn(|| launch(module))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a launch thread died")))).collect()
    });
    let subjects: Vec<&str> = modules.iter().map(|m| m.variant.as_str()).collect();
    let (mut errors, broke_off) = errors_of(work, "errors", &subjects, &problems, |_, _, _| {})?;
    if let Some(why) = broke_off {
        bail!("comparing with float64 broke off: {why}");
    }
    let mut cases = Vec::new();
    for (module, outcomes) in modules.iter().zip(outcomes) {
        for launch in outcomes? {
            let errors = errors.remove(&(module.variant.clone(), launch.problem.id()));
            cases.push(CheckedCase { variant: module.variant.clone(), launch, errors });
        }
    }
    let device = match &work.found.device {
        _ if emulated => Some(EMULATOR.to_owned()),
        device => device.as_ref().map(|(device, _)| format!("gpu: {}", device.name)),
    };
    Ok(Checks { device, deferred: None, cases })
}

/// Times the modules. A kernel that takes its process with it has failed; the others are timed again without it.
fn time(work: &Work, mut modules: Vec<Module>, checks: &Checks, order_seed: u64) -> Result<Samples> {
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
        let end = work.runner.run("bench", &Job::Bench(Box::new(job)), BENCH_SILENCE, |event| match event {
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
            _ => return Err(anyhow::anyhow!("{why}")).context("timing broke off twice, and no candidate was running"),
        }
    }
}
