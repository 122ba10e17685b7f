//! Outputs against float64: the errors job of the runner for whoever has outputs. Leaves to others: what the errors
//! are worth.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use kbench::evidence::{Errors, Operands};
use kbench::job::{BenchJob, ErrorsJob, Event, Job, Task};
use kbench::operator::Problem;
use kbench::suite::Suite;

use crate::runner::End;
use crate::validate::Work;

/// The float64 reference of the largest shape on two slow cores.
pub(crate) const REFERENCE_SILENCE: Duration = Duration::from_secs(300);

/// Errors by subject and problem id.
pub(crate) type ErrorsByCase = BTreeMap<(String, String), Errors>;

/// The job that compares whatever the subjects left on the problems; see [`errors_job`].
pub(crate) fn errors_job_of(work: &Work, subjects: &[&str], problems: &[Problem], most_rows: Option<u32>) -> ErrorsJob {
    let outputs = subjects.iter().map(|s| ((*s).to_owned(), BenchJob::output_dir(work.scratch, s)));
    let operands = work.builds.built.iter().map(|b| (b.record.variant.clone(), b.record.operands()));
    errors_job(&work.plan.task, &work.plan.suite, operands.collect(), outputs.collect(), problems, most_rows)
}

/// A job for these outputs of kernels that were given these operands. Of a problem with more than `most_rows` query rows, and
/// of one that the suite calls large, that many are compared.
pub(crate) fn errors_job(
    task: &Task,
    suite: &Suite,
    operands: BTreeMap<String, Operands>,
    outputs: BTreeMap<String, PathBuf>,
    problems: &[Problem],
    most_rows: Option<u32>,
) -> ErrorsJob {
    let rows = |p: &Problem| {
        let of_suite = suite.large(&p.shape.name).map(|large| large.reference_rows);
        let all = suite.operator.rows(&p.shape)?;
        of_suite.into_iter().chain(most_rows.filter(|most| (*most as usize) < all)).min()
    };
    ErrorsJob {
        task: task.clone(),
        problems: problems.to_vec(),
        outputs,
        operands,
        control: suite.control.clone(),
        sampled: problems.iter().filter_map(|p| Some((p.id(), rows(p)?))).collect(),
        bad_element: suite.correctness.bad_element,
        ahead: false,
    }
}

/// Errors of every output of the subjects that is there, and why the comparison broke off, if it did. `report` hears
/// how many problems are done, of how many, and which one is next.
pub(crate) fn errors_of(
    work: &Work,
    name: &str,
    subjects: &[&str],
    problems: &[Problem],
    mut report: impl FnMut(u64, u64, &str),
) -> Result<(ErrorsByCase, Option<String>)> {
    let job = errors_job_of(work, subjects, problems, None);
    let mut errors = BTreeMap::new();
    let end = work.runner.run(name, &Job::Errors(job), REFERENCE_SILENCE, |event| match event {
        Event::Progress { done, total, what } => report(done, total, &what),
        Event::Compared { subject, problem, errors: found } => {
            errors.insert((subject, problem.id()), found);
        }
        _ => {}
    })?;
    Ok(match end {
        End::Done => (errors, None),
        End::Error(why) | End::Lost(why) => (errors, Some(why)),
    })
}
