//! One block of the grid: its shared memory, barriers and the schedule of its warps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::check::agents::Agents;
use crate::check::clock::{Clocks, Epoch, View};
use crate::check::global::{BlockClock, GlobalShadow};
use crate::check::order::{Orders, Published};
use crate::counts::Tallies;
use crate::exec::memory::bulk::OpenFetch;
use crate::exec::memory::shared::Shared;
use crate::exec::run::order::Order;
use crate::exec::run::profile::Profile;
use crate::exec::run::retry::Retry;
use crate::exec::run::warp::{Position, State, Warp};
use crate::exec::sync::barrier::NamedBarrier;
use crate::exec::sync::cluster::Member;
use crate::exec::sync::mbarrier::MbarState;
use crate::isa::space::Space;
use crate::launch::{Launch, Schedule};
use crate::machine::simd::Level;
use crate::memory::Memory;
use crate::module::Kernel;
use crate::report::{Findings, Kind, RawSite, Severity};

/// What all blocks of a launch share.
pub(crate) struct Context<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) memory: &'a Memory,
    pub(crate) launch: &'a Launch,
    pub(crate) level: Level,
    pub(crate) shadow: Option<GlobalShadow>,
    /// What is kept to begin anew, where races are looked for.
    pub(crate) retry: Option<Retry>,
    pub(crate) order: Order,
    /// Counts changes of global memory, to tell waiting from hanging.
    pub(crate) progress: AtomicU64,
    /// Instructions of all blocks, as far as they have told.
    pub(crate) spent: AtomicU64,
}

impl Context<'_> {
    /// Whether the caller does not want to wait any longer.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Relaxed) > self.launch.limits.instructions
    }

    /// Whether the launch is given up, or begins anew.
    pub(crate) fn is_over(&self) -> bool {
        self.retry.as_ref().is_some_and(Retry::is_wanted) || self.is_spent()
    }
}

/// Instructions after which a block tells how many it executed.
const TOLD_EVERY: u64 = 1 << 20;

/// How a turn of a warp ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// More to do at once.
    Ran,
    /// Polls something; others should run.
    Rests,
    /// Cannot go on until another warp acts.
    Blocked,
    /// Stands before an access that orders blocks, and it is not the block's turn.
    AtOp,
    /// All lanes exited.
    Done,
    /// The block is to stop: trap or limit.
    Abort,
}

/// How a turn of a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockTurn {
    Finished,
    /// Every warp polls or is blocked; another block may change that.
    Waiting,
    /// Used up its round.
    RoundEnd,
    /// Stands before an access that orders blocks, and it is not its turn.
    AtOp,
}

/// What is left of a block that ended.
pub(crate) struct Closed {
    pub(crate) linear: u32,
    pub(crate) findings: Findings,
    pub(crate) printed: String,
    pub(crate) instructions: u64,
    pub(crate) lane_instructions: u64,
    /// Its clocks ran out.
    pub(crate) exhausted: bool,
    pub(crate) profile: Profile,
    pub(crate) counts: Option<Tallies>,
}

/// A running block.
pub(crate) struct Block {
    pub(crate) id: [u32; 3],
    pub(crate) linear: u32,
    /// The place of its cluster in the list of those that run.
    at: usize,
    /// Whether it may do what orders blocks.
    pub(crate) granted: bool,
    /// Rest of its round in instructions that are not row operations.
    round_left: u64,
    /// The warp whose turn was interrupted, and the rest of that turn.
    cut: Option<(usize, u64)>,
    /// Warps that poll, since something changed.
    rested: Vec<bool>,
    pub(crate) shared: Shared,
    pub(crate) warps: Vec<Option<Box<Warp>>>,
    pub(crate) barriers: [NamedBarrier; 16],
    pub(crate) mbarriers: BTreeMap<u32, MbarState>,
    /// Who accesses its shared memory; of engines that mbarriers tell of, the time, and the warp that began the last work.
    pub(crate) agents: Agents,
    pub(crate) agent_times: Vec<u32>,
    pub(crate) issuers: Vec<u32>,
    /// Fetches that have not arrived.
    pub(crate) fetches: Vec<OpenFetch>,
    /// Rank within the cluster, and the other blocks of it while this one runs.
    pub(crate) rank: u32,
    pub(crate) peers: Vec<Option<Box<Block>>>,
    pub(crate) member: Member,
    pub(crate) clocks: Clocks,
    pub(crate) block_clock: BlockClock,
    pub(crate) orders: Orders,
    /// State of addresses used by atomics and volatile accesses.
    pub(crate) published: BTreeMap<u64, Published>,
    pub(crate) findings: Findings,
    /// What the block printed.
    pub(crate) printed: String,
    pub(crate) instructions: u64,
    pub(crate) lane_instructions: u64,
    /// Those instructions that the context knows of.
    told: u64,
    /// Changes of state that a waiting warp could be waiting for.
    pub(crate) progress: u64,
    pub(crate) profile: Profile,
    /// What it did, where the launch has it counted.
    pub(crate) counts: Option<Tallies>,
    /// The buffer that a load read last: most often that of the next.
    pub(crate) buffer: usize,
    random: u64,
    cursor: usize,
}

impl Block {
    /// A block of the cluster at a place of the list of clusters that run.
    pub(crate) fn new(context: &Context<'_>, id: [u32; 3], at: usize, rank: u32) -> Block {
        let program = &context.kernel.program;
        let launch = context.launch;
        let [gx, gy, _] = launch.grid;
        let linear = id[0] + gx * (id[1] + gy * id[2]);
        let total = program.shared_static_bytes + launch.dynamic_shared_bytes;
        let position = Position {
            block: id,
            block_dim: launch.block,
            grid_dim: launch.grid,
            cluster: launch.cluster,
            dynamic_shared: launch.dynamic_shared_bytes,
            total_shared: total,
            sm: linear % 132,
            sm_count: launch.sm_count,
        };
        let threads: u32 = launch.block.iter().product();
        let count = threads.div_ceil(32) as usize;
        let warps =
            (0..count).map(|i| Some(Box::new(Warp::new(i, program, &position, launch.checks.uninitialised)))).collect();
        let agents = Agents::new(count, program.engines);
        let seed = match launch.schedule {
            Schedule::Seeded(seed) => seed ^ (u64::from(linear) << 32),
            _ => 0,
        };
        Block {
            id,
            linear,
            at,
            granted: false,
            round_left: 0,
            cut: None,
            rested: vec![false; count],
            shared: Shared::new(context, total as usize, agents.readers()),
            warps,
            barriers: std::array::from_fn(|_| NamedBarrier::default()),
            mbarriers: BTreeMap::new(),
            agents,
            agent_times: vec![0; agents.count],
            issuers: vec![0; agents.count],
            fetches: Vec::new(),
            rank,
            peers: Vec::new(),
            member: Member::new(),
            clocks: Clocks::new(&agents),
            block_clock: BlockClock::new(linear),
            orders: Orders::new(count),
            published: BTreeMap::new(),
            findings: Findings::default(),
            printed: String::new(),
            instructions: 0,
            lane_instructions: 0,
            told: 0,
            progress: 0,
            profile: Profile::new(launch.profile),
            counts: launch.counts.then(|| Tallies::new(program)),
            buffer: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            cursor: 0,
        }
    }

    /// Next value of a small generator; only the schedule uses it, of warps and of what arrives.
    pub(crate) fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Begins a round of so many instructions that are not row operations.
    pub(crate) fn begin_round(&mut self, quantum: u64) {
        self.round_left = quantum;
    }

    /// Runs warps until all exit or all wait, the round ends, or it comes to what it may only do in its turn.
    pub(crate) fn run(&mut self, context: &Context<'_>) -> BlockTurn {
        loop {
            if self.round_left == 0 {
                return BlockTurn::RoundEnd;
            }
            let interrupted = self.cut.take();
            let picked = interrupted.or_else(|| self.pick(context).map(|at| (at, self.budget(context))));
            let Some((at, budget)) = picked else {
                if self.warps.iter().flatten().all(|w| w.done()) {
                    return BlockTurn::Finished;
                }
                if self.complete_late(context) || self.barrier_with_exited(context) {
                    self.rested.fill(false);
                    continue;
                }
                if self.rested.contains(&true) {
                    self.rested.fill(false);
                    return BlockTurn::Waiting;
                }
                self.report_deadlock(context);
                return BlockTurn::Finished;
            };
            let before = self.progress;
            let Some(mut warp) = self.warps[at].take() else {
                return BlockTurn::Finished;
            };
            if interrupted.is_none() {
                warp.wants_rest = false;
            }
            let allowed = budget.min(self.round_left);
            let mut left = allowed;
            let turn = self.run_warp(context, &mut warp, &mut left);
            self.warps[at] = Some(warp);
            let used = allowed - left;
            self.round_left -= used;
            if turn == Turn::AtOp || turn == Turn::Ran && used < budget {
                self.cut = Some((at, budget - used));
            }
            if self.instructions - self.told >= TOLD_EVERY {
                self.tell(context);
            }
            if context.is_over() {
                return BlockTurn::Finished;
            }
            if self.progress != before {
                self.rested.fill(false);
            }
            match turn {
                Turn::Abort => return BlockTurn::Finished,
                Turn::AtOp => return BlockTurn::AtOp,
                Turn::Rests => self.rested[at] = true,
                Turn::Ran | Turn::Blocked | Turn::Done => {}
            }
        }
    }

    /// Whether it may order blocks now: at once, or because its turn has come.
    pub(crate) fn may_act(&mut self, context: &Context<'_>) -> bool {
        self.granted = self.granted || context.order.may_act(context, self.at);
        self.granted
    }

    /// What is left of it when it ended.
    pub(crate) fn close(self) -> Closed {
        Closed {
            linear: self.linear,
            exhausted: self.clocks.exhausted(),
            findings: self.findings,
            printed: self.printed,
            instructions: self.instructions,
            lane_instructions: self.lane_instructions,
            profile: self.profile,
            counts: self.counts,
        }
    }

    /// Adds what it executed since it last did to what all blocks executed.
    pub(crate) fn tell(&mut self, context: &Context<'_>) {
        context.spent.fetch_add(self.instructions - self.told, Relaxed);
        self.told = self.instructions;
    }

    /// Turn length in instructions that are not row operations.
    fn budget(&mut self, context: &Context<'_>) -> u64 {
        match context.launch.schedule {
            Schedule::RoundRobin => 64,
            Schedule::Greedy | Schedule::Reverse => u64::MAX,
            Schedule::Seeded(_) => 1 + self.random() % 24,
        }
    }

    /// The warp to run next, or none if all wait, rest or are done.
    fn pick(&mut self, context: &Context<'_>) -> Option<usize> {
        let count = self.warps.len();
        let can_run = |block: &Block, at: usize| {
            let ready = |w: &Warp| w.fragments.iter().any(|f| matches!(f.state, State::Ready | State::Parked));
            !block.rested[at] && block.warps[at].as_ref().is_some_and(|w| ready(w))
        };
        let start = match context.launch.schedule {
            Schedule::Greedy => 0,
            Schedule::Reverse => {
                return (0..count).rev().find(|&i| can_run(self, i));
            }
            Schedule::RoundRobin => {
                self.cursor = (self.cursor + 1) % count;
                self.cursor
            }
            Schedule::Seeded(_) => (self.random() >> 11) as usize % count,
        };
        (0..count).map(|i| (start + i) % count).find(|&i| can_run(self, i))
    }

    /// Adds a finding of this block.
    pub(crate) fn report(
        &mut self,
        context: &Context<'_>,
        kind: Kind,
        severity: Severity,
        sites: &[RawSite],
        describe: impl FnOnce() -> String,
    ) {
        self.findings.add(context.kernel, kind, severity, self.id, sites, || (describe(), Vec::new()));
    }

    /// Reports that nothing in the block can go on, with who waits for what.
    pub(crate) fn report_deadlock(&mut self, context: &Context<'_>) {
        let (sites, notes) = self.wait_graph(context);
        self.findings.add(context.kernel, Kind::Deadlock, Severity::Error, self.id, &sites, || {
            ("deadlock: no warp of the block can go on".to_owned(), notes)
        });
    }

    /// Reports polls that nothing will ever answer.
    pub(crate) fn report_no_progress(&mut self, context: &Context<'_>) {
        let (sites, notes) = self.wait_graph(context);
        self.findings.add(context.kernel, Kind::NoProgress, Severity::Error, self.id, &sites, || {
            let text = "no progress: every warp polls values that no running block changes \
                        (a wait for a block that is not resident needs a cooperative launch)";
            (text.to_owned(), notes)
        });
    }

    fn wait_graph(&self, context: &Context<'_>) -> (Vec<RawSite>, Vec<String>) {
        let mut sites = Vec::new();
        let mut notes = Vec::new();
        for warp in self.warps.iter().flatten() {
            for fragment in &warp.fragments {
                let role = match fragment.state {
                    State::Barrier(_) => "waits",
                    State::Converging => "waits for lanes",
                    State::Ready | State::Parked => "polls",
                };
                let lane = fragment.mask.trailing_zeros();
                sites.push(RawSite { role, pc: fragment.pc as u32, warp: warp.index as u32, lane });
                if fragment.state == State::Converging {
                    notes.push(format!(
                        "warp {} lanes {:#010x} wait at a warp-wide instruction for lanes {:#010x}",
                        warp.index,
                        fragment.mask,
                        warp.alive() & !fragment.mask
                    ));
                }
            }
        }
        for (id, barrier) in self.barriers.iter().enumerate() {
            if let Some(note) = barrier.describe(id) {
                notes.push(note);
            }
        }
        for (address, state) in &self.mbarriers {
            notes.push(format!("mbarrier at {}: {}", self.shared_name(context, *address), state.describe()));
        }
        notes.sort();
        (sites, notes)
    }

    /// `variable+0x10` for a shared offset.
    pub(crate) fn shared_name(&self, context: &Context<'_>, offset: u32) -> String {
        let vars = &context.kernel.program.shared;
        match vars.iter().filter(|v| v.offset <= offset).max_by_key(|v| v.offset) {
            Some(var) => format!("shared {}+0x{:x}", var.name, offset - var.offset),
            None => format!("shared 0x{offset:x}"),
        }
    }

    /// What a warp knows, to judge other accesses by.
    pub(crate) fn view(&self, warp: &Warp) -> View<'_> {
        self.clocks.view(warp.index, self.orders.of(warp.index))
    }

    /// Epoch of an access by `warp` at `pc` now.
    pub(crate) fn epoch(&self, warp: &Warp, pc: usize) -> Epoch {
        Epoch::new(pc as u32, self.clocks.now(warp.index), warp.index as u32)
    }

    /// Notes a change that others may be waiting for.
    pub(crate) fn progressed(&mut self) {
        self.progress += 1;
    }

    /// Notes a change of memory that others may poll.
    pub(crate) fn progressed_in(&mut self, context: &Context<'_>, space: Space) {
        self.progress += 1;
        if space == Space::Global {
            context.progress.fetch_add(1, Relaxed);
        }
    }
}
