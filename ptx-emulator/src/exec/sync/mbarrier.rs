//! mbarrier objects: phases, arrivals, waits and their life cycle.
//!
//! The object's state is kept beside shared memory; the eight bytes themselves hold an opaque
//! word, and a plain access to them while the object lives is reported by the race check.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::check::order::Published;
use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{OpenArrive, Warp};
use crate::isa::op::{Mbar, MbarOp};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::machine::regs::{LANES, each_lane};
use crate::report::{Kind, RawSite, Severity};

/// Largest count of an mbarrier.
const MAX_COUNT: u32 = (1 << 20) - 1;

/// State of one live mbarrier.
#[derive(Clone, Debug, Default)]
pub(crate) struct MbarState {
    expected: u32,
    pending: u32,
    /// Completed phases; the parity of the current phase is its low bit.
    phase: u64,
    /// Bytes announced and not delivered in this phase.
    tx: i64,
    /// Clock of the arrivals of the current phase.
    stamp: Published,
    /// Clock of the last completed phase, and of all before it.
    done_stamp: Published,
    /// Phase in which a lane of a warp began to wait in vain.
    waiting: HashMap<(usize, usize), u64>,
}

impl MbarState {
    pub(crate) fn describe(&self) -> String {
        format!("phase {}, {} of {} arrivals pending", self.phase, self.pending, self.expected)
    }
}

impl Block {
    pub(crate) fn mbar(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, active: u32, mbar: &Mbar) -> Flow {
        let Some(addr) = &mbar.addr else {
            if let MbarOp::PendingCount { dst, state } = mbar.op {
                let states = warp.regs.d[usize::from(state)].0;
                self.set_slot(warp, Slot { class: Class::W, row: dst }, active, |l| states[l] & 0xf_ffff);
            }
            return Flow::Next;
        };
        self.mbar_targets(context, warp, pc, active, addr, &mbar.op);
        Flow::Next
    }

    fn mbar_targets(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        addr: &Addr,
        op: &MbarOp,
    ) {
        let write = matches!(op, MbarOp::Init { .. } | MbarOp::Inval);
        // Arrivals and waits are strong accesses, so that they never race with each other.
        let usage = Use { strong: !write, ..Use::weak(pc, 8, write) };
        self.for_each_target(context, warp, active, addr, usage, |block, warp, target| {
            if target.space != Space::Shared {
                block.report_lane(context, warp, Kind::MbarrierMisuse, pc, "uses", target.lanes, || {
                    "mbarrier outside shared memory".into()
                });
                return;
            }
            block.shadow_shared(context, warp, target, usage, 0);
            block.mbar_op(context, warp, pc, target, op);
        });
    }

    fn mbar_op(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, target: &Target, op: &MbarOp) {
        let mut result = [0u64; LANES];
        each_lane(target.lanes, |l| {
            let at = target.at[l] as u32;
            match *op {
                MbarOp::Init { count } => {
                    let count = Self::word(warp, count, l);
                    self.mbar_init(context, warp, pc, l, at, count);
                }
                MbarOp::Inval => {
                    if self.mbarriers.remove(&at).is_none() {
                        self.mbar_misuse(context, warp, pc, l, at, "invalidated before init");
                    }
                }
                MbarOp::Arrive { count, drop, .. } => {
                    let count = count.map_or(1, |row| Self::word(warp, row, l));
                    result[l] = self.mbar_arrive(context, warp.index, pc, l as u32, at, count, drop);
                }
                MbarOp::ExpectTx { bytes, only, .. } => {
                    let bytes = Self::word(warp, bytes, l);
                    if let Some(state) = self.mbarriers.get_mut(&at) {
                        state.tx += i64::from(bytes);
                    }
                    if !only {
                        result[l] = self.mbar_arrive(context, warp.index, pc, l as u32, at, 1, false);
                    }
                }
                MbarOp::TestState { state, .. } => {
                    let token = warp.regs.d[usize::from(state)].0[l] >> 20;
                    result[l] = u64::from(self.mbar_test(context, warp, pc, l, at, |phase| phase > token));
                }
                MbarOp::TestParity { parity, .. } => {
                    let parity = u64::from(Self::word(warp, parity, l)) & 1;
                    result[l] = u64::from(self.mbar_test(context, warp, pc, l, at, |phase| phase & 1 != parity));
                }
                MbarOp::PendingCount { .. } => {}
            }
        });
        let slot = |class: Class, row: u16| Slot { class, row };
        match *op {
            MbarOp::Arrive { state: Some(row), .. } | MbarOp::ExpectTx { state: Some(row), .. } => {
                self.set_slot(warp, slot(Class::D, row), target.lanes, |l| result[l]);
            }
            MbarOp::TestState { dst, .. } | MbarOp::TestParity { dst, .. } => {
                self.set_slot(warp, slot(Class::P, dst), target.lanes, |l| result[l]);
            }
            _ => {}
        }
    }

    fn mbar_misuse(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, lane: usize, at: u32, what: &str) {
        let place = self.shared_name(context, at);
        self.report_lane(context, warp, Kind::MbarrierMisuse, pc, "uses", 1 << lane, || {
            format!("mbarrier at {place}: {what}")
        });
    }

    fn mbar_init(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, lane: usize, at: u32, count: u32) {
        if count == 0 || count > MAX_COUNT {
            self.mbar_misuse(context, warp, pc, lane, at, "count outside 1..2^20");
        }
        let expected = count.clamp(1, MAX_COUNT);
        let state = MbarState { expected, pending: expected, ..MbarState::default() };
        if self.mbarriers.insert(at, state).is_some() {
            self.mbar_misuse(context, warp, pc, lane, at, "initialised again while in use");
        }
        self.shared.define(at, 8, true);
        self.progressed();
    }

    /// Arrives `count` times and returns the token of the phase before.
    #[expect(clippy::too_many_arguments, reason = "who arrives, where and how often")]
    fn mbar_arrive(
        &mut self,
        context: &Context<'_>,
        warp: usize,
        pc: usize,
        lane: u32,
        at: u32,
        count: u32,
        drop: bool,
    ) -> u64 {
        let site = RawSite { role: "arrives", pc: pc as u32, warp: warp as u32, lane };
        let place = self.shared_name(context, at);
        let Some(state) = self.mbarriers.get_mut(&at) else {
            self.report(context, Kind::MbarrierMisuse, Severity::Error, &[site], || {
                format!("mbarrier at {place}: arrival before init")
            });
            return 0;
        };
        let token = state.phase << 20 | u64::from(state.pending);
        if drop {
            state.expected = state.expected.saturating_sub(1).max(1);
        }
        let overflow = count > state.pending;
        state.pending = state.pending.saturating_sub(count);
        let mut stamp = std::mem::take(&mut state.stamp);
        if context.launch.checks.races {
            self.orders.release(&mut self.clocks, warp, lane as usize, &mut stamp);
        } else {
            self.clocks.tick(warp);
        }
        if let Some(state) = self.mbarriers.get_mut(&at) {
            state.stamp = stamp;
            if state.pending == 0 && state.tx == 0 {
                state.phase += 1;
                state.pending = state.expected;
                state.done_stamp = state.stamp.clone();
            }
        }
        if overflow {
            self.report(context, Kind::MbarrierMisuse, Severity::Error, &[site], || {
                format!("mbarrier at {place}: more arrivals than the phase expects")
            });
        }
        self.progressed();
        token
    }

    /// Whether the awaited phase has ended; if so the waiter is ordered after its arrivals.
    fn mbar_test(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        lane: usize,
        at: u32,
        ended: impl Fn(u64) -> bool,
    ) -> bool {
        let Some(state) = self.mbarriers.get_mut(&at) else {
            self.mbar_misuse(context, warp, pc, lane, at, "waited for before init");
            return true;
        };
        let hit = ended(state.phase);
        let lapped = match state.waiting.entry((warp.index, lane)) {
            Entry::Occupied(entry) if hit => state.phase >= entry.remove() + 2,
            Entry::Occupied(entry) => state.phase >= entry.get() + 2,
            Entry::Vacant(entry) => {
                if !hit {
                    entry.insert(state.phase);
                }
                false
            }
        };
        if hit {
            self.orders.acquire(&mut self.clocks, warp.index, lane, &state.done_stamp);
        } else {
            warp.polled = true;
            warp.wants_rest = true;
        }
        if lapped {
            self.mbar_misuse(context, warp, pc, lane, at, "a waiter was lapped: two phases ended during its wait");
        }
        hit
    }

    /// `cp.async.mbarrier.arrive` without `.noinc` raises the pending count at issue.
    pub(crate) fn mbar_expect_arrival(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, lane: u32, at: u32) {
        match self.mbarriers.get_mut(&at) {
            Some(state) => state.pending = (state.pending + 1).min(MAX_COUNT),
            None => self.mbar_misuse(context, warp, pc, lane as usize, at, "arrival before init"),
        }
    }

    /// The asynchronous arrival itself, when the copies before it are complete.
    pub(crate) fn mbar_arrive_async(&mut self, context: &Context<'_>, warp: &Warp, arrive: OpenArrive) {
        let pc = arrive.pc as usize;
        self.mbar_arrive(context, warp.index, pc, arrive.lane, arrive.addr, 1, false);
    }
}
