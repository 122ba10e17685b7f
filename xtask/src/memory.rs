//! Memory checks of a run on a GPU: every variant's very PTX in the emulator, beside the GPU's work and on what that leaves
//! of the host, then compute-sanitizer on what the emulator could not run. Leaves to others: which problems that are and
//! what was found is worth (kbench), and running the tools (`sanitize`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use kbench::deferral::Deferral;
use kbench::evidence::{CheckedCase, LaunchOutcome};
use kbench::job::{BenchJob, Event, Executor, Job, LaunchJob, Module};
use kbench::memory::{Memory, TOOLS, for_tools, is_for_emulator, left_for_tools, most_ctas, problems};
use kbench::operator::Problem;
use rayon::prelude::*;

use crate::console::Step;
use crate::layout::Layout;
use crate::runner::End;
use crate::sanitize;
use crate::spread::spread;
use crate::work::{Work, half_of_the_host};

/// An emulated launch on a busy host.
const SILENCE: Duration = Duration::from_secs(300);
/// Variants that are emulated at once, where the host has the cores: small grids have few CTAs to share among threads.
const LANES: usize = 4;
/// An emulator that was lost so often on one variant is not started again.
const MAX_LOSSES: usize = 3;

/// Whether they are due: cases run on a GPU.
pub fn is_due(work: &Work) -> bool {
    work.executor == Some(Executor::Gpu) && work.why_nothing_is_checked().is_none()
}

/// Runs every variant in the emulator, on half of the host: the rest launches, compares and times. Ends early once `stop`
/// is set: somebody found that the run comes to nothing.
pub fn emulate(work: &Work, stop: &AtomicBool) -> Result<Vec<CheckedCase>> {
    let modules = work.kernels();
    let half = half_of_the_host() as usize;
    let lanes = LANES.min(half).min(modules.len().max(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(lanes).build().context("failed to start threads")?;
    let of = |module| emulate_one(work, module, (half / lanes) as u32, stop);
    let cases: Vec<Vec<CheckedCase>> = pool.install(|| modules.par_iter().map(of).collect::<Result<_>>())?;
    Ok(cases.concat())
}

fn emulate_one(work: &Work, module: &Module, threads: u32, stop: &AtomicBool) -> Result<Vec<CheckedCase>> {
    let suite = &work.plan.suite;
    let (named, mut others): (Vec<_>, Vec<_>) = problems(suite).into_iter().partition(|p| is_for_emulator(suite, p));
    let mut groups: BTreeMap<u32, Vec<Problem>> = BTreeMap::new();
    for problem in named {
        groups.entry(most_ctas(suite, &problem)).or_default().push(problem);
    }
    let launch = |max_ctas, problems| {
        let job = job(work, module, problems, Executor::Emulator, "emulated");
        launch(work, &LaunchJob { max_ctas: Some(max_ctas), threads, ..job })
    };
    let mut outcomes = Vec::new();
    for (max_ctas, problems) in groups {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        outcomes.extend(launch(max_ctas, problems)?);
    }
    // Nobody knows of the others whether they are too much. Once one is, so are those that are larger.
    others.sort_by_key(|problem| suite.operator.elements(&problem.shape));
    for problem in others {
        if stop.load(Ordering::Relaxed) || outcomes.iter().any(|outcome| outcome.deferred.is_some()) {
            break;
        }
        outcomes.extend(launch(most_ctas(suite, &problem), vec![problem.clone()])?);
    }
    let case = |launch| CheckedCase { variant: module.variant.clone(), launch, errors: None };
    Ok(outcomes.into_iter().map(case).collect())
}

/// Launches that leave what they write in a folder of their own, where nobody takes it for a case's output.
fn job(work: &Work, module: &Module, problems: Vec<Problem>, executor: Executor, folder: &str) -> LaunchJob {
    LaunchJob {
        task: work.task(),
        module: module.clone(),
        problems,
        out_dir: BenchJob::output_dir(&work.scratch.join("memory").join(folder), &module.variant),
        executor,
        replays: BTreeMap::new(),
        max_ctas: None,
        schedules: Vec::new(),
        unchecked: false,
        counts: false,
        threads: 0,
    }
}

/// What came of each problem. That the emulator was lost is no kernel's fault: the problem is deferred, and those behind it
/// get another process.
fn launch(work: &Work, job: &LaunchJob) -> Result<Vec<LaunchOutcome>> {
    let problems = &job.problems;
    let mut outcomes: Vec<LaunchOutcome> = Vec::new();
    let mut losses = 0;
    while outcomes.len() < problems.len() {
        let left = problems[outcomes.len()..].to_vec();
        let before = outcomes.len();
        let part = Job::Launch(LaunchJob { problems: left, ..job.clone() });
        let end = work.runner.run(&format!("memory-{}", job.module.variant), &part, SILENCE, |event| {
            if let Event::Launched { outcome } = event {
                outcomes.push(outcome);
            }
        })?;
        outcomes.truncate(problems.len());
        let (why, one) = match end {
            End::Done if outcomes.len() > before => continue,
            End::Done => ("it gave no outcome".to_owned(), false),
            End::Error(why) => (why, false),
            End::Lost { how, .. } => (how, true),
        };
        losses += 1;
        let deferral = Deferral::new(format!("the emulator could not run it: {why}"), "see the run's logs");
        let count = if one && losses < MAX_LOSSES { 1 } else { usize::MAX };
        let lost = problems.iter().skip(outcomes.len()).take(count);
        let lost: Vec<LaunchOutcome> = lost.map(|p| LaunchOutcome::deferred(p, deferral.clone())).collect();
        outcomes.extend(lost);
    }
    Ok(outcomes)
}

/// Gives compute-sanitizer what the emulator did not run. The GPU must be idle: nobody is timed any more.
pub fn conclude(work: &Work, layout: &Layout, emulated: Vec<CheckedCase>) -> Result<Memory> {
    let suite = &work.plan.suite;
    let mut memory = Memory { emulated, ..Memory::default() };
    let modules = work.kernels();
    let wanted = |module: &Module| for_tools(suite, &left_for_tools(suite, &memory, &module.variant));
    let needs = modules.iter().map(|module| (module, wanted(module))).filter(|(_, problems)| !problems.is_empty());
    let needs: Vec<(&Module, Vec<Problem>)> = needs.collect();
    let step = Step::begin("memory", (needs.len() * TOOLS.len()) as u64);
    if !needs.is_empty() {
        match sanitize::tool(layout) {
            Err(why) => memory.no_tool = Some(why),
            Ok(program) => memory.sanitized = sanitized(work, &program, &needs, &step)?,
        }
    }
    let (cases, runs) = (memory.emulated.len(), memory.sanitized.len());
    step.end(&format!("{cases} cases in the emulator, {runs} runs of compute-sanitizer"));
    Ok(memory)
}

fn sanitized(
    work: &Work,
    program: &Path,
    needs: &[(&Module, Vec<Problem>)],
    step: &Step,
) -> Result<Vec<kbench::memory::Sanitized>> {
    let device = work.found.device.as_ref().map_or("GPU", |(device, _)| device.name.as_str());
    let works = work.on_each();
    let parts = needs.iter().flat_map(|(module, problems)| TOOLS.map(|tool| (*module, problems, tool)));
    spread(works.len(), parts.collect(), |gpu, (module, problems, tool)| {
        let builds = work.builds.built.iter().filter(|built| built.record.variant == module.variant);
        let in_bulk = builds.into_iter().any(|built| built.record.copies_in_bulk);
        step.advance(&format!("{tool} {}", module.variant));
        let work = &works[gpu];
        let job = job(work, module, problems.clone(), Executor::Gpu, &format!("sanitized-{tool}"));
        sanitize::run_tool(work.runner, program, tool, job, device, in_bulk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::BuildSet;
    use crate::plan::{Changes, Plan};
    use crate::runner::Runner;
    use crate::work::Found;
    use kbench::job::Files;

    /// What a stand-in for the emulator, a shell script, comes to on two problems.
    fn outcomes(script: &str) -> Vec<LaunchOutcome> {
        let scratch = tempfile::tempdir().unwrap();
        let plan = Plan::comparison("stage0", &["stage1".to_owned()], &Changes::default()).unwrap();
        let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let runner = Runner { command, logs: scratch.path().join("logs"), gpu: None };
        let found = Found { device: None, why_not: None };
        let work = Work {
            plan: &plan,
            builds: &BuildSet::default(),
            runner: &runner,
            found: &found,
            others: &[],
            executor: Some(Executor::Gpu),
            scratch: scratch.path(),
        };
        let module = Module {
            variant: "stage1".into(),
            files: Files { image: "x".into(), ptx: Some("y".into()) },
            toggles: BTreeMap::new(),
            launches: vec![],
            planned: BTreeMap::new(),
            call: None,
            quantised_as: Default::default(),
        };
        let two = problems(&plan.suite).into_iter().take(2).collect();
        launch(&work, &job(&work, &module, two, Executor::Emulator, "emulated")).unwrap()
    }

    #[test]
    fn an_emulator_that_is_lost_or_refuses_is_no_fault_of_a_kernel() {
        let scripts = [
            ("read job; kill -9 $$", "signal 9"),
            ("read job; echo '{\"event\":\"error\",\"why\":\"no room\"}'", "no room"),
            ("read job; echo '{\"event\":\"done\"}'", "no outcome"),
        ];
        for (script, why) in scripts {
            let outcomes = outcomes(script);
            assert_eq!(outcomes.len(), 2, "{script}");
            let says = |o: &LaunchOutcome| o.deferred.as_ref().is_some_and(|d| d.why.contains(why));
            assert!(outcomes.iter().all(says), "{script}: {outcomes:?}");
        }
    }
}
