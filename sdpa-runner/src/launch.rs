//! The launch job: one variant on a list of problems. Each output is poisoned first, written to a file, and launched a
//! second time to see whether the bytes repeat. No reference exists in this process: a candidate cannot find it here.

use anyhow::{Context, Result};
use cudarc::driver::DriverError;
use kbench::evidence::LaunchOutcome;
use kbench::job::{Event, LaunchJob, output_file};
use kbench::shape::Problem;
use sha2::{Digest, Sha256};

use crate::cuda::{Gpu, LoadedModule, POISON, explain};
use crate::events::{emit, progress};
use crate::inputs::Inputs;
use crate::program::Program;
use crate::workload::{Workload, load_echoed};

/// Runs the job. Ends at the first fault of the kernel: the context is lost with it, so the pipeline starts a new
/// process for the problems that are left.
pub fn run(job: &LaunchJob) -> Result<()> {
    let gpu = Gpu::open()?;
    std::fs::create_dir_all(&job.out_dir).with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    for (i, problem) in job.problems.iter().enumerate() {
        progress(i, job.problems.len(), &format!("{} on {}", job.module.variant, problem.id()));
        let inputs = Inputs::of(problem);
        // Loaded anew for each problem: nothing that a kernel kept in the module survives.
        let module = load_echoed(&job.module)?;
        let result = solve(&gpu, job, &module, problem, &inputs)?;
        let fault = result.is_err();
        let outcome = result.unwrap_or_else(|error| LaunchOutcome::failed(problem, &explain(error)));
        emit(&Event::Launched { outcome });
        if fault {
            break;
        }
    }
    Ok(())
}

/// The inner result is the kernel's fault, the outer one ours.
fn solve(
    gpu: &Gpu,
    job: &LaunchJob,
    module: &LoadedModule,
    problem: &Problem,
    inputs: &Inputs,
) -> Result<Result<LaunchOutcome, DriverError>> {
    let program = Program::of(&job.module, module, &problem.shape, gpu)?;
    let workload = Workload::upload(problem, inputs, &program)?;
    match workload.make_operands(gpu, &program) {
        Err(error) => return Ok(Err(error)),
        Ok(Err(difference)) => return Ok(Ok(LaunchOutcome::failed(problem, &difference))),
        Ok(Ok(())) => {}
    }
    let output = workload.output()?;
    let launch = || -> Result<Vec<u8>, DriverError> {
        workload.forget(gpu)?;
        output.fill(gpu, POISON)?;
        program.attend(gpu, &workload, &output)?;
        gpu.synchronize()?;
        output.read()
    };
    let outcome = || -> Result<(Vec<u8>, LaunchOutcome), DriverError> {
        let first = launch()?;
        let second = launch()?;
        let outcome = LaunchOutcome {
            problem: problem.clone(),
            failure: None,
            output_sha256: Some(sha256_hex(&first)),
            repeat_equal: first == second,
            inputs_unchanged: workload.inputs_unchanged()?,
            guards_intact: workload.guards_intact(&output)?,
            sampled_ctas: None,
            findings: Vec::new(),
        };
        Ok((first, outcome))
    };
    Ok(match outcome() {
        Err(error) => Err(error),
        Ok((bytes, outcome)) => {
            let path = job.out_dir.join(output_file(problem));
            std::fs::write(&path, bytes).with_context(|| format!("failed to write `{}`", path.display()))?;
            Ok(outcome)
        }
    })
}

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
