//! Runs that are there: one of them as reports see it, those before it, and all of a folder. Leaves to others: what a
//! report says, and whether a run holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::decision::CandidateDecision;
use kbench::report::{Entry, Format, HistoryPoint, PastMedian, PastRun, RunView, TrendRun, speedups, trends_html};
use serde::Serialize;

use crate::run_dir::RunDir;
use crate::tune;

/// The page of a run.
pub const PAGE: &str = "report.html";

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

/// The page over every run under a folder, for a file that lies at `page`.
pub fn trends(runs: &Path, page: &Path) -> Result<String> {
    let page = std::path::absolute(page)?;
    let from = page.parent().context("a page lies in a folder")?;
    let entry = |path: PathBuf| -> Result<Entry> {
        let run = RunDir::at(std::path::absolute(path)?);
        let outcome = trend(&run).unwrap_or_else(|error| Err(format!("unreadable: {error:#}")));
        let report = run.path.join(PAGE);
        let report = report.is_file().then(|| href(from, &report));
        Ok(Entry { run: run.name(), report, outcome })
    };
    Ok(trends_html(&run_paths(runs)?.into_iter().map(entry).collect::<Result<Vec<_>>>()?))
}

/// What a run adds to the page; the inner error is why it has no points.
fn trend(run: &RunDir) -> Result<Result<TrendRun, String>> {
    if !run.is_whole() {
        return Ok(Err("interrupted".to_owned()));
    }
    if let Some(first) = run.differences()?.1.first() {
        return Ok(Err(format!("not as it was sealed: {first}")));
    }
    if is_search(run) {
        let winner =
            tune::result(run)?.winner.map_or("no winner".to_owned(), |winner| format!("winner {}", winner.name));
        return Ok(Err(format!("a search: {winner}")));
    }
    Ok(Ok(with_view(run, TrendRun::of)?))
}

/// A file as a page in a folder links to it; both paths are absolute.
fn href(from: &Path, to: &Path) -> String {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..".to_owned());
    let down = to.components().skip(common).map(|part| encoded(&part.as_os_str().to_string_lossy()));
    up.chain(down).collect::<Vec<_>>().join("/")
}

/// A part of a path as it stands in a link: whatever means something there is written as a number.
fn encoded(part: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    part.bytes().map(byte).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_from_the_page_to_the_report_wherever_the_two_lie() {
        let to = Path::new("/a/runs/20260101T000000Z-abc-s/report.html");
        assert_eq!(href(Path::new("/a/runs"), to), "20260101T000000Z-abc-s/report.html");
        assert_eq!(href(Path::new("/a/b/c"), to), "../../runs/20260101T000000Z-abc-s/report.html");
        assert_eq!(href(Path::new("/"), Path::new("/x y/#1/?.html")), "x%20y/%231/%3F.html");
    }
}
