//! `report`, `verify`, `history`: reading finished runs. Nothing here measures; `verify` judges again from the samples.

use std::path::Path;

use anyhow::{Context, Result};
use kbench::decision::decide;
use kbench::evidence::Mode;
use kbench::gate::significant;
use kbench::judge::{compare, judge};
use kbench::report::{Format, RunView, headline, markdown_file, render};

use crate::run_dir::RunDir;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Text tables.
    Table,
    /// Markdown.
    Md,
}

/// The report of a whole run.
pub fn report(path: &Path, format: ReportFormat) -> Result<String> {
    let run = RunDir::open(path)?;
    let (suite, evidence) = (run.suite()?, run.evidence()?);
    let (environment, gates, decision) = run.judgement()?;
    let name = run.name();
    let view = RunView {
        name: &name,
        suite: &suite,
        evidence: &evidence,
        gates: &gates,
        decision: &decision,
        environment: &environment,
    };
    Ok(match format {
        ReportFormat::Table => format!("{}\n{}", render(&view, Format::Table), headline(&view)),
        ReportFormat::Md => markdown_file(&view),
    })
}

/// Everything about a run that does not hold: changed files, and gates or a decision that the evidence does not give.
pub fn verify(path: &Path) -> Result<Vec<String>> {
    let run = RunDir::open(path)?;
    let mut faults = run.differences()?;
    let (suite, evidence) = (run.suite()?, run.evidence()?);
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

/// One line for each run under a folder, oldest first.
pub fn history(runs: &Path) -> Result<Vec<String>> {
    let mut paths: Vec<_> = match std::fs::read_dir(runs) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.join("suite.toml").is_file()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", runs.display())),
    };
    paths.sort();
    Ok(paths
        .iter()
        .map(|path| history_line(path).unwrap_or_else(|error| format!("{}: {error:#}", path.display())))
        .collect())
}

fn history_line(path: &Path) -> Result<String> {
    let run = RunDir::open(path)?;
    if !run.is_whole() {
        return Ok(format!("{}  interrupted; continue it with --resume", run.name()));
    }
    let (suite, evidence) = (run.suite()?, run.evidence()?);
    let (environment, _, decision) = run.judgement()?;
    let device = environment.device.map_or_else(|| "no GPU".to_owned(), |d| d.name);
    let times: Vec<String> = compare(&suite, &evidence.samples)
        .iter()
        .filter(|c| c.mode == Mode::Kernel && suite.variant_names().any(|v| v == c.subject))
        .map(|c| format!("{} {} {} us", c.subject, c.shape, significant(c.time_us.p50)))
        .collect();
    Ok(format!("{}  {device}  {}  {}", run.name(), decision.headline, times.join(", ")))
}
