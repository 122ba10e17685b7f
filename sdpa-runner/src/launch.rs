//! The launch job: one variant on a list of problems. Each output is poisoned first, written to a file, and launched a
//! second time to see whether the bytes repeat. No reference exists in this process: a candidate cannot find it here.

use anyhow::{Context, Result, anyhow, ensure};
use cudarc::driver::DriverError;
use kbench::evidence::{LaunchOutcome, Replays};
use kbench::job::{Event, LaunchJob, output_file};
use kbench::shape::Problem;
use sha2::{Digest, Sha256};

use crate::cuda::{Buffer, Gpu, Graph, LoadedModule, POISON, explain};
use crate::digest::Digester;
use crate::events::{emit, progress};
use crate::inputs::{Drawn, Inputs};
use crate::program::Program;
use crate::workload::{Workload, load_echoed};

/// Runs the job. Ends at the first fault of the kernel: the context is lost with it, so the pipeline starts a new
/// process for the problems that are left.
pub fn run(job: &LaunchJob) -> Result<()> {
    let gpu = Gpu::open()?;
    std::fs::create_dir_all(&job.out_dir).with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    let mut drawn = Drawn::default();
    for (i, problem) in job.problems.iter().enumerate() {
        progress(i, job.problems.len(), &format!("{} on {}", job.module.variant, problem.id()));
        let inputs = drawn.of(problem);
        // Loaded anew for each problem: nothing that a kernel kept in the module survives.
        let module = load_echoed(&job.module)?;
        let result = solve(&gpu, job, &module, problem, inputs)?;
        let fault = result.is_err();
        let outcome = result.unwrap_or_else(|error| LaunchOutcome::failed(problem, &explain(error)));
        emit(&Event::Launched { outcome });
        if fault {
            break;
        }
    }
    Ok(())
}

/// Runs the jobs of a batch, which have the same problems. Ends at the first fault, whoever's it is: the pipeline launches
/// everybody who is left in a process of its own, so that nobody's fault is another's.
pub fn run_batch(gpu: &Gpu, jobs: &[LaunchJob]) -> Result<()> {
    let problems = &jobs.first().context("a batch has at least one job")?.problems;
    ensure!(jobs.iter().all(|job| job.problems == *problems), "the jobs of a batch have the same problems");
    for job in jobs {
        std::fs::create_dir_all(&job.out_dir)
            .with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    }
    let mut drawn = Drawn::default();
    for (i, problem) in problems.iter().enumerate() {
        let inputs = drawn.of(problem);
        for (j, job) in jobs.iter().enumerate() {
            let variant = &job.module.variant;
            let (done, total) = (i * jobs.len() + j, problems.len() * jobs.len());
            progress(done, total, &format!("{variant} on {}", problem.id()));
            let module = load_echoed(&job.module)?;
            let result = solve(gpu, job, &module, problem, inputs)?;
            let outcome = result.map_err(|e| anyhow!("`{variant}` on {}: {}", problem.id(), explain(e)))?;
            emit(&Event::LaunchedOf { variant: variant.clone(), outcome });
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
            entry: Some(program.entry().to_owned()),
            replays: None,
        };
        Ok((first, outcome))
    };
    Ok(match outcome() {
        Err(error) => Err(error),
        Ok((bytes, mut outcome)) => {
            if let Some(count) = job.replays.get(&problem.id()) {
                match replay(gpu, &program, &workload, &output, &bytes, *count)? {
                    Ok(replays) => outcome.replays = Some(replays),
                    Err(error) => return Ok(Err(error)),
                }
            }
            let path = job.out_dir.join(output_file(problem));
            std::fs::write(&path, bytes).with_context(|| format!("failed to write `{}`", path.display()))?;
            Ok(outcome)
        }
    })
}

/// Replays a graph of one launch, each time into a poisoned output, and digests what every replay leaves. The inner
/// result is the kernel's fault, the outer one ours.
fn replay(
    gpu: &Gpu,
    program: &Program,
    workload: &Workload,
    output: &Buffer,
    first: &[u8],
    count: u32,
) -> Result<Result<Replays, DriverError>> {
    let digester = Digester::new(gpu)?;
    let wanted = digester.verified(gpu, output, first)?;
    let sums = Digester::room(count as usize)?;
    let all = || -> Result<Vec<u64>, DriverError> {
        let graph = Graph::capture(gpu, || program.attend(gpu, workload, output))?;
        for slot in 0..count as usize {
            workload.forget(gpu)?;
            output.fill(gpu, POISON)?;
            graph.launch(gpu)?;
            digester.add(gpu, output, &sums, slot)?;
        }
        gpu.synchronize()?;
        Digester::read(&sums)
    };
    let counted = |digests: Vec<u64>| digests.iter().filter(|digest| **digest != wanted).count() as u32;
    Ok(all().map(|digests| Replays { count, different: counted(digests) }))
}

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
