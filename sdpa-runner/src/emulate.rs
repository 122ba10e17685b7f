//! The launch job on the emulator: the PTX that ptxas assembled, on the CPU, with every check. Results are those of
//! another machine than a GPU and are labelled so; times are never taken here.

use std::borrow::Cow;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use kbench::evidence::{LaunchOutcome, Operands};
use kbench::job::{Event, Executor, LaunchJob, Rows, Schedule as Order, findings_file, output_file, rows_file};
use kbench::shape::{Problem, Shape};
use ptx_emulator::{
    BlockFilter, Buffer, Checks, Finding, Launch, Limits, Memory, MmaModel, Module, Schedule, Severity, Site,
    run as execute,
};
use sdpa_kernel::abi::Params;
use sdpa_kernel::sample::Sample;
use serde::Serialize;

use crate::events::{emit, progress};
use crate::inputs::{Drawn, Inputs};
use crate::launch::sha256_hex;
use crate::workload::refuse_other_toggles;

/// Most places in the first line of a finding; the lines below have them all.
const MAX_PLACES: usize = 3;
/// Replays the second schedule; any value would do.
const SCHEDULE_SEED: u64 = 1;
/// Runs the job.
pub fn run(job: &LaunchJob) -> Result<()> {
    run_all(std::slice::from_ref(job), |_, outcome| emit(&Event::Launched { outcome }))
}

/// Runs the jobs of a batch, which have the same problems.
pub fn run_batch(jobs: &[LaunchJob]) -> Result<()> {
    run_all(jobs, |variant, outcome| emit(&Event::LaunchedOf { variant: variant.to_owned(), outcome }))
}

fn run_all(jobs: &[LaunchJob], tell: impl Fn(&str, LaunchOutcome)) -> Result<()> {
    let modules = jobs.iter().map(load).collect::<Result<Vec<_>>>()?;
    let problems = &jobs.first().context("a batch has at least one job")?.problems;
    ensure!(jobs.iter().all(|job| job.problems == *problems), "the jobs of a batch have the same problems");
    let mut drawn = Drawn::default();
    for (i, problem) in problems.iter().enumerate() {
        let inputs = drawn.of(problem);
        for (j, (job, module)) in jobs.iter().zip(&modules).enumerate() {
            let variant = &job.module.variant;
            let (done, total) = (i * jobs.len() + j, problems.len() * jobs.len());
            progress(done, total, &format!("emulating {variant} on {}", problem.id()));
            let outcome = solve(job, module, problem, inputs);
            tell(variant, outcome.unwrap_or_else(|e| LaunchOutcome::failed(problem, &format!("{e:#}"))));
        }
    }
    Ok(())
}

/// The module of a job, whose folder is there after this.
fn load(job: &LaunchJob) -> Result<Module> {
    std::fs::create_dir_all(&job.out_dir).with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    let path = job.module.ptx.display().to_string();
    let source = std::fs::read_to_string(&job.module.ptx).with_context(|| format!("failed to read `{path}`"))?;
    let module = Module::parse(&source).with_context(|| format!("failed to parse `{path}`"))?;
    refuse_other_toggles(&job.module, |symbol| {
        let bytes = module.global_symbol(symbol).with_context(|| format!("the PTX has no symbol `{symbol}`"))?;
        Ok(bytes.to_vec())
    })?;
    Ok(module)
}

fn solve(job: &LaunchJob, module: &Module, problem: &Problem, inputs: &Inputs) -> Result<LaunchOutcome> {
    let shape = &problem.shape;
    let record = job.module.launches.iter().find(|l| l.head_dim == shape.head_dim);
    let record = record.with_context(|| format!("`{}` has no entry for D={}", job.module.variant, shape.head_dim))?;
    ensure!(record.operands == Operands::RowMajor, "the emulator executes neither wgmma nor bulk copies");
    let kernel = module.entry(&record.entry)?;
    let grid = [shape.seq_q.div_ceil(record.tile_q), shape.batch * shape.heads, 1];
    let scheduler = job.module.toggles.get("scheduler").copied();
    let sample = job.max_ctas.and_then(|limit| Sample::of(scheduler, [grid[0], grid[1]], limit));
    let rows: Option<Vec<Rows>> =
        sample.as_ref().map(|s| s.tiles.iter().map(|tile| Rows::of_tile(*tile, record.tile_q, shape)).collect());
    let attempt = |order: Order, checks| -> Result<Attempt> {
        let mut memory = Memory::new(module);
        let workload = Workload::place(&mut memory, inputs, shape, record.workspace_bytes)?;
        let mut launch = Launch {
            dynamic_shared_bytes: record.dynamic_smem_bytes,
            schedule: schedule(order),
            checks,
            blocks: sample.as_ref().map_or(BlockFilter::All, |s| BlockFilter::Only(s.blocks.clone())),
            sm_count: sample.as_ref().map_or(1, |s| s.sm_count),
            limits: Limits::default(),
            ..Launch::new(grid, [record.threads, 1, 1], workload.params(shape).to_bytes().to_vec())
        };
        if job.executor == Executor::EmulatedHopper {
            launch.mma_model = MmaModel::Sm90;
        }
        let outcome = execute(&kernel, &memory, &launch)?;
        Ok(Attempt {
            output: match &rows {
                None => memory.read(workload.output)?,
                Some(rows) => read_rows(&memory, workload.output, rows, shape)?,
            },
            inputs_unchanged: workload.unchanged(&memory)?,
            findings: outcome.findings,
        })
    };
    let first_order = job.schedules.first().copied().unwrap_or(Order::Greedy);
    let first = attempt(first_order, Checks::all())?;
    let mut attempts = vec![(first_order, first)];
    if job.schedules.is_empty() {
        let order = Order::Seeded(SCHEDULE_SEED);
        attempts.push((order, attempt(order, Checks::none())?));
    }
    for order in job.schedules.iter().skip(1) {
        attempts.push((*order, attempt(*order, Checks::all())?));
    }
    let first = &attempts[0].1;
    write_output(&job.out_dir.join(output_file(problem)), &first.output, rows.as_deref(), shape)?;
    let found = found(&attempts);
    std::fs::write(job.out_dir.join(findings_file(problem)), serde_json::to_string_pretty(&found)?)?;
    if let Some(rows) = &rows {
        std::fs::write(job.out_dir.join(rows_file(problem)), serde_json::to_string(rows)?)?;
    }
    let outside = found.iter().any(|f| f.finding.kind == ptx_emulator::Kind::OutOfBounds);
    Ok(LaunchOutcome {
        problem: problem.clone(),
        failure: None,
        output_sha256: Some(sha256_hex(&first.output)),
        repeat_equal: attempts.iter().all(|(_, attempt)| attempt.output == first.output),
        inputs_unchanged: attempts.iter().all(|(_, attempt)| attempt.inputs_unchanged),
        guards_intact: !outside,
        sampled_ctas: sample.map(|s| (s.blocks.len() as u32, s.of)),
        findings: found.iter().map(Found::told).collect(),
        entry: Some(record.entry.clone()),
        replays: None,
    })
}

/// The rows of an output, one after the other.
fn read_rows(memory: &Memory, output: Buffer, rows: &[Rows], shape: &Shape) -> Result<Vec<u8>> {
    let parts = rows.iter().map(|row| {
        let elements = row.elements(shape);
        Ok(memory.read_part(output, elements.start * 2, elements.len() * 2)?)
    });
    Ok(parts.collect::<Result<Vec<_>>>()?.concat())
}

/// Writes an output, or those rows of it: the file has holes where the others would be, which for most large shapes is
/// nearly all of it.
fn write_output(path: &Path, output: &[u8], rows: Option<&[Rows]>, shape: &Shape) -> Result<()> {
    let Some(rows) = rows else { return Ok(std::fs::write(path, output)?) };
    let mut file = std::fs::File::create(path)?;
    file.set_len(shape.q_len() as u64 * 2)?;
    let mut left = output;
    for row in rows {
        let elements = row.elements(shape);
        let (own, rest) = left.split_at_checked(elements.len() * 2).context("fewer rows than were computed")?;
        left = rest;
        file.seek(SeekFrom::Start(elements.start as u64 * 2))?;
        file.write_all(own)?;
    }
    Ok(())
}

fn schedule(order: Order) -> Schedule {
    match order {
        Order::RoundRobin => Schedule::RoundRobin,
        Order::Greedy => Schedule::Greedy,
        Order::Reverse => Schedule::Reverse,
        Order::Seeded(seed) => Schedule::Seeded(seed),
    }
}

/// A finding and what replays it.
#[derive(Serialize)]
struct Found<'a> {
    schedule: Order,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Found<'_> {
    /// As text. The first line has cause and source lines first, because a gate's line shows no more than its beginning.
    fn told(&self) -> String {
        let finding = self.finding;
        let text = finding.to_string();
        let severity = text.split(' ').next().unwrap_or_default();
        let message = &finding.message;
        let cause = [": ", " on "].iter().filter_map(|end| message.find(end)).min().unwrap_or(message.len());
        let (cause, rest) = message.split_at(cause);
        let mut places: Vec<String> = finding.sites.iter().filter_map(place).collect();
        places.dedup();
        places.truncate(MAX_PLACES);
        let below: Vec<&str> = text.lines().skip(1).collect();
        format!(
            "{severity} {cause}, {}{rest}, CTA {:?}\n{}\n  replay: --schedule {}",
            places.join(", "),
            finding.block,
            below.join("\n"),
            self.schedule
        )
    }
}

/// Role and innermost line of the kernels' own files: what is inlined from the toolkit's headers says little.
fn place(site: &Site) -> Option<String> {
    let own = |line: &&String| line.contains(".cu:") || line.contains(".cuh:");
    site.source.iter().rev().find(own).map(|line| format!("{} {line}", site.role))
}

/// What was found under any schedule, each problem once, under the first that showed it.
fn found(attempts: &[(Order, Attempt)]) -> Vec<Found<'_>> {
    let mut found: Vec<Found<'_>> = Vec::new();
    for (order, attempt) in attempts {
        for finding in attempt.findings.iter().filter(|f| f.severity > Severity::Info) {
            let lines = |f: &Finding| f.sites.iter().map(|s| s.ptx_line).collect::<Vec<_>>();
            if !found.iter().any(|f| f.finding.kind == finding.kind && lines(f.finding) == lines(finding)) {
                found.push(Found { schedule: *order, finding });
            }
        }
    }
    found
}

/// What one emulated launch left behind.
struct Attempt {
    /// All of it, or the rows of the sample.
    output: Vec<u8>,
    inputs_unchanged: bool,
    findings: Vec<Finding>,
}

/// Buffers in the emulator's memory.
struct Workload<'a> {
    inputs: Vec<(Buffer, Cow<'a, [u8]>)>,
    output: Buffer,
    workspace: u64,
}

impl<'a> Workload<'a> {
    /// The output starts undefined: it reads as NaN, and a read of it is reported.
    fn place(memory: &mut Memory, inputs: &'a Inputs, shape: &Shape, workspace_bytes: u32) -> Result<Workload<'a>> {
        let tensors = [("q", &inputs.q), ("k", &inputs.k), ("v", &inputs.v)];
        let codes = tensors.iter().map(|(name, t)| ((*name).to_owned(), Cow::from(&t.codes)));
        let scales = tensors.iter().map(|(name, t)| (format!("{name}_scale"), Cow::from(t.scale_bytes())));
        let mut placed = Vec::new();
        for (name, bytes) in codes.chain(scales) {
            placed.push((memory.alloc_from(&name, &bytes)?, bytes));
        }
        let workspace = match workspace_bytes {
            0 => 0,
            bytes => memory.alloc_from("workspace", &vec![0; bytes as usize])?.address(),
        };
        Ok(Workload { inputs: placed, output: memory.alloc("out", shape.q_len() * 2)?, workspace })
    }

    fn params(&self, shape: &Shape) -> Params {
        let address = |i: usize| self.inputs[i].0.address();
        let addresses = [0, 1, 2, 3, 4, 5].map(address);
        crate::workload::params(shape, addresses, self.output.address(), self.workspace)
    }

    fn unchanged(&self, memory: &Memory) -> Result<bool> {
        for (buffer, bytes) in &self.inputs {
            if !memory.holds(*buffer, bytes).map_err(|e| anyhow!("{e}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
