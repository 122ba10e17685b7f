//! `validate`: suite, toolchain, builds, checks, timing, gates, decision, run directory. Each step writes its evidence
//! before the next begins; what cannot be done here is deferred with its reason and remedy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kbench::decision::{Decision, decide};
use kbench::deferral::Deferral;
use kbench::evidence::{
    CheckedCase, Checks, Device, EMULATOR, Environment, GpuState, LaunchOutcome, Peers, Samples, TimingFailure,
};
use kbench::job::{BenchJob, Event, Executor, Job, LaunchJob, Module};
use kbench::judge::{Evidence, emulated_problems, judge, problems};
use kbench::operator::{Distribution, Problem};
use kbench::profile::Profile;
use kbench::report::{Format, RunView, headline, html, markdown_file, render};
use kbench::subject::Subject;
use kbench::suite::Suite;
use sdpa_kernel::registry::Variant;
use serde::{Deserialize, Serialize};

use crate::build::{BuildSet, build_all, disassemble, runs_on, target};
use crate::ceilings;
use crate::console::Step;
use crate::cubin::sha256_hex;
use crate::environment::{self, SourceState};
use crate::float64::{ErrorsByCase, errors_of};
use crate::inspect::earlier_runs;
use crate::layout::Layout;
use crate::peers;
use crate::plan::Plan;
use crate::profile::{Subjects, profile};
use crate::run_dir::RunDir;
use crate::runner::{End, Runner};
use crate::toolchain::{self, Toolchain};

/// An emulated launch of the largest shape, twice, on two slow cores.
const EMULATION_SILENCE: Duration = Duration::from_secs(300);
/// A launch, with its upload and read-back, is done long before this; a kernel that hangs is not.
pub(crate) const LAUNCH_SILENCE: Duration = Duration::from_secs(60);
/// One round of blocks, slow baselines and a peer's first load included.
pub(crate) const BENCH_SILENCE: Duration = Duration::from_secs(120);
/// Opening a device.
const PROBE_SILENCE: Duration = Duration::from_secs(60);
/// A kernel that faults on this many problems is not tried on the rest.
const MAX_FAULTS: usize = 5;

/// Where cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceChoice {
    /// A GPU if there is one, else the emulator for what the suite allows it.
    Auto,
    /// A GPU, or nothing.
    Gpu,
    /// The emulator, even where there is a GPU.
    Emulator,
}

/// Which peers are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerChoice {
    /// Those that are installed; those that are not are deferred.
    Auto,
    /// None.
    None,
    /// PyTorch.
    Torch,
}

/// What the command line says besides the plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where cases run.
    pub device: DeviceChoice,
    /// Which peers.
    pub peers: PeerChoice,
    /// Where the run directory goes.
    pub out: Option<PathBuf>,
    /// An interrupted run to continue.
    pub resume: Option<PathBuf>,
    /// Whether variants are timed.
    pub time: bool,
    /// Whether Nsight Compute profiles control and candidates.
    pub ncu: bool,
    /// Files of other runs that this one rests on, by their names there; they are copied into it.
    pub attachments: Vec<(RunDir, String)>,
}

/// What a run came to.
pub struct Outcome {
    /// The run directory.
    pub run: RunDir,
    /// The decision.
    pub decision: Decision,
    /// The report as a terminal shows it.
    pub report: String,
    /// Whether cases ran on a GPU and were timed.
    pub complete: bool,
}

/// The device as the probe found it, or why there is none.
pub(crate) struct Found {
    pub device: Option<(Device, GpuState)>,
    pub why_not: Option<Deferral>,
}

/// Validates a plan.
pub fn validate(layout: &Layout, plan: &Plan, options: &Options) -> Result<Outcome> {
    let (source, started) = (SourceState::of(layout), jiff::Timestamp::now());
    let run = open_run(layout, plan, options, &source)?;
    run.write("suite.toml", &toml::to_string(&plan.suite)?)?;
    options.attachments.iter().try_for_each(|(other, file)| run.keep_file(other, file))?;
    let runner = Runner::locate(layout, &run.logs())?;
    let found = probe(&runner)?;
    if let (DeviceChoice::Gpu, Some(why)) = (options.device, &found.why_not) {
        bail!("--device gpu: {why}");
    }
    let (toolchain, builds) = build(layout, plan, &found, &run)?;
    let mut environment = environment::collect(&source, toolchain.as_ref(), started);
    if let Some((device, state)) = &found.device {
        (environment.device, environment.device_state) = (Some(device.clone()), Some(state.clone()));
    }
    hold_to_basis(&run, &Basis::of(plan, &builds, &found, &source)?)?;
    run.write_json("ENV.json", &environment)?;
    let scratch = tempfile::Builder::new().prefix("sdpa-work-").tempdir_in(&layout.target)?;
    let executor = executor(plan, &found, options.device);
    let work = Work { plan, builds: &builds, runner: &runner, found: &found, executor, scratch: scratch.path() };
    let mut evidence = Evidence { builds: run.read_json("builds.json")?, ..Evidence::default() };
    (evidence.checks, evidence.samples, evidence.peers) = match run.finished_evidence()? {
        Some(measured) => measured,
        None => measure(&work, layout, options, &run)?,
    };
    if options.ncu {
        evidence.profile = Some(profile_step(&work, &run, &evidence.checks)?);
        run.write_json("profile.json", &evidence.profile)?;
    }
    if let Some((device, _)) = &found.device
        && let Some(measured) = ceilings::kept(layout, device)
    {
        run.write_json("ceilings.json", &measured)?;
    }
    evidence.ceilings = run.read_if_there("ceilings.json")?;
    environment.peers = evidence.peers.versions.clone();
    run.write_json("ENV.json", &environment)?;
    conclude(plan, run, &environment, &evidence)
}

/// What runs the cases, if anything does.
fn executor(plan: &Plan, found: &Found, choice: DeviceChoice) -> Option<Executor> {
    let emulator = plan.suite.emulation.as_ref().map(|_| Executor::Emulator);
    match choice {
        DeviceChoice::Emulator => emulator,
        DeviceChoice::Gpu => Some(Executor::Gpu),
        DeviceChoice::Auto if found.device.is_some() => Some(Executor::Gpu),
        DeviceChoice::Auto => emulator,
    }
}

fn open_run(layout: &Layout, plan: &Plan, options: &Options, source: &SourceState) -> Result<RunDir> {
    let Some(path) = &options.resume else {
        let parent = options.out.clone().unwrap_or_else(|| layout.runs());
        return RunDir::create(&parent, source.short_commit(), &plan.suite.name);
    };
    RunDir::open_unfinished(path)
}

/// What a run's evidence rests on. A resumed run must rest on the same, or its parts belong to different runs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Basis {
    suite: String,
    source: SourceState,
    device: Option<String>,
    cubins: BTreeMap<String, String>,
}

impl Basis {
    fn of(plan: &Plan, builds: &BuildSet, found: &Found, source: &SourceState) -> Result<Basis> {
        let cubin = |b: &crate::build::Built| {
            (
                format!("{} {}", b.record.variant, b.record.arch),
                format!("{} {}", b.record.ptx_sha256, b.record.cubin_sha256),
            )
        };
        Ok(Basis {
            suite: sha256_hex(toml::to_string(&plan.suite)?.as_bytes()),
            source: source.clone(),
            device: found.device.as_ref().map(|(device, _)| device.uuid.clone()),
            cubins: builds.built.iter().map(cubin).collect(),
        })
    }
}

/// Writes what the run rests on, or refuses to go on when it rests on something else.
fn hold_to_basis(run: &RunDir, basis: &Basis) -> Result<()> {
    const FILE: &str = "basis.json";
    match run.read_if_there::<Basis>(FILE)? {
        None => run.write_json(FILE, basis),
        Some(earlier) if earlier == *basis => Ok(()),
        Some(_) => bail!(
            "`{}` cannot be resumed: suite, sources, kernels or device are not those it began with; start a new run",
            run.path.display()
        ),
    }
}

fn probe(runner: &Runner) -> Result<Found> {
    let mut found = Found { device: None, why_not: None };
    let end = runner.run("probe", &Job::Probe, PROBE_SILENCE, |event| match event {
        Event::Device { device, state, .. } => found.device = Some((device, state)),
        Event::NoDevice(deferral) => found.why_not = Some(deferral),
        _ => {}
    })?;
    if let End::Error(why) | End::Lost(why) = end {
        found.device = None;
        found.why_not = Some(Deferral::new(format!("the device could not be asked: {why}"), "check `nvidia-smi`"));
    }
    Ok(found)
}

/// Builds for the suite's architecture and for the device's, and keeps what was built.
fn build(layout: &Layout, plan: &Plan, found: &Found, run: &RunDir) -> Result<(Option<Toolchain>, BuildSet)> {
    let step = Step::begin("toolchain", 0);
    let toolchain = match toolchain::find_or_install(&layout.target, &|line| step.note(line)) {
        Ok(toolchain) => toolchain,
        Err(error) => {
            step.end("none");
            let builds = kbench::evidence::Builds { deferred: Some(error.deferral()), ..Default::default() };
            run.write_json("builds.json", &builds)?;
            return Ok((None, BuildSet::default()));
        }
    };
    step.end(&format!("nvcc {} from {}", toolchain.nvcc_version, toolchain.origin));
    let mut arches = vec![plan.suite.arch.clone()];
    if let Some((device, _)) = &found.device
        && device.arch() != plan.suite.arch
    {
        arches.push(device.arch());
    }
    let mut builds = build_all(layout, &toolchain, &plan.variants, &arches)?;
    if plan.suite.machine_code.is_some() {
        disassemble(layout, &toolchain, &mut builds)?;
    }
    for built in &builds.built {
        run.keep_build(built, &plan.suite.arch)?;
    }
    run.write_json("builds.json", &builds.evidence())?;
    Ok((Some(toolchain), builds))
}

/// What the measuring steps share.
pub(crate) struct Work<'a> {
    pub plan: &'a Plan,
    pub builds: &'a BuildSet,
    pub runner: &'a Runner,
    pub found: &'a Found,
    pub executor: Option<Executor>,
    pub scratch: &'a Path,
}

fn measure(work: &Work, layout: &Layout, options: &Options, run: &RunDir) -> Result<(Checks, Samples, Peers)> {
    let checks = match run.finished_checks()? {
        Some(checks) => checks,
        None => check(work)?,
    };
    run.write_json("check.json", &checks)?;
    let (samples, peers) = bench(work, layout, options, &checks)?;
    run.write_json("samples.json", &samples)?;
    run.write_json("peers.json", &peers)?;
    Ok((checks, samples, peers))
}

impl Work<'_> {
    /// The architecture whose build runs: a GPU's own, or the suite's, whose PTX the emulator executes.
    fn arch(&self) -> Option<String> {
        match (self.executor?, &self.found.device) {
            (Executor::Gpu, Some((device, _))) => Some(device.arch()),
            (Executor::Gpu, None) => None,
            (Executor::Emulator | Executor::EmulatedHopper, _) => Some(self.plan.suite.arch.clone()),
        }
    }

    pub(crate) fn modules(&self) -> Vec<Module> {
        let Some(arch) = self.arch() else { return Vec::new() };
        let module = |variant: &Variant| Some(self.builds.get(&variant.name, target(variant, &arch))?.module());
        self.plan.variants.iter().filter_map(module).collect()
    }

    /// Why no case can run.
    fn why_nothing_is_checked(&self) -> Option<Deferral> {
        if self.builds.built.is_empty() {
            return Some(Deferral::new("nothing was built", "see the build gates"));
        }
        if let Some(why) = self.arch().and_then(|arch| not_for_this_device(&self.plan.variants, &arch)) {
            return Some(why);
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
    pub(crate) fn why_nothing_is_timed(&self) -> Option<Deferral> {
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
    let (name, own) = (&variant.name, variant.family.arch().unwrap_or_default());
    Some(Deferral::new(format!("`{name}` is compiled for {own} and this device is {arch}"), "run on a Hopper GPU"))
}

/// Runs every variant on every problem, then compares all outputs with float64 attention in another process.
fn check(work: &Work) -> Result<Checks> {
    if let Some(why) = work.why_nothing_is_checked() {
        return Ok(Checks { deferred: Some(why), ..Checks::default() });
    }
    let emulated = work.executor == Some(Executor::Emulator);
    let problems = if emulated { emulated_problems(&work.plan.suite) } else { problems(&work.plan.suite) };
    let modules = work.modules();
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

/// A fault ends its process; the problems that are left get a new one, until the variant has faulted often enough. The
/// first problems may have their outcomes already.
pub(crate) fn launch_all(
    work: &Work,
    module: &Module,
    problems: &[Problem],
    out_dir: &Path,
    mut outcomes: Vec<LaunchOutcome>,
    report: &dyn Fn(u64, &str),
) -> Result<Vec<LaunchOutcome>> {
    while outcomes.len() < problems.len() {
        let left = &problems[outcomes.len()..];
        let faults = outcomes.iter().filter(|o| o.failure.is_some()).count();
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
            End::Lost(why) => {
                let problem = &problems[outcomes.len().min(problems.len() - 1)];
                outcomes.push(LaunchOutcome::failed(problem, &format!("the runner was lost during {last}: {why}")));
            }
        }
    }
    outcomes.truncate(problems.len());
    Ok(outcomes)
}

/// The job that launches a variant on problems.
pub(crate) fn launch_job(work: &Work, module: &Module, problems: &[Problem], out_dir: &Path) -> Result<LaunchJob> {
    Ok(LaunchJob {
        task: work.plan.task.clone(),
        module: module.clone(),
        problems: problems.to_vec(),
        out_dir: out_dir.to_owned(),
        executor: work.executor.context("something runs the cases")?,
        replays: replays(&work.plan.suite, module, problems),
        max_ctas: work.plan.suite.emulation.as_ref().map(|e| e.max_ctas),
        schedules: Vec::new(),
    })
}

/// How often each problem is launched again: those that the suite says, by candidates.
fn replays(suite: &Suite, module: &Module, problems: &[Problem]) -> BTreeMap<String, u32> {
    let is_candidate = suite.candidates.iter().any(|c| c.variant == module.variant);
    let of = |p: &Problem| Some((p.id(), suite.replays_of(p)?));
    problems.iter().filter(|_| is_candidate).filter_map(of).collect()
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
fn bench(work: &Work, layout: &Layout, options: &Options, checks: &Checks) -> Result<(Samples, Peers)> {
    let wanted = options.peers != PeerChoice::None;
    let not_asked = || Deferral::new("time was not asked for", "run a suite with validate");
    if let Some(why) = work.why_nothing_is_timed().or_else(|| (!options.time).then(not_asked)) {
        let peers = Peers { wanted, deferred: wanted.then(|| why.clone()), ..Peers::default() };
        return Ok((Samples { deferred: Some(why), ..Samples::default() }, peers));
    }
    let suite = &work.plan.suite;
    let job = BenchJob {
        suite: suite.clone(),
        task: work.plan.task.clone(),
        modules: work.modules(),
        verified: verified_outputs(checks),
        peers: if wanted { peers::commands(layout, suite) } else { Vec::new() },
        work_dir: work.scratch.to_owned(),
        order_seed: jiff::Timestamp::now().as_nanosecond() as u64,
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
            End::Error(why) | End::Lost(why) => why,
        };
        step.end(&format!("broke off: {why}"));
        let deferral = || Deferral::new("timing broke off", "see the log");
        let peers = Peers { wanted, deferred: wanted.then(deferral), ..Peers::default() };
        return Ok((broken_off(work, last, &why), peers));
    };
    step.end(&format!("{} blocks, {} subjects not timed", samples.blocks.len(), samples.failures.len()));
    peers.wanted = wanted;
    add_peer_errors(work, &mut peers)?;
    Ok((samples, peers))
}

/// Profiles what was verified, where there is a GPU; a finished profile of an interrupted run is kept.
fn profile_step(work: &Work, run: &RunDir, checks: &Checks) -> Result<Profile> {
    let finished: Option<Profile> = run.read_if_there("profile.json")?;
    if let Some(finished) = finished.filter(|profile| profile.deferred.is_none()) {
        return Ok(finished);
    }
    let no_counters =
        || Deferral::new("the emulator has no performance counters", "run on a machine with an NVIDIA GPU");
    let why = match work.executor {
        Some(Executor::Emulator | Executor::EmulatedHopper) => {
            Some(work.found.why_not.clone().unwrap_or_else(no_counters))
        }
        Some(Executor::Gpu) | None => work.why_nothing_is_checked(),
    };
    if let Some(why) = why {
        return Ok(Profile { deferred: Some(why), ..Profile::default() });
    }
    let modules = work.modules();
    let task = &work.plan.task;
    profile(&Subjects { suite: &work.plan.suite, modules: &modules, checks, runner: work.runner, task }, &run.path)
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

/// Hashes of outputs whose case has errors, which is to say that it was compared with float64.
pub(crate) fn verified_outputs(checks: &Checks) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut verified: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for case in checks.cases.iter().filter(|c| c.errors.is_some()) {
        if let Some(hash) = &case.launch.output_sha256 {
            verified.entry(case.variant.clone()).or_default().insert(case.launch.problem.id(), hash.clone());
        }
    }
    verified
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

/// Judges, decides, reports, and seals the run.
fn conclude(plan: &Plan, run: RunDir, environment: &Environment, evidence: &Evidence) -> Result<Outcome> {
    let gates = judge(&plan.suite, evidence);
    let decision = decide(&plan.suite, &gates, &evidence.checks, &evidence.samples);
    run.write_json("gates.json", &gates)?;
    run.write_json("decision.json", &decision)?;
    let name = run.name();
    let view = RunView { name: &name, suite: &plan.suite, evidence, gates: &gates, decision: &decision, environment };
    run.write("REPORT.md", &markdown_file(&view))?;
    run.write("report.html", &html(&view, &earlier_runs(&run, &plan.suite.name)?))?;
    let report = format!("{}\n{}", render(&view, Format::Table), headline(&view));
    run.seal()?;
    let complete = evidence.checks.deferred.is_none() && evidence.samples.deferred.is_none();
    Ok(Outcome { run, decision, report, complete })
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
        // Not a later chip either: sm_90a code runs on nothing else.
        assert!(not_for_this_device(&variants, "sm_100").is_some());
    }
}
