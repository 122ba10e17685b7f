//! `report`, `verify`, `compare`: what finished runs say. Nothing here measures; `verify` judges again from the samples.

use std::path::Path;

use anyhow::{Result, bail};
use kbench::decision::decide;
use kbench::judge::judge;
use kbench::report::{Differences, Format, differences, headline, html, markdown_file, render, two_runs};
use kbench::tune::render as render_search;

use crate::run_dir::RunDir;
use crate::runs::{earlier_runs, is_search, with_view};
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
    for (again, recorded) in gates.iter().zip(&recorded_gates).filter(|(again, recorded)| again != recorded) {
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
