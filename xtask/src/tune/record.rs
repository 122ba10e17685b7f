//! What a search leaves in a run directory: its files, reading them back, and whether its result follows from them.

use anyhow::Result;
use kbench::profile::KernelProfile;
use kbench::suite::Suite;
use kbench::tune::{Finals, Line, Plan, Tuned, conclude};

use super::journal;
use crate::run_dir::RunDir;

/// The files of a search besides those of every run.
pub const JOURNAL_FILE: &str = "tune.jsonl";
pub const PLAN_FILE: &str = "tune-plan.json";
pub const FINALS_FILE: &str = "tune-finals.json";
pub const RESULT_FILE: &str = "elite.json";

/// The name under which `validate` judges the winner.
pub const WINNER: &str = "tuned";

/// Whether a run holds a search.
pub fn is_in(run: &RunDir) -> bool {
    run.has(RESULT_FILE)
}

/// The recorded result of a run that holds a search.
pub fn result(run: &RunDir) -> Result<Tuned> {
    run.read_json(RESULT_FILE)
}

/// What of a run's search does not follow from its record.
pub fn verify(run: &RunDir) -> Result<Vec<String>> {
    let recorded: Tuned = result(run)?;
    let plan: Plan = run.read_json(PLAN_FILE)?;
    let finals: Finals = run.read_json(FINALS_FILE)?;
    let lines = match journal::read(run, JOURNAL_FILE) {
        Ok(lines) => lines,
        Err(error) => return Ok(vec![format!("{error:#}")]),
    };
    let mut faults = crate::profile::faults(run, profiled(&lines));
    let again = conclude(&plan, &lines, &finals);
    if again == recorded {
        return Ok(faults);
    }
    let name = |tuned: &Tuned| tuned.winner.as_ref().map_or("nobody".to_owned(), |w| format!("`{}`", w.name));
    faults.push(format!(
        "{RESULT_FILE} is not what the record gives: the winner is recorded as {}, the record gives {}",
        name(&recorded),
        name(&again)
    ));
    Ok(faults)
}

/// The elites of a record under the profiler.
pub fn profiled(lines: &[Line]) -> impl Iterator<Item = &KernelProfile> {
    lines.iter().filter_map(|line| match line {
        Line::Profiled(profiled) => Some(&profiled.kernel),
        _ => None,
    })
}

/// Whether a run that judged a search's winner as a candidate judged another variant instead.
pub fn foreign_winner(run: &RunDir, suite: &Suite) -> Result<Option<String>> {
    if !is_in(run) {
        return Ok(None);
    }
    let won = result(run)?.winner.map(|winner| winner.patch);
    let judged = suite.patch(WINNER);
    let candidate = suite.candidates.iter().any(|c| c.variant == WINNER);
    let same = judged == won && candidate == won.is_some();
    Ok((!same).then(|| format!("the candidate `{WINNER}` of suite.toml is not the winner that {RESULT_FILE} names")))
}
