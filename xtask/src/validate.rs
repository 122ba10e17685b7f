//! `validate`: suite, toolchain, builds, checks, timing, profile, gates, decision, run directory. Each step writes its
//! evidence before the next begins; what cannot be done here is deferred with its reason and remedy.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::ScopedJoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use kbench::decision::Decision;
use kbench::evidence::{Builds, Checks, Environment, Peers, Samples};
use kbench::job::Executor;
use kbench::judge::Evidence;
use kbench::memory::Memory;

use crate::accepted;
use crate::basis::{self, Basis};
use crate::build::{BuildSet, build_all, disassemble};
use crate::ceilings;
use crate::console::{self, Step};
use crate::declared;
use crate::environment::{self, SourceState};
use crate::gpus::{self, GpuChoice};
use crate::inspect::{Derived, derive};
use crate::interrupt;
use crate::layout::{Layout, program};
use crate::memory;
use crate::plan::{DeviceChoice, Plan};
use crate::profile::profile;
use crate::run_dir::{MEMORY, RunDir};
use crate::runner::Runner;
use crate::runs::earlier_runs;
use crate::scratch::Scratch;
use crate::steps::{compare, generate, launch};
use crate::timing::{self, Timing, add_peer_errors, bench};
use crate::toolchain::{self, Toolchain};
use crate::work::{Card, Found, Work, executor};

/// What the command line says besides the plan.
#[derive(Clone, Debug)]
pub struct Options {
    pub device: DeviceChoice,
    /// Which GPUs of this machine share the work.
    pub gpus: GpuChoice,
    /// Where the run directory goes.
    pub out: Option<PathBuf>,
    /// An interrupted run to continue.
    pub resume: Option<PathBuf>,
    /// Whether a run on a GPU checks and times one more seed, which it draws itself.
    pub fresh_seed: bool,
    /// Whether variants are timed, and beside whom.
    pub timing: Timing,
    /// Whether Nsight Compute profiles control and candidates.
    pub ncu: bool,
    /// Files of other runs that this one rests on, by their names there; they are copied into it.
    pub attachments: Vec<(RunDir, String)>,
}

/// Nothing is there to be judged.
#[derive(Debug, thiserror::Error)]
#[error("the candidate is the code that the control is")]
pub struct SameCode;

/// What a run came to.
pub struct Outcome {
    pub run: RunDir,
    pub decision: Decision,
    /// The root of its evidence: what `verify --root` holds the run to.
    pub root: String,
    /// Whether cases ran on a GPU and were timed.
    pub complete: bool,
}

pub fn validate(layout: &Layout, plan: &Plan, options: &Options) -> Result<Outcome> {
    let (source, started) = (source(layout, plan, options)?, jiff::Timestamp::now());
    let run = open_run(layout, plan, options, &source)?;
    let (kept, resumed, gpus) = (run.clone(), options.resume.is_some(), options.gpus.clone());
    let _said = interrupt::words(move || interrupted(&kept, resumed, &gpus));
    let outcome = validate_in(layout, plan, options, (source, started), run.clone());
    // A file that asks for what cannot be leaves nothing behind; what was measured stays.
    if outcome.is_err() && options.resume.is_none() && run.finished_checks()?.is_none() {
        run.discard()?;
    }
    match &plan.file {
        Some(file) => outcome.with_context(|| format!("gate file `{}`", file.display())),
        None => outcome,
    }
}

/// Of which sources the run is. One of an installed program that is gone on with has its gate file and sources in itself.
fn source(layout: &Layout, plan: &Plan, options: &Options) -> Result<SourceState> {
    if plan.suite.declared().is_none() || !layout.is_installed() {
        return Ok(SourceState::of(layout));
    }
    match (&options.resume, &plan.file) {
        (Some(path), _) => {
            let begun = RunDir::open(path)?.read_if_there::<Basis>(basis::FILE)?;
            let begun = begun.with_context(|| {
                format!("`{}` cannot be resumed without its {}; start a new run", path.display(), basis::FILE)
            })?;
            let program_commit = SourceState::of(layout).commit;
            Ok(SourceState { program_commit, ..begun.source().clone() })
        }
        (None, Some(file)) => Ok(SourceState::of_gate_file(layout, file, &plan.named_files())),
        (None, None) => Ok(SourceState::of(layout)),
    }
}

/// What an interrupted run leaves, and how to go on with it.
fn interrupted(run: &RunDir, resumed: bool, gpus: &GpuChoice) -> String {
    let checked = run.finished_checks().ok().flatten().is_some();
    if !checked && !resumed {
        return match run.discard() {
            Ok(()) => {
                "nothing was measured yet, and no run is left behind; what was compiled is in the cache".to_owned()
            }
            Err(error) => format!("nothing was measured yet; {error:#}"),
        };
    }
    let timed = run.finished_evidence().ok().flatten().is_some();
    let kept = match (checked, timed) {
        (_, true) => "builds, checks and times are kept",
        (true, false) => "builds and checks are kept, times are not",
        (false, false) => "builds are kept, checks and times are not",
    };
    let gpus = if *gpus == GpuChoice::First { String::new() } else { format!(" --gpus {gpus}") };
    format!("{kept}\ngo on with: {} validate --resume {}{gpus}", program(), run.shown())
}

fn validate_in(
    layout: &Layout,
    plan: &Plan,
    options: &Options,
    (source, started): (SourceState, jiff::Timestamp),
    run: RunDir,
) -> Result<Outcome> {
    options.attachments.iter().try_for_each(|(other, file)| run.keep_file(other, file))?;
    let runner = Runner::locate(layout, &run.logs())?;
    let cards = gpus::find(&runner, &options.gpus)?;
    let (Card { runner, found }, others) = cards.split_first().context("somebody was asked")?;
    if let (DeviceChoice::Gpu, Some(why)) = (options.device, &found.why_not) {
        bail!("--device gpu: {why}");
    }
    let mut plan = declared::on_this_machine(layout, plan, found);
    let executor = executor(&plan, found, options.device);
    // A resumed run has the seed that it began with.
    if options.fresh_seed && options.resume.is_none() && executor == Some(Executor::Gpu) {
        plan.draw_fresh_seed()?;
    }
    let plan = &plan;
    run.write("suite.toml", &toml::to_string(&plan.suite)?)?;
    let (toolchain, builds, built) = build(layout, plan, found)?;
    if let Some(control) = &plan.control {
        let step = Step::begin("control", 0);
        let on_gpu = found.device.as_ref().filter(|_| executor == Some(Executor::Gpu));
        control.hold(&plan.suite, &builds, on_gpu.map(|(device, _)| device.name.as_str()))?;
        step.end(&control.shown());
    }
    if plan.is_of_a_change && accepted::are_one(&builds, [&plan.suite.control, &plan.suite.candidates[0].variant])? {
        return Err(SameCode.into());
    }
    let files = run.keep_operator(&plan.task, &builds.files)?;
    let mut environment = environment::collect(&source, toolchain.as_ref(), started);
    if plan.suite.declared().is_some() {
        let enforced = confine::enforced();
        for lack in enforced.lacks() {
            console::line(&format!("warning: what the gate file runs is not confined, {lack}"));
        }
        environment.confinement = enforced.lines();
    }
    if let Some((device, state)) = &found.device {
        (environment.device, environment.device_state) = (Some(device.clone()), Some(state.clone()));
    }
    environment.other_devices = others.iter().filter_map(|card| Some(card.found.device.as_ref()?.0.clone())).collect();
    let uuids = environment.device.iter().chain(&environment.other_devices).map(|device| device.uuid.clone()).collect();
    Basis::of_validation(&plan.suite, &source, uuids, &builds, files)?.hold(&run)?;
    // Not before it is clear that a resumed run rests on the same: one that is refused stays as it was.
    run.keep_builds(&builds.built, &plan.suite.arch)?;
    run.write_json("builds.json", &built)?;
    run.write_json("ENV.json", &environment)?;
    let scratch = Scratch::new(&layout.target, "sdpa-work-")?;
    let _room = interrupt::folder(scratch.path());
    let work = Work { plan, builds: &builds, runner, found, others, executor, scratch: scratch.path() };
    let mut evidence = Evidence { builds: built, ..Evidence::default() };
    (evidence.checks, evidence.samples, evidence.peers, evidence.memory) = measure(&work, layout, options, &run)?;
    if options.ncu {
        evidence.profile = Some(profile(&work, &run, &evidence.checks)?);
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

fn open_run(layout: &Layout, plan: &Plan, options: &Options, source: &SourceState) -> Result<RunDir> {
    let Some(path) = &options.resume else {
        let parent = options.out.clone().unwrap_or_else(|| layout.runs());
        return RunDir::create(&parent, source.short_commit(), &plan.suite.name);
    };
    RunDir::open_unfinished(path)
}

/// Builds for the suite's architecture and for the device's. What was built, or why nothing was, is evidence.
fn build(layout: &Layout, plan: &Plan, found: &Found) -> Result<(Option<Toolchain>, BuildSet, Builds)> {
    let step = Step::begin("toolchain", 0);
    let toolchain = match toolchain::find_or_install(&layout.target, &|line| step.note(line)) {
        Ok(toolchain) => toolchain,
        Err(error) => {
            step.end("none");
            let why = Builds { deferred: Some(error.deferral()), ..Builds::default() };
            return Ok((None, BuildSet::default(), why));
        }
    };
    step.end(&format!("nvcc {} from {}", toolchain.nvcc_version, toolchain.origin));
    let mut arches = vec![plan.suite.arch.clone()];
    if let Some((device, _)) = &found.device
        && device.arch() != plan.suite.arch
    {
        arches.push(device.arch());
    }
    let mut builds = match plan.suite.declared() {
        None => build_all(layout, &toolchain, &plan.variants, &arches)?,
        Some(_) => {
            let device = found.device.as_ref().map(|(device, _)| device);
            declared::build_all(layout, &toolchain, plan, &arches, device)?
        }
    };
    if plan.suite.machine_code.is_some() {
        disassemble(layout, &toolchain, &mut builds)?;
    }
    let evidence = builds.evidence();
    Ok((Some(toolchain), builds, evidence))
}

/// Cases, times and memory checks: the emulator works beside the GPU, and the sanitizer once nobody is timed any more.
fn measure(
    work: &Work,
    layout: &Layout,
    options: &Options,
    run: &RunDir,
) -> Result<(Checks, Samples, Peers, Option<Memory>)> {
    let measured = run.finished_evidence()?;
    let kept: Option<Memory> = run.read_written(MEMORY)?;
    let due = memory::is_due(work) && kept.is_none();
    if measured.is_none() || due {
        generate(work)?;
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = due.then(|| scope.spawn(|| memory::emulate(work, &stop)));
        let measured = measured.map_or_else(|| check_and_time(work, layout, options, run), Ok);
        stop.store(measured.is_err(), Ordering::Relaxed);
        let (checks, samples, peers) = measured?;
        let Some(beside) = beside else { return Ok((checks, samples, peers, kept)) };
        let emulated = beside.join().map_err(|_| anyhow!("the thread of the memory checks panicked"))??;
        let memory = memory::conclude(work, layout, emulated)?;
        run.write_json(MEMORY, &memory)?;
        Ok((checks, samples, peers, Some(memory)))
    })
}

fn check_and_time(work: &Work, layout: &Layout, options: &Options, run: &RunDir) -> Result<(Checks, Samples, Peers)> {
    let time = |checks: &Checks| bench(work, layout, &options.timing, checks);
    let (checks, (samples, mut peers)) = match run.finished_checks()? {
        Some(checks) => {
            let timed = time(&checks)?;
            (checks, timed)
        }
        None => {
            let launched = Checks { memory_apart: memory::is_due(work), ..launch(work)? };
            let compared = |beside: Option<&Sender<()>>| {
                let checks = compare(work, launched.clone(), beside)?;
                run.write_json("check.json", &checks)?;
                Ok(checks)
            };
            match timing::why_not(work, &options.timing) {
                None => side_by_side(|begun| compared(Some(&begun)), || time(&launched))?,
                Some(_) => {
                    let checks = compared(None)?;
                    let timed = time(&checks)?;
                    (checks, timed)
                }
            }
        }
    };
    add_peer_errors(work, &mut peers, &checks)?;
    run.write_json("samples.json", &samples)?;
    run.write_json("peers.json", &peers)?;
    Ok((checks, samples, peers))
}

/// Outputs are compared while kernels are timed, since the one is the host's work and the other the GPU's. Where comparing
/// fails before it has compared anything, nobody is timed.
fn side_by_side<T: Send, U>(
    compare: impl FnOnce(Sender<()>) -> Result<T> + Send,
    time: impl FnOnce() -> Result<U>,
) -> Result<(T, U)> {
    let (begun, has_begun) = channel();
    std::thread::scope(|scope| {
        let comparing = scope.spawn(move || compare(begun));
        let compared = |thread: ScopedJoinHandle<Result<T>>| {
            thread.join().map_err(|_| anyhow!("the thread that compares outputs panicked"))?
        };
        if has_begun.recv().is_err() {
            // It has ended already, well or not.
            return Ok((compared(comparing)?, time()?));
        }
        let timed = time();
        Ok((compared(comparing)?, timed?))
    })
}

/// Judges, decides, reports, and seals the run.
fn conclude(plan: &Plan, run: RunDir, environment: &Environment, evidence: &Evidence) -> Result<Outcome> {
    let earlier = earlier_runs(&run, &plan.suite.name)?;
    let Derived { decision } = derive(&run, &plan.suite, evidence, environment, &earlier)?;
    let root = run.seal()?;
    let complete = evidence.checks.deferred.is_none() && evidence.samples.deferred.is_none();
    Ok(Outcome { run, decision, root, complete })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_run_says_what_is_kept_and_one_without_a_measurement_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let run = |name| RunDir::create(parent.path(), "abc1234", name).unwrap();
        let bare = run("bare");
        assert!(
            interrupted(&bare, false, &GpuChoice::First)
                .starts_with("nothing was measured yet, and no run is left behind")
        );
        assert!(!bare.path.exists());
        let resumed = run("resumed");
        let said = interrupted(&resumed, true, &GpuChoice::Count(2));
        assert!(said.ends_with(" --gpus 2"), "{said}");
        assert!(said.starts_with("builds are kept") && said.contains("validate --resume ") && resumed.path.exists());
        let checked = run("checked");
        checked.write_json("check.json", &Checks::default()).unwrap();
        assert!(
            interrupted(&checked, false, &GpuChoice::First)
                .starts_with("builds and checks are kept, times are not\ngo on with:")
        );
    }
}
