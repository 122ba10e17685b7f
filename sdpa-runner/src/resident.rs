//! The resident: one process that keeps its context and takes one job after another. What it was is forgotten between jobs:
//! modules are loaded and buffers filled anew for each. It ends with the first job that fails, because a fault takes the
//! context with it, and when its standard input closes.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result, bail};
use kbench::job::{EXIT_ERROR, Event, Job};

use crate::bench::{self, Bench};
use crate::events::emit;
use crate::{cuda, launch};

/// Opens the GPU and takes jobs. The pipeline reads an end after each.
pub fn run() -> Result<()> {
    if let Some(why) = cuda::missing_driver() {
        emit(&Event::NoDevice { why });
        return Ok(());
    }
    let lines = lines();
    let bench = Bench::open()?.map_err(anyhow::Error::msg)?;
    while let Ok(line) = lines.recv() {
        let job: Job = serde_json::from_str(&line).context("a line on standard input is no job")?;
        match &job {
            Job::LaunchBatch { jobs } => launch::run_batch(&bench.gpu, jobs)?,
            Job::Bench(job) => bench::run_on(&bench, job)?,
            _ => bail!("a resident takes launch batches and bench jobs"),
        }
        emit(&Event::Done);
    }
    Ok(())
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
