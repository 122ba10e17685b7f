//! The emulator's checks under the names of compute-sanitizer's tools.

use anyhow::{Context, Result};
use kbench::findings;
use kbench::job::{Event, Job, LaunchJob, findings_file};
use kbench::memory::{Finding, Sanitized, Site, State, TOOLS};
use kbench::operator::Problem;
use kernel_spec::schedule::Schedule;
use serde::Deserialize;

use super::SILENCE;
use crate::runner::{End, Runner};

/// The largest skew between warps, and four orders that a seed replays.
const SCHEDULES: [Schedule; 5] =
    [Schedule::Greedy, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(3), Schedule::Seeded(4)];

/// A finding as the runner writes it, and the order that replays it.
#[derive(Deserialize)]
struct Written {
    schedule: Schedule,
    #[serde(flatten)]
    finding: findings::Finding,
}

/// Runs a launch job under every schedule and deals what was found to the tools.
pub(super) fn run(runner: &Runner, mut job: LaunchJob, schedules: &[Schedule]) -> Result<Vec<Sanitized>> {
    job.schedules = if schedules.is_empty() { SCHEDULES.to_vec() } else { schedules.to_vec() };
    let (variant, planned) = (job.module.variant.clone(), job.problems.len() * job.schedules.len());
    let mut good: Vec<Problem> = Vec::new();
    let (mut failure, mut deferred) = (None, Vec::new());
    let end = runner.run(&format!("emulated-{variant}"), &Job::Launch(job.clone()), SILENCE, |event| {
        if let Event::Launched { outcome } = event {
            match (outcome.failure, outcome.deferred) {
                (None, _) => good.push(outcome.problem),
                (Some(_), Some(why)) => deferred.push(why.to_string()),
                (why, None) => failure = failure.take().or(why),
            }
        }
    })?;
    let lost = match end {
        End::Done if good.len() + deferred.len() == job.problems.len() => None,
        End::Done => Some(failure.unwrap_or_else(|| "a launch gave no outcome".to_owned())),
        End::Error(why) | End::Lost { why, .. } => Some(why),
    };
    let mut written: Vec<Written> = Vec::new();
    for problem in &good {
        let path = job.out_dir.join(findings_file(problem));
        let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        written.extend(serde_json::from_slice::<Vec<Written>>(&bytes)?);
    }
    let problems: Vec<String> = good.iter().map(Problem::id).collect();
    let ends = Ends { planned, lost: lost.as_deref(), deferred: deferred.first().map(String::as_str) };
    let row = |tool| Sanitized { problems: problems.clone(), ..row(&variant, tool, &written, &ends) };
    Ok(TOOLS.map(row).to_vec())
}

/// How the launches ended.
struct Ends<'a> {
    planned: usize,
    /// Why one has no outcome, or a bad one.
    lost: Option<&'a str>,
    /// Why the emulator did not run one.
    deferred: Option<&'a str>,
}

fn row(variant: &str, tool: &str, written: &[Written], ends: &Ends) -> Sanitized {
    // One rule broken at the same places is one finding, whichever bytes it was seen on first.
    let mut findings: Vec<(&Written, Finding)> = Vec::new();
    for one in written.iter().filter(|w| tool_of(&w.finding.kind) == tool) {
        let site = |s: &findings::Site| Site { role: s.role.clone(), source: s.source.iter().rev().cloned().collect() };
        let sites: Vec<Site> = one.finding.sites.iter().map(site).collect();
        let is_same =
            |first: &Written| first.finding.kind == one.finding.kind && first.finding.severity == one.finding.severity;
        match findings.iter_mut().find(|(first, known)| is_same(first) && known.sites == sites) {
            Some((_, known)) => known.hits += one.finding.hits,
            None => {
                let what = format!("{} {}", one.finding.severity, one.finding.message);
                let replay = Some(format!("--schedule {}", one.schedule));
                findings.push((one, Finding { what, sites, hits: one.finding.hits, replay }));
            }
        }
    }
    let findings: Vec<Finding> = findings.into_iter().map(|(_, finding)| finding).collect();
    let (state, result) = match (findings.len(), ends.lost, ends.deferred) {
        (0, None, None) => (State::Clean, format!("clean on {} launches", ends.planned)),
        (0, None, Some(why)) => (State::Deferred, format!("not run: {why}")),
        (0, Some(why), _) => (State::Found, why.to_owned()),
        (n, ..) => (State::Found, format!("{n} found")),
    };
    let device = "emulator".to_owned();
    let (variant, tool) = (variant.to_owned(), tool.to_owned());
    Sanitized { variant, tool, device, result, state, problems: Vec::new(), findings }
}

/// Which of compute-sanitizer's tools would look for it.
fn tool_of(kind: &str) -> &'static str {
    match kind {
        "out-of-bounds" | "misaligned" | "read-only-store" | "trap" => "memcheck",
        "uninitialised-address" | "uninitialised-branch" | "uninitialised-store" => "initcheck",
        "barrier-misuse"
        | "exited-before-barrier"
        | "sync-divergence"
        | "mbarrier-misuse"
        | "deadlock"
        | "no-progress"
        | "runaway" => "synccheck",
        // Races, bytes in flight, copies that nobody waits for.
        _ => "racecheck",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENDS: Ends = Ends { planned: 20, lost: None, deferred: None };

    fn written(kind: &str) -> Written {
        let site = |role: &str, line: &str| json!({"role": role, "source": ["ladder.cu:80", line]});
        let written = json!({
            "schedule": "seeded:3",
            "kind": kind,
            "severity": "ERROR",
            "message": format!("{kind} on shared+0x40"),
            "sites": [site("write", "a.cuh:1"), site("read", "b.cuh:2")],
            "hits": 7,
        });
        serde_json::from_value(written).unwrap()
    }

    #[test]
    fn a_finding_goes_to_one_tool_and_says_where_and_how_to_replay() {
        let all = [written("race-read-after-write"), written("race-read-after-write")];
        let rows = TOOLS.map(|tool| row("x", tool, &all, &ENDS));
        let found: Vec<&str> = rows.iter().filter(|r| r.state == State::Found).map(|r| r.tool.as_str()).collect();
        assert_eq!(found, ["racecheck"]);
        let finding = &rows[1].findings[0];
        assert_eq!((rows[1].findings.len(), finding.hits), (1, 14));
        assert_eq!(finding.sites[0].source, ["a.cuh:1", "ladder.cu:80"]);
        assert_eq!(finding.replay.as_deref(), Some("--schedule seeded:3"));
        assert_eq!(rows[0].result, "clean on 20 launches");
    }

    #[test]
    fn a_lost_launch_is_never_clean_and_one_that_was_not_run_is_deferred() {
        let rows = TOOLS.map(|tool| row("x", tool, &[], &Ends { lost: Some("it was killed"), ..ENDS }));
        assert!(rows.iter().all(|r| r.state == State::Found && r.result == "it was killed"));
        let rows = TOOLS.map(|tool| row("x", tool, &[], &Ends { deferred: Some("too long"), ..ENDS }));
        assert!(rows.iter().all(|r| r.state == State::Deferred && r.result == "not run: too long"));
    }
}
