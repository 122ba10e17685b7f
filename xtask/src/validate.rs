//! `validate`: suite, toolchain, builds, checks, timing, gates, decision, run directory. Each step writes its evidence
//! before the next begins; what cannot be done here is deferred with its reason and remedy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kbench::decision::{Decision, decide};
use kbench::evidence::{
    CheckedCase, Checks, Device, Environment, Errors, GpuState, LaunchOutcome, Peers, Samples, TimingFailure,
};
use kbench::job::{BenchJob, ErrorsJob, Event, Job, LaunchJob, Module, PeerCommand};
use kbench::judge::{Evidence, judge, problems};
use kbench::report::{Format, RunView, headline, markdown_file, render};
use kbench::shape::{Distribution, Problem};
use kbench::suite::Suite;
use sdpa_kernel::registry::Variant;

use crate::build::{BuildSet, build_all};
use crate::console::Step;
use crate::environment::{self, SourceState};
use crate::layout::Layout;
use crate::plan::Plan;
use crate::run_dir::RunDir;
use crate::runner::{End, Runner};
use crate::toolchain::{self, Toolchain};

/// A launch, with its upload and read-back, is done long before this; a kernel that hangs is not.
const LAUNCH_SILENCE: Duration = Duration::from_secs(60);
/// The float64 reference of the largest shape on two slow cores.
const REFERENCE_SILENCE: Duration = Duration::from_secs(300);
/// One round of blocks, slow baselines and a peer's first load included.
const BENCH_SILENCE: Duration = Duration::from_secs(120);
/// Opening a device.
const PROBE_SILENCE: Duration = Duration::from_secs(60);
/// A kernel that faults on this many problems is not tried on the rest.
const MAX_FAULTS: usize = 5;

/// Where cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceChoice {
    /// A GPU if there is one.
    Auto,
    /// A GPU, or nothing.
    Gpu,
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
}

/// What a run came to.
pub struct Outcome {
    /// The run directory.
    pub run: RunDir,
    /// The decision.
    pub decision: Decision,
    /// The report as a terminal shows it.
    pub report: String,
}

/// The device as the probe found it, or why there is none.
struct Found {
    device: Option<(Device, GpuState)>,
    why_not: Option<String>,
}

/// Validates a plan.
pub fn validate(layout: &Layout, plan: &Plan, options: &Options) -> Result<Outcome> {
    let source = SourceState::of(layout);
    let run = open_run(layout, plan, options, &source)?;
    run.write("suite.toml", &toml::to_string(&plan.suite)?)?;
    let runner = Runner::locate(layout, &run.logs())?;
    let found = probe(&runner)?;
    if let (DeviceChoice::Gpu, Some(why)) = (options.device, &found.why_not) {
        bail!("--device gpu: {why}");
    }
    let (toolchain, builds) = build(layout, plan, &found, &run)?;
    let mut environment = environment::collect(&source, toolchain.as_ref());
    if let Some((device, state)) = &found.device {
        (environment.device, environment.device_state) = (Some(device.clone()), Some(state.clone()));
    }
    run.write_json("ENV.json", &environment)?;
    let scratch = tempfile::Builder::new().prefix("sdpa-work-").tempdir_in(&layout.target)?;
    let work = Work { plan, builds: &builds, runner: &runner, found: &found, scratch: scratch.path() };
    let mut evidence = Evidence { builds: run.read_json("builds.json")?, ..Evidence::default() };
    (evidence.checks, evidence.samples, evidence.peers) = match finished_evidence(&run)? {
        Some(measured) => measured,
        None => measure(&work, layout, options, &run)?,
    };
    environment.peers = evidence.peers.versions.clone();
    run.write_json("ENV.json", &environment)?;
    conclude(plan, run, &environment, &evidence)
}

fn open_run(layout: &Layout, plan: &Plan, options: &Options, source: &SourceState) -> Result<RunDir> {
    let Some(path) = &options.resume else {
        let parent = options.out.clone().unwrap_or_else(|| layout.runs());
        return RunDir::create(&parent, source.short_commit(), &plan.suite.name);
    };
    let run = RunDir::open(path)?;
    if run.is_whole() {
        bail!("`{}` is whole: there is nothing to resume; see `cargo xtask report`", path.display());
    }
    Ok(run)
}

/// Measured files of an interrupted run; they are written whole, so those that are there can be used.
fn finished_evidence(run: &RunDir) -> Result<Option<(Checks, Samples, Peers)>> {
    let checks = run.read_if_there("check.json")?;
    let samples = run.read_if_there("samples.json")?;
    let peers = run.read_if_there("peers.json")?;
    Ok(match (checks, samples, peers) {
        (Some(checks), Some(samples), Some(peers)) => Some((checks, samples, peers)),
        _ => None,
    })
}

fn probe(runner: &Runner) -> Result<Found> {
    let mut found = Found { device: None, why_not: None };
    let end = runner.run("probe", &Job::Probe, PROBE_SILENCE, |event| match event {
        Event::Device { device, state, .. } => found.device = Some((device, state)),
        Event::NoDevice { why } => found.why_not = Some(why),
        _ => {}
    })?;
    if let End::Error(why) | End::Lost(why) = end {
        found.device = None;
        found.why_not = Some(format!("the device could not be asked: {why}; check `nvidia-smi`"));
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
            let builds = kbench::evidence::Builds { deferred: Some(error.to_string()), ..Default::default() };
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
    let builds = build_all(layout, &toolchain, &plan.variants, &arches)?;
    for built in &builds.built {
        run.keep_build(built, &plan.suite.arch)?;
    }
    run.write_json("builds.json", &builds.evidence())?;
    Ok((Some(toolchain), builds))
}

/// What the measuring steps share.
struct Work<'a> {
    plan: &'a Plan,
    builds: &'a BuildSet,
    runner: &'a Runner,
    found: &'a Found,
    scratch: &'a Path,
}

fn measure(work: &Work, layout: &Layout, options: &Options, run: &RunDir) -> Result<(Checks, Samples, Peers)> {
    let checks = match run.read_if_there("check.json")? {
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
    fn modules(&self) -> Vec<Module> {
        let Some((device, _)) = &self.found.device else { return Vec::new() };
        let module = |variant: &Variant| {
            let built = self.builds.get(&variant.name, &device.arch())?;
            Some(Module {
                variant: variant.name.clone(),
                image: built.dir.join("kernel.cubin"),
                toggles: variant.toggles.clone(),
                launches: built.record.entries.iter().map(|e| e.launch.clone()).collect(),
            })
        };
        self.plan.variants.iter().filter_map(module).collect()
    }

    fn why_nothing_runs(&self) -> Option<String> {
        match &self.found.why_not {
            None if self.builds.built.is_empty() => Some("nothing was built; see the build gates".to_owned()),
            why => why.clone(),
        }
    }
}

/// Runs every variant on every problem, then compares all outputs with float64 attention in another process.
fn check(work: &Work) -> Result<Checks> {
    if let Some(why) = work.why_nothing_runs() {
        return Ok(Checks { deferred: Some(why), ..Checks::default() });
    }
    let problems = problems(&work.plan.suite);
    let modules = work.modules();
    let step = Step::begin("launch", (problems.len() * modules.len()) as u64);
    let mut launches = BTreeMap::new();
    for (i, module) in modules.iter().enumerate() {
        let out_dir = BenchJob::output_dir(work.scratch, &module.variant);
        let base = i * problems.len();
        let total = problems.len() * modules.len();
        let report = |done: u64, what: &str| step.at(base as u64 + done, total as u64, what);
        let outcomes = launch_all(work, module, &problems, &out_dir, &report)?;
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
    let device = work.found.device.as_ref().map(|(device, _)| format!("gpu: {}", device.name));
    Ok(Checks { device, deferred: None, cases })
}

/// A fault ends its process; the problems that are left get a new one, until the variant has faulted often enough.
fn launch_all(
    work: &Work,
    module: &Module,
    problems: &[Problem],
    out_dir: &Path,
    report: &dyn Fn(u64, &str),
) -> Result<Vec<LaunchOutcome>> {
    let mut outcomes: Vec<LaunchOutcome> = Vec::new();
    while outcomes.len() < problems.len() {
        let left = &problems[outcomes.len()..];
        let faults = outcomes.iter().filter(|o| o.failure.is_some()).count();
        if faults >= MAX_FAULTS {
            outcomes.push(no_output(&left[0], &format!("not run: the kernel had faulted {faults} times")));
            continue;
        }
        let job = LaunchJob { module: module.clone(), problems: left.to_vec(), out_dir: out_dir.to_owned() };
        let (before, mut last) = (outcomes.len(), String::new());
        let end =
            work.runner.run(&format!("launch-{}", module.variant), &Job::Launch(job), LAUNCH_SILENCE, |event| {
                match event {
                    Event::Progress { what, .. } => {
                        report(outcomes.len() as u64, &what);
                        last = what;
                    }
                    Event::Launched { outcome } => outcomes.push(outcome),
                    _ => {}
                }
            })?;
        match end {
            End::Done if outcomes.len() > before => {}
            End::Done => outcomes.push(no_output(&left[0], "the runner ended without an outcome")),
            // What stops a job before its first launch stops every problem alike.
            End::Error(why) => outcomes.extend(problems[outcomes.len()..].iter().map(|p| no_output(p, &why))),
            End::Lost(why) => {
                let problem = &problems[outcomes.len().min(problems.len() - 1)];
                outcomes.push(no_output(problem, &format!("the runner was lost during {last}: {why}")));
            }
        }
    }
    outcomes.truncate(problems.len());
    Ok(outcomes)
}

fn no_output(problem: &Problem, why: &str) -> LaunchOutcome {
    LaunchOutcome {
        problem: problem.clone(),
        failure: Some(why.to_owned()),
        output_sha256: None,
        repeat_equal: false,
        inputs_unchanged: false,
        guards_intact: false,
    }
}

/// Errors by subject and problem id. What the process did not get to is absent, and fails its gate.
fn compare_outputs(
    work: &Work,
    name: &str,
    subjects: &[&str],
    problems: &[Problem],
) -> Result<BTreeMap<(String, String), Errors>> {
    let step = Step::begin(name, problems.len() as u64);
    let outputs = subjects.iter().map(|s| ((*s).to_owned(), BenchJob::output_dir(work.scratch, s)));
    let job = ErrorsJob {
        problems: problems.to_vec(),
        outputs: outputs.collect(),
        control: work.plan.suite.control.clone(),
        bad_element: work.plan.suite.correctness.bad_element,
    };
    let mut errors = BTreeMap::new();
    let end = work.runner.run(name, &Job::Errors(job), REFERENCE_SILENCE, |event| match event {
        Event::Progress { done, total, what } => step.at(done, total, &what),
        Event::Compared { subject, problem, errors: found } => {
            errors.insert((subject, problem.id()), found);
        }
        _ => {}
    })?;
    if let End::Error(why) | End::Lost(why) = end {
        step.note(&format!("error: comparing outputs with float64: {why}"));
    }
    step.end(&format!("{} outputs against float64", errors.len()));
    Ok(errors)
}

/// Times everything whose outputs were verified, with peers in the same rounds.
fn bench(work: &Work, layout: &Layout, options: &Options, checks: &Checks) -> Result<(Samples, Peers)> {
    let wanted = options.peers != PeerChoice::None;
    if let Some(why) = work.why_nothing_runs() {
        let peers = Peers { wanted, deferred: wanted.then(|| why.clone()), ..Peers::default() };
        return Ok((Samples { deferred: Some(why), ..Samples::default() }, peers));
    }
    let suite = &work.plan.suite;
    let job = BenchJob {
        suite: suite.clone(),
        modules: work.modules(),
        verified: verified_outputs(checks),
        peers: if wanted { vec![torch_command(layout)] } else { Vec::new() },
        work_dir: work.scratch.to_owned(),
        order_seed: jiff::Timestamp::now().as_nanosecond() as u64,
    };
    let step = Step::begin("time", 0);
    let mut timed = None;
    let mut last = String::new();
    let end = work.runner.run("bench", &Job::Bench(Box::new(job)), BENCH_SILENCE, |event| match event {
        Event::Progress { done, total, what } => {
            step.at(done, total, &what);
            last = what;
        }
        Event::Timed { samples, peers } => timed = Some((*samples, *peers)),
        _ => {}
    })?;
    let Some((samples, mut peers)) = timed else {
        let why = match end {
            End::Done => "the runner ended without samples".to_owned(),
            End::Error(why) | End::Lost(why) => why,
        };
        let why = format!("timing broke off during {last}: {why}");
        step.end(&why);
        return Ok((broken_off(suite, work, &why), Peers { wanted, ..Peers::default() }));
    };
    step.end(&format!("{} blocks, {} subjects not timed", samples.blocks.len(), samples.failures.len()));
    peers.wanted = wanted;
    add_peer_errors(work, &mut peers)?;
    Ok((samples, peers))
}

/// Nothing that was measured before the end is kept: an interval over part of the rounds would look like any other.
fn broken_off(suite: &Suite, work: &Work, why: &str) -> Samples {
    let failures = suite.time_shapes.iter().flat_map(|shape| {
        suite.variant_names().map(move |variant| TimingFailure {
            shape: shape.clone(),
            subject: variant.to_owned(),
            why: why.to_owned(),
        })
    });
    let device = work.found.device.as_ref().map(|(device, _)| device.clone());
    Samples { device, failures: failures.collect(), ..Samples::default() }
}

/// Hashes of outputs whose case has errors, which is to say that it was compared with float64.
fn verified_outputs(checks: &Checks) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut verified: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for case in checks.cases.iter().filter(|c| c.errors.is_some()) {
        if let Some(hash) = &case.launch.output_sha256 {
            verified.entry(case.variant.clone()).or_default().insert(case.launch.problem.id(), hash.clone());
        }
    }
    verified
}

fn torch_command(layout: &Layout) -> PeerCommand {
    let script = layout.peers().join("torch_sdpa.py").display().to_string();
    PeerCommand { name: "torch".to_owned(), argv: vec!["python3".to_owned(), "-u".to_owned(), script] }
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
    let mut errors = compare_outputs(work, "peers", &subjects.into_iter().collect::<Vec<_>>(), &problems)?;
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
    let report = format!("{}\n{}", render(&view, Format::Table), headline(&view));
    run.seal()?;
    Ok(Outcome { run, decision, report })
}
