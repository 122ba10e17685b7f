//! The launch job: one variant on a list of problems. Each output is poisoned first, written to a file, and launched a
//! second time to see whether the bytes repeat. No reference exists in this process: a candidate cannot find it here.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::DriverError;
use kbench::evidence::{LaunchOutcome, Replays};
use kbench::job::{Event, LaunchJob, Module, output_file};
use kbench::operator::Problem;
use operators::setup::Setup;
use operators::{Executor, Operator};
use sha2::{Digest, Sha256};

use crate::cuda::{Gpu, Graph, LoadedModule, OnGpu, words};
use crate::digest::Digester;
use crate::events::{emit, progress};
use crate::workload::{Machine, Workload, Written};

/// Runs the job. Ends at the first fault of the kernel: the context is lost with it, so the pipeline starts a new
/// process for the problems that are left.
pub fn run(job: &LaunchJob) -> Result<()> {
    let gpu = Gpu::open()?;
    std::fs::create_dir_all(&job.out_dir).with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    let operator = operators::of(&job.task);
    let executor = executor(&gpu);
    std::thread::scope(|scope| {
        // Inputs of the next problem are drawn while this one is launched: with large ones, either takes a second.
        let (ready, setups) = sync_channel(0);
        scope.spawn(move || {
            let mut operator = operators::of(&job.task);
            for problem in &job.problems {
                if ready.send(operator.setup(&job.module, problem, &executor)).is_err() {
                    break;
                }
            }
        });
        for (i, problem) in job.problems.iter().enumerate() {
            progress(i, job.problems.len(), &format!("{} on {}", job.module.variant, problem.id()));
            let setup = || setups.recv().context("the thread that draws inputs ended")?;
            let result = solve(&gpu, job, operator.as_ref(), problem, setup)?;
            let fault = result.is_err();
            let outcome = result.unwrap_or_else(|why| LaunchOutcome::failed(problem, &why));
            emit(&Event::Launched { outcome });
            if fault {
                break;
            }
        }
        Ok(())
    })
}

/// Runs the jobs of a batch, which have the same problems. Ends at the first fault, whoever's it is: the pipeline launches
/// everybody who is left in a process of its own, so that nobody's fault is another's.
pub fn run_batch(gpu: &Gpu, jobs: &[LaunchJob]) -> Result<()> {
    let first = jobs.first().context("a batch has at least one job")?;
    let problems = &first.problems;
    ensure!(jobs.iter().all(|job| job.problems == *problems), "the jobs of a batch have the same problems");
    for job in jobs {
        std::fs::create_dir_all(&job.out_dir)
            .with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    }
    let mut operator = operators::of(&first.task);
    for (i, problem) in problems.iter().enumerate() {
        for (j, job) in jobs.iter().enumerate() {
            let variant = &job.module.variant;
            let (done, total) = (i * jobs.len() + j, problems.len() * jobs.len());
            progress(done, total, &format!("{variant} on {}", problem.id()));
            let setup = operator.setup(&job.module, problem, &executor(gpu));
            match solve(gpu, job, operator.as_ref(), problem, || setup)? {
                Ok(outcome) => emit(&Event::LaunchedOf { variant: variant.clone(), outcome }),
                Err(why) => bail!("`{variant}` on {}: {why}", problem.id()),
            }
        }
    }
    Ok(())
}

/// What setups on a GPU depend on.
pub fn executor(gpu: &Gpu) -> Executor {
    Executor { sm_count: gpu.device.sm_count, max_ctas: None, far: false }
}

/// Loads the module that a variant has for a problem, and refuses it when what it says of itself is not what it was asked
/// for. Loaded anew for each problem: nothing that a kernel kept in the module survives.
pub fn load_echoed(operator: &dyn Operator, module: &Module, problem: &Problem) -> Result<LoadedModule> {
    let loaded = LoadedModule::load(&module.files(problem).image)?;
    operator.echo(module, &|symbol| loaded.symbol(symbol))?;
    Ok(loaded)
}

/// The inner error is the kernel's fault, in words; the outer one is ours.
fn solve(
    gpu: &Gpu,
    job: &LaunchJob,
    operator: &dyn Operator,
    problem: &Problem,
    setup: impl FnOnce() -> Result<Setup>,
) -> Result<Result<LaunchOutcome, String>> {
    let module = load_echoed(operator, &job.module, problem)?;
    let setup = setup()?;
    let outcome = launch(&OnGpu::new(gpu, &module), job, problem, setup);
    match outcome {
        Err(error) if error.is::<DriverError>() => Ok(Err(words(&error))),
        outcome => outcome.map(Ok),
    }
}

fn launch(on: &OnGpu, job: &LaunchJob, problem: &Problem, setup: Setup) -> Result<LaunchOutcome> {
    let workload = Workload::place(on, Arc::new(setup))?;
    if let Err(difference) = workload.make(on)? {
        return Ok(LaunchOutcome::failed(problem, &difference));
    }
    let written = workload.written(on)?;
    let launch = || {
        workload.refill(on, &written)?;
        workload.launch(on, &written)?;
        on.finish()?;
        workload.outputs(on, &written)
    };
    let (first, second) = (launch()?, launch()?);
    let mut outcome = LaunchOutcome {
        problem: problem.clone(),
        failure: None,
        output_sha256: Some(sha256_hex(&first)),
        repeat_equal: first == second,
        inputs_unchanged: workload.inputs_unchanged(on)?,
        guards_intact: workload.guards_intact(on, &written)?,
        sampled_ctas: None,
        findings: Vec::new(),
        entry: workload.setup.entry.clone(),
        kernels: Vec::new(),
        replays: None,
        deferred: None,
    };
    if let Some(count) = job.replays.get(&problem.id()) {
        outcome.replays = Some(replay(on, &workload, &written, &first, *count)?);
    }
    let path = job.out_dir.join(output_file(problem));
    std::fs::write(&path, first).with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(outcome)
}

/// Replays a graph of one launch, each time into a poisoned output, and digests what every replay leaves.
fn replay<'m>(
    on: &OnGpu<'m>,
    workload: &Workload<OnGpu<'m>>,
    written: &Written<OnGpu<'m>>,
    first: &[u8],
    count: u32,
) -> Result<Replays> {
    let digester = Digester::new(on.gpu)?;
    let results: Vec<_> = workload.results(written).collect();
    let wanted = digester.verified(on.gpu, &results, first)?;
    let sums = Digester::room(count as usize * results.len())?;
    let graph = Graph::capture(on.gpu, || workload.launch(on, written))?;
    for slot in 0..count as usize {
        workload.refill(on, written)?;
        graph.launch(on.gpu)?;
        digester.add(on.gpu, results.iter().copied(), &sums, slot * results.len())?;
    }
    on.finish()?;
    let digests = Digester::read(&sums)?;
    let different = digests.chunks_exact(results.len()).filter(|digests| *digests != wanted).count();
    Ok(Replays { count, different: different as u32 })
}

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
