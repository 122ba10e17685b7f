//! Runs that are there: one of them as reports see it, those before it, and all of a folder. Leaves to others: what a
//! report says, and whether a run holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::gate::significant;
use kbench::report::{Format, HistoryPoint, PastRun, RunView, speedups};

use crate::run_dir::RunDir;
use crate::tune;

/// Whether a run is a search and nothing else: `tune` writes no gates.
pub fn is_search(run: &RunDir) -> bool {
    tune::is_in(run) && !run.path.join("gates.json").exists()
}

/// Shows a whole run to whoever looks at it.
pub fn with_view<T>(run: &RunDir, look: impl FnOnce(&RunView) -> T) -> Result<T> {
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
    Ok(format!("{}  {device}  {}  {}", run.name(), past.decision, times.join(", ")))
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
