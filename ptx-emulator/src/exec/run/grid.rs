//! Runs the blocks of a launch on the threads of the host.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::check::global::GlobalShadow;
use crate::exec::run::block::{Block, BlockTurn, Context};
use crate::exec::run::print::MAX_PRINTED;
use crate::exec::run::profile::Profile;
use crate::launch::{BlockFilter, EmuError, Launch, Outcome};
use crate::machine::simd::Level;
use crate::memory::Memory;
use crate::module::Kernel;
use crate::report::{Findings, Severity};

/// Blocks that are not finished, and what the finished ones found.
struct Work {
    /// Next block of the list to start.
    next: usize,
    /// Started blocks that wait for others.
    waiting: VecDeque<Box<Block>>,
    /// Blocks in the hands of a thread.
    running: usize,
    /// Results by position in the list, so that merging does not depend on timing.
    results: Vec<(usize, Findings, String)>,
    instructions: u64,
    lane_instructions: u64,
    blocks_run: u64,
    exhausted: bool,
    /// A block waits for what nobody is going to do.
    stuck: bool,
    profile: Profile,
}

/// Runs a kernel to its end and returns what was found.
pub fn run(kernel: &Kernel, memory: &Memory, launch: &Launch) -> Result<Outcome, EmuError> {
    run_at(Level::detect(), kernel, memory, launch)
}

/// As [`run`], with the hot loops for a chosen instruction set.
pub(crate) fn run_at(level: Level, kernel: &Kernel, memory: &Memory, launch: &Launch) -> Result<Outcome, EmuError> {
    let blocks = check(kernel, launch)?;
    let start = Instant::now();
    let context = Context {
        kernel,
        memory,
        launch,
        level,
        shadow: launch.checks.races.then(|| GlobalShadow::new(memory)),
        progress: AtomicU64::new(0),
        spent: AtomicU64::new(0),
    };
    let work = Mutex::new(Work {
        next: 0,
        waiting: VecDeque::new(),
        running: 0,
        results: Vec::new(),
        instructions: 0,
        lane_instructions: 0,
        blocks_run: 0,
        exhausted: false,
        stuck: false,
        profile: Profile::new(launch.profile),
    });
    let threads = match launch.limits.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let threads = threads.min(blocks.len()).max(1);
    let work_on = || worker(&context, &blocks, &work);
    std::thread::scope(|scope| {
        let more = (1..threads).map(|_| std::thread::Builder::new().spawn_scoped(scope, work_on));
        let started = more.collect::<Result<Vec<_>, _>>();
        work_on();
        started.map(drop).map_err(|error| EmuError::Threads(error.to_string()))
    })?;
    let mut work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    if work.exhausted {
        return Err(EmuError::ClockExhausted { kernel: kernel.name().to_owned() });
    }
    work.results.sort_by_key(|(at, ..)| *at);
    let mut findings = Findings::default();
    let mut printed = String::new();
    for (_, found, text) in work.results {
        findings.merge(found);
        if printed.len() < MAX_PRINTED {
            printed.push_str(&text);
        }
    }
    let mut findings = findings.list;
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    // Where something wrong was found, that is the answer, however long the rest would take.
    if context.is_spent() && findings.first().is_none_or(|f| f.severity < Severity::Error) {
        return Err(EmuError::Budget { kernel: kernel.name().to_owned(), limit: launch.limits.instructions });
    }
    let [x, y, z] = launch.grid.map(u64::from);
    Ok(Outcome {
        findings,
        printed,
        instructions: work.instructions,
        lane_instructions: work.lane_instructions,
        blocks_run: work.blocks_run,
        blocks_in_grid: x * y * z,
        profile: work.profile.finish(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn lock<'a>(work: &'a Mutex<Work>) -> MutexGuard<'a, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes blocks until none are left.
fn worker(context: &Context<'_>, blocks: &[[u32; 3]], work: &Mutex<Work>) {
    loop {
        if context.is_spent() {
            return;
        }
        let mut guard = lock(work);
        if guard.stuck {
            return;
        }
        let resident = guard.waiting.len() + guard.running;
        let hopeful = |guard: &Work| guard.waiting.iter().position(|block| !block.has_waited_long(context));
        let mut last_chance = false;
        let block = if guard.next < blocks.len() && resident < context.launch.limits.resident_blocks {
            let id = blocks[guard.next];
            guard.next += 1;
            guard.running += 1;
            drop(guard);
            Box::new(Block::new(context, id))
        } else if let Some(block) = hopeful(&guard).and_then(|at| guard.waiting.remove(at)) {
            guard.running += 1;
            drop(guard);
            block
        } else if guard.running == 0
            && let Some(block) = guard.waiting.pop_front()
        {
            // Every block has waited long, and none runs that could change that.
            last_chance = true;
            guard.running += 1;
            drop(guard);
            block
        } else if guard.running > 0 {
            // Another thread may hand back a block that waits.
            drop(guard);
            std::thread::yield_now();
            continue;
        } else {
            return;
        };
        turn(context, work, block, last_chance);
    }
}

/// Runs one block until it ends or waits. If it waits in its last chance, so does every other block, and the launch ends.
fn turn(context: &Context<'_>, work: &Mutex<Work>, mut block: Box<Block>, last_chance: bool) {
    let before = (block.progress, context.progress.load(Relaxed));
    let outcome = block.run(context);
    block.tell(context);
    let after = (block.progress, context.progress.load(Relaxed));
    let mut finished = outcome == BlockTurn::Finished;
    let mut stuck = false;
    if !finished {
        block.note_wait(before == after, before.1, after.1);
        stuck = last_chance && block.has_waited_long(context);
    }
    if stuck {
        block.report_no_progress(context);
        finished = true;
    }
    let mut guard = lock(work);
    guard.running -= 1;
    guard.stuck |= stuck;
    if !finished {
        guard.waiting.push_back(block);
        return;
    }
    guard.instructions += block.instructions;
    guard.lane_instructions += block.lane_instructions;
    guard.blocks_run += 1;
    guard.exhausted |= block.clocks.exhausted();
    guard.profile.merge(&block.profile);
    guard.results.push((block.linear as usize, block.findings, block.printed));
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
    // What the system reserves comes on top of what a block may ask for.
    let own = program.shared.iter().filter(|v| Some(v.offset) != program.reserved_shared);
    let static_bytes: u64 = own.map(|v| u64::from(v.bytes)).sum();
    let shared = static_bytes + u64::from(launch.dynamic_shared_bytes);
    if shared > launch.limits.shared_bytes as u64 {
        return Err(shape(format!("{shared} bytes of shared memory exceed {}", launch.limits.shared_bytes)));
    }
    select(kernel, launch)
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
