//! Runs that are there: one of them as reports see it, those before it, and all of a folder. Leaves to others: what a
//! report says, and whether a run holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::decision::CandidateDecision;
use kbench::report::{Format, HistoryPoint, PastMedian, PastRun, RunView, speedups};
use serde::Serialize;

use crate::run_dir::RunDir;
use crate::tune;

/// The file that keeps what the page of a run shows of those before it.
pub const EARLIER: &str = "history.json";

/// Whether a run is a search and nothing else: `tune` writes no gates.
pub fn is_search(run: &RunDir) -> bool {
    tune::is_in(run) && !run.has("gates.json")
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

/// A run in the list of all.
#[derive(Debug, Serialize)]
pub struct Past {
    /// The run directory's name: when it began, commit and suite.
    pub run: String,
    /// What it came to.
    #[serde(flatten)]
    pub came_to: CameTo,
}

/// What a run came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CameTo {
    /// It has no manifest.
    Interrupted,
    /// Its files are not those that were sealed.
    Edited {
        /// The first difference.
        first: String,
    },
    /// Its files are not those of today.
    Unreadable {
        /// What is wrong with them.
        why: String,
    },
    Searched {
        /// The first GPU's name.
        device: Option<String>,
        winner: Option<String>,
        /// Its time on the searched shape.
        p50_us: Option<f64>,
    },
    Judged {
        /// When it began, RFC 3339, UTC.
        started: String,
        commit: Option<String>,
        device: Option<String>,
        /// In one line.
        decision: String,
        /// The verdict on each candidate.
        candidates: Vec<CandidateDecision>,
        /// A variant that is no candidate and must be fixed first.
        #[serde(skip_serializing_if = "Option::is_none")]
        broken: Option<CandidateDecision>,
        /// Whether only a part of the suite was run.
        narrowed: bool,
        /// Of every variant, by shape.
        medians: Vec<Median>,
    },
}

/// A variant's time on a shape.
#[derive(Debug, Serialize)]
pub struct Median {
    pub variant: String,
    pub shape: String,
    pub p50_us: f64,
}

/// What every run under a folder came to, oldest first.
pub fn history(runs: &Path) -> Result<Vec<Past>> {
    let past = |path: PathBuf| {
        let run = RunDir::at(path);
        let came_to = came_to(&run).unwrap_or_else(|error| CameTo::Unreadable { why: format!("{error:#}") });
        Past { run: run.name(), came_to }
    };
    Ok(run_paths(runs)?.into_iter().map(past).collect())
}

fn came_to(run: &RunDir) -> Result<CameTo> {
    if !run.is_whole() {
        return Ok(CameTo::Interrupted);
    }
    let (_, differences) = run.differences()?;
    if let Some(first) = differences.into_iter().next() {
        return Ok(CameTo::Edited { first });
    }
    if is_search(run) {
        let tuned = tune::result(run)?;
        let (winner, p50_us) = tuned.winner.map(|w| (w.name, w.figures.p50_us)).unzip();
        return Ok(CameTo::Searched { device: tuned.device, winner, p50_us });
    }
    let past = past_run(run)?;
    let median = |m: PastMedian| Median { variant: m.variant, shape: m.shape, p50_us: m.p50_us };
    let medians = past.medians.into_iter().map(median).collect();
    Ok(CameTo::Judged {
        started: past.started,
        commit: past.commit,
        device: past.device,
        decision: past.decision.headline,
        candidates: past.decision.candidates,
        broken: past.decision.broken,
        narrowed: past.narrowed,
        medians,
    })
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

fn past_run(run: &RunDir) -> Result<PastRun> {
    with_view(run, PastRun::of)
}

/// The runs before a whole one as its page shows them: those that were there when it was sealed, where it says so.
pub fn recorded_earlier(run: &RunDir) -> Result<Vec<HistoryPoint>> {
    match run.read_if_there(EARLIER)? {
        Some(earlier) => Ok(earlier),
        None => earlier_runs(run, &run.suite()?.name),
    }
}

/// Whole runs of a suite beside `run` that began before it, oldest first. One that cannot be read is in the list with
/// its reason: it may be damaged, or older than today's files.
pub fn earlier_runs(run: &RunDir, suite: &str) -> Result<Vec<HistoryPoint>> {
    // Also where the run was named by a relative path, which has no parent to look into.
    let path = std::path::absolute(&run.path)?;
    let folder = path.parent().context("a run directory lies in a folder")?;
    let earlier = run_paths(folder)?.into_iter().filter(|other| *other < path);
    Ok(earlier.filter_map(|other| history_point(&RunDir::at(other), suite)).collect())
}

fn history_point(run: &RunDir, suite: &str) -> Option<HistoryPoint> {
    let other_suite = run.suite().is_ok_and(|own| own.name != suite);
    if other_suite || !run.is_whole() {
        return None;
    }
    // The reason goes into a file that is handed on, so it names the run and not where it lies.
    let reason = |error| format!("{error:#}").replace(&run.path.display().to_string(), &run.name());
    let outcome = run.is_as_sealed().and_then(|()| past_run(run)).map_err(reason);
    Some(HistoryPoint { run: run.name(), outcome })
}
