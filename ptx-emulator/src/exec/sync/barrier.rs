//! Block barriers: `bar.sync`, `bar.arrive`, `bar.red` on 16 ids, and `bar.warp.sync`.

use crate::exec::run::block::{Block, Context};
use crate::machine::regs::{FULL, lane_word};

use crate::check::clock::Stamp;
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{State, Warp};
use crate::isa::op::{Barrier, BarrierKind};
use crate::isa::slot::Class;
use crate::report::{Kind, RawSite, Severity};

/// One of the 16 barriers of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamedBarrier {
    /// Threads expected in this generation; 0 when nobody arrived yet.
    expected: u32,
    arrived: u32,
    /// The generation waits for every thread of the block.
    all_threads: bool,
    /// Participants so far, with where they arrived and whether they wait.
    members: Vec<Member>,
    generation: u64,
    stamp: Stamp,
    popc: u32,
    and: bool,
    or: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    warp: usize,
    pc: usize,
    waits: bool,
    lanes: u32,
}

impl NamedBarrier {
    /// State of an unfinished generation, for the wait graph.
    pub(crate) fn describe(&self, id: usize) -> Option<String> {
        if self.members.is_empty() {
            return None;
        }
        let list = |waits: bool| {
            let mut warps: Vec<usize> = self.members.iter().filter(|m| m.waits == waits).map(|m| m.warp).collect();
            warps.sort_unstable();
            warps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        };
        Some(format!(
            "barrier {id}: {} of {} threads; warps waiting: [{}]; warps arrived only: [{}]; generation {}",
            self.arrived,
            self.expected,
            list(true),
            list(false),
            self.generation
        ))
    }
}

impl Block {
    pub(crate) fn barrier(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Barrier,
    ) -> Flow {
        // The aligned form needs the whole warp; the plain form is run that way as well.
        let members = warp.alive();
        if let Some(flow) = self.converge(context, warp, current, pc, active, members) {
            return flow;
        }
        if warp.exited != 0 {
            let site = RawSite { role: "waits", pc: pc as u32, warp: warp.index as u32, lane: active.trailing_zeros() };
            self.report(context, Kind::ExitedBeforeBarrier, Severity::Warning, &[site], || {
                format!("lanes {:#010x} of the warp have exited before this barrier", warp.exited)
            });
        }
        let id = lane_word(&warp.regs, op.id, active);
        if id > 15 {
            self.report_lane(context, warp, Kind::BarrierMisuse, pc, "executes", active, || {
                format!("barrier id {id} is above 15")
            });
            return Flow::Abort;
        }
        let threads: u32 = context.launch.block.iter().product();
        let all = threads.next_multiple_of(32);
        let count = op.count.map(|row| lane_word(&warp.regs, row, active));
        if count.is_some_and(|c| c == 0 || c % 32 != 0 || c > all) {
            let count = count.unwrap_or(0);
            self.report_lane(context, warp, Kind::BarrierMisuse, pc, "executes", active, || {
                format!("barrier {id}: thread count {count} is not a multiple of 32 up to {all}")
            });
            return Flow::Abort;
        }
        self.arrive(context, warp, pc, active, op, id as usize, count.unwrap_or(all), count.is_none());
        let waits = op.kind != BarrierKind::Arrive;
        if waits {
            warp.fragments[current].state = State::Barrier(id as u8);
        }
        self.complete_barrier(context, Some(warp), id as usize);
        if waits { Flow::Wait } else { Flow::Next }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one arrival")]
    fn arrive(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        pc: usize,
        active: u32,
        op: &Barrier,
        id: usize,
        count: u32,
        all_threads: bool,
    ) {
        let waits = op.kind != BarrierKind::Arrive;
        let barrier = &mut self.barriers[id];
        let first = barrier.members.first().copied();
        // To arrive and then wait is two arrivals that are meant: the last warp of CUTLASS's and FlashAttention-3's epilogues
        // does so, and a warpgroup that gives itself the first turn.
        let twice = !waits && barrier.members.iter().any(|m| m.warp == warp.index && m.lanes & active != 0);
        let expected = barrier.expected;
        if first.is_none() {
            barrier.expected = count;
            barrier.all_threads = all_threads;
            barrier.and = true;
        }
        if let Some((row, negated)) = op.src {
            let bits = (warp.regs.p[usize::from(row)] ^ if negated { FULL } else { 0 }) & active;
            barrier.popc += bits.count_ones();
            barrier.or |= bits != 0;
            barrier.and &= bits == active;
        }
        // Aligned barriers count whole warps, also those with exited or missing lanes.
        barrier.arrived += if op.aligned || active == warp.alive() { 32 } else { active.count_ones() };
        barrier.members.push(Member { warp: warp.index, pc, waits, lanes: active });
        let (generation, arrived) = (barrier.generation, barrier.arrived);
        if context.launch.checks.races {
            self.clocks.release(warp.index, &mut barrier.stamp);
        } else {
            // Who knows of whom matters to races alone; that time passes, also to the limit on it.
            self.clocks.tick(warp.index);
        }
        self.progressed();
        let here = RawSite { role: "arrives", pc: pc as u32, warp: warp.index as u32, lane: active.trailing_zeros() };
        let Some(first) = first else { return };
        let before = RawSite {
            role: "arrives",
            pc: first.pc as u32,
            warp: first.warp as u32,
            lane: first.lanes.trailing_zeros(),
        };
        if expected != count {
            self.report(context, Kind::BarrierMisuse, Severity::Error, &[before, here], || {
                format!("barrier {id}: participants disagree on the thread count ({expected} and {count})")
            });
        }
        if twice {
            self.report(context, Kind::BarrierMisuse, Severity::Error, &[before, here], || {
                format!(
                    "barrier {id}: warp {} arrives twice in generation {generation} ({arrived} of {expected} threads)",
                    warp.index
                )
            });
        }
        if all_threads && first.pc != pc && waits {
            self.report(context, Kind::BarrierMisuse, Severity::Warning, &[before, here], || {
                format!("barrier {id} is reached from different instructions at once")
            });
        }
    }

    /// Ends the generation if all expected threads have arrived.
    fn complete_barrier(&mut self, context: &Context<'_>, mut running: Option<&mut Warp>, id: usize) {
        let barrier = &self.barriers[id];
        if barrier.members.is_empty() || barrier.arrived < barrier.expected {
            return;
        }
        let mut barrier = std::mem::take(&mut self.barriers[id]);
        self.progressed();
        for member in barrier.members.iter().filter(|m| m.waits) {
            if context.launch.checks.races {
                self.clocks.acquire(member.warp, &barrier.stamp);
                self.clocks.sync_warp(member.warp);
            } else {
                self.clocks.tick(member.warp);
            }
            match (&mut running, &mut self.warps[member.warp]) {
                (Some(warp), _) if warp.index == member.warp => release(context, warp, &barrier, member, id),
                (_, Some(warp)) => release(context, warp, &barrier, member, id),
                _ => {}
            }
        }
        self.settle();
        // The next generation uses the same memory.
        barrier.members.clear();
        barrier.stamp.clear();
        let NamedBarrier { members, stamp, generation, .. } = barrier;
        self.barriers[id] = NamedBarrier { members, stamp, generation: generation + 1, ..NamedBarrier::default() };
    }

    fn complete_with_exited(&mut self, context: &Context<'_>, id: usize) {
        let sites: Vec<RawSite> = self.barriers[id]
            .members
            .iter()
            .take(1)
            .map(|m| RawSite { role: "waits", pc: m.pc as u32, warp: m.warp as u32, lane: 0 })
            .collect();
        let (arrived, expected) = (self.barriers[id].arrived, self.barriers[id].expected);
        self.report(context, Kind::ExitedBeforeBarrier, Severity::Warning, &sites, || {
            format!("barrier {id} completes with {arrived} of {expected} threads: the others have exited")
        });
        self.barriers[id].arrived = expected;
        self.complete_barrier(context, None, id);
    }

    /// When nothing runs: warps that exited count as arrived at barriers of all threads.
    pub(crate) fn barrier_with_exited(&mut self, context: &Context<'_>) -> bool {
        let gone = 32 * self.warps.iter().flatten().filter(|w| w.done()).count() as u32;
        for id in 0..16 {
            let barrier = &self.barriers[id];
            if gone > 0
                && !barrier.members.is_empty()
                && barrier.all_threads
                && barrier.arrived + gone >= barrier.expected
            {
                self.complete_with_exited(context, id);
                return true;
            }
        }
        false
    }

    pub(crate) fn warp_sync(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        mask: u16,
    ) -> Flow {
        // Tiles of a warp may meet at one instruction, each for itself.
        self.grouped(context, warp, current, pc, active, mask, |block, warp, _| {
            block.clocks.sync_warp(warp.index);
            if block.warps.len() == 1 {
                block.settle();
            }
        })
    }

    /// Warps have met: what all of them did may be past for all that go on.
    fn settle(&mut self) {
        let Block { shared, warps, clocks, agents, .. } = self;
        // Other blocks of a cluster do not meet here.
        if let Some(shadow) = shared.shadow.as_mut().filter(|_| !agents.has_peers()) {
            // The warp that runs is not in its place.
            let goes_on = |warp: &Option<Box<Warp>>| warp.as_ref().is_none_or(|warp| !warp.done());
            let left = warps.iter().enumerate().filter(|(_, warp)| goes_on(warp));
            shadow.settle(left.map(|(at, _)| clocks.past(at)));
        }
    }
}

/// Lets a waiting warp go on and gives it the result of a reduction.
fn release(context: &Context<'_>, warp: &mut Warp, barrier: &NamedBarrier, member: &Member, id: usize) {
    if let crate::isa::op::Op::Barrier(op) = &context.kernel.program.insts[member.pc].op
        && let Some(dst) = op.dst
    {
        match dst.class {
            Class::P => {
                let value = if op.kind == BarrierKind::RedAnd { barrier.and } else { barrier.or };
                warp.regs.set_p(dst.row, if value { FULL } else { 0 }, member.lanes);
                warp.regs.taint_p(dst.row, 0, member.lanes);
            }
            _ => {
                warp.regs.set_w(dst.row, &[barrier.popc; 32], member.lanes);
                warp.regs.taint_w(dst.row, 0, member.lanes);
            }
        }
    }
    warp.release(id as u8);
}
