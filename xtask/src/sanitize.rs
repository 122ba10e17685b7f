//! `sanitize`: what a correct result hides, over launches of every variant: compute-sanitizer's tools on a GPU, the
//! emulator's checks without one. One table for both. Leaves to others: reading a report (`report`), and the emulator.

mod emulated;
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::evidence::{Device, Operands};
use kbench::job::{Event, Executor, Job, LaunchJob, Task};
use kbench::operator::attention::{EDGES, RAGGED_MASKED};
use kbench::operator::{Distribution, Problem};
use kernel_spec::schedule::Schedule;
use sdpa_kernel::registry::Variant;
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::build::{Built, build_all, runs_on};
use crate::console::Step;
use crate::layout::Layout;
use crate::plan::DeviceChoice;
use crate::runner::{End, Runner};
use crate::toolchain;

/// The tools. compute-sanitizer's racecheck sees shared memory only, its initcheck global memory only; the emulator's
/// checks of the same names see both.
const TOOLS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];
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

/// One tool on one variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sanitized {
    pub variant: String,
    pub tool: String,
    pub device: String,
    /// `clean`, or what was found, or why nothing was run.
    pub result: String,
    pub state: State,
    /// What was found, each problem once.
    pub findings: Vec<Finding>,
}

/// How one tool ended on one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing was found, and every launch gave an output.
    Clean,
    /// Something was found, or a launch was lost.
    Found,
    /// It could not be run here.
    Deferred,
}

/// One problem, from either device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What went wrong, in a few words.
    pub what: String,
    /// Each access that takes part, the earlier first.
    pub sites: Vec<Site>,
    pub hits: u64,
    /// What replays it, on the emulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
}

/// An access that takes part in a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// `read`, `write`, …
    pub role: String,
    /// `file:line` of the CUDA source, innermost first; empty without line information.
    pub source: Vec<String>,
}

/// What `sanitize` came to.
pub enum Sanitizing {
    Ran(Vec<Sanitized>),
    Deferred(Deferral),
}

/// Runs every tool on every variant.
pub fn sanitize(layout: &Layout, variants: &[Variant], logs: &Path, options: &Options) -> Result<Sanitizing> {
    let runner = Runner::locate(layout, logs)?;
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
    let found = match options.device {
        DeviceChoice::Emulator => Err(Deferral::because("the emulator was asked for")),
        DeviceChoice::Gpu | DeviceChoice::Auto => gpu(&runner)?,
    };
    match (found, options.device) {
        (Ok(device), _) => on_gpu(layout, variants, &runner, &device, &problems),
        (Err(why), DeviceChoice::Gpu) => Ok(Sanitizing::Deferred(why)),
        (Err(_), _) => on_emulator(layout, variants, &runner, &problems, &options.schedules),
    }
}

/// A GPU with the tool, or why there is none.
fn gpu(runner: &Runner) -> Result<Result<Device, Deferral>> {
    let mut found = Err(Deferral::because("no device"));
    runner.run("probe", &Job::Probe, SILENCE, |event| match event {
        Event::Device { device, .. } => found = Ok(device),
        Event::NoDevice(deferral) => found = Err(deferral),
        _ => {}
    })?;
    let tool = |shell: Shell| cmd!(shell, "compute-sanitizer --version").ignore_stderr().read();
    if found.is_ok() && Shell::new().and_then(tool).is_err() {
        return Ok(Err(Deferral::new("compute-sanitizer is not on PATH", "install the CUDA toolkit")));
    }
    Ok(found)
}

fn builds(layout: &Layout, variants: &[Variant], arch: &str) -> Result<Vec<Built>> {
    let toolchain = toolchain::find_or_install(&layout.target, &crate::console::line)?;
    let builds = build_all(layout, &toolchain, variants, &[arch.to_owned()])?;
    match builds.failures.first() {
        Some(failure) => anyhow::bail!("`{}` does not compile: {}", failure.variant, failure.error),
        None => Ok(builds.built),
    }
}

fn launch_job(built: &Built, problems: &[Problem], out_dir: &Path, executor: Executor) -> LaunchJob {
    LaunchJob {
        task: Task::default(),
        module: built.module(),
        problems: problems.to_vec(),
        out_dir: out_dir.to_owned(),
        executor,
        replays: BTreeMap::new(),
        max_ctas: None,
        schedules: Vec::new(),
    }
}

fn on_emulator(
    layout: &Layout,
    variants: &[Variant],
    runner: &Runner,
    problems: &[Problem],
    schedules: &[Schedule],
) -> Result<Sanitizing> {
    let builds = builds(layout, variants, EMULATED_ARCH)?;
    let step = Step::begin("sanitize", builds.len() as u64);
    let mut results = Vec::new();
    for built in &builds {
        let scratch = tempfile::tempdir()?;
        step.advance(&built.record.variant);
        if built.record.entries.iter().any(|e| e.launch.operands != Operands::RowMajor) {
            results.extend(TOOLS.map(|tool| Sanitized {
                variant: built.record.variant.clone(),
                tool: tool.to_owned(),
                device: "emulator".to_owned(),
                result: "not run: the emulator executes neither wgmma nor bulk copies; run on a Hopper GPU".to_owned(),
                state: State::Deferred,
                findings: Vec::new(),
            }));
            continue;
        }
        let job = launch_job(built, problems, scratch.path(), Executor::Emulator);
        results.extend(emulated::run(runner, job, schedules)?);
    }
    step.end(&format!("{} variants on the emulator", builds.len()));
    Ok(Sanitizing::Ran(results))
}

fn on_gpu(
    layout: &Layout,
    variants: &[Variant],
    runner: &Runner,
    device: &Device,
    problems: &[Problem],
) -> Result<Sanitizing> {
    let variants: Vec<Variant> = variants.iter().filter(|v| runs_on(v, &device.arch())).cloned().collect();
    if variants.is_empty() {
        let why = format!("no variant that was asked for runs on {}", device.arch());
        return Ok(Sanitizing::Deferred(Deferral::new(why, "run on another GPU")));
    }
    let builds = builds(layout, &variants, &device.arch())?;
    let step = Step::begin("sanitize", (builds.len() * TOOLS.len()) as u64);
    let scratch = tempfile::tempdir()?;
    let mut results = Vec::new();
    for built in &builds {
        for tool in TOOLS {
            step.advance(&format!("{tool} {}", built.record.variant));
            let job = launch_job(built, problems, scratch.path(), Executor::Gpu);
            results.push(run_tool(runner, tool, job, &device.name)?);
        }
    }
    step.end(&format!("{} runs", results.len()));
    Ok(Sanitizing::Ran(results))
}

fn run_tool(runner: &Runner, tool: &str, job: LaunchJob, device: &str) -> Result<Sanitized> {
    let (variant, planned) = (job.module.variant.clone(), job.problems.len());
    let name = format!("{tool}-{variant}");
    let path = runner.logs.join(format!("{name}.report.txt"));
    let mut command: Vec<String> =
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", FINDINGS_STATUS, "--log-file"]
            .map(str::to_owned)
            .to_vec();
    command.push(path.display().to_string());
    command.extend(runner.command.clone());
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
    // The tool must have said that it found nothing: no report is no evidence.
    let nothing = report.summary.as_deref().is_some_and(|s| s.contains(" 0 errors") || s.contains(" 0 hazards"));
    let clean = nothing && report.findings.is_empty() && good == planned && matches!(end, End::Done);
    let result = match (clean, report.summary, end) {
        (true, ..) => format!("clean on {planned} launches"),
        // A kernel that faults gives its other tools nothing to look at.
        (false, Some(_), _) if nothing && failure.is_some() => format!("no result: {}", failure.unwrap_or_default()),
        (false, Some(summary), _) => format!("{summary}; see `{}`", path.display()),
        (false, None, End::Error(why) | End::Lost { why, .. }) => why,
        (false, None, End::Done) => format!("no report; see `{}`", path.display()),
    };
    Ok(Sanitized {
        variant,
        tool: tool.to_owned(),
        device: device.to_owned(),
        result,
        state: if clean { State::Clean } else { State::Found },
        findings: report.findings,
    })
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
