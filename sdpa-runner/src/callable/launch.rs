//! The launch job of host code: on each problem a call on values that are nearly the problem's, whose answer nobody asks for,
//! then one on the problem, into poisoned outputs at the same addresses, and another one that must leave the same bytes. The kernels are those of a shape's first problem.
//! Leaves to others: errors against the reference.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use anyhow::{Context, Result};
use kbench::deferral::Deferral;
use kbench::evidence::LaunchOutcome;
use kbench::job::{Callable, Event, LaunchJob, output_file};
use kbench::operator::Problem;
use operators::Operator;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Fill, Host, Parts, Refused};
use crate::events::{emit, progress};
use crate::launch::sha256_hex;

/// Runs the job. Ends with the first fault: whoever asks starts anew for the problems that are left.
pub fn run(job: &LaunchJob, call: &Callable) -> Result<()> {
    std::fs::create_dir_all(&job.out_dir).with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    let variant = &job.module.variant;
    progress(0, job.problems.len(), &format!("starting {variant}"));
    let mut host = match Host::start(&job.task, variant, call) {
        Ok(host) => host,
        Err(error) => {
            let Some(deferral) = error.downcast_ref::<Deferral>() else { return Err(error) };
            for problem in &job.problems {
                emit(&Event::Launched { outcome: LaunchOutcome::deferred(problem, deferral.clone()) });
            }
            return Ok(());
        }
    };
    let mut operator = operators::of(&job.task);
    // Of the system's own entropy: nobody knows what is drawn before it is handed over.
    let mut rng = ChaCha8Rng::seed_from_u64(RandomState::new().hash_one(variant));
    // A profiler takes seconds to begin with.
    let mut profiled = BTreeSet::new();
    for (i, problem) in job.problems.iter().enumerate() {
        let is_first = profiled.insert(&problem.shape.name);
        progress(i, job.problems.len(), &format!("{variant} on {}", problem.id()));
        let error = match solve(&mut host, job, operator.as_mut(), (problem, is_first), &mut rng) {
            Ok(outcome) => {
                emit(&Event::Launched { outcome });
                continue;
            }
            Err(error) => error,
        };
        let Some(refused) = error.downcast_ref::<Refused>() else { return Err(error) };
        let failed = job.problems[i..].iter().take(if refused.at_its_limit { usize::MAX } else { 1 });
        failed.for_each(|p| emit(&Event::Launched { outcome: LaunchOutcome::failed(p, &refused.why) }));
        break;
    }
    Ok(())
}

fn solve(
    host: &mut Host,
    job: &LaunchJob,
    operator: &mut dyn Operator,
    (problem, is_profiled): (&Problem, bool),
    rng: &mut ChaCha8Rng,
) -> Result<LaunchOutcome> {
    let sets = [operator.handed(problem)?];
    let fill = Fill::of_set(0);
    host.load(problem, &sets)?;
    host.place(1, 1)?;
    host.fill(&[Fill::draw(&sets, rng)])?;
    host.call(1)?;
    let mut once = || {
        host.fill(std::slice::from_ref(&fill))?;
        host.call(1)?;
        host.output(0, &fill, &sets, &Parts::whole(&sets[0], true))
    };
    let (first, second) = (once()?, once()?);
    host.fill(std::slice::from_ref(&fill))?;
    let outcome = LaunchOutcome {
        problem: problem.clone(),
        failure: None,
        output_sha256: Some(sha256_hex(&first.outputs)),
        repeat_equal: first.outputs == second.outputs,
        inputs_unchanged: first.inputs_unchanged && second.inputs_unchanged,
        guards_intact: first.guards_intact && second.guards_intact,
        sampled_ctas: None,
        findings: Vec::new(),
        entry: None,
        kernels: if is_profiled { host.kernels()? } else { Vec::new() },
        replays: None,
        deferred: None,
    };
    let path = job.out_dir.join(output_file(problem));
    std::fs::write(&path, first.outputs).with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(outcome)
}
