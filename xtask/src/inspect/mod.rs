//! `report`, `verify`, `compare`: what finished runs say, and whether they hold. Nothing here measures; `verify` derives again
//! whatever is derived, from the raw samples on.

mod builds;
mod derived;
mod facts;
mod verify;

use std::path::Path;

use anyhow::{Result, bail};
use kbench::report::{
    Differences, Format, Regressions, RunView, annotations, brief, differences, html, junit, markdown_file,
    regressions, render, two_runs, verdict,
};
use kbench::tune::render as render_search;
use serde_json::json;

use crate::run_dir::RunDir;
use crate::runs::{is_search, recorded_earlier, with_view};
use crate::tune;
pub use derived::{Derived, derive};
pub use facts::{FACTS, Fact};
pub use verify::{Verified, verify, verify_against};

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// One screen: times, gates that do not pass, decision; with --full every table before it.
    Table,
    /// Markdown.
    Md,
    /// One page with plots, as in report.html.
    Html,
    /// Environment, gates and decision as they were recorded, or a search's result.
    Json,
    /// Annotations of a GitHub workflow; the summary goes to the file that GITHUB_STEP_SUMMARY names, else below them.
    Github,
    /// JUnit's XML: a suite a variant, a case a gate.
    Junit,
}

/// How a report is laid out for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// In columns.
    pub width: usize,
    /// Whether everything is shown.
    pub full: bool,
}

/// The report of a whole run that is as it was sealed.
pub fn report(run: &RunDir, format: ReportFormat, screen: Screen) -> Result<String> {
    if is_search(run) {
        let tuned = tune::result(run)?;
        return match format {
            ReportFormat::Table => Ok(render_search(&tuned, Some(columns(screen.width)))),
            ReportFormat::Md => Ok(render_search(&tuned, None)),
            ReportFormat::Html | ReportFormat::Github | ReportFormat::Junit => {
                bail!("a search has tables and JSON alone; use --format table, md or json")
            }
            ReportFormat::Json => Ok(serde_json::to_string_pretty(&json!({"run": run.name(), "result": tuned}))?),
        };
    }
    run.is_as_sealed()?;
    match format {
        ReportFormat::Table => with_view(run, |view| on_screen(view, screen)),
        ReportFormat::Md => with_view(run, markdown_file),
        ReportFormat::Github => github(run).map(|(annotations, summary)| format!("{annotations}\n{summary}")),
        ReportFormat::Junit => with_view(run, junit),
        ReportFormat::Json => {
            let (environment, gates, decision) = run.judgement()?;
            let report = json!({"run": run.name(), "environment": environment, "gates": gates, "decision": decision});
            Ok(serde_json::to_string_pretty(&report)?)
        }
        ReportFormat::Html => recorded_earlier(run).and_then(|earlier| with_view(run, |view| html(view, &earlier))),
    }
}

/// For GitHub, in two parts: the annotations, and the job's summary.
pub fn github(run: &RunDir) -> Result<(String, String)> {
    with_view(run, |view| (annotations(view), markdown_file(view)))
}

/// A width as tables take it.
fn columns(width: usize) -> u16 {
    u16::try_from(width).unwrap_or(u16::MAX)
}

fn on_screen(view: &RunView, screen: Screen) -> String {
    match screen.full {
        true => format!("{}{}", render(view, Format::Table), verdict(view, screen.width)),
        false => brief(view, screen.width),
    }
}

/// Two runs side by side.
pub struct Comparison {
    /// Everything that differs.
    pub differences: Differences,
    /// The same in words.
    pub text: String,
    /// Gates that pass in the first run and not in the second.
    pub regressions: Regressions,
}

/// Two whole runs as they were sealed, judged as they were recorded.
pub fn compare(a: &Path, b: &Path, width: usize) -> Result<Comparison> {
    let narrow = Format::Narrow(columns(width));
    with_view(&RunDir::open_sealed(a)?, |a| {
        with_view(&RunDir::open_sealed(b)?, |b| Comparison {
            differences: differences(a, b),
            text: two_runs(a, b, narrow),
            regressions: regressions(a, b),
        })
    })?
}
