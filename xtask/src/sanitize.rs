//! `sanitize`: what a correct result hides, over launches of every variant: compute-sanitizer's tools on a GPU, the
//! emulator's checks without one. One table for both. Leaves to others: reading a report (`report`), and the emulator.

pub mod counted;
mod emulated;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use kbench::deferral::Deferral;
use kbench::evidence::Device;
use kbench::job::{Event, Executor, Job, LaunchJob, Module, Task};
use kbench::memory::{Sanitized, State, TOOLS, for_tools, is_for_emulator};
use kbench::operator::attention::{EDGES, RAGGED_MASKED};
use kbench::operator::{Distribution, Problem};
use kbench::suite::Suite;
use kernel_spec::schedule::Schedule;
use sdpa_kernel::registry::Variant;
use tempfile::TempDir;

use self::report::Report;
use crate::build::{BuildSet, Built, build_all, runs_on};
use crate::console::Step;
use crate::declared;
use crate::layout::Layout;
use crate::plan::{DeviceChoice, Plan};
use crate::runner::{End, Runner};
use crate::steps::generate;
use crate::toolchain;
use crate::work::{Found, Work, probe};

/// The exit status that compute-sanitizer is told to use for findings.
const FINDINGS_STATUS: &str = "99";
/// The instrumented kernel is slow.
const SILENCE: Duration = Duration::from_secs(120);
/// What the emulator executes.
const EMULATED_ARCH: &str = "sm_89";

/// Where, what and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A GPU or the emulator.
    pub device: DeviceChoice,
    /// Shapes; the usual ones where empty.
    pub shapes: Vec<String>,
    /// Schedules on the emulator; the usual ones where empty.
    pub schedules: Vec<Schedule>,
}

/// What `sanitize` came to.
pub enum Sanitizing {
    Ran(Vec<Sanitized>),
    Deferred(Deferral),
}

/// Whose launches are looked at.
pub enum Whose {
    /// Variants of the registry, or of a suite.
    Variants(Vec<Variant>),
    /// Every variant of a gate file.
    GateFile(Box<Plan>),
}

/// Launches to look at, built for an architecture.
struct Prepared {
    task: Task,
    /// Each variant, and whether it copies in bulk.
    modules: Vec<(Module, bool)>,
    /// What they were built to.
    built: Vec<Built>,
    problems: Vec<Problem>,
    /// Where inputs and outputs lie.
    scratch: TempDir,
}

impl Prepared {
    fn job(&self, module: &Module, executor: Executor) -> LaunchJob {
        LaunchJob {
            task: self.task.clone(),
            module: module.clone(),
            problems: self.problems.clone(),
            out_dir: self.scratch.path().to_owned(),
            executor,
            replays: BTreeMap::new(),
            max_ctas: None,
            schedules: Vec::new(),
            unchecked: false,
            counts: false,
            threads: 0,
        }
    }
}

/// Runs every tool on every variant.
pub fn sanitize(layout: &Layout, whose: &Whose, logs: &Path, options: &Options) -> Result<Sanitizing> {
    let runner = Runner::locate(layout, logs)?;
    let found = match options.device {
        DeviceChoice::Emulator => {
            Found { device: None, why_not: Some(Deferral::because("the emulator was asked for")) }
        }
        DeviceChoice::Gpu | DeviceChoice::Auto => probe(&runner)?,
    };
    let here = match &found.device {
        Some((device, _)) => tool(layout).map(|program| (device.clone(), program)),
        None => Err(found.why_not.clone().unwrap_or_else(|| Deferral::because("no device"))),
    };
    match (here, options.device) {
        (Ok((device, program)), _) => on_gpu(layout, whose, &runner, &found, options, (&device, &program)),
        (Err(why), DeviceChoice::Gpu) => Ok(Sanitizing::Deferred(why)),
        (Err(_), _) => on_emulator(layout, whose, &runner, &found, options),
    }
}

/// The tool, or why there is none.
pub fn tool(layout: &Layout) -> Result<PathBuf, Deferral> {
    toolchain::sanitizer(&layout.target).ok_or_else(|| {
        let why = "compute-sanitizer is neither in CUDA_HOME nor on PATH nor under /usr/local";
        Deferral::new(why, "install the CUDA toolkit")
    })
}

/// Small shapes and ragged ones, or those that were asked for.
fn usual_problems(options: &Options) -> Result<Vec<Problem>> {
    let names: Vec<&str> = match options.shapes.as_slice() {
        [] => EDGES.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let problem = |shape: &&str| Ok(Problem { shape: shape.parse()?, seed: 0, distribution: Distribution::Normal });
    let mut problems = names.iter().map(problem).collect::<Result<Vec<_>>>()?;
    if options.shapes.is_empty() {
        // A kernel may take another path where logits are wide.
        let shape = RAGGED_MASKED.parse()?;
        problems.push(Problem { shape, seed: 0, distribution: Distribution::Large });
    }
    Ok(problems)
}

/// What a gate file's variants are looked at on: the shapes that were asked for, else those that it leaves to the emulator,
/// or, on a GPU, the smallest of all.
fn problems_of(suite: &Suite, options: &Options, executor: Executor) -> Result<Vec<Problem>> {
    let all = kbench::memory::problems(suite);
    if let Some(unknown) = options.shapes.iter().find(|name| !all.iter().any(|p| p.shape.name == **name)) {
        let known: BTreeSet<&str> = all.iter().map(|p| p.shape.name.as_str()).collect();
        bail!("unknown shape `{unknown}`: use one of {}", known.into_iter().collect::<Vec<_>>().join(", "));
    }
    Ok(match (options.shapes.is_empty(), executor) {
        (false, _) => all.into_iter().filter(|p| options.shapes.contains(&p.shape.name)).collect(),
        (true, Executor::Gpu) => for_tools(suite, &all),
        (true, _) => all.into_iter().filter(|problem| is_for_emulator(suite, problem)).collect(),
    })
}

/// Builds for an architecture. A gate file's may be one of its own.
fn prepare(
    layout: &Layout,
    whose: &Whose,
    (runner, found): (&Runner, &Found),
    options: &Options,
    (executor, arch): (Executor, &str),
) -> Result<Result<Prepared, Deferral>> {
    let scratch = tempfile::Builder::new().prefix("sdpa-sanitize-").tempdir()?;
    let toolchain = toolchain::find_or_install(&layout.target, &crate::console::line)?;
    let plan = match whose {
        Whose::Variants(variants) => {
            let problems = usual_problems(options)?;
            let variants: Vec<Variant> = match executor {
                Executor::Gpu => variants.iter().filter(|v| runs_on(v, arch)).cloned().collect(),
                _ => variants.clone(),
            };
            if variants.is_empty() {
                let why = format!("no variant that was asked for runs on {arch}");
                return Ok(Err(Deferral::new(why, "run on another GPU")));
            }
            let builds = whole(build_all(layout, &toolchain, &variants, &[arch.to_owned()])?)?;
            let module = |built: &Built| (built.module(), built.record.copies_in_bulk);
            let modules = builds.built.iter().map(module).collect();
            return Ok(Ok(Prepared { task: Task::default(), modules, built: builds.built, problems, scratch }));
        }
        Whose::GateFile(plan) => declared::on_this_machine(layout, plan, found),
    };
    if let Some(why) = &plan.no_python {
        return Ok(Err(why.clone()));
    }
    let device = found.device.as_ref().map(|(device, _)| device);
    let arch = device.map_or_else(|| plan.suite.arch.clone(), |device| device.arch());
    let builds = whole(declared::build_all(layout, &toolchain, &plan, std::slice::from_ref(&arch), device)?)?;
    let problems = problems_of(&plan.suite, options, executor)?;
    let scratch_path = scratch.path().to_owned();
    let work = Work {
        plan: &plan,
        builds: &builds,
        runner,
        found,
        others: &[],
        executor: Some(executor),
        scratch: &scratch_path,
    };
    generate(&work)?;
    let in_bulk = |module: &Module| {
        builds.built.iter().any(|built| built.record.variant == module.variant && built.record.copies_in_bulk)
    };
    let modules = work.kernels().into_iter().map(|m| (m.clone(), in_bulk(&m))).collect();
    let task = work.task();
    Ok(Ok(Prepared { task, modules, built: builds.built, problems, scratch }))
}

/// Builds of which none failed.
fn whole(builds: BuildSet) -> Result<BuildSet> {
    match builds.failures.first() {
        Some(failure) => bail!("`{}` does not compile: {}", failure.variant, failure.error),
        None => Ok(builds),
    }
}

fn on_emulator(
    layout: &Layout,
    whose: &Whose,
    runner: &Runner,
    found: &Found,
    options: &Options,
) -> Result<Sanitizing> {
    // What the emulator executes is that of no device.
    let nobody = Found { device: None, why_not: found.why_not.clone() };
    let target = (Executor::Emulator, EMULATED_ARCH);
    let prepared = match prepare(layout, whose, (runner, &nobody), options, target)? {
        Ok(prepared) => prepared,
        Err(why) => return Ok(Sanitizing::Deferred(why)),
    };
    let step = Step::begin("sanitize", prepared.modules.len() as u64);
    let mut results = Vec::new();
    for (module, _) in &prepared.modules {
        step.advance(&module.variant);
        results.extend(emulated::run(runner, prepared.job(module, Executor::Emulator), &options.schedules)?);
    }
    step.end(&format!("{} variants on the emulator", prepared.modules.len()));
    Ok(Sanitizing::Ran(results))
}

fn on_gpu(
    layout: &Layout,
    whose: &Whose,
    runner: &Runner,
    found: &Found,
    options: &Options,
    (device, program): (&Device, &Path),
) -> Result<Sanitizing> {
    let target = (Executor::Gpu, device.arch());
    let prepared = match prepare(layout, whose, (runner, found), options, (target.0, &target.1))? {
        Ok(prepared) => prepared,
        Err(why) => return Ok(Sanitizing::Deferred(why)),
    };
    let step = Step::begin("sanitize", (prepared.modules.len() * TOOLS.len()) as u64);
    let mut results = Vec::new();
    for (module, in_bulk) in &prepared.modules {
        for tool in TOOLS {
            step.advance(&format!("{tool} {}", module.variant));
            let job = prepared.job(module, Executor::Gpu);
            results.push(run_tool(runner, program, tool, job, &device.name, *in_bulk)?);
        }
    }
    step.end(&format!("{} runs", results.len()));
    Ok(Sanitizing::Ran(results))
}

/// Runs a launch job under a tool.
pub fn run_tool(
    runner: &Runner,
    program: &Path,
    tool: &str,
    job: LaunchJob,
    device: &str,
    in_bulk: bool,
) -> Result<Sanitized> {
    let (variant, problems) = (job.module.variant.clone(), job.problems.iter().map(Problem::id).collect::<Vec<_>>());
    let planned = problems.len();
    let name = format!("{tool}-{variant}");
    let path = runner.logs.join(format!("{name}.report.txt"));
    // A report of an earlier run is none of this one.
    let _ = std::fs::remove_file(&path);
    let shown = path.display().to_string();
    let own = ["--tool", tool, "--error-exitcode", FINDINGS_STATUS, "--log-file", &shown].map(str::to_owned);
    let command = std::iter::once(program.display().to_string()).chain(own).chain(runner.command.clone()).collect();
    let wrapped = Runner { command, ..runner.clone() };
    let mut good = 0;
    let mut failure = None;
    let end = wrapped.run(&name, &Job::Launch(job), SILENCE, |event| {
        if let Event::Launched { outcome } = event {
            good += usize::from(outcome.failure.is_none());
            failure = failure.take().or(outcome.failure);
        }
    })?;
    let report = report::parse(&std::fs::read_to_string(&path).unwrap_or_default());
    let (state, result) = ended(tool, &report, (good, planned), failure, end, in_bulk);
    let result = if state == State::Clean { result } else { format!("{result}; see `{}`", path.display()) };
    let (tool, device) = (tool.to_owned(), device.to_owned());
    Ok(Sanitized { variant, tool, device, result, state, problems, findings: report.findings })
}

/// What a tool's report is worth. Only an access of the kernel's is a finding: a tool that breaks off, a driver that it does
/// not know and a launch that did not fit beside it say nothing of a kernel, and nor does racecheck of bulk copies.
fn ended(
    tool: &str,
    report: &Report,
    (good, planned): (usize, usize),
    failure: Option<String>,
    end: End,
    in_bulk: bool,
) -> (State, String) {
    // The tool must have said that it found nothing: no report is no evidence.
    let nothing = report.summary.as_deref().is_some_and(|s| s.contains(" 0 errors") || s.contains(" 0 hazards"));
    if nothing && report.findings.is_empty() && good == planned && end == End::Done {
        return (State::Clean, format!("clean on {planned} launches"));
    }
    let of_kernel = report.findings.iter().filter(|finding| !finding.sites.is_empty()).count();
    if of_kernel > 0 && tool == "racecheck" && in_bulk {
        let why = "which it also reports of right code that copies in bulk: no thread makes such a write, and it does not \
                   see what orders it";
        return (State::Deferred, format!("{of_kernel} hazards, {why}"));
    }
    let result = match (&report.summary, failure, end) {
        (Some(summary), _, _) if of_kernel > 0 => summary.clone(),
        // A kernel that faults gives its other tools nothing to look at.
        (_, Some(failure), _) => format!("no result: {failure}"),
        (Some(summary), None, _) => format!("nothing about the kernel: {summary}"),
        (None, None, End::Error(why) | End::Lost { why, .. }) => why,
        (None, None, End::Done) => "no report".to_owned(),
    };
    (if of_kernel > 0 { State::Found } else { State::Deferred }, result)
}

/// One line a tool and variant, and below it what was found.
pub fn render(results: &[Sanitized]) -> String {
    let mut lines = Vec::new();
    for r in results {
        lines.push(format!("{:13} {:10} {:10} {}", r.variant, r.tool, r.device, r.result));
        for finding in &r.findings {
            let replay = finding.replay.as_ref().map_or(String::new(), |how| format!("; replay: {how}"));
            lines.push(format!("    {} ({} times{replay})", finding.what, finding.hits));
            for site in &finding.sites {
                let source = if site.source.is_empty() { "no line".to_owned() } else { site.source.join(" < ") };
                lines.push(format!("      {}: {source}", site.role));
            }
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(tool: &str, text: &str, good: usize, in_bulk: bool) -> (State, String) {
        let failure = (good < 2).then(|| "an illegal address".to_owned());
        ended(tool, &report::parse(text), (good, 2), failure, End::Done, in_bulk)
    }

    const CLEAN: &str = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n";
    const RACE: &str = include_str!("../tests/data/planted/race.racecheck.txt");
    const OUTSIDE: &str = include_str!("../tests/data/planted/out-of-bounds.memcheck.txt");

    #[test]
    fn only_what_the_kernel_does_is_a_finding() {
        assert_eq!(state("memcheck", CLEAN, 2, false), (State::Clean, "clean on 2 launches".to_owned()));
        assert_eq!(state("memcheck", CLEAN, 1, false), (State::Deferred, "no result: an illegal address".to_owned()));
        assert_eq!(state("memcheck", "", 2, false), (State::Deferred, "no report".to_owned()));
        assert_eq!(state("memcheck", OUTSIDE, 0, false).0, State::Found);
        assert_eq!(state("racecheck", RACE, 2, false).0, State::Found);
        let broken = "========= COMPUTE-SANITIZER\n========= Internal Sanitizer Error: no device\n========= ERROR SUMMARY: 1 error\n";
        assert_eq!(state("memcheck", broken, 2, false).0, State::Deferred);
    }

    #[test]
    fn hazards_of_a_kernel_that_copies_in_bulk_neither_fix_nor_pass() {
        let (state, result) = state("racecheck", RACE, 2, true);
        assert_eq!(state, State::Deferred);
        assert!(result.contains("copies in bulk"), "{result}");
        assert_eq!(self::state("memcheck", OUTSIDE, 0, true).0, State::Found, "the other tools are not excused");
    }
}
