//! The profile job: launches of one variant on one problem for a profiler that watches this process from outside. All are
//! alike; which of them is looked at is the profiler's business. Leaves to others: what the profiler makes of it.

use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use kbench::evidence::LaunchOutcome;
use kbench::job::{Event, ProfileJob};

use crate::bench::lock_gpu;
use crate::cuda::{Gpu, OnGpu, words};
use crate::events::{emit, progress};
use crate::launch::{executor, load_echoed, sha256_hex};
use crate::workload::{Machine, Workload};

/// Runs the job and emits the outcome of its last launch.
pub fn run(job: &ProfileJob) -> Result<()> {
    ensure!(job.launches > 0, "a profile job has at least one launch");
    let gpu = Gpu::open()?;
    // Time that is taken on this GPU meanwhile would be wrong, and so would be our counters.
    let _lock = lock_gpu(&gpu.device.uuid).map_err(anyhow::Error::msg)?;
    let mut operator = operators::of(&job.task);
    let module = load_echoed(operator.as_ref(), &job.module, &job.problem)?;
    let setup = operator.setup(&job.module, &job.problem, &executor(&gpu))?;
    let on = OnGpu::new(&gpu, &module);
    let workload = Workload::place(&on, Arc::new(setup))?;
    workload.make(&on)?.map_err(anyhow::Error::msg)?;
    let written = workload.written(&on)?;
    let launch = || -> Result<String> {
        workload.refill(&on, &written)?;
        workload.launch(&on, &written)?;
        on.finish()?;
        Ok(sha256_hex(&workload.outputs(&on, &written)?))
    };
    let mut hashes = Vec::new();
    for i in 0..job.launches {
        progress(i as usize, job.launches as usize, &format!("{} on {}", job.module.variant, job.problem.id()));
        hashes.push(launch().map_err(|e| anyhow!("{}", words(&e)))?);
    }
    let (inputs_unchanged, guards_intact) = (workload.inputs_unchanged(&on)?, workload.guards_intact(&on, &written)?);
    let outcome = LaunchOutcome {
        problem: job.problem.clone(),
        failure: None,
        output_sha256: hashes.last().cloned(),
        repeat_equal: hashes.windows(2).all(|pair| pair[0] == pair[1]),
        inputs_unchanged,
        guards_intact,
        sampled_ctas: None,
        findings: Vec::new(),
        entry: workload.setup.entry.clone(),
        kernels: Vec::new(),
        replays: None,
        deferred: None,
    };
    emit(&Event::Launched { outcome });
    Ok(())
}
