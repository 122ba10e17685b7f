//! Processes that stay and take one job after another. The resident keeps its context; of what it ran it remembers nothing
//! but the inputs of bench jobs, in the host's memory: modules are loaded and buffers filled anew for each job. The comparer keeps float64
//! references. Both end with the first job that fails, because a fault takes the context with it, and when their standard
//! input closes.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result, bail};
use kbench::job::{EXIT_ERROR, Event, Job, Task};
use operators::{Comparer, Operator};

use crate::bench::{self, Bench};
use crate::events::emit;
use crate::{cuda, launch};

/// What a comparer adds to its nice value.
const POLITE: i32 = 10;

/// Opens the GPU and takes jobs. The pipeline reads an end after each.
pub fn run() -> Result<()> {
    if let Some(deferral) = cuda::missing_driver() {
        emit(&Event::NoDevice(deferral));
        return Ok(());
    }
    let lines = lines();
    let bench = Bench::open()?.map_err(anyhow::Error::msg)?;
    let mut operator: Option<(Task, Box<dyn Operator>)> = None;
    while let Ok(line) = lines.recv() {
        let job = Job::from_line(&line).context("a line on standard input is no job")?;
        match &job {
            Job::LaunchBatch { jobs } => launch::run_batch(&bench.gpu, jobs)?,
            Job::Bench(job) => {
                let asked = &job.task;
                if operator.as_ref().is_none_or(|(kept, _)| kept != asked) {
                    operator = Some((asked.clone(), operators::of(asked)));
                }
                if let Some((_, operator)) = &mut operator {
                    bench::run_on(&bench, job, operator.as_mut())?;
                }
            }
            _ => bail!("a resident takes launch batches and bench jobs"),
        }
        emit(&Event::Done);
    }
    Ok(())
}

/// Takes errors jobs.
pub fn compare() -> Result<()> {
    // References are computed ahead while others measure.
    make_way();
    let lines = lines();
    let mut comparer: Option<(Task, Box<dyn Comparer>)> = None;
    while let Ok(line) = lines.recv() {
        match Job::from_line(&line).context("a line on standard input is no job")? {
            Job::Errors(job) => {
                if comparer.as_ref().is_none_or(|(kept, _)| *kept != job.task) {
                    comparer = Some((job.task.clone(), operators::comparer(&job.task, true)));
                }
                if let Some((_, comparer)) = &mut comparer {
                    comparer.run(&job, &mut |event| emit(&event))?;
                }
            }
            _ => bail!("a comparer takes errors jobs"),
        }
        emit(&Event::Done);
    }
    Ok(())
}

/// Leaves processors to those who measure; threads that are started later do as well. Where that is forbidden it is merely
/// less polite.
pub fn make_way() {
    let _ = rustix::process::nice(POLITE);
}

/// The lines of standard input. When it closes, whoever asked is gone, and so are we, whatever is under way.
fn lines() -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        std::process::exit(EXIT_ERROR);
    });
    lines
}
