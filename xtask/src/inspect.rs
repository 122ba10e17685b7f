//! `report`, `verify`, `history`: reading finished runs. Nothing here measures; `verify` judges again from the samples.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kbench::decision::decide;
use kbench::gate::{Gate, significant};
use kbench::judge::judge;
use kbench::legacy::says_the_same;
use kbench::report::{
    Differences, Format, HistoryPoint, PastRun, RunView, differences, headline, html, markdown_file, render, speedups,
    two_runs,
};
use kbench::tune::render as render_search;

use crate::run_dir::RunDir;
use crate::tune;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Text tables.
    Table,
    /// Markdown.
    Md,
    /// One page with plots, as in report.html.
    Html,
}

/// Whether a run is a search and nothing else: `tune` writes no gates.
fn is_search(run: &RunDir) -> bool {
    tune::is_in(run) && !run.path.join("gates.json").exists()
}

/// The report of a whole run.
pub fn report(path: &Path, format: ReportFormat) -> Result<String> {
    let run = RunDir::open(path)?;
    if is_search(&run) {
        let tuned = tune::result(&run)?;
        return match format {
            ReportFormat::Table => Ok(render_search(&tuned, false)),
            ReportFormat::Md => Ok(render_search(&tuned, true)),
            ReportFormat::Html => bail!("a search has no page; use --format table or md"),
        };
    }
    let earlier = || earlier_runs(&run, &run.suite()?.name);
    match format {
        ReportFormat::Table => with_view(&run, |view| format!("{}\n{}", render(view, Format::Table), headline(view))),
        ReportFormat::Md => with_view(&run, markdown_file),
        ReportFormat::Html => earlier().and_then(|earlier| with_view(&run, |view| html(view, &earlier))),
    }
}

/// Two whole runs, judged as they were recorded, side by side.
pub fn compare(a: &Path, b: &Path) -> Result<(Differences, String)> {
    with_view(&RunDir::open(a)?, |a| {
        with_view(&RunDir::open(b)?, |b| (differences(a, b), two_runs(a, b, Format::Table)))
    })?
}

fn with_view<T>(run: &RunDir, look: impl FnOnce(&RunView) -> T) -> Result<T> {
    let (suite, evidence) = (run.suite()?, run.evidence()?);
    let (environment, gates, decision) = run.judgement()?;
    let name = run.name();
    Ok(look(&RunView {
        name: &name,
        suite: &suite,
        evidence: &evidence,
        gates: &gates,
        decision: &decision,
        environment: &environment,
    }))
}

/// Everything about a run that does not hold: changed files, and gates or a decision that the evidence does not give.
pub fn verify(path: &Path) -> Result<Vec<String>> {
    let run = RunDir::open(path)?;
    let mut faults = run.differences()?;
    if tune::is_in(&run) {
        faults.extend(tune::verify(&run)?);
    }
    if is_search(&run) {
        return Ok(faults);
    }
    let (suite, evidence) = (run.suite()?, run.evidence()?);
    faults.extend(tune::foreign_winner(&run, &suite)?);
    let kernels = evidence.profile.iter().flat_map(|profile| &profile.kernels);
    faults.extend(crate::profile::faults(&run, kernels));
    let (_, recorded_gates, recorded_decision) = run.judgement()?;
    let gates = judge(&suite, &evidence);
    if gates.len() != recorded_gates.len() {
        faults.push(format!("{} gates are recorded, the evidence gives {}", recorded_gates.len(), gates.len()));
    }
    let is_old = run.is_old()?;
    let differs = |again: &Gate, recorded: &Gate| match is_old {
        true => !says_the_same(again, recorded),
        false => again != recorded,
    };
    for (again, recorded) in gates.iter().zip(&recorded_gates).filter(|(again, recorded)| differs(again, recorded)) {
        faults.push(format!(
            "gate `{}` of {}: recorded {} {}, the evidence gives {} {}",
            recorded.figure,
            recorded.variant,
            recorded.state.word(),
            recorded.measured,
            again.state.word(),
            again.measured
        ));
    }
    let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
    if decision != recorded_decision {
        faults.push(format!(
            "the decision is recorded as `{}`, the evidence gives `{}`",
            recorded_decision.headline, decision.headline
        ));
    }
    Ok(faults)
}

/// The times of one run as speedups over its control and over PyTorch, in Markdown; `None` without times.
pub fn speedups_of(run: &RunDir) -> Result<Option<String>> {
    let text = with_view(run, |view| speedups(view, Format::Markdown))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// One line for each run under a folder, oldest first.
pub fn history(runs: &Path) -> Result<Vec<String>> {
    let paths = run_paths(runs)?;
    Ok(paths
        .iter()
        .map(|path| history_line(path).unwrap_or_else(|error| format!("{}: {error:#}", path.display())))
        .collect())
}

/// Run directories under a folder, oldest first: their names begin with the time.
fn run_paths(runs: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = match std::fs::read_dir(runs) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.join("suite.toml").is_file()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", runs.display())),
    };
    paths.sort();
    Ok(paths)
}

fn history_line(path: &Path) -> Result<String> {
    let run = RunDir::open(path)?;
    if !run.is_whole() {
        return Ok(format!("{}  interrupted; continue it with --resume", run.name()));
    }
    if is_search(&run) {
        let tuned = tune::result(&run)?;
        let winner = tuned
            .winner
            .map_or("no winner".to_owned(), |w| format!("winner {} {} us", w.name, significant(w.figures.p50_us)));
        return Ok(format!("{}  {}  {winner}", run.name(), tuned.device.as_deref().unwrap_or("no GPU")));
    }
    let past = past_run(&run)?;
    let device = past.device.as_deref().unwrap_or("no GPU");
    let times: Vec<String> =
        past.medians.iter().map(|m| format!("{} {} {} us", m.variant, m.shape, significant(m.p50_us))).collect();
    Ok(format!("{}  {device}  {}  {}", run.name(), past.decision.headline, times.join(", ")))
}

fn past_run(run: &RunDir) -> Result<PastRun> {
    with_view(run, PastRun::of)
}

/// Whole runs of a suite beside `run` that began before it, oldest first. One that cannot be read is in the list with
/// its reason: it may be damaged, or older than today's files.
pub fn earlier_runs(run: &RunDir, suite: &str) -> Result<Vec<HistoryPoint>> {
    // Also where the run was named by a relative path, which has no parent to look into.
    let path = std::path::absolute(&run.path)?;
    let folder = path.parent().context("a run directory lies in a folder")?;
    let earlier = run_paths(folder)?.into_iter().filter(|other| *other < path);
    Ok(earlier.filter_map(|other| history_point(&RunDir { path: other }, suite)).collect())
}

fn history_point(run: &RunDir, suite: &str) -> Option<HistoryPoint> {
    let other_suite = run.suite().is_ok_and(|own| own.name != suite);
    if other_suite || !run.is_whole() {
        return None;
    }
    // The reason goes into a file that is handed on, so it names the run and not where it lies.
    let reason = |error| format!("{error:#}").replace(&run.path.display().to_string(), &run.name());
    Some(HistoryPoint { run: run.name(), outcome: past_run(run).map_err(reason) })
}
