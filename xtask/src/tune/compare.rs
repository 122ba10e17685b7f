//! Who compares outputs with float64: two processes that stay, one for the problems that every configuration is checked
//! on, one for those of the finals alone. Each computes its references while GPUs are opened and configurations measured.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use kbench::job::{ErrorsJob, Event, Executor, Job, Task};
use kbench::operator::Problem;
use kbench::suite::Suite;

use super::meeting::{Occasion, REFERENCE_ROWS};
use crate::runner::{End, Resident, Runner};
use crate::work::{ErrorsByCase, REFERENCE_SILENCE, Rows, Work, errors_job, errors_job_of};

/// A process, and the problems whose references it has.
struct Comparer {
    process: Mutex<Resident>,
    problems: Vec<Problem>,
}

pub struct Comparers {
    runner: Runner,
    /// What the rows of large problems are drawn by, the same for all configurations.
    row_seed: u64,
    search: Comparer,
    finals: Comparer,
}

impl Comparers {
    /// Problems of the search, and all of the finals.
    pub fn new(runner: Runner, row_seed: u64, search: Vec<Problem>, mut finals: Vec<Problem>) -> Comparers {
        finals.retain(|problem| !search.contains(problem));
        let comparer = |log, problems| Comparer { process: Mutex::new(Resident::of(Job::Comparer, log)), problems };
        Comparers { runner, row_seed, search: comparer("errors", search), finals: comparer("errors-finals", finals) }
    }

    /// Has the references of one part computed, and returns when they are there. What goes wrong here goes wrong again
    /// when outputs are compared, and is told then.
    pub fn prepare(&self, suite: &Suite, occasion: Occasion) {
        let comparer = if occasion == Occasion::Search { &self.search } else { &self.finals };
        let (operands, outputs) = (BTreeMap::new(), BTreeMap::new());
        let rows = Rows { most: Some(REFERENCE_ROWS), seed: self.row_seed };
        let job = errors_job(&Task::default(), suite, operands, outputs, &comparer.problems, rows);
        let job = ErrorsJob { ahead: true, ..job };
        let _ = self.run(comparer, &Job::Errors(job), |_| {});
    }

    /// Errors of every output of the subjects that is there.
    pub fn compare(&self, work: &Work, subjects: &[&str], problems: &[Problem]) -> Result<ErrorsByCase> {
        let (first, rest): (Vec<_>, Vec<_>) = problems.iter().cloned().partition(|p| self.search.problems.contains(p));
        // The emulator computes a part of the rows already.
        let most = (work.executor == Some(Executor::Gpu)).then_some(REFERENCE_ROWS);
        let rows = Rows { most, seed: self.row_seed };
        let part = |comparer: &Comparer, problems: &[Problem]| -> Result<ErrorsByCase> {
            let mut errors = ErrorsByCase::new();
            if problems.is_empty() {
                return Ok(errors);
            }
            let job = Job::Errors(errors_job_of(work, subjects, problems, rows));
            let end = self.run(comparer, &job, |event| {
                if let Event::Compared { subject, problem, errors: found } = event {
                    errors.insert((subject, problem.id()), found);
                }
            })?;
            match end {
                End::Done => Ok(errors),
                End::Error(why) | End::Lost { why, .. } => bail!("comparing with float64 broke off: {why}"),
            }
        };
        let (first, rest) = std::thread::scope(|scope| {
            let rest = scope.spawn(|| part(&self.finals, &rest));
            (part(&self.search, &first), rest.join())
        });
        let mut errors = first?;
        errors.extend(rest.map_err(|_| anyhow::anyhow!("a comparing thread died"))??);
        Ok(errors)
    }

    pub fn stop(&self) {
        for comparer in [&self.search, &self.finals] {
            comparer.process.lock().unwrap_or_else(PoisonError::into_inner).stop();
        }
    }

    fn run(&self, comparer: &Comparer, job: &Job, on_event: impl FnMut(Event)) -> Result<End> {
        let mut process = comparer.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.run(&self.runner, job, REFERENCE_SILENCE, on_event)
    }
}
