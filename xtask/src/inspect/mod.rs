//! `report`, `verify`, `compare`: what finished runs say, and whether they hold. Nothing here measures; `verify` derives again
//! whatever is derived, from the raw samples on.

mod builds;
mod derived;
mod facts;
mod verify;

use std::path::Path;

use anyhow::{Result, bail};
use kbench::gate::{Gate, State};
use kbench::report::{Differences, Format, RunView, differences, headline, html, markdown_file, render, two_runs};
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
    /// Text tables.
    Table,
    /// Markdown.
    Md,
    /// One page with plots, as in report.html.
    Html,
    /// Environment, gates and decision as they were recorded, or a search's result.
    Json,
}

/// The report of a whole run that is as it was sealed.
pub fn report(run: &RunDir, format: ReportFormat) -> Result<String> {
    if is_search(run) {
        let tuned = tune::result(run)?;
        return match format {
            ReportFormat::Table => Ok(render_search(&tuned, false)),
            ReportFormat::Md => Ok(render_search(&tuned, true)),
            ReportFormat::Html => bail!("a search has no page; use --format table or md"),
            ReportFormat::Json => Ok(serde_json::to_string_pretty(&json!({"run": run.name(), "result": tuned}))?),
        };
    }
    run.is_as_sealed()?;
    match format {
        ReportFormat::Table => with_view(run, |view| format!("{}\n{}", render(view, Format::Table), headline(view))),
        ReportFormat::Md => with_view(run, markdown_file),
        ReportFormat::Json => {
            let (environment, gates, decision) = run.judgement()?;
            let report = json!({"run": run.name(), "environment": environment, "gates": gates, "decision": decision});
            Ok(serde_json::to_string_pretty(&report)?)
        }
        ReportFormat::Html => recorded_earlier(run).and_then(|earlier| with_view(run, |view| html(view, &earlier))),
    }
}

/// Two runs side by side.
pub struct Comparison {
    /// Everything that differs.
    pub differences: Differences,
    /// The same in words.
    pub text: String,
    /// Gates that pass in the first run and fail in the second.
    pub regressions: Vec<String>,
}

/// Two whole runs as they were sealed, judged as they were recorded.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison> {
    with_view(&RunDir::open_sealed(a)?, |a| {
        with_view(&RunDir::open_sealed(b)?, |b| Comparison {
            differences: differences(a, b),
            text: two_runs(a, b, Format::Table),
            regressions: regressions(a, b),
        })
    })?
}

fn regressions(a: &RunView, b: &RunView) -> Vec<String> {
    let passed = |gate: &Gate| {
        let is_it = |g: &&Gate| (&g.variant, &g.figure) == (&gate.variant, &gate.figure);
        a.gates.iter().find(is_it).is_some_and(|g| g.state == State::Pass)
    };
    let worse = b.gates.iter().filter(|gate| gate.state == State::Fail && passed(gate));
    worse.map(|g| format!("{}: {} is {}, wanted {}", g.variant, g.figure, g.measured, g.threshold)).collect()
}
