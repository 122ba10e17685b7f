//! `sanitize`: compute-sanitizer's tools over launches of every variant. Without a GPU or the tool it is deferred.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kbench::job::{Event, Executor, Job, LaunchJob, Module};
use kbench::shape::{Distribution, Problem};
use sdpa_kernel::registry::Variant;
use serde::Serialize;

use crate::build::{build_all, runs_on};
use crate::console::Step;
use crate::layout::Layout;
use crate::runner::{End, Runner};
use crate::toolchain;

/// The tools. racecheck sees shared memory only, initcheck global memory only.
const TOOLS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];
/// Small enough for a hundredfold slowdown, and one that is no multiple of a tile.
const SHAPES: [&str; 4] = ["small", "ragged", "small-causal", "ragged-causal"];
/// The exit status that compute-sanitizer is told to use for findings.
const FINDINGS_STATUS: &str = "99";
/// The instrumented kernel is slow.
const SILENCE: Duration = Duration::from_secs(120);

/// One tool on one variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sanitized {
    /// Variant.
    pub variant: String,
    /// Tool.
    pub tool: String,
    /// `clean`, or what was found.
    pub result: String,
    /// Whether nothing was found, and every launch gave an output.
    pub clean: bool,
}

/// What `sanitize` came to.
pub enum Sanitizing {
    /// It ran.
    Ran(Vec<Sanitized>),
    /// It could not; "why; remedy".
    Deferred(String),
}

/// Runs every tool on every variant.
pub fn sanitize(layout: &Layout, variants: &[Variant], logs: &Path) -> Result<Sanitizing> {
    let runner = Runner::locate(layout, logs)?;
    let mut device = None;
    let mut why_not = "no device".to_owned();
    runner.run("probe", &Job::Probe, SILENCE, |event| match event {
        Event::Device { device: found, .. } => device = Some(found),
        Event::NoDevice { why } => why_not = why,
        _ => {}
    })?;
    let Some(device) = device else { return Ok(Sanitizing::Deferred(why_not)) };
    if duct::cmd!("compute-sanitizer", "--version").stdout_null().stderr_null().run().is_err() {
        return Ok(Sanitizing::Deferred("compute-sanitizer is not on PATH; install the CUDA toolkit".to_owned()));
    }
    let toolchain = toolchain::find_or_install(&layout.target, &|line| eprintln!("{line}"))?;
    let variants: Vec<Variant> = variants.iter().filter(|v| runs_on(v, &device.arch())).cloned().collect();
    if variants.is_empty() {
        let why = format!("no variant that was asked for runs on {}; run on another GPU", device.arch());
        return Ok(Sanitizing::Deferred(why));
    }
    let builds = build_all(layout, &toolchain, &variants, &[device.arch()])?;
    if let Some(failure) = builds.failures.first() {
        anyhow::bail!("`{}` does not compile: {}", failure.variant, failure.error);
    }
    let step = Step::begin("sanitize", (variants.len() * TOOLS.len()) as u64);
    let scratch = tempfile::tempdir()?;
    let mut results = Vec::new();
    for built in &builds.built {
        let module = Module {
            variant: built.record.variant.clone(),
            image: built.dir.join("kernel.cubin"),
            ptx: built.dir.join("kernel.ptx"),
            toggles: built.record.toggles.clone(),
            launches: built.record.entries.iter().map(|e| e.launch.clone()).collect(),
        };
        for tool in TOOLS {
            step.advance(&format!("{tool} {}", module.variant));
            results.push(run_tool(&runner, tool, &module, scratch.path())?);
        }
    }
    step.end(&format!("{} runs", results.len()));
    Ok(Sanitizing::Ran(results))
}

fn run_tool(runner: &Runner, tool: &str, module: &Module, scratch: &Path) -> Result<Sanitized> {
    let name = format!("{tool}-{}", module.variant);
    let report = runner.logs.join(format!("{name}.report.txt"));
    let mut command: Vec<String> =
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", FINDINGS_STATUS, "--log-file"]
            .map(str::to_owned)
            .to_vec();
    command.push(report.display().to_string());
    command.extend(runner.command.clone());
    let wrapped = Runner { command, logs: runner.logs.clone() };
    let problem = |shape: &str, distribution| Ok(Problem { shape: shape.parse()?, seed: 0, distribution });
    let mut problems = SHAPES.iter().map(|s| problem(s, Distribution::Normal)).collect::<Result<Vec<_>>>()?;
    // A kernel may take another path where logits are wide.
    problems.push(problem("ragged-causal", Distribution::Large)?);
    let planned = problems.len();
    let job = LaunchJob {
        module: module.clone(),
        problems,
        out_dir: scratch.to_owned(),
        executor: Executor::Gpu,
        replays: BTreeMap::new(),
        max_ctas: None,
    };
    let mut good = 0;
    let end = wrapped.run(&name, &Job::Launch(job), SILENCE, |event| {
        if let Event::Launched { outcome } = event {
            good += usize::from(outcome.failure.is_none());
        }
    })?;
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    let summary =
        text.lines().rev().find(|line| line.contains("SUMMARY")).map(|line| line.trim_start_matches(['=', ' ']));
    // The tool must have said that it found nothing: no report is no evidence.
    let nothing = summary.is_some_and(|s| s.contains(" 0 errors") || s.contains(" 0 hazards"));
    let clean = nothing && good == planned && matches!(end, End::Done);
    let result = match (clean, summary, end) {
        (true, ..) => format!("clean on {planned} launches"),
        (false, Some(summary), _) => format!("{summary}; see `{}`", report.display()),
        (false, None, End::Error(why) | End::Lost(why)) => why,
        (false, None, End::Done) => format!("no report; see `{}`", report.display()),
    };
    Ok(Sanitized { variant: module.variant.clone(), tool: tool.to_owned(), result, clean })
}
