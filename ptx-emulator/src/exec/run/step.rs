//! Runs a warp: picks fragments, executes instructions, handles branches and exits.

use crate::exec::memory::target::space_of;
use crate::exec::run::block::{Block, Context, Turn};
use crate::exec::run::counting::access;
use crate::exec::run::print::device_text;
use crate::exec::run::rows::{guard_bits, run_checked};
use crate::exec::run::warp::{Fragment, State, Warp};
use crate::isa::engines::{BulkWay, TensorWay};
use crate::isa::op::{Inst, Op};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::machine::regs::{LANES, each_lane, w};
use crate::report::{Kind, RawSite, Severity};

/// Backward branches after which a fragment lets its siblings run: keeps loops with uneven trip
/// counts together, yet ends spins on a lane of the same warp.
const LOOP_QUANTUM: u32 = 64;

/// What an instruction did to the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Go on with the next instruction.
    Next,
    /// The program counter or the fragments were changed.
    Moved,
    /// The fragment waits; choose another.
    Wait,
    /// The access is one that orders blocks, and it is not the block's turn.
    AtOp,
    /// The block is to stop.
    Abort,
}

/// A strong access, and where to.
fn strong(op: &Op) -> Option<&Addr> {
    match op {
        Op::Load(load) => load.order.strong.then_some(&load.addr),
        Op::Store(store) => store.order.strong.then_some(&store.addr),
        Op::Atom(atom) => Some(&atom.addr),
        _ => None,
    }
}

/// Whether this is a copy that combines what it brings with what is in global memory.
fn reduces(op: &Op) -> bool {
    match op {
        Op::Bulk(copy) => matches!(copy.way, BulkWay::Send { reduction: Some(_) }),
        Op::Tensor(copy) => matches!(copy.way, TensorWay::Store { reduction: Some(_) }),
        _ => false,
    }
}

/// Whether a kernel has accesses that may order blocks: without, blocks meet in races alone.
pub(crate) fn can_order_blocks(insts: &[Inst]) -> bool {
    let to_global = |addr: &Addr| matches!(addr.space, Space::Global | Space::Generic);
    insts.iter().any(|inst| reduces(&inst.op) || strong(&inst.op).is_some_and(to_global))
}

/// Whether an instruction is a strong access to global memory.
fn orders_blocks(warp: &Warp, active: u32, op: &Op) -> bool {
    active != 0 && reduces(op)
        || strong(op).is_some_and(|addr| match addr.space {
            Space::Global => active != 0,
            Space::Generic => {
                let at = Block::addresses(warp, addr);
                (0..LANES).any(|l| active >> l & 1 == 1 && space_of(at[l]) == Space::Global)
            }
            _ => false,
        })
}

impl Block {
    /// Runs one warp until it waits, rests, ends or used up what is left of its turn.
    pub(crate) fn run_warp(&mut self, context: &Context<'_>, warp: &mut Warp, left: &mut u64) -> Turn {
        loop {
            if warp.done() {
                return Turn::Done;
            }
            let Some(current) = warp.choose() else {
                if Self::resolve_divergence(warp) {
                    continue;
                }
                return Turn::Blocked;
            };
            let current = warp.merge(current);
            match self.run_fragment(context, warp, current, left) {
                Flow::Abort => return Turn::Abort,
                Flow::AtOp => return Turn::AtOp,
                Flow::Wait | Flow::Next | Flow::Moved => {}
            }
            if warp.executed > context.launch.limits.warp_instructions {
                self.report_runaway(context, warp);
                return Turn::Abort;
            }
            if warp.done() {
                return Turn::Done;
            }
            if warp.wants_rest {
                // Lanes of the same warp come first; when all had a turn, other warps do.
                let ready = |f: &Fragment| f.state == State::Ready;
                if !warp.fragments.iter().any(ready) {
                    return Turn::Rests;
                }
            }
            if *left == 0 || context.is_over() {
                return Turn::Ran;
            }
        }
    }

    /// Executes until the fragment branches apart, waits, meets another or the budget ends.
    fn run_fragment(&mut self, context: &Context<'_>, warp: &mut Warp, current: usize, left: &mut u64) -> Flow {
        let insts = &context.kernel.program.insts;
        let checked = context.launch.checks.uninitialised;
        let fragment = warp.fragments[current];
        let (mut pc, mut mask) = (fragment.pc, fragment.mask);
        let stop = warp.next_meeting(current, pc);
        loop {
            let start = self.profile.start();
            let (next, count) = if checked {
                run_checked(context.level, &mut warp.regs, insts, pc, stop, mask)
            } else {
                self.run_straight(context, warp, pc, stop, mask, left)
            };
            self.profile.rows(start, count.insts);
            self.instructions += count.insts;
            self.lane_instructions += count.lanes;
            warp.executed += count.insts;
            if let Some(counts) = &mut self.counts {
                counts.rows(pc, next, mask, warp.lanes);
            }
            pc = next;
            warp.fragments[current].pc = pc;
            if pc == stop || *left == 0 {
                return Flow::Moved;
            }
            let Some(inst) = insts.get(pc) else {
                return Flow::Abort;
            };
            let active = mask & guard_bits(&warp.regs, inst.guard);
            if !self.granted && orders_blocks(warp, active, &inst.op) && !self.may_act(context) {
                return Flow::AtOp;
            }
            if checked && inst.guard != u16::MAX {
                self.check_guard(context, warp, pc, inst.guard, mask);
            }
            *left = left.saturating_sub(1);
            warp.executed += 1;
            self.instructions += 1;
            self.lane_instructions += u64::from(active.count_ones());
            match self.one(context, warp, (current, pc, mask), active, &inst.op) {
                Flow::Next => {
                    pc += 1;
                    warp.fragments[current].pc = pc;
                }
                // A fragment that is alone and goes on needs no new choice.
                Flow::Moved => match warp.fragments.as_slice() {
                    [alone] if alone.state == State::Ready && stop == usize::MAX && self.may_go_on(context, warp) => {
                        (pc, mask) = (alone.pc, alone.mask);
                    }
                    _ => return Flow::Moved,
                },
                other => return other,
            }
            if pc == stop || *left == 0 {
                return Flow::Moved;
            }
        }
    }

    /// One instruction that is not a row operation, timed or counted where the launch asks.
    fn one(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        (current, pc, mask): (usize, usize, u32),
        active: u32,
        op: &Op,
    ) -> Flow {
        let start = self.profile.start();
        let access = self.counts.is_some().then(|| access(warp, active, op));
        let flow = if active == 0 || self.profiled_step(context, warp, active, op) {
            Flow::Next
        } else {
            self.step(context, warp, current, pc, active, op)
        };
        self.profile.one(start, op);
        if let (Some(access), Some(counts)) = (access, &mut self.counts) {
            // Who waits where it stands comes to the same instruction again, alone or with the lanes that it waits for.
            let stands = |f: &Fragment| f.pc == pc && matches!(f.state, State::Converging | State::Parked);
            if flow != Flow::Wait || !warp.fragments.get(current).is_some_and(stands) {
                counts.other(pc, op, (mask, active, warp.lanes), &access);
            }
        }
        flow
    }

    /// Whether nothing asks the warp to stop after a branch.
    fn may_go_on(&self, context: &Context<'_>, warp: &Warp) -> bool {
        !warp.wants_rest && warp.executed <= context.launch.limits.warp_instructions && !context.is_over()
    }

    /// An undefined predicate that decides whether an instruction with effects runs.
    fn check_guard(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, guard: u16, mask: u32) {
        let tainted = warp.regs.tp(guard >> 1) & mask;
        if tainted != 0 {
            let lane = tainted.trailing_zeros();
            let site = RawSite { role: "decides", pc: pc as u32, warp: warp.index as u32, lane };
            self.report(context, Kind::UninitialisedBranch, Severity::Error, &[site], || {
                "uninitialised value decides a branch or a guarded instruction".into()
            });
        }
    }

    /// Executes one instruction that is not a row operation.
    fn step(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Op,
    ) -> Flow {
        match op {
            Op::Alu(_) => Flow::Next,
            Op::Bra { target } => self.branch(warp, current, pc, active, *target as usize),
            Op::Exit => self.exit(context, warp, current, pc, active),
            Op::Trap => self.trap(context, warp, pc, active, "trap".into()),
            Op::Yield => {
                warp.wants_rest = true;
                warp.fragments[current].pc = pc + 1;
                warp.fragments[current].state = State::Parked;
                Flow::Wait
            }
            Op::Fence { device } => {
                if context.launch.checks.races {
                    self.fence(warp.index, active, *device);
                } else {
                    self.clocks.tick(warp.index);
                }
                Flow::Next
            }
            Op::Clock { dst } => {
                let value = self.instructions;
                self.set_slot(warp, *dst, active, |_| value);
                Flow::Next
            }
            Op::ActiveMask { dst } => {
                let value = u64::from(active);
                self.set_slot(warp, Slot { class: Class::W, row: *dst }, active, |_| value);
                Flow::Next
            }
            Op::IsSpace { dst, addr, space } => {
                self.is_space(context, warp, *dst, *addr, *space, active);
                Flow::Next
            }
            Op::Load(load) => self.load(context, warp, pc, active, load),
            Op::Store(store) => self.store(context, warp, pc, active, store),
            Op::Atom(atom) => self.atom(context, warp, pc, active, atom),
            Op::CopyAsync(copy) => self.copy_async(context, warp, pc, active, copy),
            Op::CopyCommit => {
                each_lane(active, |l| warp.groups[l] += 1);
                Flow::Next
            }
            Op::CopyWait { pending } => self.copy_wait(context, warp, pc, active, *pending),
            Op::CopyArrive { addr, noinc } => self.copy_arrive(context, warp, pc, active, addr, *noinc),
            Op::Barrier(barrier) => self.barrier(context, warp, current, pc, active, barrier),
            Op::WarpSync { mask } => self.warp_sync(context, warp, current, pc, active, *mask),
            Op::Shuffle(shuffle) => self.shuffle(context, warp, current, pc, active, shuffle),
            Op::Vote(vote) => self.vote(context, warp, current, pc, active, vote),
            Op::Reduce(reduce) => self.reduce(context, warp, current, pc, active, reduce),
            Op::Match(matching) => self.match_lanes(context, warp, current, pc, active, matching),
            Op::Matrix(matrix) => self.matrix(context, warp, current, pc, active, matrix),
            Op::MoveMatrix { dst, src } => self.move_matrix(context, warp, current, pc, active, *dst, *src),
            Op::Mma(mma) => self.mma(context, warp, current, pc, active, mma),
            Op::Wmma(wmma) => self.wmma(context, warp, current, pc, active, wmma),
            Op::Mbar(mbar) => self.mbar(context, warp, pc, active, mbar),
            Op::Elect(elect) => self.elect(context, warp, current, pc, active, elect),
            Op::ProxyFence { barriers_only } => self.proxy_fence(warp, *barriers_only),
            Op::Wgmma(wgmma) => self.wgmma(context, warp, current, pc, active, wgmma),
            Op::WgmmaFence => self.aligned(context, warp, current, pc, active).unwrap_or(Flow::Next),
            Op::WgmmaCommit => {
                let flow = self.aligned(context, warp, current, pc, active);
                warp.products_committed += u32::from(flow.is_none());
                // Other warps may wait for this one to begin its part.
                self.progressed();
                flow.unwrap_or(Flow::Next)
            }
            Op::WgmmaWait { pending, .. } => self.wgmma_wait(context, warp, current, pc, active, *pending),
            Op::Held(held) => {
                self.held(context, warp, pc, active, held);
                Flow::Next
            }
            Op::Bulk(copy) => self.bulk(context, warp, pc, active, copy),
            Op::Tensor(copy) => self.tensor_copy(context, warp, pc, active, copy),
            Op::BulkCommit => {
                each_lane(active, |l| warp.send_groups[l] += 1);
                Flow::Next
            }
            Op::BulkWait { pending } => self.bulk_wait(warp, active, *pending),
            Op::Cluster(op) => self.cluster(context, warp, current, pc, active, op),
            Op::Print(print) => {
                self.print(context, warp, pc, active, print);
                Flow::Next
            }
            Op::AssertFail { message, file, line } => {
                let text = self.assert_text(context, warp, active, *message, *file, *line);
                self.trap(context, warp, pc, active, text)
            }
        }
    }

    fn branch(&mut self, warp: &mut Warp, current: usize, pc: usize, taken: u32, target: usize) -> Flow {
        let fragment = &mut warp.fragments[current];
        let backward = target <= pc;
        if taken == fragment.mask {
            fragment.pc = target;
        } else {
            warp.split(current, taken, target);
        }
        if backward {
            self.loop_taken(
                warp,
                if warp.fragments[current].pc == target { current } else { warp.fragments.len() - 1 },
            );
        }
        Flow::Moved
    }

    /// Counts a backward branch; long loops let others run.
    fn loop_taken(&mut self, warp: &mut Warp, at: usize) {
        let alone = warp.fragments.len() == 1;
        let polled = std::mem::take(&mut warp.polled);
        let fragment = &mut warp.fragments[at];
        fragment.loops += 1;
        if warp.wants_rest {
            fragment.state = State::Parked;
            return;
        }
        if fragment.loops < LOOP_QUANTUM {
            return;
        }
        if polled {
            warp.wants_rest = true;
            fragment.state = State::Parked;
        } else if alone {
            fragment.loops = 0;
        } else {
            fragment.state = State::Parked;
        }
    }

    fn exit(&mut self, context: &Context<'_>, warp: &mut Warp, current: usize, pc: usize, lanes: u32) -> Flow {
        self.drop_copies(context, warp, pc, lanes);
        warp.exit(current, lanes);
        if warp.done() {
            self.leave_cluster();
        }
        self.progressed();
        Flow::Moved
    }

    fn trap(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, active: u32, text: String) -> Flow {
        let lane = active.trailing_zeros();
        let site = RawSite { role: "trap", pc: pc as u32, warp: warp.index as u32, lane };
        self.report(context, Kind::Trap, Severity::Error, &[site], || text);
        Flow::Abort
    }

    fn report_runaway(&mut self, context: &Context<'_>, warp: &Warp) {
        let pc = warp.fragments.first().map_or(0, |f| f.pc as u32);
        let site = RawSite { role: "runs", pc, warp: warp.index as u32, lane: 0 };
        let limit = context.launch.limits.warp_instructions;
        self.report(context, Kind::Runaway, Severity::Error, &[site], || {
            format!("runaway: a warp executed more than {limit} instructions")
        });
    }

    /// When no fragment can run although none waits at a block barrier, lanes that a warp-wide instruction names never
    /// arrive: those present go on, with a report unless the others have exited meanwhile.
    fn resolve_divergence(warp: &mut Warp) -> bool {
        if warp.fragments.iter().any(|f| matches!(f.state, State::Barrier(_))) {
            return false;
        }
        let waiting = warp.fragments.iter().position(|f| f.state == State::Converging);
        let Some(at) = waiting else { return false };
        let fragment = &mut warp.fragments[at];
        fragment.state = State::Ready;
        fragment.forced = true;
        true
    }

    /// Holds a fragment until all lanes of `members` are here. `None` means go on now; the
    /// returned flow is to be passed up otherwise.
    pub(crate) fn converge(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        members: u32,
    ) -> Option<Flow> {
        let fragment = &mut warp.fragments[current];
        let missing = members & warp.lanes & !warp.exited & !active;
        if missing == 0 {
            fragment.forced = false;
            self.check_members(context, warp, pc, active, members);
            return None;
        }
        if fragment.forced {
            fragment.forced = false;
            self.report_absent(context, warp, pc, active, missing);
            return None;
        }
        if fragment.mask & missing != 0 {
            // The lanes are here but their guard is false: they will never execute it.
            let site =
                RawSite { role: "executes", pc: pc as u32, warp: warp.index as u32, lane: active.trailing_zeros() };
            self.report(context, Kind::SyncDivergence, Severity::Error, &[site], || {
                format!("warp-wide instruction names lanes {missing:#010x} whose guard is false")
            });
            return None;
        }
        fragment.state = State::Converging;
        Some(Flow::Wait)
    }

    fn report_absent(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, active: u32, missing: u32) {
        let kind = match &context.kernel.program.insts[pc].op {
            // Without `.aligned`, parts of a warp may arrive on their own.
            Op::Barrier(barrier) if !barrier.aligned => return,
            Op::Barrier(_) => Kind::BarrierMisuse,
            _ => Kind::SyncDivergence,
        };
        let site = RawSite { role: "executes", pc: pc as u32, warp: warp.index as u32, lane: active.trailing_zeros() };
        self.report(context, kind, Severity::Error, &[site], || {
            format!("warp-wide instruction reached by lanes {active:#010x} only; lanes {missing:#010x} wait elsewhere")
        });
    }

    /// Exited lanes need not take part, though whoever names them may not have meant it.
    fn check_members(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, active: u32, members: u32) {
        let gone = members & warp.exited;
        let outside = active & !members;
        if gone == 0 && outside == 0 {
            return;
        }
        let lane = active.trailing_zeros();
        let site = RawSite { role: "executes", pc: pc as u32, warp: warp.index as u32, lane };
        if outside != 0 {
            self.report(context, Kind::SyncDivergence, Severity::Error, &[site], || {
                format!("lanes {outside:#010x} execute a warp-wide instruction that does not name them")
            });
        } else {
            // The matrix instructions need every thread of the warp, the others wait for those that are left.
            let op = &context.kernel.program.insts[pc].op;
            let whole = matches!(op, Op::Mma(_) | Op::Wmma(_) | Op::Wgmma(_) | Op::Matrix(_) | Op::MoveMatrix { .. });
            let severity = if whole { Severity::Error } else { Severity::Warning };
            self.report(context, Kind::SyncDivergence, severity, &[site], || {
                format!("warp-wide instruction names lanes {gone:#010x} that have exited")
            });
        }
    }

    /// Writes a value per lane to a row of any class and clears its taint.
    pub(crate) fn set_slot(&mut self, warp: &mut Warp, slot: Slot, mask: u32, value: impl Fn(usize) -> u64) {
        match slot.class {
            Class::W => {
                let out = std::array::from_fn(|l| value(l) as u32);
                warp.regs.set_w(slot.row, &out, mask);
                warp.regs.taint_w(slot.row, 0, mask);
            }
            Class::D => {
                let out = std::array::from_fn(value);
                warp.regs.set_d(slot.row, &out, mask);
                warp.regs.taint_d(slot.row, 0, mask);
            }
            Class::P => {
                let bits = (0..32).fold(0, |bits, l| bits | u32::from(value(l) != 0) << l);
                warp.regs.set_p(slot.row, bits, mask);
                warp.regs.taint_p(slot.row, 0, mask);
            }
        }
    }

    fn is_space(&mut self, context: &Context<'_>, warp: &mut Warp, dst: u16, addr: Slot, space: Space, active: u32) {
        let mut bits = 0;
        each_lane(active, |l| {
            let address = warp.regs.d[usize::from(addr.row)].0[l];
            let actual = crate::exec::memory::target::space_of(address);
            let constant = context.memory.find(address, 1).is_some_and(|a| a.read_only);
            let hit = match space {
                Space::Const => constant,
                Space::Global => actual == Space::Global && !constant,
                other => actual == other,
            };
            bits |= u32::from(hit) << l;
        });
        warp.regs.set_p(dst, bits, active);
        warp.regs.taint_p(dst, 0, active);
    }

    fn assert_text(
        &self,
        context: &Context<'_>,
        warp: &Warp,
        active: u32,
        message: Slot,
        file: Slot,
        line: Slot,
    ) -> String {
        let lane = active.trailing_zeros() as usize;
        let text = |slot: Slot| {
            let address = warp.regs.d[usize::from(slot.row)].0[lane];
            String::from_utf8_lossy(&device_text(context, address, 256)).into_owned()
        };
        let line = w(&warp.regs, line.row)[lane];
        format!("device assertion `{}` failed at {}:{line}", text(message), text(file))
    }
}
