//! The profile job: launches of one variant on one problem for a profiler that watches this process from outside. All are
//! alike; which of them is looked at is the profiler's business. Leaves to others: what the profiler makes of it.

use anyhow::{Result, anyhow, ensure};
use cudarc::driver::DriverError;
use kbench::evidence::LaunchOutcome;
use kbench::job::{Event, ProfileJob};

use crate::bench::lock_gpu;
use crate::cuda::{Gpu, POISON, explain};
use crate::events::{emit, progress};
use crate::inputs::Inputs;
use crate::launch::sha256_hex;
use crate::program::Program;
use crate::workload::{Workload, load_echoed};

/// Runs the job and emits the outcome of its last launch.
pub fn run(job: &ProfileJob) -> Result<()> {
    ensure!(job.launches > 0, "a profile job has at least one launch");
    let gpu = Gpu::open()?;
    // Time that is taken on this GPU meanwhile would be wrong, and so would be our counters.
    let _lock = lock_gpu(&gpu.device.uuid).map_err(anyhow::Error::msg)?;
    let inputs = Inputs::of(&job.problem);
    let module = load_echoed(&job.module)?;
    let program = Program::of(&job.module, &module, &job.problem.shape, &gpu)?;
    let workload = Workload::upload(&job.problem, &inputs, &program)?.made(&gpu, &program)?;
    let output = workload.output()?;
    let launch = || -> Result<String, DriverError> {
        workload.forget(&gpu)?;
        output.fill(&gpu, POISON)?;
        program.attend(&gpu, &workload, &output)?;
        gpu.synchronize()?;
        output.read().map(|bytes| sha256_hex(&bytes))
    };
    let mut hashes = Vec::new();
    for i in 0..job.launches {
        progress(i as usize, job.launches as usize, &format!("{} on {}", job.module.variant, job.problem.id()));
        hashes.push(launch().map_err(|e| anyhow!("{}", explain(e)))?);
    }
    let kept = || Ok((workload.inputs_unchanged()?, workload.guards_intact(&output)?));
    let (inputs_unchanged, guards_intact) = kept().map_err(|e: DriverError| anyhow!("{}", explain(e)))?;
    let outcome = LaunchOutcome {
        problem: job.problem.clone(),
        failure: None,
        output_sha256: hashes.last().cloned(),
        repeat_equal: hashes.windows(2).all(|pair| pair[0] == pair[1]),
        inputs_unchanged,
        guards_intact,
        sampled_ctas: None,
        findings: Vec::new(),
        entry: Some(program.entry().to_owned()),
        replays: None,
    };
    emit(&Event::Launched { outcome });
    Ok(())
}
