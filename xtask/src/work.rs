//! The work that a validation and a search share: the device that was found, what runs there, launching variants in
//! processes of their own, and comparing outputs with float64. Leaves to others: in which order, and what it is worth.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::{BuildRecord, Checks, Device, Errors, GpuState, LaunchOutcome, Operands};
use kbench::job::{BenchJob, ErrorsJob, Event, Executor, Job, LaunchJob, Module, Task};
use kbench::judge::{emulated_problems, problems};
use kbench::operator::Problem;
use kbench::suite::Suite;
use sdpa_kernel::registry::Variant;

use crate::build::{self, BuildSet, runs_on, target};
use crate::plan::{DeviceChoice, Plan};
use crate::runner::{End, Runner};

/// An emulated launch of the largest shape, twice, on two slow cores.
const EMULATION_SILENCE: Duration = Duration::from_secs(300);
/// A launch, with its upload and read-back, is done long before this; a kernel that hangs is not.
pub const LAUNCH_SILENCE: Duration = Duration::from_secs(60);
/// One round of blocks, slow baselines and a peer's first load included.
pub const BENCH_SILENCE: Duration = Duration::from_secs(120);
/// The float64 reference of the largest shape on two slow cores.
pub const REFERENCE_SILENCE: Duration = Duration::from_secs(300);
/// Opening a device.
const PROBE_SILENCE: Duration = Duration::from_secs(60);
/// A kernel that faults on this many problems is not tried on the rest.
const MAX_FAULTS: usize = 5;

/// The device as the probe found it, or why there is none.
pub struct Found {
    /// The device, and its clocks and temperature when it was asked.
    pub device: Option<(Device, GpuState)>,
    /// Why there is none.
    pub why_not: Option<Deferral>,
}

/// Asks the device that is here, if there is one.
pub fn probe(runner: &Runner) -> Result<Found> {
    let mut found = Found { device: None, why_not: None };
    let end = runner.run("probe", &Job::Probe, PROBE_SILENCE, |event| match event {
        Event::Device { device, state, .. } => found.device = Some((device, state)),
        Event::NoDevice(deferral) => found.why_not = Some(deferral),
        _ => {}
    })?;
    match end {
        End::Done => {}
        End::Error(why) => {
            found.device = None;
            found.why_not = Some(Deferral::new(format!("the device could not be asked: {why}"), "check `nvidia-smi`"));
        }
        End::Lost { why, .. } => bail!("the runner was lost while it opened the device: {why}"),
    }
    Ok(found)
}

/// What runs the cases, if anything does.
pub fn executor(plan: &Plan, found: &Found, choice: DeviceChoice) -> Option<Executor> {
    let emulator = plan.suite.emulation.as_ref().map(|_| Executor::Emulator);
    match choice {
        DeviceChoice::Emulator => emulator,
        DeviceChoice::Gpu => Some(Executor::Gpu),
        DeviceChoice::Auto if found.device.is_some() => Some(Executor::Gpu),
        DeviceChoice::Auto => emulator,
    }
}

/// A GPU, and a runner to which no other is visible.
pub struct Card {
    pub runner: Runner,
    pub found: Found,
}

/// What the measuring steps share.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The suite as used, and its variants.
    pub plan: &'a Plan,
    /// What was built of them, for every architecture that is wanted.
    pub builds: &'a BuildSet,
    /// By which everything is run.
    pub runner: &'a Runner,
    /// The device that the runner opens.
    pub found: &'a Found,
    /// Further GPUs of its model, which share launches, timing and tools with it.
    pub others: &'a [Card],
    /// What runs the cases, if anything does.
    pub executor: Option<Executor>,
    /// A folder for outputs.
    pub scratch: &'a Path,
}

impl Work<'_> {
    /// The same work on each GPU that shares it.
    pub fn on_each(&self) -> Vec<Work<'_>> {
        let alone = Work { others: &[], ..*self };
        let others = self.others.iter().map(|Card { runner, found }| Work { runner, found, ..alone });
        std::iter::once(alone).chain(others).collect()
    }

    /// The architecture whose build runs: a GPU's own, or the suite's, whose PTX the emulator executes.
    fn arch(&self) -> Option<String> {
        match (self.executor?, &self.found.device) {
            (Executor::Gpu, Some((device, _))) => Some(device.arch()),
            (Executor::Gpu, None) => None,
            (Executor::Emulator | Executor::EmulatedHopper, _) => Some(self.plan.suite.arch.clone()),
        }
    }

    /// What the device loads of every variant that was built for it.
    pub fn modules(&self) -> Vec<Module> {
        let Some(arch) = self.arch() else { return Vec::new() };
        if self.plan.suite.declared().is_some() {
            let names = self.plan.suite.variant_names();
            return names.filter_map(|name| self.builds.planned_module(name, &arch)).collect();
        }
        let module = |variant: &Variant| Some(self.builds.get(&variant.name, target(variant, &arch))?.module());
        self.plan.variants.iter().filter_map(module).collect()
    }

    /// Those that are kernels: what host code launches is not looked into.
    pub fn kernels(&self) -> Vec<Module> {
        self.modules().into_iter().filter(|module| module.call.is_none()).collect()
    }

    /// What every variant is run on.
    pub fn problems(&self) -> Vec<Problem> {
        match self.executor {
            Some(Executor::Emulator) => emulated_problems(&self.plan.suite),
            _ => problems(&self.plan.suite),
        }
    }

    /// What a variant was given.
    fn operands(&self, variant: &str) -> Operands {
        let record = self.builds.built.iter().map(|b| &b.record).find(|record| record.variant == variant);
        record.map(BuildRecord::operands).unwrap_or_default()
    }

    /// Variants that are given other codes than the control, and where the control's outputs on theirs go: two ways of
    /// quantising may differ by more than a row that was not written.
    pub fn control_on(&self) -> BTreeMap<String, (Operands, PathBuf)> {
        let control = &self.plan.suite.control;
        let of = |variant: &Variant| {
            let form = self.operands(&variant.name);
            let folder = BenchJob::output_dir(self.scratch, &format!("{control} on {}", variant.name));
            (form != self.operands(control)).then(|| (variant.name.clone(), (form, folder)))
        };
        self.plan.variants.iter().filter_map(of).collect()
    }

    /// What is computed, with the folder for inputs that are made.
    pub fn task(&self) -> Task {
        Task { generated: self.scratch.join("generated"), ..self.plan.task.clone() }
    }

    /// Why no case can run.
    pub fn why_nothing_is_checked(&self) -> Option<Deferral> {
        if self.builds.built.is_empty() {
            return Some(Deferral::new("nothing was built", "see the build gates"));
        }
        // Where one variant claims not to run here, there is nothing to compare the others with; of a gate file's, the control.
        let is_needed = |variant: &str| self.plan.suite.declared().is_none() || self.plan.suite.control == variant;
        let unclaimed = |arch: &str| {
            let mut here = self.builds.failures.iter().filter(|f| f.arch == arch && is_needed(&f.variant));
            here.find_map(|failure| failure.unclaimed.clone())
        };
        let why = |arch: String| not_for_this_device(&self.plan.variants, &arch).or_else(|| unclaimed(&arch));
        if let Some(why) = self.arch().and_then(why) {
            return Some(why);
        }
        if let Some(why) = &self.plan.no_python {
            return Some(why.clone());
        }
        match self.executor {
            Some(_) => None,
            None => {
                let no_emulation = || Deferral::new("the suite allows no emulation", "run on a GPU");
                Some(self.found.why_not.clone().unwrap_or_else(no_emulation))
            }
        }
    }

    /// Why nothing can be timed.
    pub fn why_nothing_is_timed(&self) -> Option<Deferral> {
        let emulated = || Deferral::new("time is never taken on the emulator", "run on a machine with an NVIDIA GPU");
        match self.executor {
            Some(Executor::Gpu) => self.why_nothing_is_checked(),
            Some(Executor::Emulator | Executor::EmulatedHopper) => {
                Some(self.found.why_not.clone().unwrap_or_else(emulated))
            }
            None => self.why_nothing_is_checked(),
        }
    }
}

/// Why a device of this architecture can run no case: a variant is made for another.
fn not_for_this_device(variants: &[Variant], arch: &str) -> Option<Deferral> {
    let variant = variants.iter().find(|v| !runs_on(v, arch))?;
    let name = &variant.name;
    Some(match variant.family.arch() {
        Some(own) => {
            Deferral::new(format!("`{name}` is compiled for {own} and this device is {arch}"), "run on a Hopper GPU")
        }
        None => build::unclaimed(variant, arch)?,
    })
}

/// A fault ends its process; the problems that are left get a new one, until the variant has faulted often enough. The
/// first problems may have their outcomes already.
pub fn launch_all(
    work: &Work,
    module: &Module,
    problems: &[Problem],
    out_dir: &Path,
    mut outcomes: Vec<LaunchOutcome>,
    report: &dyn Fn(u64, &str),
) -> Result<Vec<LaunchOutcome>> {
    while outcomes.len() < problems.len() {
        let left = &problems[outcomes.len()..];
        // What the executor could not run is no fault.
        let faults = outcomes.iter().filter(|o| o.failure.is_some() && o.deferred.is_none()).count();
        if faults >= MAX_FAULTS {
            outcomes.push(LaunchOutcome::failed(&left[0], &format!("not run: the kernel had faulted {faults} times")));
            continue;
        }
        let job = launch_job(work, module, left, out_dir)?;
        let executor = job.executor;
        let silence = if executor == Executor::Emulator { EMULATION_SILENCE } else { LAUNCH_SILENCE };
        let (before, mut last) = (outcomes.len(), String::new());
        let end =
            work.runner.run(
                &format!("launch-{}", module.variant),
                &Job::Launch(job),
                silence,
                |event| match event {
                    Event::Progress { what, .. } => {
                        report(outcomes.len() as u64, &what);
                        last = what;
                    }
                    Event::Launched { outcome } => outcomes.push(outcome),
                    _ => {}
                },
            )?;
        match end {
            End::Done if outcomes.len() > before => {}
            End::Done => outcomes.push(LaunchOutcome::failed(&left[0], "the runner ended without an outcome")),
            // What stops a job before its first launch stops every problem alike.
            End::Error(why) => {
                outcomes.extend(problems[outcomes.len()..].iter().map(|p| LaunchOutcome::failed(p, &why)))
            }
            End::Lost { why, .. } => {
                let problem = &problems[outcomes.len().min(problems.len() - 1)];
                outcomes.push(LaunchOutcome::failed(problem, &format!("the runner was lost during {last}: {why}")));
            }
        }
    }
    outcomes.truncate(problems.len());
    Ok(outcomes)
}

/// The job that launches a variant on problems.
pub fn launch_job(work: &Work, module: &Module, problems: &[Problem], out_dir: &Path) -> Result<LaunchJob> {
    Ok(LaunchJob {
        task: work.task(),
        module: module.clone(),
        problems: problems.to_vec(),
        out_dir: out_dir.to_owned(),
        executor: work.executor.context("something runs the cases")?,
        replays: replays(&work.plan.suite, module, problems),
        max_ctas: work.plan.suite.emulation.as_ref().map(|e| e.max_ctas),
        schedules: Vec::new(),
        unchecked: false,
        counts: false,
        threads: 0,
    })
}

/// How often each problem is launched again: those that the suite says, by candidates.
fn replays(suite: &Suite, module: &Module, problems: &[Problem]) -> BTreeMap<String, u32> {
    let is_candidate = suite.candidates.iter().any(|c| c.variant == module.variant);
    let of = |p: &Problem| Some((p.id(), suite.replays_of(p)?));
    problems.iter().filter(|_| is_candidate).filter_map(of).collect()
}

/// Half of the host's threads: what works beside a GPU that is timed leaves the other half to whoever feeds it.
pub fn half_of_the_host() -> u32 {
    std::thread::available_parallelism().map_or(1, |all| (usize::from(all) / 2).max(1)) as u32
}

/// Hashes of the outputs of launches that did not fail.
pub fn verified_outputs(checks: &Checks) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut verified: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for case in &checks.cases {
        if let Some(hash) = &case.launch.output_sha256 {
            verified.entry(case.variant.clone()).or_default().insert(case.launch.problem.id(), hash.clone());
        }
    }
    verified
}

/// Errors by subject and problem id.
pub type ErrorsByCase = BTreeMap<(String, String), Errors>;

/// The job that compares whatever the subjects left on the problems; see [`errors_job`].
pub fn errors_job_of(work: &Work, subjects: &[&str], problems: &[Problem], rows: Rows) -> ErrorsJob {
    let outputs = subjects.iter().map(|s| ((*s).to_owned(), BenchJob::output_dir(work.scratch, s)));
    let operands = work.builds.built.iter().map(|b| (b.record.variant.clone(), b.record.operands()));
    let control_on = work.control_on().into_iter().map(|(variant, (_, folder))| (variant, folder));
    let job = errors_job(&work.task(), &work.plan.suite, operands.collect(), outputs.collect(), problems, rows);
    ErrorsJob { control_on: control_on.collect(), ..job }
}

/// Which rows of large problems are compared.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Of a problem with more query rows than this, so many are compared, where there is a limit besides the suite's.
    pub most: Option<u32>,
    /// What they are drawn by.
    pub seed: u64,
}

/// A job for these outputs of kernels that were given these operands. Of a problem with more than `most` query rows, and of
/// one that the suite calls large, that many are compared.
pub fn errors_job(
    task: &Task,
    suite: &Suite,
    operands: BTreeMap<String, Operands>,
    outputs: BTreeMap<String, PathBuf>,
    problems: &[Problem],
    Rows { most, seed }: Rows,
) -> ErrorsJob {
    let rows = |p: &Problem| {
        let of_suite = suite.large(&p.shape.name).map(|large| large.reference_rows);
        let all = suite.operator.rows(&p.shape)?;
        of_suite.into_iter().chain(most.filter(|most| (*most as usize) < all)).min()
    };
    ErrorsJob {
        task: task.clone(),
        problems: problems.to_vec(),
        outputs,
        operands,
        control: suite.control.clone(),
        control_on: BTreeMap::new(),
        sampled: problems.iter().filter_map(|p| Some((p.id(), rows(p)?))).collect(),
        row_seed: seed,
        bad_element: suite.correctness.bad_element,
        ahead: false,
        threads: 0,
    }
}

/// Errors of every output of the subjects that is there, and why the comparison broke off, if it did. `report` hears
/// how many problems are done, of how many, and which one is next.
pub fn errors_of(
    work: &Work,
    name: &str,
    job: ErrorsJob,
    mut report: impl FnMut(u64, u64, &str),
) -> Result<(ErrorsByCase, Option<String>)> {
    let mut errors = BTreeMap::new();
    let end = work.runner.run(name, &Job::Errors(job), REFERENCE_SILENCE, |event| match event {
        Event::Progress { done, total, what } => report(done, total, &what),
        Event::Compared { subject, problem, errors: found } => {
            errors.insert((subject, problem.id()), found);
        }
        _ => {}
    })?;
    Ok(match end {
        End::Done => (errors, None),
        End::Error(why) | End::Lost { why, .. } => (errors, Some(why)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdpa_kernel::registry::find;

    #[test]
    fn a_device_that_a_variant_is_not_made_for_defers_with_a_remedy() {
        let variants = ["stage2", "hopper"].map(|name| find(name).unwrap());
        let why = not_for_this_device(&variants, "sm_89").unwrap().to_string();
        assert_eq!(why, "`hopper` is compiled for sm_90a and this device is sm_89; run on a Hopper GPU");
        assert_eq!(not_for_this_device(&variants, "sm_90"), None);
        assert_eq!(not_for_this_device(&variants[..1], "sm_89"), None);
        let why = not_for_this_device(&variants[..1], "sm_80").unwrap().to_string();
        assert!(why.contains("`stage2`") && why.contains("sm_80") && why.contains("sm_89"), "{why}");
        // Not a later chip either: sm_90a code runs on nothing else.
        assert!(not_for_this_device(&variants, "sm_100").is_some());
    }
}
