//! What of a run is derived from its evidence: gates, decision, reports. All of it is derived again and compared.
//! Leaves to others: facts that are recorded twice, and what is derived of builds.

use anyhow::Result;
use kbench::decision::{Decision, decide};
use kbench::deferral::Deferral;
use kbench::evidence::Environment;
use kbench::format::{REPORTS, RunFile};
use kbench::gate::Gate;
use kbench::judge::{Evidence, judge};
use kbench::legacy::says_the_same;
use kbench::report::{HistoryPoint, RunView, html, markdown_file};
use kbench::suite::Suite;

use super::verify::Verified;
use crate::run_dir::{FORMAT, REPORT, RunDir};
use crate::runs::{EARLIER, PAGE, recorded_earlier};

/// Judges, decides, and writes gates, decision and reports: everything that is derived of the evidence in a run.
pub fn derive(
    run: &RunDir,
    suite: &Suite,
    evidence: &Evidence,
    environment: &Environment,
    earlier: &[HistoryPoint],
) -> Result<Derived> {
    let gates = judge(suite, evidence);
    let decision = decide(suite, &gates, &evidence.checks, &evidence.samples);
    run.write_json("gates.json", &gates)?;
    run.write_json("decision.json", &decision)?;
    let name = run.name();
    let view = RunView { name: &name, suite, evidence, gates: &gates, decision: &decision, environment };
    run.write_json(EARLIER, &earlier)?;
    run.write(REPORT, &markdown_file(&view))?;
    run.write(PAGE, &html(&view, earlier))?;
    // A resumed run may have been begun by a program that writes other reports.
    run.write_json(FORMAT, &RunFile::of(&name))?;
    Ok(Derived { decision })
}

/// What a run came to.
pub struct Derived {
    /// The decision.
    pub decision: Decision,
}

/// Compares what was recorded with what the evidence gives.
pub fn examine(
    run: &RunDir,
    suite: &Suite,
    evidence: &Evidence,
    (environment, recorded_gates, recorded_decision): (&Environment, &[Gate], &Decision),
    found: &mut Verified,
) -> Result<()> {
    let gates = judge(suite, evidence);
    found.faults.extend(other_gates(&gates, recorded_gates, run.is_old()?));
    let decision = decide(suite, &gates, &evidence.checks, &evidence.samples);
    if decision != *recorded_decision {
        let (recorded, again) = (&recorded_decision.headline, &decision.headline);
        found.faults.push(match recorded == again {
            true => format!("decision.json is not what the evidence gives, although its headline is: `{again}`"),
            false => format!("the decision is recorded as `{recorded}`, the evidence gives `{again}`"),
        });
    }
    let name = run.name();
    let view = RunView { name: &name, suite, evidence, gates: &gates, decision: &decision, environment };
    reports(run, &view, found)
}

fn other_gates(gates: &[Gate], recorded: &[Gate], is_old: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if gates.len() != recorded.len() {
        faults.push(format!("{} gates are recorded, the evidence gives {}", recorded.len(), gates.len()));
    }
    let differs = |again: &Gate, recorded: &Gate| match is_old {
        true => !says_the_same(again, recorded),
        false => again != recorded,
    };
    for (again, recorded) in gates.iter().zip(recorded).filter(|(again, recorded)| differs(again, recorded)) {
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
    faults
}

/// What people read: it is written again, by the program that wrote it or one that writes the same.
fn reports(run: &RunDir, view: &RunView, found: &mut Verified) -> Result<()> {
    let head = run.head()?;
    let (markdown, page) = (run.report()?.map(|(text, _)| text), run.has(PAGE));
    if head.reports != REPORTS {
        if markdown.is_some() || page {
            found.open.push(Deferral::new(
                "REPORT.md and report.html were written by another revision of this program and are not compared",
                "read `report RUN` instead, or verify with the program that wrote them",
            ));
        }
        return Ok(());
    }
    match markdown {
        None => found.open.push(missing(REPORT)),
        Some(text) => found.faults.extend(differs(REPORT, &text, &markdown_file(view))),
    }
    match page {
        false => found.open.push(missing(PAGE)),
        true => {
            let again = html(view, &recorded_earlier(run)?);
            found.faults.extend(differs(PAGE, &run.raw_text(PAGE)?, &again));
        }
    }
    Ok(())
}

fn missing(file: &str) -> Deferral {
    Deferral::new(format!("{file} is not there, so nothing is known of what was read"), "read `report RUN` instead")
}

/// The first line that another report has.
fn differs(file: &str, recorded: &str, again: &str) -> Option<String> {
    if recorded == again {
        return None;
    }
    let line = recorded.lines().zip(again.lines()).position(|(recorded, again)| recorded != again);
    let line = line.unwrap_or_else(|| recorded.lines().count().min(again.lines().count()));
    Some(format!("{file} is not what the evidence gives, from line {} on", line + 1))
}
