//! mbarrier objects: phases, arrivals, waits and their life cycle.
//!
//! The object's state is kept beside shared memory; the eight bytes themselves hold an opaque
//! word, and a plain access to them while the object lives is reported by the race check.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::check::clock::Stamp;
use crate::check::order::Published;
use crate::check::shadow::SIZES;
use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{OpenArrive, Warp};
use crate::exec::sync::cluster::{join, remote_place};
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
    waiting: BTreeMap<(usize, usize), u64>,
    /// Number among those of the block, by which its copies are told from others.
    number: usize,
    /// Who initialised it, and whether that is visible to the asynchronous proxy.
    made: (usize, u32),
    site: Option<RawSite>,
    visible: bool,
    /// Its maker has fenced it since for a cluster that meets next.
    fenced: bool,
    /// What arrivals of other blocks of the cluster have told, by rank: times of their agents, and their own time.
    peers: BTreeMap<usize, (Stamp, u32)>,
    done_peers: BTreeMap<usize, (Stamp, u32)>,
}

impl MbarState {
    pub(crate) fn describe(&self) -> String {
        let bytes = if self.tx == 0 { String::new() } else { format!(", {} bytes expected", self.tx) };
        format!("phase {}, {} of {} arrivals pending{bytes}", self.phase, self.pending, self.expected)
    }

    /// Ends the phase if nothing is pending.
    fn settle(&mut self) {
        if self.pending == 0 && self.tx == 0 {
            self.phase += 1;
            self.pending = self.expected;
            self.done_stamp = self.stamp.clone();
            self.done_peers = self.peers.clone();
        }
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
        let remote = self.remote_lanes(warp, addr, active);
        if remote != 0 {
            self.mbar_remote(context, warp, pc, remote, addr, &mbar.op);
        }
        self.mbar_targets(context, warp, pc, active & !remote, addr, &mbar.op);
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
                MbarOp::CompleteTx { bytes } => {
                    let bytes = Self::word(warp, bytes, l);
                    let site = RawSite { role: "completes", pc: pc as u32, warp: warp.index as u32, lane: l as u32 };
                    self.mbar_complete(context, site, at, bytes);
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
        let number = self.mbarriers.values().map(|other| other.number + 1).max().unwrap_or(0);
        let made = (warp.index, self.clocks.now(warp.index));
        let site = Some(RawSite { role: "initialises", pc: pc as u32, warp: warp.index as u32, lane: lane as u32 });
        let state = MbarState { expected, pending: expected, number, made, site, ..MbarState::default() };
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
            state.settle();
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
            for (rank, (stamp, time)) in state.done_peers.clone() {
                self.hear(warp.index, rank, &stamp, time);
            }
        } else {
            warp.polled = true;
            warp.wants_rest = true;
        }
        if lapped {
            self.mbar_misuse(context, warp, pc, lane, at, "a waiter was lapped: two phases ended during its wait");
        }
        hit
    }

    /// The agent that stands for what copies on behalf of an mbarrier.
    pub(crate) fn barrier_agent(&self, at: u32) -> usize {
        self.agents.barrier(self.mbarriers.get(&at).map_or(0, |state| state.number))
    }

    /// Whether the engine that copies can see the mbarrier which it is to tell.
    pub(crate) fn check_told(&mut self, context: &Context<'_>, site: RawSite, at: u32) {
        let place = self.shared_name(context, at);
        let Some(state) = self.mbarriers.get(&at) else {
            self.report(context, Kind::MbarrierMisuse, Severity::Error, &[site], || {
                format!("mbarrier at {place}: told of a copy before init")
            });
            return;
        };
        if !state.visible {
            let sites: Vec<RawSite> = state.site.into_iter().chain([site]).collect();
            self.report(context, Kind::MissingProxyFence, Severity::Error, &sites, || {
                format!("no fence.mbarrier_init or fence.proxy.async between init and first copy: mbarrier at {place}")
            });
        }
    }

    /// `fence.proxy.async`, or `fence.mbarrier_init` for the barriers that the warp knows of.
    pub(crate) fn proxy_fence(&mut self, warp: &Warp, barriers_only: bool) -> Flow {
        for state in self.mbarriers.values_mut() {
            let (maker, t) = state.made;
            state.visible |= maker == warp.index || self.clocks.knows(warp.index, maker, t);
            state.fenced |= barriers_only && maker == warp.index;
        }
        if barriers_only {
            self.clocks.tick(warp.index);
        } else {
            self.clocks.fence_proxy(warp.index);
        }
        Flow::Next
    }

    /// The cluster has met: all its warps know the mbarriers that `fence.mbarrier_init` released, also those that arrived
    /// relaxed.
    pub(crate) fn publish_inits(&mut self) {
        let Some(shadow) = &mut self.shared.shadow else { return };
        for (&at, state) in &mut self.mbarriers {
            if std::mem::take(&mut state.fenced) {
                shadow.forget_writes(at, 8, &SIZES);
            }
        }
    }

    /// Bytes have been delivered, or are said to be.
    fn mbar_complete(&mut self, context: &Context<'_>, site: RawSite, at: u32, bytes: u32) {
        match self.mbarriers.get_mut(&at) {
            Some(state) => {
                state.tx -= i64::from(bytes);
                state.settle();
            }
            None => {
                let place = self.shared_name(context, at);
                self.report(context, Kind::MbarrierMisuse, Severity::Error, &[site], || {
                    format!("mbarrier at {place}: bytes delivered where there is none")
                });
            }
        }
        self.progressed();
    }

    /// A copy is complete: whoever sees the phase end is ordered after it.
    pub(crate) fn mbar_deliver(
        &mut self,
        context: &Context<'_>,
        site: RawSite,
        at: u32,
        bytes: u32,
        (agent, t): (usize, u32),
    ) {
        if let Some(state) = self.mbarriers.get_mut(&at) {
            state.stamp.complete(&self.agents, agent, t);
        }
        self.mbar_complete(context, site, at, bytes);
    }

    /// Operations on mbarriers of other blocks: arrivals alone.
    fn mbar_remote(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, lanes: u32, addr: &Addr, op: &MbarOp) {
        let at = Self::addresses(warp, addr);
        each_lane(lanes, |l| {
            let Some((rank, at)) = remote_place(addr.space, at[l]) else { return };
            let site = RawSite { role: "arrives", pc: pc as u32, warp: warp.index as u32, lane: l as u32 };
            let (count, bytes) = match *op {
                MbarOp::Arrive { count, drop: false, .. } => (count.map_or(1, |row| Self::word(warp, row, l)), 0),
                MbarOp::ExpectTx { bytes, only, .. } => (u32::from(!only), Self::word(warp, bytes, l)),
                _ => {
                    self.report(context, Kind::MbarrierMisuse, Severity::Error, &[site], || {
                        "only arrivals reach the mbarrier of another block".into()
                    });
                    return;
                }
            };
            let mut stamp = Stamp::new();
            if context.launch.checks.races {
                self.clocks.release(warp.index, &mut stamp);
            }
            let time = self.member.time;
            self.member.time += 1;
            let from = self.rank as usize;
            self.with_peer(context, site, rank, |_, peer| {
                if let Some(state) = peer.mbarriers.get_mut(&at) {
                    state.tx += i64::from(bytes);
                    let told = state.peers.entry(from).or_default();
                    join(&mut told.0, &stamp);
                    told.1 = time;
                }
                peer.mbar_count(context, site, at, count);
            });
        });
        self.progressed();
    }

    /// Counts arrivals that order nothing of this block.
    fn mbar_count(&mut self, context: &Context<'_>, site: RawSite, at: u32, count: u32) {
        let place = self.shared_name(context, at);
        let wrong = match self.mbarriers.get_mut(&at) {
            None => Some("arrival before init"),
            Some(state) => {
                let overflow = count > state.pending;
                state.pending = state.pending.saturating_sub(count);
                state.settle();
                overflow.then_some("more arrivals than the phase expects")
            }
        };
        if let Some(what) = wrong {
            let text = || format!("mbarrier at {place}: {what}");
            self.report(context, Kind::MbarrierMisuse, Severity::Error, &[site], text);
        }
        self.progressed();
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
