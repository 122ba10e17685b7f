//! The launch job on the emulator: the PTX that ptxas assembled, on the CPU, with every check. Results are those of
//! another machine than a GPU and are labelled so; times are never taken here.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, ensure};
use kbench::evidence::{LaunchOutcome, Operands};
use kbench::job::{Event, Executor, LaunchJob, Rows, Schedule as Order, findings_file, output_file, rows_file};
use kbench::shape::{Problem, Shape};
use ptx_emulator::{
    BlockFilter, Buffer, Checks, Finding, Launch, Limits, Memory, MmaModel, Module, Schedule, Severity, Site,
    run as execute,
};
use sdpa_kernel::abi::{PERSISTENT_CTAS_PER_SM, Params};
use serde::Serialize;

use crate::events::{emit, progress};
use crate::inputs::{Drawn, Inputs};
use crate::launch::sha256_hex;
use crate::workload::refuse_other_toggles;

/// Most places in the first line of a finding; the lines below have them all.
const MAX_PLACES: usize = 3;
/// Replays the second schedule; any value would do.
const SCHEDULE_SEED: u64 = 1;
/// The value of the `scheduler` toggle with which CTA (x, y) computes query tile x of head y.
const SCHEDULER_ONE_TILE: u32 = 0;
/// The value with which as many CTAs as the chip is meant to hold share all tiles.
const SCHEDULER_PERSISTENT: u32 = 1;
/// Query tiles of each CTA in the sample of a persistent kernel: it must take one after another.
const TILES_PER_CTA: u32 = 2;

/// Runs the job.
pub fn run(job: &LaunchJob) -> Result<()> {
    std::fs::create_dir_all(&job.out_dir).with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    let path = job.module.ptx.display().to_string();
    let source = std::fs::read_to_string(&job.module.ptx).with_context(|| format!("failed to read `{path}`"))?;
    let module = Module::parse(&source).with_context(|| format!("failed to parse `{path}`"))?;
    refuse_other_toggles(&job.module, |symbol| {
        let bytes = module.global_symbol(symbol).with_context(|| format!("the PTX has no symbol `{symbol}`"))?;
        Ok(bytes.to_vec())
    })?;
    let mut drawn = Drawn::default();
    for (i, problem) in job.problems.iter().enumerate() {
        progress(i, job.problems.len(), &format!("emulating {} on {}", job.module.variant, problem.id()));
        let outcome = solve(job, &module, problem, drawn.of(problem));
        emit(&Event::Launched {
            outcome: outcome.unwrap_or_else(|e| LaunchOutcome::failed(problem, &format!("{e:#}"))),
        });
    }
    Ok(())
}

fn solve(job: &LaunchJob, module: &Module, problem: &Problem, inputs: &Inputs) -> Result<LaunchOutcome> {
    let shape = &problem.shape;
    let record = job.module.launches.iter().find(|l| l.head_dim == shape.head_dim);
    let record = record.with_context(|| format!("`{}` has no entry for D={}", job.module.variant, shape.head_dim))?;
    ensure!(record.operands == Operands::RowMajor, "the emulator executes neither wgmma nor bulk copies");
    let kernel = module.entry(&record.entry)?;
    let grid = [shape.seq_q.div_ceil(record.tile_q), shape.batch * shape.heads, 1];
    let scheduler = job.module.toggles.get("scheduler").copied();
    let sample = job.max_ctas.and_then(|limit| sample_of(scheduler, [grid[0], grid[1]], limit));
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
            output: memory.read(workload.output)?,
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
    std::fs::write(job.out_dir.join(output_file(problem)), &first.output)?;
    let found = found(&attempts);
    std::fs::write(job.out_dir.join(findings_file(problem)), serde_json::to_string_pretty(&found)?)?;
    if let Some(sample) = &sample {
        let rows: Vec<Rows> = sample.tiles.iter().map(|tile| rows_of(*tile, record.tile_q, shape)).collect();
        std::fs::write(job.out_dir.join(rows_file(problem)), serde_json::to_string(&rows)?)?;
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
    output: Vec<u8>,
    inputs_unchanged: bool,
    findings: Vec<Finding>,
}

/// Part of a grid, and what it computes.
#[derive(Debug, PartialEq)]
struct Sample {
    blocks: Vec<[u32; 3]>,
    /// Query tiles as (number within the head, head). Were one of them not computed after all, its rows would be NaN.
    tiles: Vec<[u32; 2]>,
    /// CTAs that have work, of which these are some.
    of: u32,
    /// The chip's size as the kernel sees it.
    sm_count: u32,
}

/// CTAs whose query tiles are spread evenly over the problem, first and last among them; `None` when all of the grid,
/// `[query tiles of a head, heads]`, is within the limit or nobody knows which CTA computes what.
fn sample_of(scheduler: Option<u32>, grid: [u32; 2], limit: u32) -> Option<Sample> {
    let [width, heads] = grid;
    let total = width * heads;
    if total <= limit {
        return None;
    }
    let block = |cta: u32| [cta % width, cta / width, 0];
    match scheduler? {
        SCHEDULER_ONE_TILE => {
            let picked = spread(total, limit);
            let tiles = picked.iter().map(|&flat| [flat % width, flat / width]).collect();
            Some(Sample { blocks: picked.into_iter().map(block).collect(), tiles, of: total, sm_count: 1 })
        }
        SCHEDULER_PERSISTENT => {
            let sm_count = (total / (TILES_PER_CTA * PERSISTENT_CTAS_PER_SM)).max(1);
            let ctas = (sm_count * PERSISTENT_CTAS_PER_SM).min(total);
            // CTA c takes tiles c, c + ctas, ... in an order that begins with the last tile of every head.
            let owner = |flat: u32| ((width - 1 - flat % width) * heads + flat / width) % ctas;
            let picked: BTreeSet<u32> = spread(total, limit / TILES_PER_CTA).into_iter().map(owner).collect();
            let taken = picked.iter().flat_map(|&cta| (cta..total).step_by(ctas as usize));
            let tiles = taken.map(|i| [width - 1 - i / heads, i % heads]).collect();
            Some(Sample { blocks: picked.iter().map(|&cta| block(cta)).collect(), tiles, of: ctas, sm_count })
        }
        _ => None,
    }
}

/// `count` numbers below `total`, evenly spread, both ends among them.
fn spread(total: u32, count: u32) -> Vec<u32> {
    let (last, count) = (u64::from(total - 1), u64::from(count.clamp(1, total)));
    (0..count).map(|i| (i * last / (count - 1).max(1)) as u32).collect()
}

fn rows_of([tile, head]: [u32; 2], tile_q: u32, shape: &Shape) -> Rows {
    let first = tile * tile_q;
    Rows { head, first, count: tile_q.min(shape.seq_q - first) }
}

/// Buffers in the emulator's memory.
struct Workload {
    inputs: Vec<(Buffer, Vec<u8>)>,
    output: Buffer,
    workspace: u64,
}

impl Workload {
    /// The output starts undefined: it reads as NaN, and a read of it is reported.
    fn place(memory: &mut Memory, inputs: &Inputs, shape: &Shape, workspace_bytes: u32) -> Result<Workload> {
        let tensors = [("q", &inputs.q), ("k", &inputs.k), ("v", &inputs.v)];
        let codes = tensors.iter().map(|(name, t)| ((*name).to_owned(), t.codes.clone()));
        let scales = tensors.iter().map(|(name, t)| (format!("{name}_scale"), t.scale_bytes()));
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
            if memory.read(*buffer).map_err(|e| anyhow!("{e}"))? != *bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_and_holds_both_ends() {
        assert_eq!(sample_of(Some(0), [4, 4], 16), None);
        assert_eq!(sample_of(None, [16, 16], 24), None, "nobody knows which rows it would be");
        let sample = sample_of(Some(0), [16, 16], 24).unwrap();
        assert_eq!((sample.blocks.len(), sample.blocks[0], sample.blocks[23]), (24, [0, 0, 0], [15, 15, 0]));
        assert_eq!((sample.tiles[0], sample.tiles[23], sample.of), ([0, 0], [15, 15], 256));
        let unique: BTreeSet<_> = sample.tiles.iter().collect();
        assert_eq!(unique.len(), 24);
        assert_eq!(sample_of(Some(0), [2, 2], 1).unwrap().blocks, [[0, 0, 0]]);
    }

    #[test]
    fn sampled_persistent_ctas_take_several_tiles_each_and_both_ends_are_among_them() {
        for (grid, limit) in [([32, 16], 32), ([8, 16], 32), ([5, 7], 8), ([3, 3], 8)] {
            let sample = sample_of(Some(1), grid, limit).unwrap();
            let unique: BTreeSet<_> = sample.tiles.iter().collect();
            assert_eq!(unique.len(), sample.tiles.len());
            assert!(unique.contains(&[0, 0]) && unique.contains(&[grid[0] - 1, grid[1] - 1]), "{grid:?}");
            assert!(sample.tiles.iter().all(|[tile, head]| *tile < grid[0] && *head < grid[1]));
            assert!(sample.tiles.len() >= 2 * sample.blocks.len(), "{grid:?}");
            assert!(sample.of <= grid[0] * grid[1] && sample.sm_count * PERSISTENT_CTAS_PER_SM == sample.of);
        }
        let sample = sample_of(Some(1), [32, 16], 32).unwrap();
        assert_eq!((sample.of, sample.sm_count, sample.tiles.len()), (256, 64, 2 * sample.blocks.len()));
    }

    #[test]
    fn the_last_tile_has_the_rows_that_are_left() {
        let shape: Shape = "ragged".parse().unwrap();
        assert_eq!(rows_of([2, 1], 32, &shape), Rows { head: 1, first: 64, count: 13 });
    }
}
