//! Outputs against float64: the errors job of the runner for whoever has outputs. Leaves to others: what the errors
//! are worth.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use kbench::evidence::Errors;
use kbench::job::{BenchJob, ErrorsJob, Event, Job};
use kbench::shape::Problem;

use crate::runner::End;
use crate::validate::Work;

/// The float64 reference of the largest shape on two slow cores.
const REFERENCE_SILENCE: Duration = Duration::from_secs(300);

/// Errors by subject and problem id.
pub(crate) type ErrorsByCase = BTreeMap<(String, String), Errors>;

/// Errors of every output of the subjects that is there, and why the comparison broke off, if it did. `report` hears
/// how many problems are done, of how many, and which one is next.
pub(crate) fn errors_of(
    work: &Work,
    name: &str,
    subjects: &[&str],
    problems: &[Problem],
    mut report: impl FnMut(u64, u64, &str),
) -> Result<(ErrorsByCase, Option<String>)> {
    let suite = &work.plan.suite;
    let outputs = subjects.iter().map(|s| ((*s).to_owned(), BenchJob::output_dir(work.scratch, s)));
    let job = ErrorsJob {
        problems: problems.to_vec(),
        outputs: outputs.collect(),
        operands: work.builds.built.iter().map(|b| (b.record.variant.clone(), b.record.operands())).collect(),
        control: suite.control.clone(),
        sampled: problems.iter().filter_map(|p| Some((p.id(), suite.large(&p.shape.name)?.reference_rows))).collect(),
        bad_element: suite.correctness.bad_element,
    };
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
