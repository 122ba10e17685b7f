//! Runs the blocks of a launch on the threads of the host.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use crate::check::agents::MAX_CLUSTER;
use crate::check::global::GlobalShadow;
use crate::counts::Tallies;
use crate::exec::run::block::{Closed, Context};
use crate::exec::run::cluster::Cluster;
use crate::exec::run::order::{Order, Rules};
use crate::exec::run::print::MAX_PRINTED;
use crate::exec::run::profile::Profile;
use crate::exec::run::retry::{Plan, Retry};
use crate::exec::run::step::can_order_blocks;
use crate::launch::{BlockFilter, EmuError, Launch, Outcome};
use crate::machine::simd::Level;
use crate::memory::Memory;
use crate::module::Kernel;
use crate::report::{Findings, Severity};

/// Runs a kernel to its end and returns what was found.
pub fn run(kernel: &Kernel, memory: &Memory, launch: &Launch) -> Result<Outcome, EmuError> {
    run_at(Level::detect(), kernel, memory, launch)
}

/// As [`run`], with the hot loops for a chosen instruction set.
pub(crate) fn run_at(level: Level, kernel: &Kernel, memory: &Memory, launch: &Launch) -> Result<Outcome, EmuError> {
    let blocks = check(kernel, launch)?;
    let clusters = clusters(&blocks, launch.cluster);
    let start = Instant::now();
    let threads = match launch.limits.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let threads = threads.min(clusters.len()).max(1);
    let mut plan = Plan { serial: threads == 1, recorded: vec![false; memory.count()] };
    loop {
        let rules = Rules {
            schedule: launch.schedule,
            ordered: can_order_blocks(&kernel.program.insts),
            serial: plan.serial,
            blocks: clusters.len(),
            resident: launch.limits.resident_blocks.max(1),
        };
        let context = Context {
            kernel,
            memory,
            launch,
            level,
            shadow: launch.checks.races.then(|| GlobalShadow::new(memory, &plan.recorded)),
            retry: launch.checks.races.then(|| Retry::new(memory, &plan)),
            order: Order::new(rules),
            progress: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        };
        work(&context, &clusters, if plan.serial { 1 } else { threads })?;
        let spent = context.is_spent();
        let Context { order, retry, .. } = context;
        match retry.and_then(|retry| retry.again(memory)) {
            Some(other) => plan = other,
            None => return conclude(kernel, launch, order.close(), spent, start),
        }
    }
}

/// The blocks of every cluster that has one of `blocks`, by rank.
fn clusters(blocks: &[[u32; 3]], cluster: [u32; 3]) -> Vec<Vec<[u32; 3]>> {
    if cluster == [1; 3] {
        return blocks.iter().map(|block| vec![*block]).collect();
    }
    let mut seen = HashSet::new();
    let firsts = blocks.iter().map(|block| std::array::from_fn(|axis| block[axis] / cluster[axis] * cluster[axis]));
    let firsts: Vec<[u32; 3]> = firsts.filter(|first| seen.insert(*first)).collect();
    let members = |[x, y, z]: [u32; 3]| {
        let [dx, dy, dz] = cluster;
        let all = (0..dz).flat_map(move |k| (0..dy).flat_map(move |j| (0..dx).map(move |i| [x + i, y + j, z + k])));
        all.collect()
    };
    firsts.into_iter().map(members).collect()
}

/// Runs all clusters on so many threads.
fn work(context: &Context<'_>, clusters: &[Vec<[u32; 3]>], threads: usize) -> Result<(), EmuError> {
    let work_on = || worker(context, clusters);
    std::thread::scope(|scope| {
        let more = (1..threads).map(|_| std::thread::Builder::new().spawn_scoped(scope, work_on));
        let started = more.collect::<Result<Vec<_>, _>>();
        work_on();
        started.map(drop).map_err(|error| EmuError::Threads(error.to_string()))
    })
}

/// Takes clusters until none are left.
fn worker(context: &Context<'_>, clusters: &[Vec<[u32; 3]>]) {
    while let Some(task) = context.order.take(context) {
        let mut block = task.block.unwrap_or_else(|| {
            let mut block = Box::new(Cluster::new(context, &clusters[task.at], task.at));
            block.begin_round(task.quantum);
            block
        });
        block.granted = task.granted;
        let turn = block.run(context);
        block.tell(context);
        context.order.give(task.at, block, turn);
    }
}

/// Adds up what the blocks left.
fn conclude(
    kernel: &Kernel,
    launch: &Launch,
    (closed, counts): (Vec<Closed>, Option<Tallies>),
    spent: bool,
    start: Instant,
) -> Result<Outcome, EmuError> {
    if closed.iter().any(|block| block.exhausted) {
        return Err(EmuError::ClockExhausted { kernel: kernel.name().to_owned() });
    }
    let [x, y, z] = launch.grid.map(u64::from);
    let mut outcome = Outcome { blocks_in_grid: x * y * z, blocks_run: closed.len() as u64, ..Outcome::default() };
    let mut findings = Findings::default();
    let mut profile = Profile::new(launch.profile);
    for block in closed {
        outcome.instructions += block.instructions;
        outcome.lane_instructions += block.lane_instructions;
        profile.merge(&block.profile);
        findings.merge(block.findings);
        if outcome.printed.len() < MAX_PRINTED {
            outcome.printed.push_str(&block.printed);
        }
    }
    outcome.findings = findings.list;
    outcome.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    // Where something wrong was found, that is the answer, however long the rest would take.
    if spent && outcome.findings.first().is_none_or(|f| f.severity < Severity::Error) {
        return Err(EmuError::Budget { kernel: kernel.name().to_owned(), limit: launch.limits.instructions });
    }
    outcome.profile = profile.finish();
    outcome.counts = counts.map(|counts| counts.conclude(kernel));
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Hardware limits and the list of blocks to run.
fn check(kernel: &Kernel, launch: &Launch) -> Result<Vec<[u32; 3]>, EmuError> {
    let name = || kernel.name().to_owned();
    let shape = |message: String| EmuError::Shape { kernel: name(), message };
    let program = &kernel.program;
    if launch.params.len() != program.param_bytes as usize {
        let (given, wanted) = (launch.params.len(), program.param_bytes as usize);
        return Err(EmuError::Parameters { kernel: name(), given, wanted });
    }
    let threads: u64 = launch.block.iter().map(|&d| u64::from(d)).fold(1, u64::saturating_mul);
    let [x, y, z] = launch.block;
    if threads == 0 || threads > 1024 || x > 1024 || y > 1024 || z > 64 {
        return Err(shape(format!("block {:?} is empty or exceeds 1024 threads", launch.block)));
    }
    if program.max_threads.is_some_and(|max| threads > max) {
        return Err(shape(format!("{threads} threads exceed the kernel's own bound")));
    }
    if program.required_block.is_some_and(|block| block != launch.block) {
        return Err(shape(format!("block {:?} differs from the one the kernel requires", launch.block)));
    }
    let [gx, gy, gz] = launch.grid;
    if launch.grid.contains(&0) || gx > i32::MAX as u32 || gy > 65_535 || gz > 65_535 {
        return Err(shape(format!("grid {:?} is empty or too large", launch.grid)));
    }
    check_cluster(kernel, launch)?;
    let shared = kernel.shared_bytes() as u64 + u64::from(launch.dynamic_shared_bytes);
    if shared > launch.limits.shared_bytes as u64 {
        return Err(shape(format!("{shared} bytes of shared memory exceed {}", launch.limits.shared_bytes)));
    }
    select(kernel, launch)
}

fn check_cluster(kernel: &Kernel, launch: &Launch) -> Result<(), EmuError> {
    let shape = |message: String| Err(EmuError::Shape { kernel: kernel.name().to_owned(), message });
    let cluster = launch.cluster;
    if kernel.program.required_cluster.is_some_and(|required| required != cluster) {
        return shape(format!("cluster {cluster:?} differs from the one the kernel requires"));
    }
    let size = cluster.iter().map(|&d| u64::from(d)).fold(1, u64::saturating_mul);
    if size == 0 || size > MAX_CLUSTER as u64 {
        return shape(format!("cluster {cluster:?} is empty or exceeds {MAX_CLUSTER} blocks"));
    }
    if launch.grid.iter().zip(cluster).any(|(grid, cluster)| grid % cluster != 0) {
        return shape(format!("grid {:?} is no multiple of cluster {cluster:?}", launch.grid));
    }
    Ok(())
}

fn select(kernel: &Kernel, launch: &Launch) -> Result<Vec<[u32; 3]>, EmuError> {
    /// More blocks than anyone can wait for; a filter is needed beyond.
    const MAX_BLOCKS: u64 = 1 << 24;
    let [gx, gy, gz] = launch.grid;
    match &launch.blocks {
        BlockFilter::Only(list) => {
            for &block in list {
                if block[0] >= gx || block[1] >= gy || block[2] >= gz {
                    return Err(EmuError::NoSuchBlock { kernel: kernel.name().to_owned(), block });
                }
            }
            Ok(list.clone())
        }
        BlockFilter::All => {
            let count = u64::from(gx) * u64::from(gy) * u64::from(gz);
            if count > MAX_BLOCKS {
                let message = format!("{count} blocks; choose a sample of them");
                return Err(EmuError::Shape { kernel: kernel.name().to_owned(), message });
            }
            let mut list = Vec::with_capacity(count as usize);
            for z in 0..gz {
                for y in 0..gy {
                    list.extend((0..gx).map(|x| [x, y, z]));
                }
            }
            Ok(list)
        }
    }
}
